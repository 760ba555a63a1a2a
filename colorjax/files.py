"""Atomic writing of files, and reading and writing of JSON.

The content is written to a temporary file in the same folder, which is then
renamed. A reader sees either the old file or the new one, never a part, even if
the process is killed, the disk is full or the power fails. The name of the
temporary file is short, so that files with names of maximum length can be
written. This module imports neither JAX nor NumPy.
"""

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Any

from colorjax.errors import UserError

PathLike = str | os.PathLike[str]

# Python represents paths that are not UTF-8 as text with lone surrogates. This
# error handler writes them as the original bytes.
_ENCODING, _ERRORS = 'utf-8', 'surrogateescape'


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path whose file replaces `path` at the end of the block.

  Use it for writers that need a path, or to handle OSError; `write_bytes` is
  simpler. If the block raises an exception, the temporary file is removed and
  `path` is not changed. A symbolic link is replaced, not followed.

  Args:
    path: the file; its folder must exist.

  Yields:
    An unused path in the same folder.

  Raises:
    OSError: the temporary file cannot be flushed or renamed.
  """
  path = pathlib.Path(path)
  temporary = path.parent / f'.{secrets.token_hex(8)}.tmp'
  try:
    yield temporary
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def write_bytes(path: PathLike, content: bytes) -> None:
  """Writes a file atomically.

  Args:
    path: the file; an existing one is replaced, and its folder must exist.
    content: the new content.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    with replacing(path) as temporary:
      temporary.write_bytes(content)
  except OSError as error:
    raise UserError(
        f'{path}: cannot be written: {error.strerror or error}') from error


def write_text(path: PathLike, text: str) -> None:
  """Writes a text file atomically, in UTF-8.

  Args:
    path: as in `write_bytes`.
    text: the new content; line ends are not changed.

  Raises:
    UserError: the file cannot be written.
  """
  write_bytes(path, text.encode(_ENCODING, _ERRORS))


def write_json(path: PathLike, value: Any, *, indent: int | None = 2) -> None:
  """Writes a JSON file atomically.

  Args:
    path: as in `write_bytes`.
    value: a value that `json.dumps` accepts.
    indent: spaces per level; None for one line.

  Raises:
    UserError: the file cannot be written.
    ValueError: a number is not finite, which JSON cannot represent.
  """
  text = json.dumps(value, indent=indent, allow_nan=False)
  write_bytes(path, f'{text}\n'.encode())


def read_text(path: PathLike) -> str:
  """Reads a text file that `write_text` wrote.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    return pathlib.Path(path).read_bytes().decode(_ENCODING, _ERRORS)
  except OSError as error:
    raise UserError(
        f'{path}: cannot be read: {error.strerror or error}') from error


def read_json(path: PathLike) -> Any:
  """Reads a JSON file.

  Raises:
    UserError: the file cannot be read or is not valid JSON.
  """
  text = read_text(path)
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: is not valid JSON: {error}') from error
