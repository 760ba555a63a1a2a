"""Reads photographs upright, in sRGB and at full bit depth; writes them.

What can be read:

  formats      jpeg (including MPO), png, webp, bmp, tiff, gif; heic if
               pillow-heif is installed; of an animation or a file of several
               pages, the first picture that is not a
               reduced copy (`Photo.pictures` counts them)
  pixels       1-bit, grey, palette, RGB, CMYK and YCCK; 8 or 16 bits; an alpha
               channel is returned beside the pixels and never blended
  orientation  pictures are turned upright by their EXIF orientation
  profile      an embedded ICC profile other than sRGB is applied (`icc`); a
               damaged one is ignored, as in browsers

For damaged files and for floating-point, 12-bit, 32-bit and Lab pixels, `read`
raises UnreadablePhoto.

What can be written: png and tiff (8 and 16 bits), webp, bmp and jpeg. All but
jpeg are lossless.
"""

import dataclasses
import os
import pathlib
from typing import NamedTuple

import numpy as np

from colorjax import files
from colorjax.errors import UserError
from colorjax.photo import decoding, encoding
from colorjax.photo.suffixes import NOT_READ

MAX_PIXELS = 178_956_970
"""Maximum number of pixels that are read: 2^29 bytes as RGB, the hard limit of
Pillow."""

REDUCTIONS = (1, 2, 4, 8)
"""Factors by which `read_reduced` can reduce a photograph."""

_ROWS = 256  # rows converted at once, to save memory


_HEADER_BYTES = 2**20
"""Where the header of most files ends, with profiles and previews."""


class UnreadablePhoto(UserError):
  """A photograph cannot be read; one line with the file and the reason."""


class NotEnoughMemory(UnreadablePhoto):
  """A photograph is too large for the memory; one line with file and size."""


