"""Reading and writing photographs, against Pillow, tifffile and hand values."""

import io
import os
import pathlib
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from colorjax import photo
from colorjax.errors import UserError
from colorjax.photo import decoding, exif, icc

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (19, 31, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (19, 31, 3), dtype=np.uint16)
ALPHA8 = RNG.integers(0, 256, (19, 31), dtype=np.uint8)
ALPHA16 = RNG.integers(0, 65536, (19, 31), dtype=np.uint16)
SMOOTH = np.stack([*np.meshgrid(np.arange(64), np.arange(48)),
                   np.full((48, 64), 90)], -1).astype(np.uint8) * 2


def encoded(image, file_format, **options):
  out = io.BytesIO()
  image.save(out, file_format, **options)
  return out.getvalue()


def tiff(pixels, **options):
  out = io.BytesIO()
  tifffile.imwrite(out, pixels, **options)
  return out.getvalue()


def png16(pixels):
  return imagecodecs.png_encode(np.ascontiguousarray(pixels))


def read(data):
  return photo.read_bytes(data, 'a photo')


@pytest.mark.parametrize(('file_format', 'options'), [
    ('PNG', {}), ('BMP', {}), ('TIFF', {}),
    ('TIFF', {'compression': 'tiff_lzw'}), ('WEBP', {'lossless': True})])
def test_lossless_rgb(file_format, options):
  got = read(encoded(Image.fromarray(RGB8), file_format, **options))
  np.testing.assert_array_equal(got.pixels, RGB8)
  assert got.alpha is None
  assert got.format == file_format


