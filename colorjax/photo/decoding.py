"""Bytes of an image file to upright sRGB channels; the inside of `photo.read`.

Pillow decodes the ordinary formats. Where it silently keeps 8 bits of 16 (RGB
PNG and TIFF), imagecodecs and tifffile decode instead.
"""

import contextlib
import dataclasses
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image

from colorjax.photo import icc

_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_TIFF_MAGICS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')

# EXIF that describes the shot and not the layout of the file it came in.
_KEPT_TAGS = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model,
    ExifTags.Base.XResolution, ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright)
_KEPT_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_STALE_TAGS = (
    ExifTags.Base.ColorSpace, ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop)

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
  """
  pixels: np.ndarray
  alpha: np.ndarray | None = None
  profile: bytes | None = None
  exif: bytes | None = None
  format: str


def decode(data: bytes, *, max_pixels: int) -> Channels:
  """Decodes the first picture of an image file.

  Args:
    data: the whole file.
    max_pixels: a picture of more pixels is refused before it is decoded.

  Returns:
    Its channels, upright and in sRGB.

  Raises:
    Refused: the file is of a kind that is not read, or too large.
    Exception: anything, if the file is damaged: decoders raise what they like.
  """
  if data[:4] in _TIFF_MAGICS:
    deep = _decode_deep_tiff(data, max_pixels)
    if deep is not None:
      return deep
  image = _open(data)
  _check_size(image.width, image.height, max_pixels)
  if data[:8] == _PNG_MAGIC and data[24] == 16:
    pixels, alpha = _split_alpha(imagecodecs.png_decode(data))
    profile = image.info.get('icc_profile')
  else:
    # Pillow reads the metadata of a TIFF, and warns of it, with the pixels.
    with _quiet() if image.format == 'TIFF' else contextlib.nullcontext():
      image.load()
    image, profile = _without_ink(image, image.info.get('icc_profile'))
    pixels, alpha = _split_mode(image)
  # After load: Pillow finds the EXIF of some PNGs behind the pixels, and turns
  # TIFFs, and no other format, upright by itself.
  exif, orientation = _read_exif(image)
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=profile, exif=exif,
               format=image.format or ''), orientation)


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
      rgb.format, rgb.info = image.format, image.info
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


def _decode_deep_tiff(data: bytes, max_pixels: int) -> Channels | None:
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
  try:
    exif, _ = _read_exif(_open(data))
  except Refused:
    exif = None  # Pillow has no mode for this one.
  return _finish(
      Channels(pixels=pixels, alpha=alpha, profile=tags.get(34675), exif=exif,
               format='TIFF'), tags.get(274, 1))


def _unassociate(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Undoes the multiplication of 16-bit pixels by their alpha."""
  opacity = alpha.reshape(alpha.shape + (1,) * (pixels.ndim - 2))
  full = pixels.astype(np.float64) * 65535 / np.maximum(opacity, 1)
  return np.minimum(np.rint(full), 65535).astype(np.uint16)


def _read_exif(image: Image.Image) -> tuple[bytes | None, int]:
  """EXIF that holds for new pixels too, and the orientation (1: upright).

  Layout, orientation and the thumbnail, which would show the old picture, are
  left out. A damaged block is taken for none.
  """
  kept = Image.Exif()
  orientation = 1
  try:
    with _quiet():
      exif = image.getexif()
      orientation = exif.get(ExifTags.Base.Orientation, 1)
      for tag in _KEPT_TAGS:
        if tag in exif:
          kept[tag] = exif[tag]
      for directory in _KEPT_DIRECTORIES:
        entries = {tag: value for tag, value in exif.get_ifd(directory).items()
                   if tag not in _STALE_TAGS}
        if entries:
          kept[directory] = entries
      return (kept.tobytes() if len(kept) else None), orientation
  except Exception:
    return None, orientation


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
