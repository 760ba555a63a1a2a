"""Selects photographs for an evaluation, and hashes their pixels.

Results are comparable if they were measured on the same photographs in the same
order. File names define the selection, and a hash of the pixels verifies it.
"""

import codecs
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from colorjax import photo
from colorjax.data.source import Source, SourceError
from colorjax.errors import UserError

_NUM_EXAMPLES = 3  # names that a message lists


def without_suffix(label: str) -> str:
  """The name or path of a photograph without a suffix like `.jpg` or `.PNG`.

  Only suffixes in photo.SUFFIXES are removed.
  """
  root, suffix = os.path.splitext(label)
  return root if suffix.lower() in photo.SUFFIXES else label


def stem(label: str) -> str:
  """The base name of a photograph without its suffix."""
  return without_suffix(os.path.basename(label))


def examples(names: Sequence[str]) -> str:
  """The first few names for a message: 'a, b, c and 7 more'."""
  text = ', '.join(names[:_NUM_EXAMPLES])
  more = len(names) - _NUM_EXAMPLES
  return f'{text} and {more} more' if more > 0 else text


def read_names(path: str | os.PathLike) -> list[str]:
  """Reads a list of file names, one per line. Empty lines are skipped.

  Args:
    path: a text file. Bytes that are not UTF-8 are read as `\\xNN`, as in the
      labels of a source.

  Returns:
    The names, in the order of the file.

  Raises:
    UserError: the file cannot be read, is not a text file, or has no names.
  """
  try:
    content = pathlib.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise UserError(f'{path}: {error.strerror or error}') from error
  if b'\0' in content:  # UTF-16, a picture, an archive
    raise UserError(
        f'{path} is not a UTF-8 text file; write one file name per line')
  text = content.removeprefix(codecs.BOM_UTF8).decode(
      'utf-8', 'backslashreplace')
  # Not splitlines: it also splits at characters that names may contain.
  names = [line.strip() for line in re.split('[\r\n]', text) if line.strip()]
  if not names:
    raise UserError(f'{path} is empty; write one file name per line')
  return names


def choose(source: Source, *, count: int | None = None,
           names: Sequence[str] | None = None) -> Source:
  """Selects photographs of a source, in an order given by their names only.

  Without `names`, photographs are sorted by base name, ignoring folders, and
  then by whole label. The first 5,000 of ImageNet are therefore the same if
  they are in one folder, in one folder per class, or read from TFDS.

  Args:
    source: the photographs.
    count: number of photographs to take from the start; None for all.
    names: photographs to take, in this order. A name matches the photograph
      with the same base name, ignoring the suffix. If several match, the
      folders decide, and then the suffix.

  Returns:
    A source of the selected photographs, with unchanged labels.

  Raises:
    UserError: there are fewer photographs than `count`; a name matches no
      photograph or several; a photograph is named twice.
  """
  if count is not None and count < 1:
    raise UserError(f'{source.name}: the number of photographs must be at '
                    f'least 1, got {count}')
  labels = [source.label(i) for i in range(source.size)]
  if names is None:
    indices = sorted(range(source.size), key=lambda i: (
        os.path.basename(labels[i]), labels[i]))
  else:
    indices = _find_all(source.name, labels, names)
  if count is not None and count > len(indices):
    what = 'photographs' if names is None else 'names in the list'
    raise UserError(f'{source.name}: {count} photographs are needed, but there '
                    f'are only {len(indices)} {what}')
  chosen = indices[:count]
  return dataclasses.replace(
      source, size=len(chosen), read=lambda i: source.read(chosen[i]),
      label=lambda i: labels[chosen[i]],
      stamp=lambda i: source.stamp(chosen[i]))


def photo_digest(pixels: np.ndarray) -> bytes:
  """SHA-256 of the shape and the pixels of a photograph.

  Args:
    pixels: uint8, of any shape.

  Returns:
    The digest, 32 bytes.

  Raises:
    ValueError: the pixels are not uint8.
  """
  if pixels.dtype != np.uint8:
    raise ValueError(f'pixels must be uint8, got {pixels.dtype}')
  header = f'{list(pixels.shape)}\n'.encode()
  return hashlib.sha256(header + pixels.tobytes()).digest()


def set_digest(digests: Iterable[bytes]) -> str:
  """SHA-256 of a sequence of photographs, in hexadecimal.

  Args:
    digests: `photo_digest` of each photograph, in order.
  """
  return hashlib.sha256(b''.join(digests)).hexdigest()


def _find_all(source_name: str, labels: Sequence[str], names: Sequence[str]
              ) -> list[int]:
  """Indices of the named photographs, in the order of the names."""
  by_stem: dict[str, list[int]] = {}
  for i, label in enumerate(labels):
    by_stem.setdefault(stem(label), []).append(i)
  missing = [name for name in names if stem(name) not in by_stem]
  if missing:
    raise UserError(f'{source_name}: {len(missing)} of {len(names)} '
                    f'photographs of the list are missing: {examples(missing)}')
  indices: dict[int, str] = {}
  for name in names:
    index = _find(source_name, labels, by_stem[stem(name)], name)
    if index in indices:
      raise UserError(
          f'{source_name}: the list names {labels[index]} twice, as '
          f'{indices[index]} and as {name}; remove one')
    indices[index] = name
  return list(indices)


def _find(source_name: str, labels: Sequence[str], candidates: list[int],
          name: str) -> int:
  """The candidate that `name` matches; all candidates have its stem."""
  def matching(normalize):
    return [i for i in candidates if f'/{normalize(labels[i])}'.endswith(
        f'/{normalize(name)}')]

  for matches in (candidates, matching(without_suffix), matching(str)):
    if len(matches) == 1:
      return matches[0]
  raise SourceError(
      f'{source_name}: {name} of the list matches both '
      f'{labels[candidates[0]]} and {labels[candidates[1]]}; add its folder or '
      'suffix')
