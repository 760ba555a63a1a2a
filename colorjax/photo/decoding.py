"""Decodes image files to upright sRGB channels; used by `photo.read`.

Pillow decodes most formats. It silently reduces 16-bit RGB to 8 bits, so
imagecodecs and tifffile decode 16-bit PNG and TIFF.
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
from colorjax.photo import heif, icc

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

_MAX_SAMPLES = 32
_MAX_TILE = 2**24  # pixels; tiles may be larger than a small picture

# Warning filters and log levels are shared by all threads of the process.
_QUIET_LOCK = threading.Lock()


class Refused(ValueError):
  """A file that is not supported; the message gives the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channels:
  """The content of an image file.

  Attributes:
    pixels: uint8 or uint16, [H, W] grey or [H, W, 3] RGB. `decode` returns
      sRGB.
    alpha: opacity, same dtype, [H, W], or None.
    profile: the ICC profile of the file, or None.
    exif: EXIF block without entries that describe the old pixels, or None.
    format: Pillow's name of the file format.
    pictures: number of pictures in the file, without reduced copies.
    shape: H and W of the upright picture if `pixels` may be reduced, or None.
    factor: by how much `pixels` are reduced.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None = None
  profile: bytes | None = None
  exif: bytes | None = None
  format: str
  pictures: int = 1
  shape: tuple[int, int] | None = None
  factor: int = 1


Reduce = Callable[[int, int], int]
"""`(H, W) -> factor`, 1, 2, 4 or 8: how much a picture may be reduced."""


def decode(data: bytes, *, max_pixels: int, reduce: Reduce | None = None
           ) -> Channels:
  """Decodes the first picture of an image file that is not a reduced copy.

  Args:
    data: the whole file.
    max_pixels: maximum number of pixels; larger pictures are refused before
      they are decoded.
    reduce: by how much the picture may be reduced; None decodes all pixels.
      Only JPEG files are reduced. Their decoder leaves out high frequencies,
      which takes a fraction of the time.

  Returns:
    The channels, upright and in sRGB. A reduced picture has ceil(H / factor) x
    ceil(W / factor) pixels.

  Raises:
    Refused: the kind of file is not supported, or the picture is too large.
    Exception: any other exception of a decoder, if the file is damaged.
  """
  page = None
  if data[:4] in _TIFF_MAGICS:
    tiff = exif_lib.parse_block(data)
    if tiff is not None:
      page = exif_lib.main_page(tiff)
      _check_tiles(tiff, page.directory, max_pixels)
      data = page.data
    deep = _decode_deep_tiff(data, max_pixels, page)
    if deep is not None:
      return deep
  if heif.is_heif(data):
    return _decode_heif(data, max_pixels)
  image = _open(data)
  _check_size(image.width, image.height, max_pixels)
  pictures = page.pictures if page else _number_of_frames(image)
  shape, factor, early = None, 1, None
  if reduce is not None and image.format == 'JPEG':
    early = _read_exif(image, data, page)
    shape, factor = _reduce_jpeg(image, early[1], reduce)
  if data[:8] == _PNG_MAGIC and data[24] == 16:
    pixels, alpha = _split_alpha(imagecodecs.png_decode(data))
    profile = image.info.get('icc_profile')
  else:
    # Pillow parses the metadata of a TIFF, and warns about it, in `load`.
    with _quiet() if image.format == 'TIFF' else contextlib.nullcontext():
      image.load()
    rgb, profile = _cmyk_to_rgb(image, image.info.get('icc_profile'))
    pixels, alpha = _split_mode(rgb)
  # After `load`, since some PNGs have their EXIF after the pixels. Pillow
  # rotates TIFFs upright by itself, but no other format.
  exif, orientation = early or _read_exif(image, data, page)
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=profile, exif=exif,
               format=image.format or '', pictures=pictures, shape=shape,
               factor=factor), orientation)


def _reduce_jpeg(image: Image.Image, orientation: int, reduce: Reduce
                 ) -> tuple[tuple[int, int], int]:
  """Makes `load` decode a reduced picture.

  Returns:
    The full upright shape, and the factor.
  """
  width, height = image.size
  shape = (width, height) if orientation >= 5 else (height, width)
  factor = reduce(*shape)
  if orientation > 1:
    # The last block of pixels must be complete, because turning the picture may
    # make it the first.
    while width % factor or height % factor:
      factor //= 2
  # Rounded down, or Pillow would choose a smaller factor.
  image.draft(None, (max(1, width // factor), max(1, height // factor)))
  return shape, -(-width // image.width)


def size(data: bytes) -> tuple[int, int] | None:
  """Width and height by the header of an image file; None if unreadable."""
  try:
    tiff = exif_lib.parse_block(data) if data[:4] in _TIFF_MAGICS else None
    if tiff is not None:
      directory = exif_lib.main_page(tiff).directory
      width, height = (tiff.numbers(directory[tag])[0] for tag in (256, 257))
      return width, height
    if heif.is_heif(data):
      header = heif.read_header(data)
      return header.width, header.height
    return _open(data).size
  except Exception:  # a damaged file may cause any exception
    return None


def _number_of_frames(image: Image.Image) -> int:
  """Number of frames of an animation; 1 for formats without animations.

  The further pictures of an MPO file are auxiliary pictures of the camera.
  """
  if image.format not in ('GIF', 'PNG', 'WEBP'):
    return 1
  try:
    return getattr(image, 'n_frames', 1)
  except Exception:  # the file is damaged after the first picture
    return 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Suppresses warnings of Pillow."""
  with _QUIET_LOCK, warnings.catch_warnings():
    warnings.filterwarnings('ignore', module='PIL')
    yield


