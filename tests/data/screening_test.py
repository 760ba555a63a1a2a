import io
import struct
import threading
import zlib

import imagecodecs
import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

from colorjax import photo
from colorjax.data import pipeline, screening, sources

SPEC = pipeline.TrainSpec(batch_size=8, image_size=16)
TOP, BOTTOM = (200, 60, 40), (30, 90, 160)
GREY_TOP, GREY_BOTTOM = (100,) * 3, (220,) * 3


def picture():
  """A wide picture whose upper and lower halves differ in color."""
  pixels = np.empty((24, 40, 3), np.uint8)
  pixels[:12], pixels[12:] = TOP, BOTTOM
  return pixels


def grey_picture(dtype=np.uint8):
  pixels = np.empty((24, 40), dtype)
  factor = np.iinfo(dtype).max // 255
  pixels[:12], pixels[12:] = 100 * factor, 220 * factor
  return pixels


def write_odd_files(folder):
  """Writes unusual but valid files; returns {name: (top, bottom) colors}."""
  image, grey = Image.fromarray(picture()), Image.fromarray(grey_picture())
  image.save(folder / 'plain.jpg', quality=95)
  image.convert('CMYK').save(folder / 'cmyk.jpg', quality=95)
  image.save(folder / 'plain.webp', quality=95)
  image.save(folder / 'plain.bmp')
  image.save(folder / 'plain.tiff')
  image.quantize(4).save(folder / 'palette.png')
  image.convert('RGBA').save(folder / 'alpha.png')
  deep = picture().astype(np.uint16) * 257
  (folder / 'deep.png').write_bytes(imagecodecs.png_encode(deep))
  tifffile.imwrite(folder / 'deep.tif', deep, photometric='rgb')
  # Rotated by EXIF: the file's right edge is the picture's top.
  exif = Image.Exif()
  exif[0x0112] = 8
  image.transpose(Image.Transpose.ROTATE_270).save(
      folder / 'turned.jpg', quality=95, exif=exif)
  grey.save(folder / 'grey.jpg', quality=95)
  grey.save(folder / 'grey.png')
  (folder / 'deep_grey.png').write_bytes(
      imagecodecs.png_encode(grey_picture(np.uint16)))
  return {path.name: (GREY_TOP, GREY_BOTTOM) if 'grey' in path.name
          else (TOP, BOTTOM) for path in folder.iterdir()}


def write_broken_files(folder):
  """Writes damaged files; returns their names."""
  before = set(folder.iterdir())
  data = io.BytesIO()
  Image.fromarray(skimage.data.coffee()).save(data, 'jpeg')
  (folder / 'truncated.jpg').write_bytes(data.getvalue()[:4000])
  (folder / 'header_only.jpg').write_bytes(data.getvalue()[:20])
  (folder / 'empty.png').write_bytes(b'')
  (folder / 'text.jpg').write_text('not a photograph\n' * 100)
  (folder / 'zeros.bmp').write_bytes(bytes(1000))
  (folder / 'bomb.png').write_bytes(bomb())
  return {path.name for path in set(folder.iterdir()) - before}


def bomb():
  def chunk(kind, data):
    checked = kind + data
    return (struct.pack('>I', len(data)) + checked
            + struct.pack('>I', zlib.crc32(checked)))

  header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
          + chunk(b'IDAT', zlib.compress(bytes(10_000))) + chunk(b'IEND', b''))


def evaluate(screen, **settings):
  with pipeline.eval_stream(screen, batch_size=4, image_size=16, fit='squash',
                            **settings) as stream:
    batches = list(stream)
  return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def train(photos, steps, **settings):
  with pipeline.train_stream(photos, SPEC, 0, num_steps=steps,
                             **settings) as stream:
    return list(stream)


def grey_source(*, size=6, grey=(1, 4)):
  colors = [(90, 90, 90) if i in grey else (200, 30 + i, 40)
             for i in range(size)]
  return sources.from_arrays([np.full((20, 20, 3), c, np.uint8)
                              for c in colors], name='mixed')


