"""Encodes sRGB channels as image files; used by `photo.write`."""

import dataclasses
import io
import struct
import zlib

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from colorjax.photo import exif as exif_lib
from colorjax.photo import icc

_JPEG_QUALITY = 95

_MAX_EXIF = {'JPEG': 65_533}
"""Maximum size of an EXIF block in bytes, by format."""


@dataclasses.dataclass(frozen=True)
class Format:
  """The capabilities of a file format.

  Attributes:
    name: Pillow's name of the format.
    bits: maximum bit depth of a channel, 8 or 16.
    has_alpha: whether it stores an alpha channel.
    is_lossless: whether it stores pixels exactly.
    max_side: maximum width or height, in pixels.
  """
  name: str
  bits: int
  has_alpha: bool
  is_lossless: bool = True
  max_side: int = 2**31 - 1


# 65,500 is the limit of libjpeg. BMP and PNG store sides as signed 32 bits.
_JPEG = Format('JPEG', bits=8, has_alpha=False, is_lossless=False,
               max_side=65_500)
_TIFF = Format('TIFF', bits=16, has_alpha=True)
FORMATS = {
    '.png': Format('PNG', bits=16, has_alpha=True),
    '.tif': _TIFF, '.tiff': _TIFF,
    '.webp': Format('WEBP', bits=8, has_alpha=True, max_side=16_383),
    '.bmp': Format('BMP', bits=8, has_alpha=False),
    '.jpg': _JPEG, '.jpeg': _JPEG, '.jpe': _JPEG, '.jfif': _JPEG,
}
"""The formats that can be written, by file name ending in lower case."""


def encode(file_format: Format, pixels: np.ndarray,
           alpha: np.ndarray | None = None, exif: bytes | None = None) -> bytes:
  """Encodes an image file that is tagged as sRGB.

  JPEG has quality 95 and full-resolution chroma (4:4:4). WebP is lossless,
  since lossy WebP halves the resolution of chroma. EXIF is copied byte for
  byte, except that BMP stores none, that JPEG drops the longest entries of a
  block that is too long, and that TIFF drops a resolution that is not a number.

  Args:
    file_format: one of FORMATS, with enough bits for the pixels.
    pixels: sRGB, uint8 or uint16, [H, W] or [H, W, 3].
    alpha: same dtype, [H, W], or None; must be None if the format has no alpha.
    exif: EXIF block, or None.

  Returns:
    The bytes of the file.
  """
  if alpha is not None:
    pixels = np.dstack([pixels, alpha])
  pixels = np.ascontiguousarray(pixels)
  if file_format.name == 'PNG':
    return _encode_png(pixels, exif)
  if file_format.name == 'TIFF':
    return _encode_tiff(pixels, exif)
  options: dict[str, dict] = {
      'JPEG': {'quality': _JPEG_QUALITY, 'subsampling': 0},
      'WEBP': {'lossless': True, 'exact': True},
      'BMP': {},
  }
  if file_format.name != 'BMP':
    # An RGB profile is not allowed for grey pictures.
    profile = icc.srgb_profile() if pixels.shape[2:] in ((3,), (4,)) else None
    if exif and file_format.name in _MAX_EXIF:
      exif = exif_lib.shorten(exif, _MAX_EXIF[file_format.name])
    options[file_format.name].update(icc_profile=profile, exif=exif or b'')
  out = io.BytesIO()
  Image.fromarray(pixels).save(
      out, file_format.name, **options[file_format.name])
  return out.getvalue()


def _encode_png(pixels: np.ndarray, exif: bytes | None) -> bytes:
  """Encodes a PNG of 8 or 16 bits; Pillow cannot write 16-bit RGB.

  imagecodecs writes no metadata chunks. They are inserted after IHDR, which
  ends at byte 33 (PNG, third edition, 5.3 and 11.3).
  """
  data = bytes(imagecodecs.png_encode(pixels, level=6))
  chunks = _png_chunk(b'sRGB', b'\1')  # relative colorimetric
  if exif:
    chunks += _png_chunk(b'eXIf', exif.removeprefix(exif_lib.PREFIX))
  return data[:33] + chunks + data[33:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
  return (struct.pack('>I', len(content)) + name + content +
          struct.pack('>I', zlib.crc32(name + content)))


def _encode_tiff(pixels: np.ndarray, exif: bytes | None) -> bytes:
  """Encodes a deflated TIFF of 8 or 16 bits.

  Pillow cannot write 16-bit RGB, nor an EXIF directory with compressed pixels.
  """
  is_rgb = pixels.ndim == 3 and pixels.shape[-1] >= 3
  has_alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
  source = exif_lib.parse_block(exif) if exif else None
  out = io.BytesIO()
  tifffile.imwrite(
      out, pixels, photometric='rgb' if is_rgb else 'minisblack',
      planarconfig='contig' if pixels.ndim == 3 else None,
      extrasamples=['unassalpha'] if has_alpha else None,
      compression='zlib', predictor=True, metadata=None, software=False,
      byteorder='>' if source and source.order == '>' else '<', bigtiff=False,
      iccprofile=icc.srgb_profile() if is_rgb else None)
  data = out.getvalue()
  return exif_lib.insert_into_tiff(data, exif) if exif and source else data