@contextlib.contextmanager
def _quiet_tifffile() -> Iterator[None]:
  """Suppresses warnings and log lines of tifffile.

  Not a part of `_quiet`: a new log level takes a tenth of the time that a small
  JPEG takes.
  """
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
  """Parses the header with Pillow; the pixels are decoded later."""
  try:
    with _quiet():
      return Image.open(io.BytesIO(data), formats=_FORMATS)
  except Image.DecompressionBombError as error:
    raise Refused('too large: ' + str(error).split(',')[0]) from error
  except Image.UnidentifiedImageError as error:
    raise Refused('not a photograph in a supported format (' +
                  ', '.join(_FORMATS).lower() +
                  '), or its header is damaged') from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
  if width < 1 or height < 1:
    raise Refused(f'no pixels: {width}x{height}')
  if width * height > max_pixels:
    raise Refused(
        f'too large: {width}x{height} is more than {max_pixels} pixels')


def _check_tiles(tiff: exif_lib.Block, directory: exif_lib.Directory,
                 max_pixels: int) -> None:
  """Refuses a TIFF that makes a decoder allocate much more than its picture.

  The tiles of a small picture may be declared to be huge, and so may its number
  of samples per pixel.
  """
  def number(tag):
    return (tiff.numbers(directory[tag]) or [1])[0] if tag in directory else 1

  samples, tile = number(277), number(322) * number(323)
  most = max(max_pixels, _MAX_TILE)
  if samples > _MAX_SAMPLES or tile > most:
    raise Refused(f'too large: {samples} samples per pixel in tiles of {tile} '
                  'pixels')


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None
                 ) -> tuple[Image.Image, bytes | None]:
  """Converts CMYK (and YCCK) to RGB, by its profile if it has a valid one.

  Without a profile, Pillow's formula is used later. Pillow has already undone
  the inversion of CMYK in Adobe's JPEGs.
  """
  if image.mode != 'CMYK':
    return image, profile
  if profile:
    with contextlib.suppress(ValueError):
      rgb = Image.fromarray(icc.to_srgb(np.asarray(image), profile))
      return rgb, icc.srgb_profile()
  return image, None