class UnwritablePhoto(UserError):
  """A photograph cannot be written; one line with the file and the reason."""


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photograph, upright and in sRGB.

  Attributes:
    pixels: uint8 or uint16 sRGB, [H, W] if the file is grey, else [H, W, 3].
    alpha: opacity, same dtype, [H, W], or None.
    icc_profile: the profile of the file, already applied, or None.
    exif: EXIF block, beginning with 'Exif\\0\\0', without orientation,
      thumbnail and other entries that describe the old pixels; or None.
    format: 'JPEG', 'PNG', 'TIFF', ...
    path: the file, for error messages.
    pictures: number of pictures (pages of a scan or frames of an animation) in
      the file, without reduced copies; this is the first.
  """
  pixels: np.ndarray
  alpha: np.ndarray | None
  icc_profile: bytes | None
  exif: bytes | None
  format: str
  path: str
  pictures: int = 1


def read(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> Photo:
  """Reads a photograph from a file.

  Args:
    path: the file.
    max_pixels: maximum number of pixels; larger pictures are refused before
      they are decoded. Values above MAX_PIXELS have no effect.

  Returns:
    The photograph.

  Raises:
    UnreadablePhoto: the file cannot be read, for any reason.
  """
  return read_bytes(read_file(path), str(path), max_pixels=max_pixels)


def read_file(path: str | os.PathLike) -> bytes:
  """Reads the bytes of a photograph's file.

  Raises:
    UnreadablePhoto: it is not a file, or cannot be read.
  """
  try:
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
      raise UnreadablePhoto(f'{path}: not a regular file')
    return pathlib.Path(path).read_bytes()
  except MemoryError as error:
    raise out_of_memory(str(path), None) from error
  except OSError as error:
    raise UnreadablePhoto(f'{path}: {error.strerror or error}') from error


class Reduced(NamedTuple):
  """A photograph whose resolution may be reduced.

  Attributes:
    pixels: uint8 sRGB [h, w, 3].
    shape: (H, W) of the photograph in its file.
    factor: by how much it is reduced; h = ceil(H / factor), and w likewise.
  """
  pixels: np.ndarray
  shape: tuple[int, int]
  factor: int = 1


Reduce = decoding.Reduce


def read_reduced(data: bytes, name: str, reduce: Reduce) -> Reduced:
  """Reads a photograph at a resolution that may be reduced, for training.

  Decoding a JPEG file at a half, a quarter or an eighth takes a fraction of the
  time. Other files are read at their full resolution.

  Args:
    data: the whole file.
    name: the name of the file in error messages.
    reduce: `(H, W) -> factor`, the largest factor that is allowed for a
      photograph of this size, one of REDUCTIONS.

  Returns:
    The photograph as 8-bit sRGB.

  Raises:
    UnreadablePhoto: as in `read_bytes`.
  """
  read = _decode(data, name, MAX_PIXELS, reduce)
  pixels = _rgb8(read.pixels)
  height, width = read.shape or pixels.shape[:2]
  return Reduced(pixels, (height, width), read.factor)


def read_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS
               ) -> Photo:
  """Reads a photograph from the bytes of a file.

  Args:
    data: the whole file.
    name: the name of the file in error messages.
    max_pixels: as in `read`.

  Returns:
    The photograph.

  Raises:
    UnreadablePhoto: the bytes cannot be decoded, for any reason.
  """
  channels = _decode(data, name, max_pixels)
  return Photo(
      pixels=channels.pixels, alpha=channels.alpha,
      icc_profile=channels.profile, exif=channels.exif, format=channels.format,
      path=name, pictures=channels.pictures)


def _decode(data: bytes, name: str, max_pixels: int,
            reduce: Reduce | None = None) -> decoding.Channels:
  """Decodes a file; all errors become UnreadablePhoto."""
  if not data:
    raise UnreadablePhoto(f'{name}: the file is empty')
  try:
    return decoding.decode(data, max_pixels=max_pixels, reduce=reduce)
  except decoding.Refused as error:
    converter = NOT_READ.get(pathlib.Path(name).suffix.lower())
    advice = f'; convert it to png with {converter}' if converter else ''
    raise UnreadablePhoto(f'{name}: {error}{advice}') from error
  except Exception as error:
    if is_out_of_memory(error):
      raise out_of_memory(name, decoding.size(data)) from error
    # On damaged files, decoders may raise any exception, including struct.error
    # and SyntaxError.
    reason = ' '.join(str(error).split())[:120]
    if ' ' not in reason:  # the text of a KeyError is only the key
      reason = f'{type(error).__name__} {reason}'
    raise UnreadablePhoto(f'{name}: damaged: {reason}') from error


def size(path: str | os.PathLike) -> tuple[int, int] | None:
  """Returns width and height of a photograph by the header of its file.

  Args:
    path: the file.

  Returns:
    Pixels before any rotation; None if the file is not readable.
  """
  try:
    if not pathlib.Path(path).is_file():
      return None
    with pathlib.Path(path).open('rb') as file:
      data = file.read(_HEADER_BYTES)
      # The header of a TIFF may be anywhere, and a WebP is parsed as a whole.
      return decoding.size(data) or decoding.size(data + file.read())
  except (OSError, MemoryError):
    return None


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error means that there was not enough memory.

  Python raises MemoryError. JAX and decoders raise other errors, which are
  recognized by their text.
  """
  text = str(error).lower()
  return isinstance(error, MemoryError) or any(
      words in text for words in (
          'resource_exhausted', 'out of memory', 'cannot allocate memory',
          'unable to allocate', 'bad_alloc', 'memory allocation'))


def out_of_memory(name: str, size: tuple[int, int] | None) -> NotEnoughMemory:
  """Makes the error for a photograph that needs too much memory.

  Args:
    name: the file.
    size: width and height in pixels, or None if unknown.

  Returns:
    The error, to be raised.
  """
  what = 'it' if size is None else f'{size[0]} x {size[1]} pixels'
  return NotEnoughMemory(
      f'{name}: not enough memory for {what}; make it smaller, or close other '
      'programs')


def to_rgb8(photo: Photo) -> np.ndarray:
  """Converts a photograph to uint8 sRGB [H, W, 3], the input of networks.

  Grey is repeated for the three channels, 16 bits are scaled by 1/257 and
  rounded, and alpha is dropped.
  """
  return _rgb8(photo.pixels)


def _rgb8(pixels: np.ndarray) -> np.ndarray:
  pixels = with_depth(pixels, 8)
  if pixels.ndim == 2:
    pixels = np.repeat(pixels[..., None], 3, axis=-1)
  return pixels