def test_jpeg_as_pillow_decodes_it():
  data = encoded(Image.fromarray(SMOOTH), 'JPEG')
  np.testing.assert_array_equal(
      read(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize('data', [
    encoded(Image.fromarray(RGB8[..., 0]), 'PNG'),
    encoded(Image.fromarray(RGB8[..., 0]), 'TIFF'),
    encoded(Image.fromarray(RGB8[..., 0]), 'BMP'),
], ids=['png', 'tiff', 'bmp'])
def test_grey_stays_grey(data):
  got = read(data)
  np.testing.assert_array_equal(got.pixels, RGB8[..., 0])
  np.testing.assert_array_equal(
      photo.to_rgb8(got), np.dstack([RGB8[..., 0]] * 3))


def test_bilevel_is_black_and_white():
  mask = RGB8[..., 0] > 127
  got = read(encoded(Image.fromarray(mask), 'PNG'))
  np.testing.assert_array_equal(got.pixels, np.where(mask, 255, 0))


def test_palette_and_its_transparency():
  image = Image.fromarray(RGB8[..., 0] % 3, 'L').convert('P')
  image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
  palette = np.array([[10, 20, 30], [200, 100, 50], [1, 2, 3]])
  index = np.asarray(image)
  np.testing.assert_array_equal(
      read(encoded(image, 'PNG')).pixels, palette[index])
  np.testing.assert_array_equal(
      read(encoded(image, 'GIF')).pixels, palette[index])
  got = read(encoded(image, 'PNG', transparency=1))
  np.testing.assert_array_equal(got.alpha, np.where(index == 1, 0, 255))


def test_first_picture_of_an_animation():
  frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (40, 200)]
  for file_format in ('GIF', 'PNG', 'WEBP'):
    data = encoded(frames[0], file_format, save_all=True,
                   append_images=frames[1:], **(
                       {'lossless': True} if file_format == 'WEBP' else {}))
    assert np.unique(read(data).pixels).tolist() == [40]
    assert read(data).pictures == 2


@pytest.mark.parametrize(('data', 'pixels', 'alpha'), [
    (encoded(Image.fromarray(np.dstack([RGB8, ALPHA8])), 'PNG'), RGB8, ALPHA8),
    (encoded(Image.fromarray(np.dstack([RGB8[..., 0], ALPHA8]), 'LA'), 'PNG'),
     RGB8[..., 0], ALPHA8),
    (png16(np.dstack([RGB16, ALPHA16])), RGB16, ALPHA16),
    (png16(np.dstack([RGB16[..., 0], ALPHA16])),
     RGB16[..., 0], ALPHA16),
    (tiff(np.dstack([RGB16, ALPHA16]), photometric='rgb',
          extrasamples=['unassalpha']), RGB16, ALPHA16),
], ids=['rgba8', 'la8', 'rgba16', 'la16', 'rgba16-tiff'])
def test_alpha_is_returned_beside_the_pixels(data, pixels, alpha):
  got = read(data)
  np.testing.assert_array_equal(got.pixels, pixels)
  np.testing.assert_array_equal(got.alpha, alpha)


@pytest.mark.parametrize(('data', 'pixels'), [
    (png16(RGB16), RGB16),
    (png16(RGB16[..., 0]), RGB16[..., 0]),
    (tiff(RGB16, photometric='rgb'), RGB16),
    (tiff(RGB16, photometric='rgb', byteorder='>', compression='lzw'), RGB16),
    (tiff(np.moveaxis(RGB16, -1, 0), photometric='rgb',
          planarconfig='separate'), RGB16),
    (tiff(RGB16[..., 0], photometric='minisblack'), RGB16[..., 0]),
    (tiff(65535 - RGB16[..., 0], photometric='miniswhite'), RGB16[..., 0]),
], ids=['png', 'png-grey', 'tiff', 'tiff-be-lzw', 'tiff-planar', 'tiff-grey',
        'tiff-white-is-0'])
def test_sixteen_bits_are_all_kept(data, pixels):
  got = read(data)
  assert got.pixels.dtype == np.uint16
  np.testing.assert_array_equal(got.pixels, pixels)


def test_associated_alpha_is_divided_out():
  color = np.full((4, 4, 3), 40000, np.uint16)
  alpha = np.full((4, 4), 32768, np.uint16)
  stored = np.dstack([(color * (32768 / 65535)).round().astype(np.uint16),
                      alpha])
  got = read(tiff(stored, photometric='rgb', extrasamples=['assocalpha']))
  assert np.abs(got.pixels.astype(int) - 40000).max() <= 1


def test_rgb8_of_16_bits_is_rounded_division_by_257():
  values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  got = photo.to_rgb8(read(png16(values)))
  np.testing.assert_array_equal(got[..., 1], np.rint(values / 257))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['jpeg', 'png16', 'tiff8', 'tiff16'])
def test_exif_orientation(orientation, kind):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  exif[ExifTags.Base.Artist] = 'Ada'
  oracle = ImageOps.exif_transpose
  if kind == 'jpeg':
    data = encoded(Image.fromarray(SMOOTH), 'JPEG', exif=exif)
    expected = np.asarray(oracle(Image.open(io.BytesIO(data))))
  else:
    turned = Image.fromarray(RGB8)
    turned.getexif().update(exif)
    expected = np.asarray(oracle(turned))
    if kind == 'tiff8':
      data = encoded(Image.fromarray(RGB8), 'TIFF', exif=exif)
    else:
      deep = RGB8.astype(np.uint16) * 257
      expected = expected.astype(np.uint16) * 257
      if kind == 'png16':
        data = png16(deep)
        data = data[:33] + png_chunk(b'eXIf', exif.tobytes()[6:]) + data[33:]
      else:
        data = tiff(deep, photometric='rgb', extratags=[
            (274, 'H', 1, orientation, True), (315, 's', 0, 'Ada', True)])
  got = read(data)
  np.testing.assert_array_equal(got.pixels, expected)
  kept = Image.Exif()
  kept.load(got.exif)
  assert ExifTags.Base.Orientation not in kept
  assert kept[ExifTags.Base.Artist] == 'Ada'


def png_chunk(name, content):
  return (struct.pack('>I', len(content)) + name + content +
          struct.pack('>I', imagecodecs.zlib_crc32(name + content)))


