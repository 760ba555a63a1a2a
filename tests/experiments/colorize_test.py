"""`experiments.colorize` as a person runs it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import tiny_method
from inference_test import grey_level
from PIL import Image

from colorjax import photo
from colorjax.errors import UserError
from experiments import colorize

ROOT = pathlib.Path(__file__).parent.parent


def run(*flags):
  return subprocess.run(
      [sys.executable, '-m', 'experiments.colorize', *flags], cwd=ROOT,
      capture_output=True, text=True,
      env=os.environ | {'PYTHONPATH': str(ROOT / 'tests')})


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('run')
  tiny_method.write_run(path)
  return path


def plan(names, tmp_path, file_format='png'):
  source = tmp_path / 'in'
  source.mkdir(exist_ok=True)
  targets = colorize.plan([source / name for name in names], source,
                          tmp_path / 'out', file_format)
  return [str(target.relative_to(tmp_path / 'out'))
          for target in targets.values()]


@pytest.mark.parametrize(('names', 'targets'), [
    (['a.jpg', 'b.JPEG'], ['a.png', 'b.png']),
    (['a.jpg', 'x/a.jpg'], ['a.png', 'x/a.png']),
    (['a.jpg', 'a.tif', 'b.jpg'], ['a.jpg.png', 'a.tif.png', 'b.png']),
    (['a.jpg', 'a.jpg.tif', 'a.tif'],
     ['a.jpg.png', 'a.jpg.tif.png', 'a.tif.png']),
    (['a.b.jpg'], ['a.b.png']),
])
def test_no_two_photos_share_a_target(names, targets, tmp_path):
  assert plan(names, tmp_path) == targets


def test_formats(tmp_path):
  assert plan(['a.JPG', 'b.gif', 'c.tiff'], tmp_path, 'same') == [
      'a.jpg', 'b.png', 'c.tiff']
  # With their own endings these two do not meet.
  assert plan(['a.jpg', 'a.tif'], tmp_path, 'same') == ['a.jpg', 'a.tif']
  assert colorize.outputs_of(pathlib.Path('x/a.b.webp'), 2) == [
      pathlib.Path('x/a.b.0.webp'), pathlib.Path('x/a.b.1.webp'),
      pathlib.Path('x/a.b.sheet.png')]


def test_a_photo_of_the_input_is_never_a_target(tmp_path):
  for name in ('a.png', 'b.jpg'):
    (tmp_path / name).touch()
  link = tmp_path / 'link'
  link.symlink_to(tmp_path)
  with pytest.raises(UserError, match='would replace'):
    colorize.plan([tmp_path / 'a.png'], tmp_path / 'a.png', link, 'png')
  with pytest.raises(UserError, match='is the input'):
    colorize.find_photos(tmp_path, link, photo.SUFFIXES)
  assert colorize.plan([tmp_path / 'b.jpg'], tmp_path / 'b.jpg', tmp_path,
                       'png')


def test_a_sheet_never_replaces_a_photo(tmp_path):
  paths = [tmp_path / 'a.jpg', tmp_path / 'a.sheet.png']
  assert colorize.plan(paths, tmp_path, tmp_path, 'tiff')
  with pytest.raises(UserError, match='would replace'):
    colorize.plan(paths, tmp_path, tmp_path, 'tiff', num_proposals=2)


def test_what_is_found(tmp_path):
  for name in ('b.JPG', 'a.png', 'notes.txt', '._a.png', 'x/y/c.webp',
               'out/a.png', '.hidden/d.png'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  found = colorize.find_photos(tmp_path, tmp_path / 'out', photo.SUFFIXES)
  assert [str(path.relative_to(tmp_path)) for path in found] == [
      'a.png', 'b.JPG', 'x/y/c.webp']


def write(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def test_only_inside_a_mask(workdir, tmp_path):
  rgb = skimage.data.astronaut()[:90, 150:270]
  for name in ('a.png', 'sub/b.jpg'):
    write(tmp_path / 'in' / name, rgb)
  write(tmp_path / 'masks/a.png', np.eye(3, dtype=np.uint8)[[1]] * 255)
  write(tmp_path / 'masks/sub/b.png', np.ones((90, 120), np.uint8))

  def color(output, mask):
    return colorize.colorize_all(
        workdir, tmp_path / 'in', tmp_path / output, mask=tmp_path / mask)

  def is_colored(path):
    pixels = np.asarray(Image.open(tmp_path / path)).astype(int)
    return np.ptp(pixels, axis=-1).max(0) > 0  # by column

  assert color('out', 'masks') == 0
  middle = np.zeros(120, bool)
  middle[40:80] = True
  np.testing.assert_array_equal(is_colored('out/a.png'), middle)
  assert is_colored('out/sub/b.png').all()
  assert color('one', 'masks/a.png') == 0
  np.testing.assert_array_equal(is_colored('one/sub/b.png'), middle)
  (tmp_path / 'masks/sub/b.png').unlink()
  with pytest.raises(UserError, match=r'1 of the 2 .* no mask, first sub/b'):
    color('two', 'masks')
  with pytest.raises(UserError, match='no such file or folder'):
    color('two', 'nothing')
  assert not (tmp_path / 'two').exists()


def test_painted_hints(tmp_path):
  """Levin's method: strokes color what hangs together with them."""
  levin = tmp_path / 'levin'
  tiny_method.write_run(levin, method='colorjax.methods.baselines.levin',
                        form='equations')
  grey = np.full((60, 80, 3), 60, np.uint8)
  grey[:, 40:] = 190
  write(tmp_path / 'in/a.png', grey)
  write(tmp_path / 'in/b.png', grey)
  strokes = grey.copy()
  strokes[20:30, 5:20] = (160, 60, 60)
  strokes[20:30, 60:70] = (150, 180, 230)
  write(tmp_path / 'hints/a.png', strokes)
  write(tmp_path / 'hints/b.png', grey[:10])
  assert colorize.colorize_all(levin, tmp_path / 'in', tmp_path / 'out',
                               hints=tmp_path / 'hints') == 1
  assert not (tmp_path / 'out/b.png').exists()
  got = photo.read(tmp_path / 'out/a.png').pixels.astype(int)
  np.testing.assert_array_equal(np.rint(grey_level(got.astype(np.uint8))),
                                grey[..., 0])
  left, right = got[:, :34].reshape(-1, 3), got[:, 46:].reshape(-1, 3)
  assert (left[:, 0] - left[:, 2]).min() > 30
  assert (right[:, 2] - right[:, 0]).min() > 30


