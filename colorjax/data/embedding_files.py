"""The files of an embedding cache, safe against crashes and parallel writers.

  record.json      describes the photographs and the network, for people
  embeddings.npy   float32 [N, E], a row for each photograph of the source
  done.npy         bool [N], which rows are computed
  lock             held by the process that computes rows

Callers must flush rows to disk before they mark them as done. Each file is
created atomically. So a process may be killed at any moment.
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
"""Names of the files of a cache."""


@contextlib.contextmanager
def locked(folder: pathlib.Path, report: Callable[[str], None]
           ) -> Iterator[None]:
  """Holds the lock of a cache, so that no other process computes its rows.

  Args:
    folder: folder of the cache; created if it does not exist.
    report: called with a line if another process holds the lock.

  Yields:
    None, as soon as the lock is held.

  Raises:
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / LOCK).open('a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      report(f'waiting for another process that computes the embeddings in '
             f'{folder}')
      fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
      # Some network file systems have no locks. Both processes then compute
      # the rows, and write the same values.
      pass
    yield


def write_record(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes the description of the cache as JSON, unless the file exists."""
  path = folder / RECORD
  if not path.exists():
    with files.replacing(path) as temporary:
      temporary.write_text(json.dumps(record, indent=2) + '\n')


def finished(folder: pathlib.Path, shape: tuple[int, int]) -> np.memmap | None:
  """Opens the rows read-only if all of them are computed.

  Args:
    folder: folder of the cache; nothing is written to it.
    shape: N and E.

  Returns:
    float32 [N, E], or None if rows are missing.

  Raises:
    UserError: a file is damaged.
  """
  if not ((folder / ROWS).exists() and (folder / DONE).exists()):
    return None
  if not _map(folder / DONE, np.bool_, shape[:1], 'r').all():
    return None
  return _map(folder / ROWS, np.float32, shape, 'r')


def open_writable(folder: pathlib.Path, shape: tuple[int, int]
                  ) -> tuple[np.memmap, np.memmap]:
  """Opens the rows and their done marks for writing.

  Args:
    folder: folder of the cache, with the lock held; missing files are created.
    shape: N and E.

  Returns:
    float32 [N, E] and bool [N], memory-mapped; the caller writes and flushes.

  Raises:
    UserError: a file is damaged.
    OSError: a file cannot be written.
  """
  if not ((folder / ROWS).exists() and (folder / DONE).exists()):
    # The marks are deleted first: they must never exist without their rows.
    (folder / DONE).unlink(missing_ok=True)
    _create(folder / ROWS, np.float32, shape)
    _create(folder / DONE, np.bool_, shape[:1])
  return (_map(folder / ROWS, np.float32, shape, 'r+'),
          _map(folder / DONE, np.bool_, shape[:1], 'r+'))


def _create(path: pathlib.Path, dtype: Any, shape: tuple[int, ...]) -> None:
  """Creates a file of zeros atomically."""
  with files.replacing(path) as temporary:
    np.lib.format.open_memmap(temporary, 'w+', dtype, shape).flush()
    with temporary.open('r+b') as file:
      _reserve(file)


def _reserve(file: IO[bytes]) -> None:
  """Reserves the file's space on disk.

  Without this, a disk that fills up later would kill the process with SIGBUS
  when it writes to the mapped file.
  """
  if hasattr(os, 'posix_fallocate'):
    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _map(path: pathlib.Path, dtype: Any, shape: tuple[int, ...],
         mode: Literal['r', 'r+']) -> np.memmap:
  try:
    array = np.load(path, mmap_mode=mode)
  except (ValueError, EOFError) as error:
    raise UserError(f'{path} is damaged: delete its folder to compute the '
                    'embeddings again') from error
  if array.dtype != dtype or array.shape != shape:
    raise UserError(f'{path} holds {array.dtype} {list(array.shape)} instead '
                    f'of {np.dtype(dtype)} {list(shape)}: delete its folder to '
                    'compute the embeddings again')
  return array
