"""Decodes HEIC files with pillow-heif, an optional package."""

import importlib.util
import io
from typing import NamedTuple

import numpy as np

SUFFIXES = ('.heic', '.heif', '.hif')
"""File name endings of HEIC files, in lower case."""

IS_INSTALLED = importlib.util.find_spec('pillow_heif') is not None
"""Whether HEIC files can be read."""

_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1',
           b'msf1')


class Header(NamedTuple):
  """A HEIC file before its pixels are decoded.

  Attributes:
    width: in pixels, upright.
    height: in pixels, upright.
    profile: the ICC profile, or None.
    exif: the EXIF block, or None. Its orientation has been applied already.
    pictures: number of pictures in the file.
    file: the open file, for `pixels_of`.
  """
  width: int
  height: int
  profile: bytes | None
  exif: bytes | None
  pictures: int
  file: object


def is_heif(data: bytes) -> bool:
  """Whether the bytes of a file begin like those of a HEIC file."""
  return data[4:8] == b'ftyp' and data[8:12] in _BRANDS


def read_header(data: bytes) -> Header:
  """Reads the header; the pixels are not decoded.

  Args:
    data: the whole file.

  Returns:
    The header of the main picture.

  Raises:
    ValueError: the file is damaged.
  """
  import pillow_heif  # Optional: see IS_INSTALLED.

  file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
  width, height = file.size
  return Header(width=width, height=height,
                profile=file.info.get('icc_profile'),
                exif=file.info.get('exif'), pictures=len(file), file=file)


def pixels_of(header: Header) -> np.ndarray:
  """Decodes the main picture.

  Args:
    header: what `read_header` returned.

  Returns:
    uint8, or uint16 if it has more than 8 bits; [H, W], [H, W, 3] or
    [H, W, 4], upright.

  Raises:
    ValueError: the file is damaged.
  """
  return np.asarray(header.file)
