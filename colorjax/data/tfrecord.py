"""Random access to the records of TFRecord files, without TensorFlow.

TFDS reads tfrecord files only sequentially. A batch that is a function of
(seed, step) needs random access. So the offsets of all records are read from
their headers once and cached in the user's cache folder.

A record consists of the length of the payload (uint64, little-endian), the
checksum of these 8 bytes (uint32), the payload, and the checksum of the payload
(uint32). The checksums are masked CRC-32C
(tensorflow/core/lib/io/record_writer.h).
"""

import concurrent.futures
import dataclasses
import hashlib
import logging
import os
import pathlib
import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np

from colorjax import files as files_lib

_HEADER = struct.Struct('<QI')
_CHECKSUM = struct.Struct('<I')

# Reading headers mostly waits for the disk, so several files are read at once.
_FILES_AT_ONCE = 16


class DamagedRecord(ValueError):
  """A record or a file of records is damaged."""


@dataclasses.dataclass(frozen=True)
class Part:
  """Consecutive records of one file.

  Attributes:
    path: the file.
    skip: number of records before the part.
    take: number of records in the part.
    num_records: number of records in the file.
  """
  path: str
  skip: int
  take: int
  num_records: int


class Records:
  """The records of several parts of TFRecord files as one sequence."""

  def __init__(self, parts: Sequence[Part]):
    """Finds the offsets of the records, from the cache or from all headers.

    Args:
      parts: the parts in order.

    Raises:
      DamagedRecord: a file is damaged or holds another number of records.
      OSError: a file is missing or cannot be read.
    """
    self._parts = parts
    self._bounds = _load_or_find([(p.path, p.num_records) for p in parts])
    # Number of the first record of each part, then the number of all records.
    self._firsts = np.cumsum([0, *(part.take for part in parts)])

  def __len__(self) -> int:
    """Number of records."""
    return int(self._firsts[-1])

  def __getitem__(self, number: int) -> bytes:
    """Reads the payload of a record; raises DamagedRecord if it is damaged."""
    if not 0 <= number < len(self):
      raise IndexError(f'record {number} of {len(self)}')
    which = int(np.searchsorted(self._firsts, number, side='right')) - 1
    part = self._parts[which]
    place = part.skip + number - int(self._firsts[which])
    start, stop = self._bounds[which][place:place + 2].tolist()
    # The file is opened for each record, since a data set may have more files
    # than a process may keep open.
    with open(part.path, 'rb', buffering=0) as file:
      data = os.pread(file.fileno(), stop - start, start)
    payload = data[_HEADER.size:-_CHECKSUM.size]
    if len(data) != stop - start or data[:8] != struct.pack(
        '<Q', len(payload)):
      raise DamagedRecord(f'{part.path} has changed since it was opened')
    if data[-_CHECKSUM.size:] != _CHECKSUM.pack(_masked_crc(payload)):
      raise DamagedRecord(
          f'record {place} of {part.path} has a wrong checksum')
    return payload


def record_bounds(path: str, num_records: int) -> np.ndarray:
  """Finds the offsets of the records of a file by reading their headers.

  Args:
    path: the file.
    num_records: number of records that the file should hold.

  Returns:
    int64 [num_records + 1], offsets in bytes; the last is the file's size.

  Raises:
    DamagedRecord: the file does not hold exactly that many whole records.
    OSError: the file is missing or cannot be read.
  """
  bounds = np.zeros(num_records + 1, np.int64)
  with open(path, 'rb', buffering=0) as file:
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    offset = 0
    for i in range(num_records):
      header = os.pread(descriptor, _HEADER.size, offset)
      if len(header) < _HEADER.size:
        raise DamagedRecord(
            f'{path} is cut short: it holds {i} of {num_records} records')
      length, checksum = _HEADER.unpack(header)
      if checksum != _masked_crc(header[:8]):
        raise DamagedRecord(
            f'{path} is damaged at byte {offset}, record {i}')
      offset += _HEADER.size + length + _CHECKSUM.size
      if offset > size:
        raise DamagedRecord(
            f'{path} is cut short in record {i} of {num_records}')
      bounds[i + 1] = offset
  if offset != size:
    raise DamagedRecord(f'{path} holds more than {num_records} records')
  return bounds


def _masked_crc(data: bytes) -> int:
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def _load_or_find(files: Sequence[tuple[str, int]]) -> list[np.ndarray]:
  """The record offsets of each file, from the cache if possible.

  Args:
    files: path and number of records of each file.
  """
  stats = [os.stat(path) for path, _ in files]
  key = hashlib.sha256(repr([
      (os.path.realpath(path), count, stat.st_size, stat.st_mtime_ns)
      for (path, count), stat in zip(files, stats, strict=True)]).encode())
  cache = _cache_folder() / f'{key.hexdigest()}.npy'
  splits = np.cumsum([count + 1 for _, count in files])
  try:
    joined = np.load(cache, allow_pickle=False)
    if joined.dtype == np.int64 and joined.shape == (splits[-1],):
      return np.split(joined, splits[:-1])
  except (OSError, ValueError, EOFError):
    pass  # The cache does not exist or is damaged.
  logging.getLogger(__name__).info(
      'indexing the records of %d files, once', len(files))
  with concurrent.futures.ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
    bounds = list(pool.map(lambda file: record_bounds(*file), files))
  _save(cache, np.concatenate(bounds))
  return bounds


def _cache_folder() -> pathlib.Path:
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(home).expanduser() / 'colorjax' / 'tfrecord'


def _save(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes the cache; failure to write it is not an error."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files_lib.replacing(path) as temporary, temporary.open('wb') as file:
      np.save(file, array)
  except OSError:
    logging.getLogger(__name__).info('%s cannot be written', path)
