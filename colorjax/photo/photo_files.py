"""Photographs in files: read upright, in sRGB, at their full depth; written.

What a file may be:

  formats      jpeg (also MPO of phones), png, webp, bmp, tiff, gif; of an
               animation or a file of several pages, the first picture that is
               no reduced copy; `Photo.pictures` counts them
  pixels       1-bit, grey, palette, RGB, CMYK and YCCK; 8 or 16 bit; an alpha
               channel is kept beside the pixels, never blended in
  orientation  EXIF-rotated pictures are turned upright
  profile      an embedded ICC profile other than sRGB is applied (`icc`); a
               damaged one is ignored, as browsers do

Floating-point, 12-bit, 32-bit and Lab pixels are refused, like every damaged
file, with an `UnreadablePhoto` whose text is one line that names the file.

Written are png and tiff (8 and 16 bit), webp, bmp and jpeg; all but jpeg keep
every pixel to the last bit.
"""

import dataclasses
import os
import pathlib

import numpy as np

from colorjax import files
from colorjax.errors import UserError
from colorjax.photo import decoding, encoding

SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.webp',
            '.bmp', '.tif', '.tiff', '.gif')
"""File name endings that are photographs, in lower case."""

_HEIF = 'heif-convert of libheif'
_AVIF = 'avifdec of libavif'
_JPEG_2000 = 'opj_decompress of OpenJPEG'
_RAW = 'darktable-cli or RawTherapee'
NOT_READ = {
    **dict.fromkeys(('.heic', '.heif', '.hif'), _HEIF),
    **dict.fromkeys(('.avif', '.avifs'), _AVIF),
    **dict.fromkeys(('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.jpm'),
                    _JPEG_2000),
    '.jxl': 'djxl of libjxl',
    **dict.fromkeys(('.dng', '.cr2', '.cr3', '.crw', '.nef', '.nrw', '.arw',
                     '.sr2', '.srf', '.orf', '.rw2', '.raf', '.pef', '.srw',
                     '.raw', '.rwl', '.3fr', '.iiq', '.x3f', '.erf', '.kdc',
                     '.mrw', '.dcr'), _RAW),
    **dict.fromkeys(('.psd', '.psb', '.xcf', '.tga', '.ppm', '.pgm', '.pbm',
                     '.pnm', '.pam', '.pcx', '.jxr', '.wdp', '.exr', '.hdr',
                     '.dds', '.sgi', '.qoi'), 'ImageMagick'),
}
"""Endings of image files that are not read, and what converts them."""

MAX_PIXELS = 178_956_970
"""Largest picture that is read: 2^29 bytes as RGB; Pillow's own hard limit."""

_ROWS = 256  # that are scaled at once, for the sake of memory


class UnreadablePhoto(UserError):
  """A file that is no readable photograph; one line, file and reason."""


class NotEnoughMemory(UnreadablePhoto):
  """A photograph that is too large for this machine's memory; one line."""


class UnwritablePhoto(UserError):
  """A file that cannot be written; one line, file and reason."""


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photograph as it was read: upright and in sRGB.

  Attributes:
    pixels: uint8 or uint16 sRGB, [H, W] if the file is grey, else [H, W, 3].
    alpha: opacity, same dtype, [H, W], or None.
    icc_profile: the profile that the file came with, already applied, or None.
    exif: EXIF block ('Exif\\0\\0' first) without orientation, thumbnail and
      what else spoke of the old pixels, or None.
    format: 'JPEG', 'PNG', 'TIFF', ...
    path: where it came from.
    pictures: how many pictures the file holds, pages of a scan or frames of an
      animation; this is the first. Reduced copies are not counted.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None
  icc_profile: bytes | None
  exif: bytes | None
  format: str
  path: str
  pictures: int = 1


