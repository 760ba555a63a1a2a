"""Runs from Python without flags, as in a notebook."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from colorjax import saved
from colorjax.data.source import from_arrays
from colorjax.errors import UserError
from colorjax.runs import photo_stamps, photographs, prior, train
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.runs.photographs import PhotoOptions

pytestmark = pytest.mark.usefixtures('compiles_quickly')

METHOD = 'colorjax.methods.mbm'
SETTINGS = {'num_components': 2, 'filters': (16, 16), 'prior_width': 8}


def _photograph(path, seed):
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
  Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three photographs and a file that is not a photograph."""
  path = tmp_path_factory.mktemp('photos')
  for i in range(3):
    _photograph(path / f'{i}.png', i)
  (path / 'broken.png').write_bytes(b'not a photograph')
  return path


def _options(folder, workdir, **changes):
  return TrainOptions(
      workdir=workdir, data=f'folder:{folder}', eval_data=f'folder:{folder}',
      image_size=16, batch_size=2, num_steps=2, eval_every=2, log_every=1,
      checkpoint_every=2, report_photos=2, num_proposals=2,
      optimizing=Optimizing(warmup_steps=1), **changes)


@pytest.fixture(scope='module')
def finished(folder, tmp_path_factory):
  """A run that was trained, measured and reported."""
  options = _options(folder, tmp_path_factory.mktemp('runs') / 'run')
  return options, train.train(METHOD, SETTINGS, options)


def test_a_notebook_trains_measures_and_colors(finished):
  options, outcome = finished
  assert (outcome.step, outcome.exit_code) == (2, 0)
  metrics = json.loads(
      (outcome.workdir / 'report/metrics.json').read_text())
  assert metrics['ab_distance']['n'] == 3
  colorizer, variables, size = saved.load(outcome.workdir)
  lightness = np.full((1, size, size, 1), 50, np.float32)
  ab = colorizer.predict(variables, {'lightness': lightness})
  assert ab.shape == (1, 16, 16, 2)
  configuration = (outcome.workdir / 'flags.txt').read_text()
  assert 'num_steps=2\n' in configuration
  assert '--' not in configuration
  assert train.train(METHOD, SETTINGS, options).status == 'was_finished'


def test_a_run_is_not_resumed_with_other_options(finished):
  options, _ = finished
  with pytest.raises(UserError, match='seed was 0, is 1'):
    train.train(METHOD, SETTINGS, dataclasses.replace(options, seed=1))


def _run_on_a_copy(folder, tmp_path):
  """Trains on a copy of the folder; returns the copy and the options."""
  copy = shutil.copytree(folder, tmp_path / 'photos')
  options = _options(copy, tmp_path / 'run', report=False)
  assert train.train(METHOD, SETTINGS, options).exit_code == 0
  return copy, options


def test_a_run_is_not_resumed_with_other_photographs(
    folder, tmp_path, capsys):
  copy, options = _run_on_a_copy(folder, tmp_path)
  # Unreadable files are listed once for each set, also without a report.
  assert capsys.readouterr().out.count('broken.png') == 2
  _photograph(copy / 'a_green.png', 7)
  with pytest.raises(UserError, match=r'\(new: a_green\.png\)') as error:
    train.train(METHOD, SETTINGS, options)
  assert '\n' not in str(error.value)
  (copy / 'a_green.png').unlink()
  assert train.train(METHOD, SETTINGS, options).exit_code == 0


def test_a_run_is_resumed_with_a_copy_of_its_photographs(
    folder, tmp_path, capsys):
  copy, options = _run_on_a_copy(folder, tmp_path)
  # So the run is resumed, and not only said to be finished.
  (tmp_path / 'run/metrics.jsonl').unlink()
  path = next(copy.glob('*.png'))
  os.utime(path, ns=(0, 0))
  capsys.readouterr()
  assert train.train(METHOD, SETTINGS, options).exit_code == 0
  assert 'changed since the run' in (out := capsys.readouterr().out)
  assert 'only in their modification times' in out
  path.write_bytes(path.read_bytes() + b'\0')
  with pytest.raises(UserError, match=fr'\(changed: {path.name}\)'):
    train.train(METHOD, SETTINGS, options)


def test_a_run_is_not_resumed_with_other_settings(finished):
  options, outcome = finished
  configuration = (outcome.workdir / 'flags.txt').read_text()
  with pytest.raises(UserError, match='another prior_width'):
    train.train(METHOD, SETTINGS | {'prior_width': 4}, options,
                configuration=configuration)


@pytest.mark.parametrize('name', ['data', 'eval_data', 'test_data'])
@pytest.mark.parametrize('kind', ['unreadable', 'grey'])
def test_unusable_photographs_are_reported_early(
    folder, tmp_path, name, kind):
  empty = tmp_path / 'empty'
  empty.mkdir()
  if kind == 'grey':
    Image.new('L', (16, 16), 120).save(empty / 'grey.png')
  else:
    (empty / 'broken.png').write_bytes(b'no')
  options = dataclasses.replace(
      _options(folder, tmp_path / 'run', photos=PhotoOptions(min_chroma=2)),
      **{name: f'folder:{empty}'})
  with pytest.raises(UserError, match=f'^{name}=.* all 1 photographs are left '
                     f'out, the first because it is {kind}') as error:
    train.train(METHOD, SETTINGS, options)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_changes_of_photographs_are_described():
  def source(*values):
    return from_arrays([np.full((2, 2, 3), v, np.uint8) for v in values],
                       labels=['a', 'b', 'c'][:len(values)])

  described = photo_stamps._describe
  changes_of = photo_stamps._changes
  changes = changes_of(described(source(1, 2, 3)), described(source(1, 9)))
  assert changes == 'gone: c; changed: b'
  # A prepared data set has no list of names, but each of several is checked.
  before, now = (described(dataclasses.replace(source(*values),
                                               prefers_tf_data=True))
                 for values in ((1, 2), (1, 9)))
  assert changes_of(before, now) == 'other names or sizes of files'
  assert before['contents'] != now['contents']


def test_a_photograph_that_is_left_out_is_replaced_by_the_next(folder):
  screen = photographs.open_photos(
      f'folder:{folder}', PhotoOptions(), train=False)
  label = screen.source.label
  broken = [label(i) for i in range(4)].index('broken.png')
  images = photographs.some_images(screen, 4, 16, 'crop')
  assert len(images) == 3
  assert broken in screen.exclusions


def test_a_prior_is_measured_once(folder, tmp_path):
  path, data = tmp_path / prior.FILE, f'folder:{folder}'
  arguments = {'image_size': 16, 'block_size': 4, 'batch_size': 2}
  found = prior.read_or_measure(path, data, PhotoOptions(), **arguments)
  assert found.photos == 3
  assert sum(found.prior) == pytest.approx(1, abs=1e-5)
  before = path.stat().st_mtime_ns
  assert prior.read_or_measure(path, data, PhotoOptions(), **arguments) == found
  assert path.stat().st_mtime_ns == before
  with pytest.raises(UserError, match='block_size=4 instead of 2'):
    prior.read_or_measure(
        path, data, PhotoOptions(), **arguments | {'block_size': 2})
  # The same number of blocks in a photograph is the same resolution.
  assert not prior.differences(found, image_size=32, block_size=8)
  assert prior.differences(found, data='bundled') == [
      f'data={data} instead of bundled']
