"""HEIC files are read if pillow-heif is installed."""

import io
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import skimage.metrics
from PIL import Image

from colorjax import photo

heif = pytest.importorskip('pillow_heif', reason='pillow-heif not installed')

CAT = skimage.data.chelsea()[:, :300]


def _heic(pixels, **settings):
  buffer = io.BytesIO()
  heif.from_pillow(Image.fromarray(pixels)).save(
      buffer, quality=95, **settings)
  return buffer.getvalue()


def _psnr(a, b):
  return skimage.metrics.peak_signal_noise_ratio(a, b)


def test_pixels_are_upright_and_exif_is_kept():
  exif = Image.Exif()
  exif[0x112], exif[0x10F] = 6, 'Maker'
  read = photo.read_bytes(_heic(CAT, exif=exif.tobytes()), 'cat.heic')
  assert read.format == 'HEIF'
  assert read.pixels.dtype == np.uint8
  upright = np.rot90(CAT, -1)
  assert _psnr(upright, read.pixels) > 30
  kept = Image.Exif()
  kept.load(read.exif)
  assert kept[0x10F] == 'Maker'
  assert 0x112 not in kept  # It would be applied a second time.


def test_alpha_is_apart():
  alpha = np.full(CAT.shape[:2], 255, np.uint8)
  alpha[:100] = 0
  read = photo.read_bytes(_heic(np.dstack([CAT, alpha])), 'cat.heic')
  assert read.pixels.shape == CAT.shape
  assert np.abs(read.alpha.astype(int) - alpha).mean() < 2


def test_more_than_8_bits_are_kept():
  ramp = np.tile(np.linspace(0, 65535, 512).astype(np.uint16)[:, None],
                 (64, 1, 3))
  buffer = io.BytesIO()
  heif.from_bytes('RGB;16', (512, 64), ramp.tobytes()).save(buffer, quality=100)
  read = photo.read_bytes(buffer.getvalue(), 'ramp.heic')
  assert read.pixels.dtype == np.uint16
  assert len(np.unique(read.pixels[32])) > 300  # 8 bits would be 256.
  assert np.abs(read.pixels.astype(int) - ramp).mean() < 300


def test_size_is_known_before_decoding(tmp_path):
  path = tmp_path / 'cat.heic'
  path.write_bytes(_heic(CAT))
  assert photo.size(path) == (300, 300)
  with pytest.raises(photo.UnreadablePhoto, match=r'cat\.heic: too large'):
    photo.read(path, max_pixels=1000)


@pytest.mark.parametrize('kept', [30, 2000, 20000])
def test_damaged_files_are_refused_in_one_line(kept):
  with pytest.raises(photo.UnreadablePhoto) as error:
    photo.read_bytes(_heic(CAT)[:kept], 'cat.heic')
  assert str(error.value).startswith('cat.heic: ')
  assert '\n' not in str(error.value)


def test_without_pillow_heif_the_error_says_what_to_install():
  code = (
      'import importlib.util\n'
      'find = importlib.util.find_spec\n'
      'importlib.util.find_spec = lambda name, *rest: (\n'
      '    None if name == "pillow_heif" else find(name, *rest))\n'
      'from colorjax import photo\n'
      'print(".heic" in photo.SUFFIXES, photo.NOT_READ[".heic"])\n'
      'try:\n'
      '  photo.read_bytes(b"\\0\\0\\0\\x18ftypheic" + bytes(99), "a.heic")\n'
      'except photo.UnreadablePhoto as error:\n'
      '  print(error)\n')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                        text=True, check=True)
  assert done.stdout.splitlines() == [
      'False heif-convert of libheif, or install pillow-heif',
      'a.heic: HEIC needs pillow-heif; convert it to png with heif-convert of '
      'libheif, or install pillow-heif']