def _split_mode(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
  """Pixels (grey or RGB) and alpha of an image of any Pillow mode."""
  mode = image.mode
  if mode.startswith('I;16'):
    return np.asarray(image).astype(np.uint16), None
  if mode in ('I', 'F', 'LAB'):
    kind = {'I': '32-bit', 'F': 'floating-point', 'LAB': 'Lab'}[mode]
    raise Refused(f'{kind} pixels are not supported; save it with 8 or 16 bits')
  has_alpha = image.has_transparency_data
  if mode in ('1', 'L', 'LA', 'La'):
    wanted = 'LA' if has_alpha else 'L'
  else:
    wanted = 'RGBA' if has_alpha else 'RGB'
  # `convert` copies the pixels even if the mode is the same.
  return _split_alpha(np.asarray(
      image if mode == wanted else image.convert(wanted)))


def _split_alpha(channels: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray | None]:
  """Splits [H, W] or [H, W, 1 to 4] into pixels and alpha.

  An array with 2 or 4 channels has alpha as the last one.
  """
  if channels.ndim == 2:
    return channels, None
  count = channels.shape[-1]
  alpha = channels[..., -1] if count in (2, 4) else None
  return channels[..., 0] if count < 3 else channels[..., :3], alpha


def _decode_deep_tiff(data: bytes, max_pixels: int,
                      chosen: exif_lib.Page | None) -> Channels | None:
  """Decodes a TIFF of more than 8 bits; returns None for all other TIFFs."""
  with _quiet_tifffile(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
    page = tiff.pages.first
    if page.bitspersample <= 8:
      return None
    _check_size(page.imagewidth, page.imagelength, max_pixels)
    kind = tifffile.PHOTOMETRIC(page.photometric).name
    if page.dtype != np.uint16 or page.bitspersample != 16 or kind not in (
        'MINISBLACK', 'MINISWHITE', 'RGB'):
      raise Refused(f'{page.bitspersample}-bit {kind} pixels of type '
                    f'{page.dtype} are not supported; save it as 16-bit RGB')
    channels = page.asarray()
    if page.axes == 'SYX':
      channels = np.moveaxis(channels, 0, -1)
    tags = {tag.code: tag.value for tag in page.tags}
  if kind == 'MINISWHITE':
    channels = 65535 - channels
  num_colors = 3 if kind == 'RGB' else 1
  if channels.ndim == 3:
    # Further samples, such as a depth map, are dropped.
    channels = channels[..., :num_colors + 1]
  pixels, alpha = _split_alpha(channels)
  if alpha is not None and page.extrasamples[0] == 1:
    pixels = _unassociate(pixels, alpha)
  source = exif_lib.parse_block(data)
  exif, turn = None, None
  if chosen is not None and source is not None:
    exif = exif_lib.cleaned(source, chosen.directory)
    turn = exif_lib.orientation(source, chosen.directory)
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=tags.get(34675), exif=exif,
               format='TIFF', pictures=chosen.pictures if chosen else 1),
      turn or 1)


def _decode_heif(data: bytes, max_pixels: int) -> Channels:
  """Decodes a HEIC file, which libheif has turned upright."""
  if not heif.IS_INSTALLED:
    raise Refused('HEIC needs pillow-heif')
  header = heif.read_header(data)
  _check_size(header.width, header.height, max_pixels)
  pixels, alpha = _split_alpha(heif.pixels_of(header))
  source = exif_lib.parse_block(header.exif) if header.exif else None
  exif = None
  if source is not None:
    with contextlib.suppress(struct.error):
      exif = exif_lib.cleaned(source, source.directory(source.first())[0])
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=header.profile, exif=exif,
               format='HEIF', pictures=header.pictures), 1)


def _unassociate(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Divides 16-bit premultiplied pixels by their alpha."""
  opacity = alpha.reshape(alpha.shape + (1,) * (pixels.ndim - 2))
  full = pixels.astype(np.float64) * 65535 / np.maximum(opacity, 1)
  return np.minimum(np.rint(full), 65535).astype(np.uint16)


def _read_exif(image: Image.Image, data: bytes, page: exif_lib.Page | None
               ) -> tuple[bytes | None, int]:
  """The EXIF block to keep, and the orientation of the pixels (1: upright)."""
  if page is not None:
    source = exif_lib.parse_block(data)
    return (exif_lib.cleaned(source, page.directory) if source else None), 1
  found = image.info.get('exif')
  if not found:
    # ImageMagick writes EXIF into PNGs as three header lines and hex digits.
    profile: Any = image.info.get('Raw profile type exif')
    with contextlib.suppress(AttributeError, ValueError, TypeError):
      found = bytes.fromhex(''.join(profile.split('\n')[3:]))
  source = exif_lib.parse_block(found) if found else None
  directory: exif_lib.Directory = {}
  if source is not None:
    with contextlib.suppress(struct.error):
      directory = source.directory(source.first())[0]
  turn = None
  if source is not None:
    turn = exif_lib.orientation(source, directory)
  if turn is None:
    # Pillow also reads XMP, and may raise any exception on invalid entries.
    with contextlib.suppress(Exception), _quiet():
      turn = image.getexif().get(exif_lib.ORIENTATION)
  exif = exif_lib.cleaned(source, directory) if source is not None else None
  return exif, turn or 1


def _finish(channels: Channels, orientation: int) -> Channels:
  """Converts decoded channels to sRGB and turns them upright."""
  pixels, profile = channels.pixels, channels.profile
  if profile:
    try:
      pixels = icc.to_srgb(pixels, profile)
    except ValueError:
      profile = None  # Like in browsers, the pixels are assumed to be sRGB.
  upright = _UPRIGHT.get(orientation, lambda x: x)
  alpha = channels.alpha
  return dataclasses.replace(
      channels, profile=profile, pixels=np.ascontiguousarray(upright(pixels)),
      alpha=None if alpha is None else np.ascontiguousarray(upright(alpha)))
