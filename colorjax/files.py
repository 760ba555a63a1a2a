"""Files that are written whole or not at all, and JSON.

The content goes to a temporary file in the same folder, which then takes the
name of the file. A reader sees the old file or the new one, never a part, also
where the process is killed, the disk is full or the power fails. The name of
the temporary file is short, so every legal name can be written. Nothing here
imports JAX or NumPy.
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

# Paths that are not UTF-8 reach Python as text with lone surrogates. They are
# written back as the bytes that they were.
_ENCODING, _ERRORS = 'utf-8', 'surrogateescape'


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[pathlib.Path]:
  """A temporary path, whose file replaces `path` when the block has ended.

  For writers that need a path, and callers that need the OSError. If the block
  raises, the temporary file is removed and `path` stays as it was. A symbolic
  link is replaced, not followed.

  Args:
    path: the file; its folder must exist.

  Yields:
    A path in the same folder that no file has yet.

  Raises:
    OSError: the temporary file cannot be flushed or moved.
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
  """Writes a file whole or not at all.

  Args:
    path: the file; one that is there is replaced, its folder must exist.
    content: all of it.

  Raises:
    UserError: the file cannot be written; one line, file and reason.
  """
  try:
    with replacing(path) as temporary:
      temporary.write_bytes(content)
  except OSError as error:
    raise UserError(
        f'{path}: cannot be written: {error.strerror or error}') from error


def write_text(path: PathLike, text: str) -> None:
  """`write_bytes` of text as UTF-8; line ends stay as they are."""
  write_bytes(path, text.encode(_ENCODING, _ERRORS))


def write_json(path: PathLike, value: Any, *, indent: int | None = 2) -> None:
  """`write_bytes` of a JSON value.

  Args:
    path: see `write_bytes`.
    value: what `json.dumps` takes.
    indent: spaces a level; None for one line.

  Raises:
    UserError: see `write_bytes`.
    ValueError: a number is not finite, which JSON does not know.
  """
  text = json.dumps(value, indent=indent, allow_nan=False)
  write_bytes(path, f'{text}\n'.encode())


def read_text(path: PathLike) -> str:
  """The text of a UTF-8 file, as `write_text` takes it.

  Raises:
    UserError: the file cannot be read; one line, file and reason.
  """
  try:
    return pathlib.Path(path).read_bytes().decode(_ENCODING, _ERRORS)
  except OSError as error:
    raise UserError(
        f'{path}: cannot be read: {error.strerror or error}') from error


def read_json(path: PathLike) -> Any:
  """The value of a JSON file.

  Raises:
    UserError: the file cannot be read, or holds no JSON; one line, file and
      reason.
  """
  text = read_text(path)
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: is not valid JSON: {error}') from error
