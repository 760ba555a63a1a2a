"""A private temporary folder for uploaded files.

The folder belongs to one process, which holds a lock on a file inside. It is
removed when the process ends. If the process was killed, the system has
released its lock, and the next start removes the folder.
"""

import asyncio
import contextlib
import fcntl
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator

PREFIX = 'colorjax-studio-'
"""How the names of the folders begin."""

_LOCK = 'lock'
_GRACE = 60.0  # seconds in which a new folder may be without its lock file


@contextlib.contextmanager
def private_folder(root: str | os.PathLike | None = None
                   ) -> Iterator[pathlib.Path]:
  """Makes a folder that only this user can read, and removes it at the end.

  Args:
    root: where it is made; None for the system's temporary folder.

  Yields:
    The folder.
  """
  root = pathlib.Path(root or tempfile.gettempdir())
  remove_abandoned(root)
  folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
  lock = os.open(folder / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def remove_abandoned(root: pathlib.Path) -> None:
  """Removes the folders of processes that have ended without doing so.

  Args:
    root: where the folders are.
  """
  for entry in list(os.scandir(root)):
    with contextlib.suppress(OSError):
      if (entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
          and entry.stat(follow_symlinks=False).st_uid == os.getuid()):
        _remove_if_abandoned(pathlib.Path(entry.path))


def _remove_if_abandoned(folder: pathlib.Path) -> None:
  try:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
  except FileNotFoundError:
    if time.time() - folder.stat().st_mtime > _GRACE:
      shutil.rmtree(folder, ignore_errors=True)
    return
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(folder, ignore_errors=True)
  except BlockingIOError:
    pass  # its process is alive
  finally:
    os.close(lock)


class TooLarge(Exception):
  """A file is larger than allowed."""


async def receive(chunks: AsyncIterator[bytes], folder: pathlib.Path, *,
                  limit: int, stall_seconds: float, seconds: float
                  ) -> pathlib.Path:
  """Writes what arrives to a new file; nothing is left of it after an error.

  Args:
    chunks: the bytes of the file, as they arrive.
    folder: where the file is made.
    limit: largest number of bytes.
    stall_seconds: longest time without a chunk.
    seconds: longest time in all.

  Returns:
    The file, whose name nothing from outside has a part in.

  Raises:
    TooLarge: there are more bytes.
    TimeoutError: it took longer.
  """
  file = folder / secrets.token_hex(16)
  size = 0
  try:
    async with asyncio.timeout(seconds):
      with file.open('xb') as out:
        while True:
          async with asyncio.timeout(stall_seconds):
            try:
              chunk = await anext(chunks)
            except StopAsyncIteration:
              return file
          size += len(chunk)
          if size > limit:
            raise TooLarge
          out.write(chunk)
  except BaseException:
    file.unlink(missing_ok=True)
    raise
