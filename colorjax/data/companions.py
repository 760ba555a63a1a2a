"""Pairs photographs with other images by name: masks, painted hints.

The companion of `roses/1.jpg` is `roses/1.png` in the companions' own folder.
Any file name ending of photo.SUFFIXES is accepted.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

from colorjax.data import folders
from colorjax.errors import UserError

_MAX_NAMED = 3  # photographs without a companion that an error lists


PathsOf = Callable[[Sequence[str], str], list[pathlib.Path]]
"""`(names, source) -> paths`, the path of the companion of each photograph.

`names` are the photographs' names relative to their folder; `source` is the
name of the set of photographs, for error messages. Raises UserError if
photographs have no companion, with their number and the first names.
"""


def folder(path: str | os.PathLike, what: str) -> PathsOf:
  """Lists the images of a folder and returns a function that pairs them.

  Args:
    path: the folder.
    what: the noun for an image in error messages, for example 'mask'.

  Returns:
    The pairing function.

  Raises:
    UserError: the folder does not exist, cannot be read, holds no images, or
      holds two images with the same stem.
  """
  images = _by_name(path, what)

  def paths_of(names, source):
    missing = [name for name in names if _stem(name) not in images]
    if missing:
      first = ', '.join(missing[:_MAX_NAMED])
      raise UserError(
          f'{what}s folder:{path}: {len(missing)} of the {len(names)} '
          f'photographs of {source} have no {what}, for example {first}; '
          f'name the {what} of {missing[0]} {_stem(missing[0])}.png')
    return [images[_stem(name)] for name in names]

  return paths_of


def _by_name(path: str | os.PathLike, what: str) -> dict[str, pathlib.Path]:
  """Maps names without ending to the images of a folder."""
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
                      f'a {what} of the same photograph; remove one')
  if not images:
    raise UserError(
        f'{what}s folder:{path}: no images in {root} or below it')
  return images


def _stem(name: str | pathlib.PurePath) -> str:
  return pathlib.PurePath(name).with_suffix('').as_posix()
