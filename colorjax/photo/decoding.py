"""Bytes of an image file to upright sRGB channels; the inside of `photo.read`.

Pillow decodes the ordinary formats. Where it silently keeps 8 bits of 16 (RGB
PNG and TIFF), imagecodecs and tifffile decode instead.
"""

import contextlib
import dataclasses
import io
import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from colorjax.photo import exif as exif_lib
from colorjax.photo import icc

_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_TIFF_MAGICS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}

# Warning filters and log levels belong to the process: one thread at a time.
_QUIET_LOCK = threading.Lock()


class Refused(ValueError):
  """A file that cannot be read for a reason that is known and said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channels:
  """What an image file holds.

  Attributes:
    pixels: uint8 or uint16, [H, W] grey or [H, W, 3] RGB (sRGB on return).
    alpha: same dtype, [H, W], or None.
    profile: the ICC profile of the file, or None.
    exif: EXIF block with what still holds for new pixels, or None.
    format: Pillow's name of the file format.
    pictures: how many pictures the file holds; reduced copies are not counted.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None = None
  profile: bytes | None = None
  exif: bytes | None = None
  format: str
  pictures: int = 1


def decode(data: bytes, *, max_pixels: int) -> Channels:
  """Decodes the first picture of an image file that is no reduced copy.

  Args:
    data: the whole file.
    max_pixels: a picture of more pixels is refused before it is decoded.

  Returns:
    Its channels, upright and in sRGB.

  Raises:
    Refused: the file is of a kind that is not read, or too large.
    Exception: anything, if the file is damaged: decoders raise what they like.
  """
  page = None
  if data[:4] in _TIFF_MAGICS:
    tiff = exif_lib.block(data)
    if tiff is not None:
      page = exif_lib.page(tiff)
      data = page.data
    deep = _decode_deep_tiff(data, max_pixels, page)
    if deep is not None:
      return deep
  image = _open(data)
  _check_size(image.width, image.height, max_pixels)
  pictures = page.pictures if page else _number_of_frames(image)
  if data[:8] == _PNG_MAGIC and data[24] == 16:
    pixels, alpha = _split_alpha(imagecodecs.png_decode(data))
    profile = image.info.get('icc_profile')
  else:
    # Pillow reads the metadata of a TIFF, and warns of it, with the pixels.
    with _quiet() if image.format == 'TIFF' else contextlib.nullcontext():
      image.load()
    rgb, profile = _without_ink(image, image.info.get('icc_profile'))
    pixels, alpha = _split_mode(rgb)
  # After load: Pillow finds the EXIF of some PNGs behind the pixels, and turns
  # TIFFs, and no other format, upright by itself.
  exif, orientation = _read_exif(image, data, page)
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=profile, exif=exif,
               format=image.format or '', pictures=pictures), orientation)


def size(data: bytes) -> tuple[int, int] | None:
  """Width and height that an image file claims; None if they cannot be had."""
  try:
    tiff = exif_lib.block(data) if data[:4] in _TIFF_MAGICS else None
    if tiff is not None:
      directory = exif_lib.page(tiff).directory
      width, height = (tiff.numbers(directory[tag])[0] for tag in (256, 257))
      return width, height
    return _open(data).size
  except Exception:  # of a file of which nothing is known
    return None


def _number_of_frames(image: Image.Image) -> int:
  """Frames of an animation. The further ones of MPO are of the camera's own."""
  if image.format not in ('GIF', 'PNG', 'WEBP'):
    return 1
  try:
    return getattr(image, 'n_frames', 1)
  except Exception:  # damage behind the first picture
    return 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps Pillow and tifffile from talking of what `decode` judges itself."""
  logger = logging.getLogger('tifffile')
  with _QUIET_LOCK, warnings.catch_warnings():
    warnings.filterwarnings('ignore', module='PIL')
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
      yield
    finally:
      logger.setLevel(level)


def _open(data: bytes) -> Image.Image:
  """Pillow's reader, header parsed and pixels not yet decoded."""
  try:
    with _quiet():
      return Image.open(io.BytesIO(data), formats=_FORMATS)
  except Image.DecompressionBombError as error:
    raise Refused('too large: ' + str(error).split(',')[0]) from error
  except Image.UnidentifiedImageError as error:
    raise Refused('no photograph in a known format (' +
                  ', '.join(_FORMATS).lower() +
                  '), or its header is damaged') from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
  if width < 1 or height < 1:
    raise Refused(f'it has no pixels: {width}x{height}')
  if width * height > max_pixels:
    raise Refused(
        f'too large: {width}x{height} is more than {max_pixels} pixels')


def _without_ink(image: Image.Image, profile: bytes | None
                 ) -> tuple[Image.Image, bytes | None]:
  """CMYK (and YCCK) through its profile to RGB, or by Pillow's formula.

  Pillow has undone the inversion of Adobe's jpegs already.
  """
  if image.mode != 'CMYK':
    return image, profile
  if profile:
    with contextlib.suppress(ValueError):
      rgb = Image.fromarray(icc.to_srgb(np.asarray(image), profile))
      return rgb, icc.srgb_profile()
  return image, None