# Color profiles.

ADOBE = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529],
                  [0.02703, 0.07069, 0.99134]])  # Adobe RGB (1998), 4.3.5.3
SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                 [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1


def from_adobe(rgb):
  """sRGB in [0, 1] of Adobe RGB in [0, 1], by hand."""
  linear = rgb**(563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB).T
  linear = np.clip(linear, 0, 1)
  return np.where(linear <= 0.0031308, 12.92 * linear,
                  1.055 * linear**(1 / 2.4) - 0.055)


@pytest.mark.parametrize('depth', [8, 16])
def test_adobe_rgb_is_converted(depth):
  profile = imagecodecs.cms_profile('adobergb')
  inside = np.array([[[150, 120, 90], [90, 100, 150], [128, 128, 128]]])
  expected = from_adobe(inside / 255)
  if depth == 8:
    image = Image.fromarray(inside.astype(np.uint8))
    data = encoded(image, 'PNG', icc_profile=profile)
  else:
    data = tiff(inside.astype(np.uint16) * 257, photometric='rgb',
                iccprofile=profile)
  got = read(data)
  error = got.pixels / np.iinfo(got.pixels.dtype).max - expected
  assert np.abs(error).max() * 255 < (1 if depth == 8 else 0.3)
  assert np.abs(expected * 255 - inside).max() > 5  # not a trivial conversion
  assert got.icc_profile == profile


def rounded_srgb_profile():
  """sRGB with a rounded primary: it would change 1 in 100 values."""
  x = np.linspace(0, 1, 1024)
  curve = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)
  return imagecodecs.cms_profile(
      'rgb', whitepoint=[0.3127, 0.3290, 1],
      primaries=[0.64, 0.33, 1, 0.30006, 0.60, 1, 0.15, 0.06, 1],
      transferfunction=curve.astype(np.float32))


@pytest.mark.parametrize('profile', [icc.srgb_profile(),
                                     rounded_srgb_profile()],
                         ids=['ours', 'rounded'])
def test_srgb_profile_changes_nothing(profile):
  data = encoded(Image.fromarray(RGB8), 'PNG', icc_profile=profile)
  np.testing.assert_array_equal(read(data).pixels, RGB8)


def test_grey_profile_of_linear_light():
  grey = np.array([[0, 20, 55, 118, 255]], np.uint8)
  data = encoded(Image.fromarray(grey), 'PNG',
                 icc_profile=imagecodecs.cms_profile('gray', gamma=1.0))
  got = read(data).pixels
  linear = grey / 255
  expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear,
                            1.055 * linear**(1 / 2.4) - 0.055)
  assert got.shape == grey.shape
  assert np.abs(got - expected).max() <= 1


def test_grey_pixels_with_an_rgb_profile():
  grey = RGB8[..., 0]
  profile = imagecodecs.cms_profile('adobergb')
  got = read(encoded(Image.fromarray(grey), 'PNG', icc_profile=profile)).pixels
  expected = 255 * from_adobe(np.repeat(grey[..., None] / 255, 3, -1))[..., 1]
  assert np.abs(got - expected).max() <= 1


def test_damaged_profile_is_ignored():
  data = encoded(Image.fromarray(RGB8), 'PNG', icc_profile=b'no profile' * 20)
  got = read(data)
  np.testing.assert_array_equal(got.pixels, RGB8)
  assert got.icc_profile is None


def cmyk_profile():
  """A CMYK profile in which any ink prints Lab (50, 20, -30)."""
  white, ink = (255, 128, 128), (128, 148, 98)
  nodes = [white if corner == 0 else ink for corner in range(16)]
  ramp = bytes(range(256))
  table = (b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) +
           struct.pack('>9i', 65536, 0, 0, 0, 65536, 0, 0, 0, 65536) +
           ramp * 4 + bytes(v for node in nodes for v in node) + ramp * 3)
  size = 128 + 4 + 12 + len(table)
  header = struct.pack('>I4sI4s4s4s', size, b'test', 0x02100000, b'prtr',
                       b'CMYK', b'Lab ') + bytes(12) + b'acsp'
  header += bytes(68 - len(header)) + struct.pack(
      '>3i', 63190, 65536, 54061)  # the D50 white that all profiles have
  header += bytes(128 - len(header))
  return header + struct.pack('>I4sII', 1, b'A2B0', 144, len(table)) + table


