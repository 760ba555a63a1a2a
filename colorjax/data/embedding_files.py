"""The files of a cache of embeddings, and what makes them safe.

  record.json      what the embeddings are of, for people
  embeddings.npy   float32 [N, E], a row for each photograph of the source
  done.npy         bool [N], which rows are computed
  lock             held by the process that computes

Whoever fills rows flushes them before it marks them. A file is whole or not
there at all, so a process may be killed at any moment.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Literal

import numpy as np

from colorjax import files
from colorjax.errors import UserError

RECORD, ROWS, DONE, LOCK = (
    'record.json', 'embeddings.npy', 'done.npy', 'lock')
"""Files of a cache."""


@contextlib.contextmanager
def locked(folder: pathlib.Path, report: Callable[[str], None]
           ) -> Iterator[None]:
  """Keeps other processes from computing the same rows meanwhile.

  Args:
    folder: of the cache; made if need be.
    report: is told if there is another process to wait for.

  Yields:
    Once the cache is ours. OSError if the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / LOCK).open('a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      report(f'another process is computing the embeddings in {folder}: '
             'waiting for it')
      fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
      pass  # Without locks (some NFS) both compute, and write the same.
    yield


def write_record(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes what the embeddings are of, JSON values, unless it is there."""
  path = folder / RECORD
  if not path.exists():
    with files.replacing(path) as temporary:
      temporary.write_text(json.dumps(record, indent=2) + '\n')


def finished(folder: pathlib.Path, shape: tuple[int, int]) -> np.memmap | None:
  """The rows, read-only, if all of them are computed.

  Args:
    folder: of the cache, perhaps somebody else's; nothing is written.
    shape: N and E.

  Returns:
    float32 [N, E], or None. UserError if a file is damaged.
  """
  if not ((folder / ROWS).exists() and (folder / DONE).exists()):
    return None
  if not _map(folder / DONE, np.bool_, shape[:1], 'r').all():
    return None
  return _map(folder / ROWS, np.float32, shape, 'r')


def open_writable(folder: pathlib.Path, shape: tuple[int, int]
                  ) -> tuple[np.memmap, np.memmap]:
  """The rows and which of them are computed, mapped from their files.

  Args:
    folder: of the cache, which is ours; files that are missing are made.
    shape: N and E.

  Returns:
    float32 [N, E] and bool [N], both to be written to and flushed. UserError
    if a file is damaged, OSError if one cannot be written.
  """
  if not ((folder / ROWS).exists() and (folder / DONE).exists()):
    # In this order: marks never outlive the rows that they speak of.
    (folder / DONE).unlink(missing_ok=True)
    _create(folder / ROWS, np.float32, shape)
    _create(folder / DONE, np.bool_, shape[:1])
  return (_map(folder / ROWS, np.float32, shape, 'r+'),
          _map(folder / DONE, np.bool_, shape[:1], 'r+'))


def _create(path: pathlib.Path, dtype: Any, shape: tuple[int, ...]) -> None:
  """A file of zeros, whole or not there at all."""
  with files.replacing(path) as temporary:
    np.lib.format.open_memmap(temporary, 'w+', dtype, shape).flush()
    with temporary.open('r+b') as file:
      _reserve(file)


def _reserve(file: IO[bytes]) -> None:
  """Takes the file's space now: a disk that fills up later would be fatal.

  Writing to a mapped file for which there is no space ends the process.
  """
  if hasattr(os, 'posix_fallocate'):
    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _map(path: pathlib.Path, dtype: Any, shape: tuple[int, ...],
         mode: Literal['r', 'r+']) -> np.memmap:
  try:
    array = np.load(path, mmap_mode=mode)
  except (ValueError, EOFError) as error:
    raise UserError(f'{path} is damaged: delete its folder to compute the '
                    'embeddings anew') from error
  if array.dtype != dtype or array.shape != shape:
    raise UserError(f'{path} holds {array.dtype} {list(array.shape)} and not '
                    f'{np.dtype(dtype)} {list(shape)}: delete its folder to '
                    'compute the embeddings anew')
  return array