def _split_mode(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
  """Pixels (grey or RGB) and alpha of any of Pillow's modes."""
  mode = image.mode
  if mode.startswith('I;16'):
    return np.asarray(image).astype(np.uint16), None
  if mode in ('I', 'F', 'LAB'):
    kind = {'I': '32-bit', 'F': 'floating-point', 'LAB': 'Lab'}[mode]
    raise Refused(f'{kind} pixels are not read; save it with 8 or 16 bits')
  has_alpha = image.has_transparency_data
  if mode in ('1', 'L', 'LA', 'La'):
    image = image.convert('LA' if has_alpha else 'L')
  else:
    image = image.convert('RGBA' if has_alpha else 'RGB')
  return _split_alpha(np.asarray(image))


def _split_alpha(channels: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray | None]:
  """[H, W] or [H, W, 1 to 4] to pixels and alpha; an even count has alpha."""
  if channels.ndim == 2:
    return channels, None
  count = channels.shape[-1]
  alpha = channels[..., -1] if count in (2, 4) else None
  return channels[..., 0] if count < 3 else channels[..., :3], alpha


def _decode_deep_tiff(data: bytes, max_pixels: int,
                      chosen: exif_lib.Page | None) -> Channels | None:
  """A TIFF of more than 8 bits; None if it is for Pillow to read."""
  with _quiet(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
    page = tiff.pages.first
    if page.bitspersample <= 8:
      return None
    _check_size(page.imagewidth, page.imagelength, max_pixels)
    kind = tifffile.PHOTOMETRIC(page.photometric).name
    if page.dtype != np.uint16 or page.bitspersample != 16 or kind not in (
        'MINISBLACK', 'MINISWHITE', 'RGB'):
      raise Refused(f'{page.bitspersample}-bit {kind} pixels of type '
                    f'{page.dtype} are not read; save it as 16-bit RGB')
    channels = page.asarray()
    if page.axes == 'SYX':
      channels = np.moveaxis(channels, 0, -1)
    tags = {tag.code: tag.value for tag in page.tags}
  if kind == 'MINISWHITE':
    channels = 65535 - channels
  num_colors = 3 if kind == 'RGB' else 1
  if channels.ndim == 3:
    # Further samples, a mask or a depth map, are nothing that is kept.
    channels = channels[..., :num_colors + 1]
  pixels, alpha = _split_alpha(channels)
  if alpha is not None and page.extrasamples[0] == 1:
    pixels = _unassociate(pixels, alpha)
  source = exif_lib.block(data)
  exif, turn = None, None
  if chosen is not None and source is not None:
    exif = exif_lib.kept(source, chosen.directory)
    turn = exif_lib.orientation(source, chosen.directory)
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=tags.get(34675), exif=exif,
               format='TIFF', pictures=chosen.pictures if chosen else 1),
      turn or 1)


def _unassociate(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Undoes the multiplication of 16-bit pixels by their alpha."""
  opacity = alpha.reshape(alpha.shape + (1,) * (pixels.ndim - 2))
  full = pixels.astype(np.float64) * 65535 / np.maximum(opacity, 1)
  return np.minimum(np.rint(full), 65535).astype(np.uint16)


def _read_exif(image: Image.Image, data: bytes, page: exif_lib.Page | None
               ) -> tuple[bytes | None, int]:
  """EXIF that holds for new pixels too, and how to turn them (1: upright)."""
  if page is not None:
    source = exif_lib.block(data)
    return (exif_lib.kept(source, page.directory) if source else None), 1
  found = image.info.get('exif')
  if not found:
    # As ImageMagick writes it into PNGs: a header of three lines, then hex.
    profile: Any = image.info.get('Raw profile type exif')
    with contextlib.suppress(AttributeError, ValueError, TypeError):
      found = bytes.fromhex(''.join(profile.split('\n')[3:]))
  source = exif_lib.block(found) if found else None
  directory: exif_lib.Directory = {}
  if source is not None:
    with contextlib.suppress(struct.error):
      directory = source.directory(source.first())[0]
  turn = None
  if source is not None:
    turn = exif_lib.orientation(source, directory)
  if turn is None:
    # Pillow looks into XMP too, and raises anything at odd entries.
    with contextlib.suppress(Exception), _quiet():
      turn = image.getexif().get(exif_lib.ORIENTATION)
  exif = exif_lib.kept(source, directory) if source is not None else None
  return exif, turn or 1


def _finish(channels: Channels, orientation: int) -> Channels:
  """Channels as decoded, in sRGB and upright."""
  pixels, profile = channels.pixels, channels.profile
  if profile:
    try:
      pixels = icc.to_srgb(pixels, profile)
    except ValueError:
      profile = None  # Like browsers: the numbers are taken for sRGB.
  upright = _UPRIGHT.get(orientation, lambda x: x)
  alpha = channels.alpha
  return dataclasses.replace(
      channels, profile=profile, pixels=np.ascontiguousarray(upright(pixels)),
      alpha=None if alpha is None else np.ascontiguousarray(upright(alpha)))