def test_hints_mask_and_proposals_together(workdir, tmp_path):
  """Whatever the method knows: the hint's color where it is, grey outside."""
  grey = np.full((32, 32), 150, np.uint8)
  strokes = np.zeros((32, 32, 4), np.uint8)
  strokes[14:18, 6:10] = 30, 90, 200, 255
  mask = np.zeros((32, 32), np.uint8)
  mask[:, :16] = 255
  for name, pixels in (('p', grey), ('hints', strokes), ('mask', mask)):
    write(tmp_path / f'{name}.png', pixels)
  assert colorize.colorize_all(
      workdir, tmp_path / 'p.png', tmp_path / 'out', num_proposals=3,
      hints=tmp_path / 'hints.png', mask=tmp_path / 'mask.png') == 0
  for k in range(3):
    pixels = photo.read(tmp_path / f'out/p.{k}.png').pixels.astype(int)
    assert not np.ptp(pixels[:, 16:], axis=-1).any()
    red, _, blue = pixels[15, 8]
    assert blue > red + 50, 'the stroke is blue'


def test_a_folder_from_end_to_end(workdir, tmp_path, capsys):
  source, output = tmp_path / 'in', tmp_path / 'out'
  rgb = skimage.data.astronaut()[:90, 150:270]
  write(source / 'a.png', rgb)
  write(source / 'a.bmp', rgb[..., 1])
  write(source / 'sub' / 'b.png', np.dstack([rgb, rgb[..., 0]]))
  (source / 'cut.jpg').write_bytes(b'\xff\xd8\xff\xe0 cut')
  (source / 'empty.png').touch()
  before = {path: path.read_bytes() for path in source.rglob('*.*')}

  def color(**options):
    code = colorize.colorize_all(
        workdir, source, output, num_proposals=3, **options)
    assert code == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 2, said.err
    assert str(source / 'cut.jpg') in lines[0]
    assert str(source / 'empty.png') in lines[1]
    assert '2 refused' in said.out
    return said.out

  assert '3 colored' in color()
  files = {str(path.relative_to(output)) for path in output.rglob('*.*')}
  assert files == {
      f'{stem}.{kind}.png' for stem in ('a.png', 'a.bmp', 'sub/b')
      for kind in ('0', '1', '2', 'sheet')}
  for i in range(3):
    got = photo.read(output / f'a.bmp.{i}.png').pixels
    np.testing.assert_array_equal(np.rint(grey_level(got)), rgb[..., 1])
  alpha = photo.read(output / 'sub' / 'b.1.png').alpha
  np.testing.assert_array_equal(alpha, rgb[..., 0])
  assert {path: path.read_bytes() for path in source.rglob('*.*')} == before

  # Again: what is there is kept, what is missing is made.
  (output / 'a.png.2.png').unlink()
  times = {path: path.stat().st_mtime_ns for path in output.rglob('*.*')}
  said = color()
  assert '1 colored' in said
  assert '2 there already' in said
  changed = {path.name for path, at in times.items()
             if path.stat().st_mtime_ns != at}
  assert not changed
  assert (output / 'a.png.2.png').exists()
  assert '3 colored' in color(overwrite=True)
  assert all(path.stat().st_mtime_ns != at for path, at in times.items())