def output_format(path: str | os.PathLike) -> encoding.Format:
  """The capabilities of the file format that belongs to a file name.

  Raises:
    UserError: the format of this file name ending cannot be written.
  """
  try:
    return encoding.FORMATS[pathlib.Path(path).suffix.lower()]
  except KeyError as error:
    raise UserError(
        f'{path}: cannot write this format; use one of '
        + ' '.join(encoding.FORMATS)) from error


def write(path: str | os.PathLike, pixels: np.ndarray, *,
          like: Photo | None = None) -> None:
  """Writes a photograph atomically, as `encode` encodes it.

  Args:
    path: the file; an existing one is replaced, and its folder must exist.
    pixels: as in `encode`.
    like: as in `encode`.

  Raises:
    UserError: the format of this file name ending cannot be written.
    ValueError: as in `encode`.
    UnwritablePhoto: the file cannot be written.
  """
  data = encode(path, pixels, like=like)
  try:
    files.write_bytes(path, data)
  except UserError as error:
    raise UnwritablePhoto(str(error)) from error


def encode(path: str | os.PathLike, pixels: np.ndarray, *,
           like: Photo | None = None) -> bytes:
  """Encodes a photograph as the bytes of a file.

  The file name ending chooses the format; `encoding.encode` describes the
  settings. 16-bit pixels for an 8-bit format (jpeg, webp, bmp) are scaled by
  1/257 and rounded. The file is tagged as sRGB.

  Args:
    path: name of the file, for the format and for error messages.
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].
    like: a photograph whose alpha and EXIF are copied if the format can store
      them.

  Returns:
    The bytes.

  Raises:
    UserError: the format of this file name ending cannot be written.
    ValueError: the pixels have another shape or dtype, or another size than
      the alpha of `like`.
    UnwritablePhoto: the picture cannot be encoded in this format.
  """
  file_format = output_format(path)
  if pixels.dtype not in (np.uint8, np.uint16) or (
      pixels.ndim != 2 and pixels.shape[2:] != (3,)):
    raise ValueError(
        f'{path}: pixels must be uint8 or uint16 [H, W] or [H, W, 3], got '
        f'{pixels.dtype} {list(pixels.shape)}')
  alpha = like.alpha if like is not None and file_format.has_alpha else None
  if alpha is not None and alpha.shape != pixels.shape[:2]:
    raise ValueError(f'{path}: alpha is {list(alpha.shape)}, but the pixels '
                     f'are {list(pixels.shape)}')
  bits = min(file_format.bits, 8 * pixels.itemsize)
  if alpha is not None:
    alpha = with_depth(alpha, bits)
  check_fits(path, pixels.shape[1], pixels.shape[0])
  try:
    return encoding.encode(
        file_format, with_depth(pixels, bits), alpha,
        like.exif if like is not None else None)
  except Exception as error:
    if is_out_of_memory(error):
      raise out_of_memory(str(path), pixels.shape[1::-1]) from error
    raise UnwritablePhoto(
        f'{path}: cannot be encoded as {file_format.name}: {error}') from error


def check_fits(path: str | os.PathLike, width: int, height: int) -> None:
  """Checks that the format of a file name allows pictures of a size.

  Args:
    path: the file.
    width: columns of the picture.
    height: rows of the picture.

  Raises:
    UserError: the format of this file name ending cannot be written.
    UnwritablePhoto: the picture is too large for the format.
  """
  file_format = output_format(path)
  if max(width, height) > file_format.max_side:
    raise UnwritablePhoto(
        f'{path}: {width} x {height} pixels, but the sides of a '
        f'{file_format.name.lower()} are at most {file_format.max_side}; write '
        'png or tiff')


def with_depth(values: np.ndarray, bits: int) -> np.ndarray:
  """Converts uint8 or uint16 values to 8 or 16 bits.

  8 bits are multiplied by 257, which is exact. 16 bits are divided by 257 and
  rounded.

  Args:
    values: uint8 or uint16, any shape.
    bits: 8 or 16.

  Returns:
    uint8 or uint16, same shape.
  """
  if bits == 8 * values.itemsize:
    return values
  if bits == 16:
    return values.astype(np.uint16) * np.uint16(257)
  result = np.empty(values.shape, np.uint8)
  for top in range(0, len(values), _ROWS):  # The sum below needs 32 bits.
    rows = values[top:top + _ROWS].astype(np.uint32)
    result[top:top + _ROWS] = (rows + 128) // 257
  return result
