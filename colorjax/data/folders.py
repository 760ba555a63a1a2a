"""Sources of photographs in files: any folder, and scikit-image's own data."""

import collections
import dataclasses
import os
import pathlib
import re

import skimage

from colorjax import photo
from colorjax.data.source import (
  Source,
  SourceError,
  in_memory,
  stamp_of_file,
)

BUNDLED_HELD_OUT = ('chelsea.png', 'coffee.png')
"""Color photographs of scikit-image that are used for evaluation only."""

BUNDLED_TRAIN = (
    'astronaut.png', 'hubble_deep_field.jpg', 'motorcycle_left.png',
    'motorcycle_right.png', 'retina.jpg', 'rocket.jpg')
"""Color photographs of scikit-image that are used for training."""


def bundled(*, train: bool) -> Source:
  """Opens the color photographs that are installed with scikit-image.

  Args:
    train: True for BUNDLED_TRAIN, False for BUNDLED_HELD_OUT.

  Returns:
    The source; it keeps the decoded photographs in memory.
  """
  folder_path = pathlib.Path(skimage.__file__).parent / 'data'
  names = BUNDLED_TRAIN if train else BUNDLED_HELD_OUT
  return in_memory(_of_files('bundled', folder_path, list(names)))


def folder(path: str | os.PathLike) -> Source:
  """Opens the photographs of a folder and of all folders below it.

  A photograph is a file whose name ends in one of photo.SUFFIXES, in upper or
  lower case. Hidden files and folders are ignored. The order is that of a file
  manager (`2.jpg` before `10.jpg`) and depends on the names alone. Symbolic
  links to folders are followed; each real folder is entered once.

  Args:
    path: the folder.

  Returns:
    The source; labels are paths relative to the folder.

  Raises:
    SourceError: the folder does not exist, it or a folder below it cannot be
      read, or there are no photographs.
  """
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    what = 'is a file, not a folder' if root.exists() else 'does not exist'
    raise SourceError(f'folder:{path}: {root} {what}')
  found = walk(root)
  for name, reason in found.locked:
    raise SourceError(f'folder:{path}: {root / name}: {reason}')
  if not found.names:
    others = ''.join(
        f'; {count} {ending} cannot be read, convert them to png with '
        f'{photo.NOT_READ[ending]}' for ending, count in found.not_read.items())
    raise SourceError(
        f'folder:{path}: no photographs in {root} or below it; their names '
        f'must end in {" ".join(photo.SUFFIXES)}{others}')
  return _of_files(f'folder:{path}', root, found.names)


def _of_files(name: str, root: pathlib.Path, names: list[str]) -> Source:
  """The source of some files below a folder."""
  # Paths are kept as strings: a million Path objects would take a gigabyte.
  def read(index):
    return photo.to_rgb8(photo.read(os.path.join(root, names[index])))

  def read_reduced(index, reduce):
    path = os.path.join(root, names[index])
    return photo.read_reduced(photo.read_file(path), path, reduce)

  def label(index):
    # A name that is not valid UTF-8 could not be printed otherwise.
    return os.fsencode(names[index]).decode('utf-8', 'backslashreplace')

  def stamp(index):
    # The folder is left out, so that a moved folder keeps its stamps.
    path = os.path.join(root, names[index])
    found = stamp_of_file(path)
    return found._replace(content=f'{names[index]!r} {found.content}')

  return Source(name=name, size=len(names), read=read, label=label, stamp=stamp,
                read_reduced=read_reduced)


def _natural(name: str) -> tuple[list[list[tuple[int, int, str]]], str]:
  """Sort key: folder by folder, with digits compared as numbers."""
  key = [[(0, int(part), '') if part.isdecimal() else (1, 0, part)
          for part in re.split(r'([0-9]+)', level) if part]
         for level in name.split(os.sep)]
  return key, name


@dataclasses.dataclass(frozen=True)
class Walk:
  """The contents of a folder and of the folders below it.

  Attributes:
    names: paths of the photographs relative to the folder, in the order of a
      file manager.
    locked: relative paths of the folders that cannot be read, each with the
      reason.
    not_read: number of files for each file name ending of photo.NOT_READ.
  """
  names: list[str]
  locked: list[tuple[str, str]]
  not_read: dict[str, int]


def walk(root: str | os.PathLike, *, without: str | os.PathLike | None = None
         ) -> Walk:
  """Searches a folder for photographs, by the rules of `folder`.

  Args:
    root: the folder.
    without: a folder to leave out, with everything below it.

  Returns:
    The photographs, unreadable folders and unsupported files.
  """
  top = os.fspath(root)
  entered = {os.path.realpath(top)}
  if without is not None:
    entered.add(os.path.realpath(without))
  names: list[str] = []
  locked: list[tuple[str, str]] = []
  not_read: collections.Counter[str] = collections.Counter()
  waiting = ['']
  while waiting:
    level = waiting.pop()
    try:
      with os.scandir(os.path.join(top, level)) as scanned:
        # Sorted, so that the choice between two links to the same folder does
        # not depend on the file system.
        entries = sorted(scanned, key=lambda e: _natural(e.name))
    except OSError as error:
      locked.append((level, error.strerror or str(error)))
      continue
    for entry in entries:
      name = os.path.join(level, entry.name)
      if entry.name.startswith('.'):
        continue
      ending = os.path.splitext(entry.name)[1].lower()
      if _is_folder(entry):
        real = os.path.realpath(entry.path)
        if real not in entered:
          entered.add(real)
          waiting.append(name)
      elif ending in photo.SUFFIXES:
        if _may_be_photo(entry):
          names.append(name)
      elif ending in photo.NOT_READ:
        not_read[ending] += 1
  return Walk(sorted(names, key=_natural), sorted(locked),
              dict(sorted(not_read.items())))


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a circular link, or one through an unreadable folder
    return False


def _may_be_photo(entry: os.DirEntry) -> bool:
  # A broken link counts as a photograph, so that it is reported as unreadable.
  # A socket or a pipe does not: reading it would hang.
  try:
    return entry.is_file() or (
        entry.is_symlink() and not os.path.exists(entry.path))
  except OSError:  # The error is reported when the file is read.
    return True
