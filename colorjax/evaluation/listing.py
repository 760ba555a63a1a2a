"""A fixed choice of photographs, and the hash that proves it was kept.

Results are comparable if they were measured on the same photographs in the same
order. Names say which those are; a hash of the pixels says that they were.
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

_NAMED = 3  # names that an error gives as examples


def without_suffix(label: str) -> str:
  """A photograph's name or path without `.jpg`, `.PNG` and the like.

  Endings that are none of photo.SUFFIXES are part of the name.
  """
  root, suffix = os.path.splitext(label)
  return root if suffix.lower() in photo.SUFFIXES else label


def stem(label: str) -> str:
  """The base name of a photograph without its suffix."""
  return without_suffix(os.path.basename(label))


def examples(names: Sequence[str]) -> str:
  """The first few names for a message: 'a, b, c and 7 more'."""
  text = ', '.join(names[:_NAMED])
  more = len(names) - _NAMED
  return f'{text} and {more} more' if more > 0 else text


def read_names(path: str | os.PathLike) -> list[str]:
  """A list of file names, one a line; empty lines are passed over.

  Args:
    path: a text file. A name that is not UTF-8 is read as labels have it,
      with `\\xNN` for its bytes.

  Returns:
    The names, in the order of the file.

  Raises:
    UserError: the file cannot be read, is no text, or holds no name.
  """
  try:
    content = pathlib.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise UserError(f'{path}: {error.strerror or error}') from error
  if b'\0' in content:  # UTF-16, a picture, an archive
    raise UserError(
        f'{path} is not a text in UTF-8; a list holds one file name a line')
  text = content.removeprefix(codecs.BOM_UTF8).decode(
      'utf-8', 'backslashreplace')
  # Not splitlines: names may hold characters that it takes for ends of lines.
  names = [line.strip() for line in re.split('[\r\n]', text) if line.strip()]
  if not names:
    raise UserError(f'{path} holds no file names')
  return names


def choose(source: Source, *, count: int | None = None,
           names: Sequence[str] | None = None) -> Source:
  """Some photographs of a source, in an order that depends on names alone.

  Without `names` the order is that of base names as plain text, whatever
  folders they lie in, and then of whole labels: the first 5,000 of ImageNet are
  the same from one folder, from a folder a class and from TFDS.

  Args:
    source: the photographs.
    count: how many, the first ones; None for all.
    names: which, in this order. A name stands for the photograph with this base
      name, suffix left aside; folders, and then the suffix, decide where
      several have it.

  Returns:
    A source of the chosen photographs, labels unchanged.

  Raises:
    UserError: fewer photographs than `count`; names that no photograph has, or
      that several have; a photograph that is named twice.
  """
  if count is not None and count < 1:
    raise UserError(f'{source.name}: {count} photographs cannot be chosen; '
                    'take 1 or more')
  labels = [source.label(i) for i in range(source.size)]
  if names is None:
    indices = sorted(range(source.size), key=lambda i: (
        os.path.basename(labels[i]), labels[i]))
  else:
    indices = _find_all(source.name, labels, names)
  if count is not None and count > len(indices):
    what = 'photographs' if names is None else 'names in the list'
    raise UserError(f'{source.name}: {count} photographs are asked for, and '
                    f'there are {len(indices)} {what}')
  chosen = indices[:count]
  return dataclasses.replace(
      source, size=len(chosen), read=lambda i: source.read(chosen[i]),
      label=lambda i: labels[chosen[i]],
      stamp=lambda i: source.stamp(chosen[i]))


def photo_digest(pixels: np.ndarray) -> bytes:
  """SHA-256 of a photograph's shape and pixels, 32 bytes.

  Args:
    pixels: uint8, of any shape.

  Returns:
    The digest; its label does not count.
  """
  if pixels.dtype != np.uint8:
    raise ValueError(f'pixels are uint8, got {pixels.dtype}')
  header = f'{list(pixels.shape)}\n'.encode()
  return hashlib.sha256(header + pixels.tobytes()).digest()


def set_digest(digests: Iterable[bytes]) -> str:
  """SHA-256 of photographs in order, from the `photo_digest` of each."""
  return hashlib.sha256(b''.join(digests)).hexdigest()


class PixelHash:
  """The `set_digest` of photographs that come a batch at a time.

  It depends on the photographs and their order, not on how they are cut into
  batches. What has to be resumed keeps the digests instead.
  """

  def __init__(self):
    """No photographs yet."""
    self._digest = hashlib.sha256()

  def update(self, images: np.ndarray) -> None:
    """Adds photographs, uint8 [n, S, S, 3], in their order."""
    for image in images:
      self._digest.update(photo_digest(image))

  def hexdigest(self) -> str:
    """The hash of all photographs so far, 64 hexadecimal digits."""
    return self._digest.hexdigest()


def _find_all(source_name: str, labels: Sequence[str], names: Sequence[str]
              ) -> list[int]:
  by_stem: dict[str, list[int]] = {}
  for i, label in enumerate(labels):
    by_stem.setdefault(stem(label), []).append(i)
  missing = [name for name in names if stem(name) not in by_stem]
  if missing:
    raise UserError(f'{source_name} lacks {len(missing)} of {len(names)} '
                    f'photographs of the list: {examples(missing)}')
  indices: dict[int, str] = {}
  for name in names:
    index = _find(source_name, labels, by_stem[stem(name)], name)
    if index in indices:
      raise UserError(
          f'the list names {source_name}: {labels[index]} twice, as '
          f'{indices[index]} and as {name}; keep one')
    indices[index] = name
  return list(indices)


def _find(source_name: str, labels: Sequence[str], candidates: list[int],
          name: str) -> int:
  """The one of the candidates, all of the same stem, that is meant."""
  def ending(of):
    return [i for i in candidates if f'/{of(labels[i])}'.endswith(
        f'/{of(name)}')]

  for few in (candidates, ending(without_suffix), ending(str)):
    if len(few) == 1:
      return few[0]
  raise SourceError(
      f'{source_name}: {name} of the list may be {labels[candidates[0]]} or '
      f'{labels[candidates[1]]}; give its folder or suffix')
