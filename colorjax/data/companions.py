"""Images that belong to photographs by their names: masks, painted hints.

That of `roses/1.jpg` is `roses/1.png`, or another of photo.SUFFIXES, below
their own folder.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

from colorjax import photo
from colorjax.errors import UserError

_NAMED_MISSING = 3  # photographs without an image that a message names


def by_name(path: str | os.PathLike, what: str) -> dict[str, pathlib.Path]:
  """The images of a folder by their names without ending.

  Args:
    path: the folder.
    what: what messages call an image, 'mask' for example.

  Returns:
    Paths by names relative to the folder.

  Raises:
    UserError: no such folder, no images in it, or two for one name.
  """
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    kind = 'is a file, not a folder' if root.exists() else 'does not exist'
    raise UserError(f'{what}s folder:{path}: {root} {kind}')
  images: dict[str, pathlib.Path] = {}
  for file in sorted(root.rglob('*')):
    if file.suffix.lower() in photo.SUFFIXES and file.is_file():
      other = images.setdefault(_stem(file.relative_to(root)), file)
      if other != file:
        raise UserError(f'{what}s folder:{path}: {other} and {file} are both '
                        f'the {what} of one photograph; remove one')
  if not images:
    raise UserError(
        f'{what}s folder:{path}: no images in {root} or below it')
  return images


def pair(names: Sequence[str], of: str, images: Mapping[str, pathlib.Path],
         path: str | os.PathLike, what: str) -> list[pathlib.Path]:
  """The image of each photograph.

  Args:
    names: of the photographs, relative to their folder.
    of: what messages call the photographs.
    images: what `by_name` gave of `path`.
    path: as in `by_name`.
    what: as in `by_name`.

  Returns:
    A path for each name.

  Raises:
    UserError: photographs have no image; it counts and names them.
  """
  missing = [name for name in names if _stem(name) not in images]
  if missing:
    first = ', '.join(missing[:_NAMED_MISSING])
    raise UserError(
        f'{what}s folder:{path}: {len(missing)} of the {len(names)} '
        f'photographs of {of} have no {what}, first {first}; the {what} of '
        f'{missing[0]} has to be {_stem(missing[0])}.png')
  return [images[_stem(name)] for name in names]


def _stem(name: str | pathlib.PurePath) -> str:
  return pathlib.PurePath(name).with_suffix('').as_posix()
