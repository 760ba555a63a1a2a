"""Coloring files: `runs.colorize`, its script, `colorjax.colorize`."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import skimage.data
import tiny_method
from inference_test import grey_level
from PIL import Image

import colorjax
from colorjax import inference, photo, saved
from colorjax.colorizer import sampler
from colorjax.data import folders
from colorjax.errors import UserError
from colorjax.runs import colorize, colorize_files

ROOT = pathlib.Path(__file__).parents[2]


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
  targets = colorize_files.plan([source / name for name in names], source,
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
  # With their own endings these two differ.
  assert plan(['a.jpg', 'a.tif'], tmp_path, 'same') == ['a.jpg', 'a.tif']
  assert colorize_files.outputs_of(pathlib.Path('x/a.b.webp'), 2) == [
      pathlib.Path('x/a.b.0.webp'), pathlib.Path('x/a.b.1.webp'),
      pathlib.Path('x/a.b.sheet.png')]


def test_a_photo_of_the_input_is_never_a_target(tmp_path):
  for name in ('a.png', 'b.jpg'):
    (tmp_path / name).touch()
  link = tmp_path / 'link'
  link.symlink_to(tmp_path)
  with pytest.raises(UserError, match='would replace'):
    colorize_files.plan([tmp_path / 'a.png'], tmp_path / 'a.png', link, 'png')
  with pytest.raises(UserError, match='is also the input'):
    colorize_files.find_photos(tmp_path, link)
  assert colorize_files.plan([tmp_path / 'b.jpg'], tmp_path / 'b.jpg', tmp_path,
                       'png')


def test_a_sheet_never_replaces_a_photo(tmp_path):
  paths = [tmp_path / 'a.jpg', tmp_path / 'a.sheet.png']
  assert colorize_files.plan(paths, tmp_path, tmp_path, 'tiff')
  with pytest.raises(UserError, match='would replace'):
    colorize_files.plan(paths, tmp_path, tmp_path, 'tiff', num_proposals=2)


def test_photographs_are_found(tmp_path):
  for name in ('b.JPG', 'a.png', 'notes.txt', '._a.png', 'x/y/c.webp',
               'out/a.png', '.hidden/d.png'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  found = colorize_files.find_photos(tmp_path, tmp_path / 'out')
  assert [str(path.relative_to(tmp_path)) for path in found.paths] == [
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
        workdir, tmp_path / 'in', tmp_path / output,
        mask=tmp_path / mask).refused

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
  with pytest.raises(UserError, match=r'1 of the 2 .* no mask, .* sub/b'):
    color('two', 'masks')
  with pytest.raises(UserError, match='no such file or folder'):
    color('two', 'nothing')
  assert not (tmp_path / 'two').exists()


def test_painted_hints(tmp_path):
  """With Levin's method, strokes color the area that they lie in."""
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
                               hints=tmp_path / 'hints').refused == 1
  assert not (tmp_path / 'out/b.png').exists()
  got = photo.read(tmp_path / 'out/a.png').pixels.astype(int)
  np.testing.assert_array_equal(np.rint(grey_level(got.astype(np.uint8))),
                                grey[..., 0])
  left, right = got[:, :34].reshape(-1, 3), got[:, 46:].reshape(-1, 3)
  assert (left[:, 0] - left[:, 2]).min() > 30
  assert (right[:, 2] - right[:, 0]).min() > 30