class TestOddFiles:

  def test_all_are_read_correctly(self, tmp_path):
    expected = write_odd_files(tmp_path)
    source = sources.folder(tmp_path)
    assert source.size == len(expected) == 13
    evaluated = evaluate(screening.Screen(source))
    np.testing.assert_array_equal(evaluated['index'][:13], np.arange(13))
    for i in range(13):
      top, bottom = expected[source.label(i)]
      image = evaluated['image'][i]
      # Away from the edge, within the error of JPEG with subsampled chroma.
      for rows, color in (image[:5], top), (image[-5:], bottom):
        np.testing.assert_allclose(
            rows.reshape(-1, 3).mean(0), color, atol=6,
            err_msg=source.label(i))


class TestBrokenFiles:

  @pytest.fixture
  def folder(self, tmp_path):
    self.good = set(write_odd_files(tmp_path))
    self.broken = write_broken_files(tmp_path)
    assert len(self.broken) == 6
    return sources.folder(tmp_path)

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_fail_names_the_first_file(self, folder, engine):
    labels = [folder.label(i) for i in range(folder.size)]
    first = next(label for label in labels if label in self.broken)
    with pytest.raises(photo.UnreadablePhoto, match=first) as caught:
      evaluate(screening.Screen(folder), engine=engine)
    assert '\n' not in str(caught.value)

  def test_evaluation_replaces_bad_files_by_padding(self, folder):
    screen = screening.Screen(folder, on_bad_image='skip')
    evaluated = evaluate(screen)
    for row, index in enumerate(evaluated['index']):
      is_good = row < folder.size and folder.label(row) in self.good
      assert index == (row if is_good else -1)
      assert evaluated['padding_mask'][row] == is_good
      assert is_good or not evaluated['image'][row].any()
    assert evaluated['padding_mask'].sum() == len(self.good)

  def test_training_takes_the_next_readable_photograph(self, folder):
    skipping = train(screening.Screen(folder, on_bad_image='skip'), 8)
    is_good = [folder.label(i) in self.good for i in range(folder.size)]
    everything = sources.from_arrays(
        [np.full((9, 9, 3), i, np.uint8) for i in range(folder.size)])
    for batch, unscreened in zip(skipping, train(everything, 8), strict=True):
      assert batch['padding_mask'].all()
      for got, asked in zip(batch['index'], unscreened['index'], strict=True):
        while not is_good[asked]:
          asked = (asked + 1) % folder.size
        assert got == asked

  @pytest.mark.parametrize('engine', ['threads', 'tf.data'])
  def test_batches_do_not_depend_on_earlier_findings(
      self, folder, engine):
    screen = screening.Screen(folder, on_bad_image='skip')
    streamed = train(screen, 6, engine=engine, num_threads=4)
    for step in reversed(range(6)):
      fresh = screening.Screen(folder, on_bad_image='skip')
      alone = pipeline.train_batch(fresh, SPEC, 0, step)
      for key in alone:
        np.testing.assert_array_equal(alone[key], streamed[step][key])

  def test_each_is_listed_once_with_its_reason(self, folder):
    screen = screening.Screen(folder, on_bad_image='skip')
    train(screen, 10, num_threads=4)
    evaluate(screen)
    excluded = screen.exclusions.by_index()
    assert {e.label for e in excluded.values()} == self.broken
    assert list(excluded) == sorted(excluded)
    assert screen.exclusions.counts() == {'unreadable': 6}
    lines = screen.exclusions.lines()
    assert lines[0] == 'photographs left out: 6 unreadable'
    assert len(lines) == 7
    for line, (index, exclusion) in zip(
        lines[1:], excluded.items(), strict=True):
      assert exclusion.label == folder.label(index)
      assert exclusion.label in line
      assert '\n' not in line
    assert screen.exclusions.lines(most=2)[1:] == [*lines[1:3],
                                                   '  and 4 more']

  def test_a_broken_file_is_opened_once(self, folder, monkeypatch):
    opened = []
    read = photo.read

    def note(path, **settings):
      opened.append(str(path).rsplit('/', 1)[-1])
      return read(path, **settings)

    monkeypatch.setattr(photo, 'read', note)
    screen = screening.Screen(folder, on_bad_image='skip')
    for _ in range(3):
      evaluate(screen, num_threads=1)
    assert all(opened.count(name) == 1 for name in self.broken)
    assert all(opened.count(name) == 3 for name in self.good)

  def test_a_source_without_readable_files_is_a_one_line_error(self, tmp_path):
    write_broken_files(tmp_path)
    screen = screening.Screen(sources.folder(tmp_path), on_bad_image='skip')
    with pytest.raises(sources.SourceError, match=(
        r'all 6 photographs are left out, .*bomb\.png: too large')):
      pipeline.train_batch(screen, SPEC, 0, 0)
    evaluated = evaluate(screen)
    assert not evaluated['padding_mask'].any()


