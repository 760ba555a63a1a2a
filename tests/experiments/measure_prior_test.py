"""`experiments.measure_prior`, and how experiments use the prior."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.spatial
import skimage.color
from PIL import Image

from colorjax import quantize
from colorjax.errors import UserError
from colorjax.runs import prior as priors

ROOT = pathlib.Path(__file__).parents[2]

TINY = ['--num_steps=2', '--batch_size=2', '--image_size=16', '--network=unet',
        '--filters=16', '--filters=16', '--warmup_steps=1',
        '--report_photos=2', '--log_every=1', '--eval_every=2',
        '--checkpoint_every=2', '--rebalance=0.5']


def _run(script, *arguments):
  return subprocess.run(
      [sys.executable, '-m', f'experiments.{script}', *arguments], cwd=ROOT,
      text=True, timeout=300, capture_output=True, check=False,
      env=os.environ)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three photographs of 32 x 32 whose pixels come in blocks of 8."""
  path = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i in range(3):
    pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(path / f'{i}.png')
  (path / 'broken.png').write_bytes(b'not a photograph')
  return path


@pytest.fixture(scope='module')
def derived(folder, tmp_path_factory):
  """A measurement over the bins that occur, and what was printed."""
  output = tmp_path_factory.mktemp('out') / 'prior.json'
  done = _run('measure_prior', f'--data=folder:{folder}', '--bins=derived',
              f'--output={output}', '--image_size=32', '--block_size=8',
              '--batch_size=2')
  assert done.returncode == 0, done.stderr
  return output, done


def _pixels(folder):
  """The colors of the blocks, [48, 2]."""
  return np.concatenate([
      skimage.color.rgb2lab(np.asarray(Image.open(file))[::8, ::8])[..., 1:]
      for file in sorted(folder.glob('[0-9].png'))]).reshape(-1, 2)


def _oracle(ab, bins):
  """Mean over colors of their soft codes."""
  distance, nearest = scipy.spatial.cKDTree(bins).query(ab, 5)
  weights = np.exp(-distance**2 / 50)
  prior = np.zeros(len(bins))
  np.add.at(prior, nearest, weights / weights.sum(-1, keepdims=True))
  return prior / len(ab)


def test_bins_and_prior_of_a_folder(folder, derived):
  output, done = derived
  found = priors.read(output)
  ab = _pixels(folder)
  bins = sorted({tuple(x) for x in np.floor(ab / 10 + 0.5) * 10})
  assert [tuple(x) for x in found.bins] == bins
  np.testing.assert_allclose(found.prior, _oracle(ab, bins), atol=1e-5)
  assert (found.photos, found.image_size, found.block_size) == (3, 32, 8)
  assert 'in 3 photographs' in done.stdout
  assert 'broken.png' in done.stdout
  assert os.listdir(output.parent) == ['prior.json']


def test_published_bins_of_reduced_photographs(folder, tmp_path):
  output = tmp_path / 'prior.json'
  done = _run('measure_prior', f'--data=folder:{folder}', '--block_size=16',
              f'--output={output}', '--image_size=32')
  assert done.returncode == 0, done.stderr
  found = priors.read(output)
  bins = quantize.published_bins()
  np.testing.assert_array_equal(found.bins, bins)
  ab = _pixels(folder).reshape(3, 2, 2, 2, 2, 2).mean((2, 4)).reshape(-1, 2)
  np.testing.assert_allclose(found.prior, _oracle(ab, bins), atol=1e-5)