def test_cmyk_is_converted_by_its_profile():
  inked = Image.new('CMYK', (8, 8), (255, 255, 0, 0))
  plain = Image.new('CMYK', (8, 8), (0, 0, 0, 0))
  got = read(encoded(inked, 'TIFF', icc_profile=cmyk_profile()))
  # Lab (50.2, 20, -30) under D50, adapted to D65 by Bradford, in sRGB.
  assert np.abs(got.pixels[0, 0] - [133.4, 108.5, 171.0]).max() <= 1
  got = read(encoded(plain, 'JPEG', icc_profile=cmyk_profile()))
  assert got.pixels.min() >= 253


@pytest.mark.parametrize('kind', ['CMYK', 'YCCK', 'tiff'])
def test_cmyk_without_a_profile(kind):
  rgb = np.zeros((16, 16, 3), np.uint8) + np.uint8([180, 60, 20])
  cmyk = Image.fromarray(255 - np.dstack([rgb, np.full((16, 16), 255)]).astype(
      np.uint8), 'CMYK')
  if kind == 'tiff':
    data = encoded(cmyk, 'TIFF')
  elif kind == 'CMYK':
    data = encoded(cmyk, 'JPEG', quality=95)
  else:  # Adobe writes inverted inks
    data = imagecodecs.jpeg8_encode(
        255 - np.asarray(cmyk), level=95, colorspace='CMYK',
        outcolorspace='YCCK')
    assert b'Adobe' in data
  got = read(data).pixels
  assert np.abs(got.astype(int) - rgb).max() <= 4


# What is refused.

PNG = encoded(Image.fromarray(RGB8), 'PNG')
BOMB = (PNG[:8] + png_chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 2,
                                                 0, 0, 0)) + PNG[33:])