class TestGreyPhotographs:

  def test_are_left_out_and_counted(self):
    screen = screening.Screen(grey_source(), min_chroma=4)
    indices = [i for b in train(screen, 6) for i in b['index']]
    assert set(indices) == {0, 2, 3, 5}
    np.testing.assert_array_equal(
        evaluate(screen)['index'], [0, -1, 2, 3, -1, 5, -1, -1])
    assert screen.exclusions.counts() == {'grey': 2}
    assert screen.exclusions.lines() == [
        'photographs left out: 2 grey', '  grey: mixed[1]: chroma 0.0',
        '  grey: mixed[4]: chroma 0.0']

  def test_are_kept_by_default(self):
    screen = screening.Screen(grey_source())
    assert evaluate(screen)['padding_mask'].sum() == 6
    assert screen.exclusions.lines() == []

  def test_chroma_is_measured_once_per_photograph(self, monkeypatch):
    measured = []
    monkeypatch.setattr(screening, 'chroma',
                        lambda pixels: measured.append(pixels) or 50.0)
    for min_chroma, expected in (0, 0), (4, 6):
      screen = screening.Screen(grey_source(), min_chroma=min_chroma)
      for _ in range(2):
        evaluate(screen, num_threads=1)
      assert len(measured) == expected

  def test_a_source_of_grey_photographs_is_an_error(self):
    screen = screening.Screen(grey_source(grey=range(6)), min_chroma=4)
    with pytest.raises(sources.SourceError, match='because it is grey'):
      pipeline.train_batch(screen, SPEC, 0, 0)

  @pytest.mark.parametrize(('color', 'expected'), [
      # CIE L*a*b* of the primaries and of greys, D65.
      ((255, 0, 0), 104.55), ((0, 255, 0), 119.78), ((0, 0, 255), 133.81),
      ((0, 0, 0), 0), ((128, 128, 128), 0), ((255, 255, 255), 0)])
  def test_chroma_of_flat_colors(self, color, expected):
    pixels = np.full((50, 90, 3), color, np.uint8)
    assert screening.chroma(pixels) == pytest.approx(expected, abs=0.1)

  def test_a_small_colored_object_counts_and_noise_does_not(self):
    boat = np.full((200, 200, 3), 120, np.uint8)
    boat[80:140, 80:140] = (200, 30, 30)
    assert screening.chroma(boat) > 50
    noise = np.random.default_rng(0).normal(120, 6, (400, 400, 3))
    assert screening.chroma(noise.astype(np.uint8)) < 4

  def test_photographs_with_one_pixel_row_have_a_chroma(self):
    assert screening.chroma(np.full((1, 500, 3), 9, np.uint8)) < 1e-3


class TestScreen:

  def test_refuses_an_unknown_policy(self):
    with pytest.raises(ValueError, match=r"on_bad_image .* got 'ignore'"):
      screening.Screen(grey_source(), on_bad_image='ignore')

  def test_other_errors_are_never_skipped(self):
    def read(index):
      raise OSError('the disk is gone')

    source = sources.Source(name='s', size=3, read=read, label=str)
    with pytest.raises(OSError, match='the disk is gone'):
      pipeline.train_batch(screening.Screen(source, on_bad_image='skip'),
                           SPEC, 0, 0)

  def test_many_threads_list_each_photograph_once(self):
    screen = screening.Screen(
        grey_source(size=60, grey=range(0, 60, 2)), min_chroma=4)

    def read_all():
      for index in range(60):
        screen.read_from(index)

    threads = [threading.Thread(target=read_all) for _ in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert list(screen.exclusions.by_index()) == list(range(0, 60, 2))
