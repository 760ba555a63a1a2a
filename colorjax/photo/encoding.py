"""sRGB channels to the bytes of an image file; the inside of `photo.write`."""

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

_MOST_EXIF = {'JPEG': 65_533}
"""Bytes of EXIF that a format has room for."""


@dataclasses.dataclass(frozen=True)
class Format:
  """What a file format can hold.

  Attributes:
    name: Pillow's name.
    bits: largest depth of a channel, 8 or 16.
    has_alpha: whether it keeps an alpha channel.
    is_lossless: whether it keeps every pixel to the last bit.
    max_side: largest width or height, in pixels.
  """
  name: str
  bits: int
  has_alpha: bool
  is_lossless: bool = True
  max_side: int = 2**31 - 1


# JPEG: what libjpeg writes. BMP and PNG: signed 32 bits.
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
"""The formats that are written, by file name ending in lower case."""


def encode(file_format: Format, pixels: np.ndarray,
           alpha: np.ndarray | None = None, exif: bytes | None = None) -> bytes:
  """An image file that says that its pixels are sRGB.

  jpeg has quality 95 and full-resolution chroma (4:4:4); webp is lossless,
  since its lossy form halves the resolution of chroma. EXIF is written byte for
  byte, by bmp not at all. Where jpeg has no room for a block, its longest
  entries are left out. tiff takes a resolution only if it is a number.

  Args:
    file_format: one of FORMATS, deep enough for the pixels.
    pixels: sRGB, uint8 or uint16, [H, W] or [H, W, 3].
    alpha: same dtype, [H, W], or None; must be None where the format has none.
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
    # A grey picture takes an RGB profile in no format.
    profile = icc.srgb_profile() if pixels.shape[2:] in ((3,), (4,)) else None
    if exif and file_format.name in _MOST_EXIF:
      exif = exif_lib.shortened(exif, _MOST_EXIF[file_format.name])
    options[file_format.name].update(icc_profile=profile, exif=exif or b'')
  out = io.BytesIO()
  Image.fromarray(pixels).save(
      out, file_format.name, **options[file_format.name])
  return out.getvalue()


def _encode_png(pixels: np.ndarray, exif: bytes | None) -> bytes:
  """PNG of any depth; Pillow writes none of 16-bit RGB.

  The chunks that imagecodecs does not write follow IHDR, which is the first
  33 bytes (PNG, third edition, 5.3 and 11.3).
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
  """TIFF of any depth, deflated.

  Pillow writes no 16-bit RGB, and no EXIF directory beside compressed pixels.
  """
  is_rgb = pixels.ndim == 3 and pixels.shape[-1] >= 3
  has_alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
  source = exif_lib.block(exif) if exif else None
  out = io.BytesIO()
  tifffile.imwrite(
      out, pixels, photometric='rgb' if is_rgb else 'minisblack',
      planarconfig='contig' if pixels.ndim == 3 else None,
      extrasamples=['unassalpha'] if has_alpha else None,
      compression='zlib', predictor=True, metadata=None, software=False,
      byteorder='>' if source and source.order == '>' else '<', bigtiff=False,
      iccprofile=icc.srgb_profile() if is_rgb else None)
  data = out.getvalue()
  return exif_lib.into_tiff(data, exif) if exif and source else data