def test_hints_mask_and_proposals_together(workdir, tmp_path):
  """Any method takes the color of hints and stays grey outside the mask."""
  grey = np.full((32, 32), 150, np.uint8)
  strokes = np.zeros((32, 32, 4), np.uint8)
  strokes[14:18, 6:10] = 30, 90, 200, 255
  mask = np.zeros((32, 32), np.uint8)
  mask[:, :16] = 255
  for name, pixels in (('p', grey), ('hints', strokes), ('mask', mask)):
    write(tmp_path / f'{name}.png', pixels)
  assert colorize.colorize_all(
      workdir, tmp_path / 'p.png', tmp_path / 'out', num_proposals=3,
      hints=tmp_path / 'hints.png', mask=tmp_path / 'mask.png').refused == 0
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
    done = colorize.colorize_all(
        workdir, source, output, num_proposals=3, **options)
    assert done.refused == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 2, said.err
    assert str(source / 'cut.jpg') in lines[0]
    assert str(source / 'empty.png') in lines[1]
    return done

  assert color().colored == 3
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

  # Again: existing files are kept, and missing ones are made.
  (output / 'a.png.2.png').unlink()
  times = {path: path.stat().st_mtime_ns for path in output.rglob('*.*')}
  assert color() == colorize.Outcome(colored=1, kept=2, refused=2)
  changed = {path.name for path, at in times.items()
             if path.stat().st_mtime_ns != at}
  assert not changed
  assert (output / 'a.png.2.png').exists()
  assert color(overwrite=True).colored == 3
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
    ({'input': '~/nothing-here.jpg'}, f'{pathlib.Path.home()}/nothing-here'),
    ({'checkpoint': '~/no-run'}, f'{pathlib.Path.home()}/no-run'),
    ({'mask': '~/no-mask'}, f'{pathlib.Path.home()}/no-mask'),
    ({'hints': '~/no-hints'}, f'{pathlib.Path.home()}/no-hints'),
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


def test_more_proposals_than_the_method_has(workdir, tmp_path):
  write(tmp_path / 'p.png', np.zeros((4, 4), np.uint8))
  with pytest.raises(UserError, match='9 proposals'):
    colorize.colorize_all(workdir, tmp_path / 'p.png', tmp_path / 'out',
                          num_proposals=9)


def test_help_is_quick():
  def seconds():  # of processor time: this machine may be busy
    times = os.times()
    return times.children_user + times.children_system

  start = seconds()
  done = run('--help')
  assert '--checkpoint' in done.stdout
  assert seconds() - start < 2


RGB = skimage.data.astronaut()[:40, 150:200]


def color_all(workdir, tmp_path, **options):
  """The outcome, and the printed lines."""
  lines = []
  done = colorize.colorize_all(workdir, tmp_path / 'in', tmp_path / 'out',
                               say=lines.append, **options)
  return done, lines


def test_home_is_expanded_and_refusals_are_printed_again(workdir, tmp_path):
  write(tmp_path / 'in/p.png', RGB)
  for i in range(20):
    (tmp_path / f'in/broken{i}.png').write_bytes(b'not a photograph')
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.colorize', f'--checkpoint={workdir}',
       '--input=~/in', '--output=~/out'], cwd=ROOT, capture_output=True,
      text=True, env=os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
                                   'HOME': str(tmp_path)})
  assert done.returncode == 1, done.stderr
  assert [x.name for x in (tmp_path / 'out').iterdir()] == ['p.png']
  assert done.stdout == f'1 colored into {tmp_path}/out, 20 refused\n'
  lines = [line for line in done.stderr.splitlines()
           if line.startswith('refused: ')]
  assert len(lines) == 40
  assert lines[:20] == lines[20:]
  assert f'{tmp_path}/in/broken19.png: ' in lines[-1]


def test_linked_folders_are_read_once_and_locked_ones_reported(
    workdir, tmp_path, monkeypatch):
  write(tmp_path / 'in/a.png', RGB)
  write(tmp_path / 'elsewhere/b.png', RGB)
  write(tmp_path / 'in/locked/c.png', RGB)
  (tmp_path / 'in/x').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'in/y').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'in/circle').symlink_to(tmp_path / 'in')
  (tmp_path / 'in/loop').symlink_to(tmp_path / 'in/loop')
  scandir = os.scandir

  def locked(path):
    if str(path).endswith('locked'):
      raise PermissionError(13, 'Permission denied', path)
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', locked)
  done, lines = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=2, kept=0, refused=1)
  (line,) = lines
  assert f'{tmp_path}/in/locked: cannot be entered: Permission' in line
  assert sorted(p.relative_to(tmp_path / 'out').as_posix()
                for p in (tmp_path / 'out').rglob('*.png')) == [
                    'a.png', 'x/b.png']
  with pytest.raises(UserError, match='locked: Permission denied'):
    folders.folder(tmp_path / 'in')