def test_an_experiment_stores_the_prior_in_its_settings(
    folder, derived, tmp_path):
  source, workdir = derived[0], tmp_path / 'run'
  copy = tmp_path / 'prior.json'
  copy.write_text(source.read_text())
  done = _run('classification', f'--data=folder:{folder}',
              f'--eval_data=folder:{folder}', f'--prior={copy}',
              f'--workdir={workdir}', *TINY)
  assert done.returncode == 0, done.stderr
  found = priors.read(source)
  settings = json.loads((workdir / 'colorizer.json').read_text())['settings']
  assert settings['bins'] == found.bins
  assert settings['prior'] == found.prior
  lines = [json.loads(x)
           for x in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert {x['split'] for x in lines} == {'train', 'validation'}
  for line in lines:
    assert np.isfinite(line['loss'])
    assert line['loss'] != line['loss_unweighted']
  metrics = json.loads((workdir / 'report/metrics.json').read_text())
  assert 3 < metrics['bits_per_dim']['mean'] < 9

  copy.unlink()
  done = _run('colorize', f'--checkpoint={workdir}',
              f'--input={folder / "0.png"}', f'--output={tmp_path / "out"}')
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'out/0.png').exists()


def test_an_experiment_measures_its_own_prior(folder, tmp_path):
  workdir = tmp_path / 'run'
  arguments = [f'--data=folder:{folder}', f'--eval_data=folder:{folder}',
               f'--workdir={workdir}', *TINY, '--noreport']
  done = _run('classification', *arguments)
  assert done.returncode == 0, done.stderr
  found = priors.read(workdir / priors.FILE)
  assert (found.image_size, found.block_size, found.photos) == (16, 2, 3)
  record = json.loads((workdir / 'colorizer.json').read_text())
  assert record['settings']['prior'] == found.prior
  assert record['asking']['readout'] == 'annealed_mean'
  # A prior of other photographs or another resolution is used, with a note.
  other = dataclasses.replace(found, data='bundled', block_size=1)
  other.write(tmp_path / 'other.json')
  done = _run('classification', *arguments, f'--workdir={tmp_path / "b"}',
              f'--prior={tmp_path / "other.json"}')
  assert done.returncode == 0, done.stderr
  for difference in ('--data=bundled instead of', '--block_size=1 instead of'):
    assert f'was measured with {difference}' in done.stdout


def test_wrong_settings_are_found_before_a_prior_is_measured(
    folder, tmp_path):
  done = _run('classification', f'--data=folder:{folder}', '--rebalance=0.5',
              '--network=unet', '--filters=5', f'--workdir={tmp_path / "run"}')
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--prior=PRIOR', '--sigma=3'],
     'was measured with --sigma=5.0 instead of 3.0'),
    (['--prior=PRIOR', '--rebalance=1.5'], 'rebalance')])
def test_errors_of_an_experiment(derived, arguments, message, tmp_path):
  arguments = [x.replace('PRIOR', str(derived[0])) for x in arguments]
  done = _run('classification', f'--workdir={tmp_path / "run"}', *arguments)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], '--output must have a value'),
    (['--output=x.json', '--image_size=30'],
     '--image_size=30 is not a multiple of --block_size=4'),
    (['--output=/no/such/folder/x.json'],
     '--output=/no/such/folder/x.json: cannot be written'),
    ([f'--output={ROOT}'], 'cannot be written; give a file')])
def test_errors_of_the_measurement(arguments, message):
  done = _run('measure_prior', *arguments)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr


@pytest.mark.parametrize(('text', 'message'), [
    (None, 'no such file; experiments.measure_prior'),
    ('no json', 'is not valid JSON'),
    ('[1, 2]', 'not a prior written by'),
    ('{"bins": [[0, 0]], "prior": [1]}', 'not a prior written by .* missing'),
    ('MORE', '2 probabilities do not fit 1 bins'),
    ('NAN', 'a number is not finite')])
def test_a_file_that_holds_no_prior_is_refused(text, message, tmp_path):
  path = tmp_path / 'prior.json'
  fields = {'data': 'x', 'photos': 1, 'image_size': 8, 'block_size': 1,
            'num_neighbors': 1, 'sigma': 5.0, 'bins': [[0.0, 0.0]]}
  text = {'MORE': json.dumps(fields | {'prior': [0.5, 0.5]}),
          'NAN': json.dumps(fields | {'prior': [float('nan')]})}.get(text, text)
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match=message) as error:
    priors.read(path)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)