REFUSED = {
    'empty': (b'', 'empty'),
    'text': (b'Dear reader, this is only text.', 'not a photograph'),
    'html.jpg': (b'<!DOCTYPE html><html></html>', 'not a photograph'),
    'cut.jpg': (encoded(Image.fromarray(RGB8), 'JPEG')[:-300], 'truncated'),
    'cut.png': (PNG[:-400], 'truncated'),
    'header-only.png': (PNG[:20], ''),
    'cut.tif': (tiff(RGB16, photometric='rgb', compression='zlib')[:-800], ''),
    'cut-tags.tif': (tiff(RGB16, photometric='rgb', compression='zlib')[:240],
                     ''),
    'cut.webp': (encoded(Image.fromarray(SMOOTH), 'WEBP')[:-60], ''),
    'cut.gif': (encoded(Image.fromarray(SMOOTH), 'GIF')[:900], ''),
    'flipped.png': (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], ''),
    'bomb.png': (BOMB, 'too large'),
    'float.tif': (tiff(RGB8.astype(np.float32), photometric='rgb'), 'float32'),
    'uint32.tif': (tiff(RGB8[..., 0].astype(np.uint32)), '32-bit'),
    'lab.tif': (encoded(Image.new('LAB', (4, 4)), 'TIFF'), 'Lab'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_in_one_line(name, tmp_path, caplog):
  data, reason = REFUSED[name]
  path = tmp_path / name
  path.write_bytes(data)
  with pytest.raises(photo.UnreadablePhoto) as caught:
    photo.read(path)
  message = str(caught.value)
  assert message.startswith(f'{path}: ')
  assert '\n' not in message
  assert reason in message
  assert not caplog.records


def test_no_damage_escapes_as_another_error():
  """Files with random damage are read or raise UnreadablePhoto."""
  files = [PNG, encoded(Image.fromarray(SMOOTH), 'JPEG'),
           encoded(Image.fromarray(SMOOTH), 'WEBP'),
           encoded(Image.fromarray(RGB8), 'BMP'),
           encoded(Image.fromarray(SMOOTH), 'GIF'),
           tiff(RGB16, photometric='rgb', compression='zlib'),
           encoded(Image.fromarray(RGB8), 'TIFF')]
  rng = np.random.default_rng(1)
  refusals = []
  for data in files:
    for _ in range(60):
      damaged = bytearray(data)
      for at in rng.integers(0, min(len(data), 300), 3):
        damaged[at] = rng.integers(256)
      try:
        photo.read_bytes(bytes(damaged), 'x')
      except photo.UnreadablePhoto as error:
        refusals.append(str(error))
  assert len(refusals) > 100
  assert not any('\n' in refusal for refusal in refusals)


def test_pixel_limit():
  assert photo.read_bytes(PNG, 'x', max_pixels=19 * 31).pixels.shape[0] == 19
  with pytest.raises(photo.UnreadablePhoto, match='31x19 is more than 588'):
    photo.read_bytes(PNG, 'x', max_pixels=588)


def test_large_photos_give_no_warning():
  # Pillow warns above 89 million pixels, and warnings are errors in tests.
  data = encoded(Image.new('1', (10000, 9000)), 'PNG')
  assert read(data).pixels.shape == (9000, 10000)


@pytest.mark.parametrize('name', ['missing.jpg', 'folder.jpg', 'pipe.jpg'])
def test_missing_files_folders_and_pipes(name, tmp_path):
  (tmp_path / 'folder.jpg').mkdir()
  os.mkfifo(tmp_path / 'pipe.jpg')
  with pytest.raises(photo.UnreadablePhoto, match=name):
    photo.read(tmp_path / name)


def test_no_permission_to_read(tmp_path, monkeypatch):
  path = tmp_path / 'secret.jpg'
  path.write_bytes(PNG)

  def deny(self):
    raise PermissionError(13, 'Permission denied', str(self))

  monkeypatch.setattr(pathlib.Path, 'read_bytes', deny)
  with pytest.raises(photo.UnreadablePhoto, match=r'secret\.jpg: Permission'):
    photo.read(path)


# Writing.

def like(alpha=None, exif=None):
  return photo.Photo(RGB8, alpha, None, exif, 'PNG', 'x')


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.TIFF', '.webp', '.bmp'])
@pytest.mark.parametrize('pixels', [RGB8, RGB8[..., 0], RGB16, RGB16[..., 0]],
                         ids=['rgb8', 'grey8', 'rgb16', 'grey16'])
def test_written_and_read_back(suffix, pixels, tmp_path):
  path = tmp_path / f'out{suffix}'
  alpha = ALPHA8 if pixels.dtype == np.uint8 else ALPHA16
  photo.write(path, pixels, like=like(alpha))
  got = photo.read(path)
  if suffix in ('.webp', '.bmp') and pixels.dtype == np.uint16:
    pixels, alpha = np.rint(pixels / 257), np.rint(alpha / 257)
  if suffix == '.webp' and pixels.ndim == 2:
    pixels = np.dstack([pixels] * 3)  # webp has no grey
  np.testing.assert_array_equal(got.pixels, pixels)
  if suffix == '.bmp':
    assert got.alpha is None
  else:
    np.testing.assert_array_equal(got.alpha, alpha)
  assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.webp', '.jpg'])
def test_same_pixels_same_bytes(suffix, tmp_path):
  for name in ('one', 'two'):
    photo.write(tmp_path / f'{name}{suffix}', RGB8, like=like(ALPHA8))
  one, two = (path.read_bytes() for path in tmp_path.iterdir())
  assert one == two


def test_profile_has_a_constant_date():
  assert struct.unpack('>6H', icc.srgb_profile()[24:36]) == (
      2000, 1, 1, 0, 0, 0)


def test_jpeg_keeps_chroma_resolution(tmp_path):
  path = tmp_path / 'out.jpg'
  photo.write(path, SMOOTH, like=like(alpha=ALPHA8[:1]))
  with Image.open(path) as image:
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert image.info['icc_profile'] == icc.srgb_profile()
  got = photo.read(path).pixels
  assert np.abs(got.astype(int) - SMOOTH).max() <= 6


def test_png_is_tagged_as_srgb(tmp_path):
  for pixels in (RGB8, RGB16):
    photo.write(tmp_path / 'out.png', pixels)
    with Image.open(tmp_path / 'out.png') as image:
      image.load()
      assert image.info['srgb'] == 1


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_exif_is_passed_on(suffix, tmp_path):
  exif = Image.Exif()
  exif[ExifTags.Base.Make] = 'Camera & Sons'
  exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.25,
                             ExifTags.Base.ExifImageWidth: 9999}
  source = read(encoded(Image.fromarray(SMOOTH), 'JPEG', exif=exif))
  photo.write(tmp_path / f'out{suffix}', source.pixels, like=source)
  kept = Image.Exif()
  kept.load(photo.read(tmp_path / f'out{suffix}').exif)
  assert kept[ExifTags.Base.Make] == 'Camera & Sons'
  directory = kept.get_ifd(ExifTags.IFD.Exif)
  assert ExifTags.Base.ExifImageWidth not in directory
  assert directory[ExifTags.Base.ExposureTime] == 0.25


