"""Random access to the records of TFRecord files, without TensorFlow.

TFDS reads its tfrecord files from front to back only. A batch that is a
function of (seed, step) needs record i at once, so the places where records
begin are found first, from their headers, and kept in the user's cache folder.

A record is: length of the payload (uint64, little-endian), checksum of these 8
bytes (uint32), payload, checksum of the payload (uint32); the checksums are
masked CRC-32C (tensorflow/core/lib/io/record_writer.h).
"""

import concurrent.futures
import dataclasses
import hashlib
import logging
import os
import pathlib
import struct
import tempfile
from collections.abc import Sequence

import google_crc32c
import numpy as np

_HEADER = struct.Struct('<QI')
_CHECKSUM = struct.Struct('<I')

# Headers lie far apart and each costs a wait for the disk.
_FILES_AT_ONCE = 16


class DamagedRecord(ValueError):
  """A record, or a whole file of records, whose bytes are not as written."""


@dataclasses.dataclass(frozen=True)
class Part:
  """A run of records of one file.

  Attributes:
    path: the file.
    skip: number of records before the run.
    take: number of records in the run.
    num_records: number of records in the file.
  """
  path: str
  skip: int
  take: int
  num_records: int


class Records:
  """The records of some parts of TFRecord files, numbered through."""

  def __init__(self, parts: Sequence[Part]):
    """Finds where the records begin, in the cache or by reading all headers.

    Args:
      parts: the parts in order.

    Raises:
      DamagedRecord: a file is cut short or does not hold what it should.
      OSError: a file is missing or not readable.
    """
    self._parts = parts
    self._bounds = _load_or_find([(p.path, p.num_records) for p in parts])
    # First number of each part, and the number of all records at the end.
    self._firsts = np.cumsum([0, *(part.take for part in parts)])

  def __len__(self) -> int:
    """Number of records."""
    return int(self._firsts[-1])

  def __getitem__(self, number: int) -> bytes:
    """The payload of a record; DamagedRecord if its checksum is wrong."""
    if not 0 <= number < len(self):
      raise IndexError(f'record {number} of {len(self)}')
    which = int(np.searchsorted(self._firsts, number, side='right')) - 1
    part = self._parts[which]
    place = part.skip + number - int(self._firsts[which])
    start, stop = self._bounds[which][place:place + 2].tolist()
    # Opened each time: a data set has more files than a process may hold open.
    with open(part.path, 'rb', buffering=0) as file:
      data = os.pread(file.fileno(), stop - start, start)
    payload = data[_HEADER.size:-_CHECKSUM.size]
    if len(data) != stop - start or data[:8] != struct.pack(
        '<Q', len(payload)):
      raise DamagedRecord(f'{part.path} was changed while it was in use')
    if data[-_CHECKSUM.size:] != _CHECKSUM.pack(_masked_crc(payload)):
      raise DamagedRecord(
          f'record {place} of {part.path} has a wrong checksum')
    return payload


def record_bounds(path: str, num_records: int) -> np.ndarray:
  """Where the records of a file begin; reads their headers only.

  Args:
    path: the file.
    num_records: how many it is known to hold.

  Returns:
    int64 [num_records + 1], offsets in bytes; the last is the file's size.

  Raises:
    DamagedRecord: the file does not consist of that many whole records.
    OSError: the file is missing or not readable.
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
  """The bounds of each file, remembered from run to run."""
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
    pass  # Never made, or not whole: found again.
  logging.getLogger(__name__).info(
      'finding the records of %d files, once', len(files))
  with concurrent.futures.ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
    bounds = list(pool.map(lambda file: record_bounds(*file), files))
  _save(cache, np.concatenate(bounds))
  return bounds


def _cache_folder() -> pathlib.Path:
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(home).expanduser() / 'colorjax' / 'tfrecord'


def _save(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes whole or not at all; a cache that cannot be written is no error."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
      np.save(file, array)
    os.replace(file.name, path)
  except OSError:
    logging.getLogger(__name__).info('%s cannot be written', path)