def test_one_photo_in_its_own_format(workdir, tmp_path):
  write(tmp_path / 'p.tif', np.arange(600, dtype=np.uint16).reshape(20, 30))
  done = run(f'--checkpoint={workdir}', f'--input={tmp_path / "p.tif"}',
             f'--output={tmp_path / "out"}', '--format=same')
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  got = photo.read(tmp_path / 'out' / 'p.tif').pixels
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(
      np.rint(grey_level(got)), np.arange(600).reshape(20, 30))


@pytest.mark.parametrize(('changes', 'message'), [
    ({'input': None}, '--input'),
    ({'input': '{tmp}/none.jpg'}, 'none.jpg'),
    ({'input': '{tmp}/empty'}, 'holds no photograph'),
    ({'output': '{tmp}'}, 'would replace'),
    ({'output': '{tmp}/p.png/out'}, 'cannot make the folder'),
    ({'checkpoint': '{tmp}/none'}, 'none holds no colorizer.json'),
    ({'proposals': '-1'}, '--proposals'),
    ({'format': 'gif'}, '--format'),
    ({'color': 'red'}, 'color'),
], ids=str)
def test_wrong_usage_is_one_line(changes, message, workdir, tmp_path):
  write(tmp_path / 'p.png', np.zeros((4, 4), np.uint8))
  (tmp_path / 'empty').mkdir()
  flags = {'checkpoint': str(workdir), 'input': str(tmp_path / 'p.png'),
           'output': str(tmp_path / 'out')} | changes
  done = run(*(f'--{name}={value.format(tmp=tmp_path)}'
               for name, value in flags.items() if value is not None))
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr
  assert done.stdout == ''


def test_more_proposals_than_there_are(workdir, tmp_path):
  write(tmp_path / 'p.png', np.zeros((4, 4), np.uint8))
  with pytest.raises(UserError, match='9 proposals'):
    colorize.colorize_all(workdir, tmp_path / 'p.png', tmp_path / 'out',
                          num_proposals=9)


def test_help_is_quick():
  def seconds():  # of processor time: this machine may be busy
    times = os.times()
    return times.children_user + times.children_system

  begun = seconds()
  done = run('--help')
  assert '--checkpoint' in done.stdout
  assert seconds() - begun < 2