def raw_exif(main, exif, gps, order='<', thumbnail=False):
  """Encodes a block of entries {tag: (type, count, bytes)}."""
  def directory(entries, start, following=0):
    table, values = struct.pack(order + 'H', len(entries)), b''
    behind = start + 6 + 12 * len(entries)
    for tag, (kind, count, value) in sorted(entries.items()):
      table += struct.pack(order + 'HHI', tag, kind, count)
      if isinstance(value, int):  # an offset, or a value past the end
        table += struct.pack(order + 'I', value)
      elif len(value) <= 4:
        table += value.ljust(4, b'\0')
      else:
        table += struct.pack(order + 'I', behind + len(values))
        values += value
    return table + struct.pack(order + 'I', following) + values

  exif_at = 8
  body = directory(exif, exif_at)
  gps_at = exif_at + len(body)
  body += directory(gps, gps_at)
  main = main | {34665: (4, 1, exif_at), 34853: (4, 1, gps_at)}
  at = 8 + len(body)
  body += directory(main, at, at + 4000 if thumbnail else 0)
  head = b'II*\0' if order == '<' else b'MM\0*'
  return b'Exif\0\0' + head + struct.pack(order + 'I', at) + body


ODD_MAIN = {
    315: (2, 7, 'Müller'.encode()),  # without the final zero
    33432: (2, 14, '© 1944 Jörg'.encode() + b'\0'),
    282: (2, 7, b'72 dpi\0'), 272: (2, 5, b'R\xfffl\0')}
ODD_EXIF = {
    37500: (7, 9, b'Maker\0\1\2\3'), 36867: (2, 20, b'1944:06:06 06:30:00\0'),
    40961: (3, 1, b'\2\0'), 37510: (7, 12, b'UNICODE\0\xe4\0\xf6\0')}
