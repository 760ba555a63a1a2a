"""`runs.evaluate`: photographs that change, errors, warnings."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from colorjax import files
from colorjax.errors import UserError
from colorjax.evaluation import result
from colorjax.runs import evaluate
from colorjax.runs.photographs import PhotoOptions

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16
COLORS = {'b': (200, 60, 40), 'c': (40, 160, 60), 'd': (50, 70, 200)}


def write_photo(path, color):
  """Writes a photograph, wider than high, of one color with light and shade."""
  light = np.random.default_rng(sum(color)).uniform(0.5, 1.2, (4, 8, 1))
  pixels = np.clip(light.repeat(5, 0).repeat(5, 1) * color, 0, 255)
  Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / 'photos'
  folder.mkdir()
  for name, color in COLORS.items():
    write_photo(folder / f'{name}.png', color)
  return folder


def make_options(folder, workdir, **more):
  more = {'reference': 'grey'} | more
  if more.get('outputs'):
    del more['reference']
  return evaluate.EvaluateOptions(
      data=f'folder:{folder}', workdir=str(workdir), image_size=SIZE,
      report_photos=2, **more)


@pytest.fixture
def in_parts(monkeypatch):
  """Parts of one photograph; `die()` stops the next run after its first."""
  monkeypatch.setattr(evaluate, '_PART', 1)
  write = files.write_bytes

  def write_and_die(path, content):
    write(path, content)
    if pathlib.Path(path).suffix == '.npz':
      monkeypatch.setattr(files, 'write_bytes', write)
      raise KeyboardInterrupt

  return lambda: monkeypatch.setattr(files, 'write_bytes', write_and_die)


def add(folder):
  write_photo(folder / 'a.png', (180, 180, 30))


def remove(folder):
  (folder / 'b.png').unlink()


def change(folder):
  write_photo(folder / 'b.png', (180, 180, 30))


@pytest.mark.parametrize('do', [add, remove, change])
def test_photographs_that_changed_are_measured_again(
    do, photos, tmp_path, in_parts):
  in_parts()
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  assert list((tmp_path / 'out/parts').glob('*.npz'))
  do(photos)
  found = evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  fresh = evaluate.evaluate(make_options(photos, tmp_path / 'fresh'))
  assert found.record == fresh.record
  assert found.record.photographs == tuple(
      sorted(path.name for path in photos.iterdir()))
  for name, values in fresh.statistics.items():
    np.testing.assert_array_equal(found.statistics[name], values, name)


@pytest.mark.parametrize('do', [add, remove, change])
def test_a_finished_evaluation_needs_the_same_photographs(
    do, photos, tmp_path, in_parts):
  first = evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  again = evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  assert again.record == first.record
  do(photos)
  with pytest.raises(UserError, match='added, removed or changed since'):
    evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  assert result.load(tmp_path / 'out').record == first.record


def test_a_damaged_part_is_measured_again(photos, tmp_path, in_parts, capsys):
  in_parts()
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  part, = (tmp_path / 'out/parts').glob('*.npz')
  part.write_bytes(part.read_bytes()[:100])
  found = evaluate.evaluate(make_options(photos, tmp_path / 'out'))
  assert len(found.record.photographs) == len(COLORS)
  assert f'measured again: {part}' in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(
    photos, tmp_path, monkeypatch):
  write, room = pathlib.Path.write_bytes, 0

  def write_until_full(self, content):
    nonlocal room
    room -= 1
    if room < 0:
      write(self, content[:10])
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(self, content)

  monkeypatch.setattr(pathlib.Path, 'write_bytes', write_until_full)
  said = []
  for files_that_fit in range(100):
    room = files_that_fit
    try:
      evaluate.evaluate(make_options(photos, tmp_path / 'out'))
      break
    except UserError as error:
      said.append(str(error))
    assert not (tmp_path / 'out' / result.METRICS_FILE).exists()
    assert not [path for path in (tmp_path / 'out').rglob('*')
                if path.name.endswith('.tmp')]
  assert len(said) > 5
  for line in said:
    assert 'No space left on device' in line
    assert '\n' not in line
  assert len(result.load(tmp_path / 'out').record.photographs) == len(COLORS)


def test_folders_that_cannot_be_made_are_one_line(photos, tmp_path):
  for name in ('parts', 'report'):
    (tmp_path / name).mkdir()
    (tmp_path / name / name).touch()  # a file in place of the folder
    with pytest.raises(UserError, match=f'{name}: cannot be made'):
      evaluate.evaluate(make_options(photos, tmp_path / name))


@pytest.mark.parametrize(('more', 'message'), [
    ({}, r'no photograph can be used: all 3 were left out, the first: .*b\.p'),
    ({'photos': PhotoOptions(on_bad_image='fail')}, r'b\.png'),
    ({'train_data': 'bundled'}, 'no photograph can be used')])
def test_no_readable_photograph(more, message, photos, tmp_path):
  for path in photos.iterdir():
    path.write_bytes(b'no photograph')
  with pytest.raises(UserError, match=message):
    evaluate.evaluate(make_options(photos, tmp_path / 'out', **more))
  assert not (tmp_path / 'out' / result.METRICS_FILE).exists()


def test_photographs_that_are_all_grey(photos, tmp_path):
  for path in photos.iterdir():
    Image.open(path).convert('L').save(path)
  with pytest.raises(UserError, match=r'3 were left out, .* chroma 0'):
    evaluate.evaluate(make_options(
        photos, tmp_path / 'out', photos=PhotoOptions(min_chroma=2)))
  # Without a bound they are measured and counted as grey.
  found = evaluate.evaluate(make_options(photos, tmp_path / 'all'))
  assert found.record.num_grey == len(COLORS)


def pictures(photos, folder, change):
  folder.mkdir()
  for path in photos.iterdir():
    change(Image.open(path)).save(folder / path.name)
  return folder


def squeezed(picture):
  return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def test_squeezed_pictures_measured_as_cut_ones_give_a_warning(
    photos, tmp_path, capsys):
  folder = pictures(photos, tmp_path / 'squeezed', squeezed)
  found = evaluate.evaluate(make_options(
      photos, tmp_path / 'out', outputs=str(folder)))
  warning, = found.record.warnings
  assert 'evaluate with fit=squash' in warning
  assert f'warning: {warning}' in capsys.readouterr().out
  assert warning in (tmp_path / 'out/report/index.html').read_text()
  assert result.load(tmp_path / 'out').record.warnings == (warning,)
  fitting = evaluate.evaluate(make_options(
      photos, tmp_path / 'fitting', outputs=str(folder), fit='squash'))
  assert fitting.record.warnings == ()


def test_pictures_of_other_photographs_give_a_warning(photos, tmp_path):
  folder = pictures(photos, tmp_path / 'whole', lambda picture: picture)
  exact = evaluate.evaluate(make_options(
      photos, tmp_path / 'exact', outputs=str(folder)))
  assert exact.record.warnings == ()
  shutil.copy(folder / 'c.png', folder / 'b.png')
  swapped = evaluate.evaluate(make_options(
      photos, tmp_path / 'swapped', outputs=str(folder)))
  warning, = swapped.record.warnings
  assert warning.startswith('the lightness of 1 of 3 pictures differs')
  assert warning.endswith('b.png')


def test_a_protocol_sets_how_photographs_are_cut(photos, tmp_path):
  with pytest.raises(UserError, match='fit=squash: protocol=imagenet_val5k'):
    evaluate.evaluate(evaluate.EvaluateOptions(
        reference='grey', data=f'folder:{photos}', workdir=str(tmp_path / 'x'),
        protocol='imagenet_val5k', fit='squash'))
  assert not (tmp_path / 'x').exists()


@pytest.mark.skipif(os.fsencode('\udcff') != b'\xff', reason='POSIX paths only')
def test_names_and_folders_that_are_not_utf_8(photos, tmp_path):
  odd = tmp_path / os.fsdecode(b'caf\xe9')
  odd.mkdir()
  shutil.move(photos, odd / 'photos')
  name = os.fsdecode(b'b\xe9.png')
  (odd / 'photos/b.png').rename(odd / 'photos' / name)
  pictures(odd / 'photos', odd / 'pictures', lambda picture: picture)
  command = [
      sys.executable, '-m', 'experiments.evaluate',
      f'--data=folder:{odd}/photos', f'--outputs={odd}/pictures',
      f'--image_size={SIZE}', f'--workdir={odd}/out']
  for said in ('Written to', 'already finished'):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300,
                          check=False, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
  labels = ['b\\xe9.png', 'c.png', 'd.png']
  protocol = json.loads((odd / 'out/protocol.json').read_text('utf-8'))
  assert protocol['photographs'] == labels
  assert protocol['data'] == f'folder:{odd}/photos'
  lines = (odd / 'out/photographs.csv').read_text('utf-8').splitlines()
  assert [line.partition(',')[0] for line in lines[1:]] == labels
  assert 'caf\\udce9' in (odd / 'out/report/index.html').read_text('utf-8')