def read(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> Photo:
  """Reads a photograph.

  Args:
    path: the file.
    max_pixels: a larger picture is refused before it is decoded; values above
      MAX_PIXELS have no effect.

  Returns:
    The photograph.

  Raises:
    UnreadablePhoto: whatever is wrong with the file.
  """
  try:
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
      raise UnreadablePhoto(f'{path}: not a file')
    data = pathlib.Path(path).read_bytes()
  except MemoryError as error:
    raise out_of_memory(str(path), None) from error
  except OSError as error:
    raise UnreadablePhoto(f'{path}: {error.strerror or error}') from error
  return read_bytes(data, str(path), max_pixels=max_pixels)


def read_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS
               ) -> Photo:
  """Reads a photograph from the bytes of a file; see `read`.

  Args:
    data: the whole file.
    name: what errors call it.
    max_pixels: as in `read`.

  Returns:
    The photograph.

  Raises:
    UnreadablePhoto: whatever is wrong with the bytes.
  """
  if not data:
    raise UnreadablePhoto(f'{name}: the file is empty')
  try:
    channels = decoding.decode(data, max_pixels=max_pixels)
  except decoding.Refused as error:
    converter = NOT_READ.get(pathlib.Path(name).suffix.lower())
    advice = f'; {converter} converts to png' if converter else ''
    raise UnreadablePhoto(f'{name}: {error}{advice}') from error
  except Exception as error:
    if is_out_of_memory(error):
      raise out_of_memory(name, decoding.size(data)) from error
    # Damaged files make decoders raise anything, struct.error and SyntaxError
    # included; to the caller they are all one thing.
    reason = ' '.join(str(error).split())[:120]
    if ' ' not in reason:  # a KeyError's text is the key alone
      reason = f'{type(error).__name__} {reason}'
    raise UnreadablePhoto(f'{name}: damaged: {reason}') from error
  return Photo(
      pixels=channels.pixels, alpha=channels.alpha,
      icc_profile=channels.profile, exif=channels.exif, format=channels.format,
      path=name, pictures=channels.pictures)


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error says that memory was too small.

  Python has a type for it. JAX, and decoders, only say so.
  """
  text = str(error).lower()
  return isinstance(error, MemoryError) or any(
      words in text for words in (
          'resource_exhausted', 'out of memory', 'cannot allocate memory',
          'unable to allocate', 'bad_alloc', 'memory allocation'))


def out_of_memory(name: str, size: tuple[int, int] | None) -> NotEnoughMemory:
  """The error for a photograph; `size` is its width and height if known."""
  what = 'it' if size is None else f'{size[0]} x {size[1]} pixels'
  return NotEnoughMemory(
      f'{name}: not enough memory for {what}; make it smaller, or close other '
      'programs')


def to_rgb8(photo: Photo) -> np.ndarray:
  """The picture as networks are fed: uint8 sRGB [H, W, 3].

  Grey is repeated, 16 bit is scaled by 1/257 and rounded, alpha is left out.
  """
  pixels = with_depth(photo.pixels, 8)
  if pixels.ndim == 2:
    pixels = np.repeat(pixels[..., None], 3, axis=-1)
  return pixels


def output_format(path: str | os.PathLike) -> encoding.Format:
  """What the format of a file name can hold (depth, alpha, lossless or not).

  Raises:
    UserError: no format that is written has this file name ending.
  """
  try:
    return encoding.FORMATS[pathlib.Path(path).suffix.lower()]
  except KeyError as error:
    raise UserError(
        f'{path}: cannot write this format; take one of '
        + ' '.join(encoding.FORMATS)) from error


def write(path: str | os.PathLike, pixels: np.ndarray, *,
          like: Photo | None = None) -> None:
  """Writes a photograph, whole or not at all.

  The format is that of the file name's ending; `encoding` says with
  which settings. 16-bit pixels for an 8-bit format (jpeg, webp, bmp) are scaled
  by 1/257 and rounded. The file says that it is sRGB.

  Args:
    path: the file; one that is there is replaced, its folder must exist.
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].
    like: a photograph whose alpha and EXIF are passed on, where the format
      has room for them.

  Raises:
    UserError: unknown file name ending.
    ValueError: pixels of another shape or dtype.
    UnwritablePhoto: the file cannot be written; one line, file and reason.
  """
  file_format = output_format(path)
  if pixels.dtype not in (np.uint8, np.uint16) or (
      pixels.ndim != 2 and pixels.shape[2:] != (3,)):
    raise ValueError(f'{path}: pixels are uint8 or uint16 [H, W] or [H, W, 3], '
                     f'got {pixels.dtype} {list(pixels.shape)}')
  alpha = like.alpha if like is not None and file_format.has_alpha else None
  if alpha is not None and alpha.shape != pixels.shape[:2]:
    raise ValueError(f'{path}: alpha is {list(alpha.shape)}, the pixels are '
                     f'{list(pixels.shape)}')
  bits = min(file_format.bits, 8 * pixels.itemsize)
  if alpha is not None:
    alpha = with_depth(alpha, bits)
  check_fits(path, pixels.shape[1], pixels.shape[0])
  try:
    data = encoding.encode(
        file_format, with_depth(pixels, bits), alpha,
        like.exif if like is not None else None)
  except Exception as error:
    if is_out_of_memory(error):
      raise out_of_memory(str(path), pixels.shape[1::-1]) from error
    raise UnwritablePhoto(
        f'{path}: no {file_format.name} can be made of it: {error}') from error
  try:
    files.write_bytes(path, data)
  except UserError as error:
    raise UnwritablePhoto(str(error)) from error


def check_fits(path: str | os.PathLike, width: int, height: int) -> None:
  """Raises UnwritablePhoto if the format of a file name has no such sizes."""
  file_format = output_format(path)
  if max(width, height) > file_format.max_side:
    raise UnwritablePhoto(
        f'{path}: {width} x {height} pixels: a side of a '
        f'{file_format.name.lower()} has at most {file_format.max_side}; write '
        'png or tiff')


def with_depth(values: np.ndarray, bits: int) -> np.ndarray:
  """uint8 or uint16 values at 8 or 16 bits a channel.

  Up, by 257, is exact; down is rounded to the nearest level.
  """
  if bits == 8 * values.itemsize:
    return values
  if bits == 16:
    return values.astype(np.uint16) * np.uint16(257)
  result = np.empty(values.shape, np.uint8)
  for top in range(0, len(values), _ROWS):  # the sum needs 32 bits
    rows = values[top:top + _ROWS].astype(np.uint32)
    result[top:top + _ROWS] = (rows + 128) // 257
  return result