ODD_GPS = {6: (2, 6, b'12.5m\0'), 1: (2, 2, b'N\0')}
BAD = {271: (2, 2000, 70000), 305: (99, 4, b'abcd'), 306: (12, 2**31, 20)}


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
@pytest.mark.parametrize('carrier', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_odd_exif_is_copied_unchanged(carrier, suffix, order, tmp_path):
  """UTF-8, odd types, values past the end and a missing thumbnail."""
  given = raw_exif(ODD_MAIN | BAD, ODD_EXIF, ODD_GPS, order, thumbnail=True)
  if carrier == 'TIFF':
    sound = exif.parse_block(given)
    data = exif.insert_into_tiff(
        tiff(SMOOTH, photometric='rgb', byteorder=order, software=False),
        exif.cleaned(sound, sound.directory(sound.first())[0]))
  else:
    data = encoded(Image.fromarray(SMOOTH), carrier, exif=given)
  source = read(data)
  photo.write(tmp_path / f'out{suffix}', source.pixels, like=source)
  written = (tmp_path / f'out{suffix}').read_bytes()
  if suffix == '.tif':
    block = exif.parse_block(written)
    Image.open(io.BytesIO(written)).load()
  else:
    image = Image.open(io.BytesIO(written))
    image.load()
    block = exif.parse_block(image.info['exif'])
  main, following = block.directory(block.first())
  assert following == 0
  assert block.order == order

  def held(directory):
    return {tag: (e.type, e.count, e.value) for tag, e in directory.items()}

  def short(entries):
    return {tag: (kind, count, value[:count])
            for tag, (kind, count, value) in entries.items()}

  got = held(main)
  expected = short(ODD_MAIN)
  if carrier == 'TIFF' or suffix == '.tif':
    expected.pop(282)  # a resolution that is not a number
    got.pop(282, None)
  assert {tag: got.get(tag) for tag in expected} == expected
  assert not set(got) & set(BAD)
  exif_entries = block.directory(block.numbers(main[34665])[0])[0]
  assert held(exif_entries) == {
      tag: entry for tag, entry in short(ODD_EXIF).items() if tag != 40961}
  assert held(block.directory(block.numbers(main[34853])[0])[0]) == short(
      ODD_GPS)


def test_a_photograph_with_truncated_exif_is_read():
  whole = raw_exif(ODD_MAIN, ODD_EXIF, ODD_GPS)
  for length in range(6, len(whole), 7):
    data = png16(RGB16)
    data = data[:33] + png_chunk(b'eXIf', whole[6:length]) + data[33:]
    np.testing.assert_array_equal(read(data).pixels, RGB16)


def test_exif_too_long_for_jpeg_loses_its_longest_entry(tmp_path):
  note = {37500: (7, 70000, bytes(70000))}
  source = read(png16(RGB16)[:33] + png_chunk(
      b'eXIf', raw_exif(ODD_MAIN, ODD_EXIF | note, ODD_GPS)[6:])
      + png16(RGB16)[33:])
  photo.write(tmp_path / 'out.jpg', RGB8, like=source)
  block = exif.parse_block(photo.read(tmp_path / 'out.jpg').exif)
  main, _ = block.directory(block.first())
  assert main[315].value == 'Müller'.encode()
  entries = block.directory(block.numbers(main[34665])[0])[0]
  assert 37500 not in entries
  assert 36867 in entries


# Files of several pictures.

def pages(*kinds, shape=(12, 20), dtype=np.uint8, **options):
  """A TIFF whose page n is filled with n; kinds are NewSubfileTypes."""
  out = io.BytesIO()
  with tifffile.TiffWriter(out, **options) as writer:
    for n, kind in enumerate(kinds):
      side = (shape[0] // 2, shape[1] // 2) if kind & 1 else shape
      writer.write(np.full((*side, 3), n, dtype), photometric='rgb',
                   subfiletype=kind, metadata=None)
  return out.getvalue()


@pytest.mark.parametrize('options', [
    {}, {'byteorder': '>'}, {'bigtiff': True}], ids=str)
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize(('kinds', 'chosen', 'pictures'), [
    ((1, 0), 1, 1), ((1, 1, 0, 0), 2, 2), ((0, 1), 0, 1), ((1,), 0, 1),
    ((2, 2, 2), 0, 3), ((3, 2), 1, 1)])
def test_the_first_page_that_is_not_a_reduced_copy(
    kinds, chosen, pictures, dtype, options):
  got = read(pages(*kinds, dtype=dtype, **options))
  assert np.unique(got.pixels).tolist() == [chosen]
  assert got.pictures == pictures
  assert got.pixels.dtype == dtype


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_photo_below_its_thumbnail(dtype):
  out = io.BytesIO()
  with tifffile.TiffWriter(out) as writer:
    writer.write(np.full((6, 10, 3), 1, dtype), photometric='rgb', subifds=1,
                 subfiletype=1, metadata=None,
                 extratags=[(315, 's', 0, 'Ada', True)])
    writer.write(np.full((12, 20, 3), 2, dtype), photometric='rgb',
                 metadata=None)
  got = read(out.getvalue())
  assert np.unique(got.pixels).tolist() == [2]
  assert b'Ada' in got.exif
  assert got.pictures == 1


def test_the_older_tag_for_reduced_copies():
  out = io.BytesIO()
  with tifffile.TiffWriter(out) as writer:
    for n in range(2):
      writer.write(np.full((9, 9), n, np.uint8), metadata=None, extratags=[
          (255, 'H', 1, 2 - n, True)])
  assert np.unique(read(out.getvalue()).pixels).tolist() == [1]


def test_a_circular_chain_of_pages():
  data = bytearray(pages(1))
  block = exif.parse_block(bytes(data))
  at = block.first()
  end = at + 2 + 12 * block.number('H', at)
  data[end:end + 4] = struct.pack('<I', at)
  assert read(bytes(data)).pixels.shape == (6, 10, 3)


def test_write_refuses(tmp_path):
  with pytest.raises(UserError, match=r'out\.gif'):
    photo.write(tmp_path / 'out.gif', RGB8)
  with pytest.raises(ValueError, match='float32'):
    photo.write(tmp_path / 'out.png', RGB8.astype(np.float32))
  with pytest.raises(ValueError, match='alpha is'):
    photo.write(tmp_path / 'out.png', RGB8[:5], like=like(ALPHA8))
  with pytest.raises(photo.UnwritablePhoto, match=r'none.out\.png: cannot be'):
    photo.write(tmp_path / 'none' / 'out.png', RGB8)
  for suffix, side in (('jpg', 65500), ('webp', 16383)):
    with pytest.raises(photo.UnwritablePhoto, match=f'at most {side}; write'):
      photo.write(tmp_path / f'out.{suffix}', np.zeros((1, side + 1), np.uint8))
    photo.write(tmp_path / f'out.{suffix}', np.zeros((1, side), np.uint8))
    (tmp_path / f'out.{suffix}').unlink()
  assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'out.png'
  photo.write(path, RGB8)
  before = path.read_bytes()

  def full_disk(self, data):
    self.touch()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full_disk)
  with pytest.raises(photo.UnwritablePhoto, match='No space left'):
    photo.write(path, RGB8 // 2)
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ['out.png']


@pytest.mark.parametrize('error', [
    MemoryError(), OSError('out of memory error when reading image file'),
    RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes')])
def test_errors_of_memory_name_the_size(error, tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(decoding, '_split_mode', fail)
  with pytest.raises(photo.NotEnoughMemory,
                     match='not enough memory for 31 x 19 pixels'):
    read(PNG)
  monkeypatch.setattr(photo.photo_files.encoding, 'encode', fail)
  with pytest.raises(photo.NotEnoughMemory, match='memory for 31 x 19 pixels'):
    photo.write(tmp_path / 'out.png', RGB8)


def test_names_of_maximum_length_are_written(tmp_path):
  path = tmp_path / ('ä' * 125 + 'x.png')
  assert len(os.fsencode(path.name)) == 255
  photo.write(path, RGB8)
  np.testing.assert_array_equal(photo.read(path).pixels, RGB8)
  with pytest.raises(photo.UnwritablePhoto, match='too long'):
    photo.write(tmp_path / ('x' * 252 + '.png'), RGB8)
