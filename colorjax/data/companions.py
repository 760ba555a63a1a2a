"""Images that belong to photographs by their names: masks, painted hints.

That of `roses/1.jpg` is `roses/1.png`, or another of photo.SUFFIXES, below
their own folder.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

from colorjax.data import folders
from colorjax.errors import UserError

_NAMED_MISSING = 3  # photographs without an image that a message names


PathsOf = Callable[[Sequence[str], str], list[pathlib.Path]]
"""`(names, of) -> a path for each name`: names of photographs relative to their
folder, and what messages call these photographs. UserError where some have no
image; it counts and names them."""


def folder(path: str | os.PathLike, what: str) -> PathsOf:
  """The images of a folder, to be paired with photographs.

  Args:
    path: the folder.
    what: what messages call an image, 'mask' for example.

  Returns:
    What pairs them.

  Raises:
    UserError: no such folder, no images in it, or two for one name.
  """
  images = _by_name(path, what)

  def paths_of(names, of):
    missing = [name for name in names if _stem(name) not in images]
    if missing:
      first = ', '.join(missing[:_NAMED_MISSING])
      raise UserError(
          f'{what}s folder:{path}: {len(missing)} of the {len(names)} '
          f'photographs of {of} have no {what}, first {first}; the {what} of '
          f'{missing[0]} has to be {_stem(missing[0])}.png')
    return [images[_stem(name)] for name in names]

  return paths_of


def _by_name(path: str | os.PathLike, what: str) -> dict[str, pathlib.Path]:
  """The images of a folder by their names without ending."""
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    kind = 'is a file, not a folder' if root.exists() else 'does not exist'
    raise UserError(f'{what}s folder:{path}: {root} {kind}')
  images: dict[str, pathlib.Path] = {}
  found = folders.walk(root)
  for name, reason in found.locked:
    raise UserError(f'{what}s folder:{path}: {root / name}: {reason}')
  for name in found.names:
    file = root / name
    other = images.setdefault(_stem(name), file)
    if other != file:
      raise UserError(f'{what}s folder:{path}: {other} and {file} are both '
                      f'the {what} of one photograph; remove one')
  if not images:
    raise UserError(
        f'{what}s folder:{path}: no images in {root} or below it')
  return images


def _stem(name: str | pathlib.PurePath) -> str:
  return pathlib.PurePath(name).with_suffix('').as_posix()