def test_images_of_other_formats_are_counted(workdir, tmp_path):
  write(tmp_path / 'in/a.png', RGB)
  for name in ('b.JXL', 'c.jxl', 'sub/d.jp2', 'e.dng', 'f.avif', 'g.txt'):
    (tmp_path / 'in' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'in' / name).write_bytes(b'some bytes')
  done, lines = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=1, kept=0, refused=5)
  assert len(lines) == 4
  for ending, words in (('1 .avif', 'avifdec'), ('1 .dng', 'darktable'),
                        ('2 .jxl', 'djxl'), ('1 .jp2', 'opj_')):
    assert any(ending in line and words in line for line in lines)
  (tmp_path / 'in/a.png').unlink()
  with pytest.raises(UserError, match=r'no photograph.*2 \.jxl'):
    color_all(workdir, tmp_path)
  with pytest.raises(UserError, match=r'no photographs.*2 \.jxl'):
    folders.folder(tmp_path / 'in')
  with pytest.raises(photo.UnreadablePhoto, match='djxl'):
    photo.read(tmp_path / 'in/b.JXL')


@pytest.mark.parametrize('num_proposals', [0, 2])
def test_names_of_maximal_length(num_proposals, workdir, tmp_path):
  for length in (248, 251, 255):
    write(tmp_path / 'in' / ('x' * (length - 4) + '.png'), RGB)
    write(tmp_path / 'in' / ('é' * ((length - 5) // 2) + '.tif'), RGB)
  write(tmp_path / 'in/z.png', RGB)
  done, lines = color_all(workdir, tmp_path, num_proposals=num_proposals)
  # stem.0.png fits where stem.sheet.png does: stems of up to 245 bytes.
  refused = 4 if num_proposals else 0
  assert done.refused == refused, lines
  assert done.colored == 7 - refused
  assert all('255 are possible' in line for line in lines)
  assert not list((tmp_path / 'out').glob('.*'))


def test_a_photo_too_large_for_memory(workdir, tmp_path, monkeypatch):
  for name in ('a', 'b', 'c', 'd'):
    write(tmp_path / f'in/{name}.png', RGB)
  errors = {
      'b.png': MemoryError(),
      'c.png': jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no room')}
  finish = inference.finish

  def scarce(picture, *args, **options):
    error = errors.get(os.path.basename(picture.path))
    if error is not None:
      raise error
    return finish(picture, *args, **options)

  monkeypatch.setattr(inference, 'finish', scarce)
  done, lines = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=2, kept=0, refused=2)
  assert len(lines) == 2
  assert all('not enough memory for 50 x 40' in line for line in lines)
  errors['d.png'] = RuntimeError('a bug')
  with pytest.raises(RuntimeError, match='a bug'):
    color_all(workdir, tmp_path, overwrite=True)


@pytest.mark.parametrize(('file_format', 'limit'), [
    ('jpg', 65500), ('webp', 16383)])
def test_a_side_too_long_for_the_format_is_refused_early(
    file_format, limit, workdir, tmp_path, monkeypatch):
  write(tmp_path / 'in/a.png', np.zeros((1, limit + 1), np.uint8))
  monkeypatch.setattr(inference, 'inputs_of', None)  # the work
  done, (line,) = color_all(workdir, tmp_path, file_format=file_format)
  assert done.refused == 1
  assert f'{limit + 1} x 1 pixels' in line
  assert f'at most {limit}' in line


def test_pages_that_are_not_colored_are_reported(workdir, tmp_path):
  frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
  (tmp_path / 'in').mkdir()
  frames[0].save(tmp_path / 'in/scan.tif', save_all=True,
                 append_images=frames[1:])
  done, (line,) = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=1, kept=0, refused=0)
  assert 'scan.tif: holds 2 pictures' in line


def test_the_library_call(workdir, tmp_path):
  write(tmp_path / 'a.png', RGB)
  got = colorjax.colorize(tmp_path / 'a.png', checkpoint=workdir, proposals=2)
  assert got.pixels.shape == RGB.shape
  assert len(got.proposals) == 2
  np.testing.assert_array_equal(got.pixels, got.proposals[0])
  assert got.probabilities == [0.5, 0.25]
  deep = colorjax.colorize(RGB[..., 1].astype(np.uint16) * 257,
                           checkpoint=saved.load(workdir))
  assert deep.pixels.dtype == np.uint16
  assert deep.proposals == []
  assert deep.probabilities is None
  for image in (RGB.astype(float), RGB[None], RGB[:0]):
    with pytest.raises(UserError, match='image must be'):
      colorjax.colorize(image, checkpoint=workdir)
  with pytest.raises(UserError, match='region is'):
    colorjax.colorize(RGB, checkpoint=workdir, region=np.ones((3, 3), bool))
  assert not hasattr(colorjax, 'nothing')


def test_small_photos_go_through_the_network_together(
    workdir, tmp_path, monkeypatch):
  """Results are those of single photographs, in order, with two programs."""
  rng = np.random.default_rng(0)
  for i in range(11):
    write(tmp_path / f'in/{i}.png', rng.integers(
        0, 256, (20 + i, 30, 3), np.uint8))
  (tmp_path / 'in/3.png').write_bytes(b'broken')
  shapes = []
  make = inference.answers

  def counted(*args, **options):
    answer = make(*args, **options)

    def call(variables, inputs):
      shapes.append(inputs['lightness'].shape[0])
      return answer(variables, inputs)
    return call

  monkeypatch.setattr(inference, 'answers', counted)
  done, lines = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=10, kept=0, refused=1)
  assert len(lines) == 1
  assert shapes == [8, 8]
  for i in {*range(11)} - {3}:
    single = colorjax.colorize(
        tmp_path / f'in/{i}.png', checkpoint=workdir).pixels
    np.testing.assert_array_equal(
        photo.read(tmp_path / f'out/{i}.png').pixels, single)


def test_a_large_photo_is_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(colorize, '_BATCH_PIXELS', 1000)
  sizes = {'a': 400, 'b': 500, 'c': 200, 'd': 1100, 'e': 10}
  for name, width in sizes.items():
    write(tmp_path / f'{name}.png', np.zeros((1, width), np.uint8))
  found = colorize._batches([tmp_path / f'{name}.png' for name in sizes])
  assert [(''.join(path.stem for path in batch.paths), batch.is_large)
          for batch in found] == [('ab', False), ('c', False), ('d', True),
                                  ('e', False)]


def test_scarce_memory_in_the_network_colors_one_by_one(
    workdir, tmp_path, monkeypatch):
  for name in 'abc':
    write(tmp_path / f'in/{name}.png', RGB)
  make = inference.answers

  def scarce(*args, **options):
    answer = make(*args, **options)

    def call(variables, inputs):
      if len(inputs['lightness']) > 1:
        raise MemoryError
      return answer(variables, inputs)
    return call

  monkeypatch.setattr(inference, 'answers', scarce)
  done, lines = color_all(workdir, tmp_path)
  assert done == colorize.Outcome(colored=3, kept=0, refused=0)
  assert not lines


def test_seeds_draw_other_colorings():
  def sample(variables, inputs, keys, n):
    return jax.vmap(lambda key: 30 * jax.random.normal(
        key, (n, *inputs['lightness'].shape[1:3], 2)), out_axes=1)(keys)

  method = sampler(init=None, loss=None, sample=sample), {}, 16
  grey = np.full((20, 20), 150, np.uint8)
  first, again, other = (
      colorjax.colorize(grey, checkpoint=method, proposals=2, seed=seed)
      for seed in (1, 1, 2))
  np.testing.assert_array_equal(first.proposals, again.proposals)
  assert np.any(np.asarray(first.proposals) != np.asarray(other.proposals))
  assert first.probabilities is None
  # Without a seed, the proposals are those of the method.
  assert np.any(np.asarray(first.proposals) != np.asarray(colorjax.colorize(
      grey, checkpoint=method, proposals=2).proposals))


def test_a_seed_needs_several_colorings(tmp_path):
  tiny_method.write_run(
      tmp_path / 'run', method='colorjax.methods.baselines.grey')
  write(tmp_path / 'in/a.png', RGB)
  with pytest.raises(UserError, match='seed=1: this method has a single'):
    color_all(tmp_path / 'run', tmp_path, seed=1)


def test_a_reference_gives_every_method_its_palette(workdir, tmp_path):
  write(tmp_path / 'in/a.png', RGB)
  blue = np.zeros((8, 8, 3), np.uint8)
  blue[..., 2] = 200
  write(tmp_path / 'blue.png', blue)
  done = run(f'--checkpoint={workdir}', f'--input={tmp_path / "in"}',
             f'--output={tmp_path / "out"}',
             f'--reference={tmp_path / "blue.png"}', '--saturation=0.5')
  assert done.returncode == 0, done.stderr
  red, _, blue = photo.read(tmp_path / 'out/a.png').pixels.mean((0, 1))
  assert blue > red + 10
