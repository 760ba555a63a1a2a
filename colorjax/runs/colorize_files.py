"""Finds the photographs to color, and chooses files for their colorings."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from colorjax import photo
from colorjax.data import folders
from colorjax.errors import UserError

_LONGEST_NAME = 255  # bytes; used if the file system does not report its limit


@dataclasses.dataclass(frozen=True)
class Found:
  """The photographs found in a file or folder.

  Attributes:
    paths: the photographs.
    refused: a line for each folder that cannot be entered, and for each image
      file format that cannot be read.
    num_refused: number of folders and image files that these lines stand for.
  """
  paths: list[pathlib.Path]
  refused: list[str] = dataclasses.field(default_factory=list)
  num_refused: int = 0


def find_photos(source: pathlib.Path, output: pathlib.Path) -> Found:
  """Finds the photographs to color, in the order of a file manager.

  They are found as for training (`folders.walk`): hidden files are ignored, and
  linked folders are followed once. The output folder is ignored if it is inside
  the input.

  Args:
    source: a file with any name, or a folder.
    output: the folder for colorings.

  Returns:
    Paths that begin with `source`, and the files and folders that cannot be
    read.

  Raises:
    UserError: there is no photograph, or input and output are the same folder.
  """
  if source.is_file():
    return Found([source])
  if not source.is_dir():
    raise UserError(f'{source}: no such file or folder')
  if source.resolve() == output.resolve():
    raise UserError(f'{output}: is also the input; choose another folder for '
                    'the output')
  walk = folders.walk(source, without=output)
  refused = [f'{source / name}: cannot be entered: {reason}'
             for name, reason in walk.locked]
  refused += [f'{count} {ending} in {source}: this format is not supported; '
              f'convert to png with {photo.NOT_READ[ending]}'
              for ending, count in walk.not_read.items()]
  if not walk.names:
    raise UserError('; '.join([
        f'{source}: holds no photograph ({" ".join(photo.SUFFIXES)})',
        *refused]))
  return Found([source / name for name in walk.names], refused,
               len(walk.locked) + sum(walk.not_read.values()))


def prepare(to: Sequence[pathlib.Path]) -> None:
  """Makes the folder of some files and checks the length of their names.

  Raises:
    UnwritablePhoto: the folder cannot be made, or a name is too long.
  """
  try:
    to[0].parent.mkdir(parents=True, exist_ok=True)
    longest = os.pathconf(to[0].parent, 'PC_NAME_MAX')
  except OSError as error:
    raise photo.UnwritablePhoto(
        f'{to[0]}: cannot be written: {error.strerror or error}') from error
  except (AttributeError, ValueError):  # this system does not report it
    longest = _LONGEST_NAME
  for file in to:
    length = len(os.fsencode(file.name))
    if length > longest:
      raise photo.UnwritablePhoto(
          f'{file}: cannot be written: its name has {length} bytes, and '
          f'{longest} are possible; give the photograph a shorter name')


def plan(paths: Sequence[pathlib.Path], source: pathlib.Path,
         output: pathlib.Path, file_format: str, *, num_proposals: int = 0
         ) -> dict[pathlib.Path, pathlib.Path]:
  """Chooses a different file for the coloring of each photograph.

  Args:
    paths: the photographs.
    source: the file or folder that they were found in.
    output: the folder for colorings.
    file_format: as in `colorize_all`.
    num_proposals: as in `colorize_all`.

  Returns:
    The file for each photograph.

  Raises:
    UserError: a coloring would replace a photograph of the input.
  """
  root = source if source.is_dir() else source.parent
  names = {path: path.stem for path in paths}
  targets: dict[pathlib.Path, pathlib.Path] = {}
  while len(set(targets.values())) < len(paths):
    # Repeated, because the full name of one photograph may equal the stem of
    # another.
    _use_full_names(names, targets)
    for path in paths:
      ending = path.suffix.lower() if file_format == 'same' else file_format
      ending = 'png' if ending in ('.gif', '') else ending.lstrip('.')
      targets[path] = (output / path.parent.relative_to(root) /
                       f'{names[path]}.{ending}')
  originals = {path.resolve() for path in paths}
  for path, target in targets.items():
    if any(file.resolve() in originals
           for file in outputs_of(target, num_proposals)):
      raise UserError(
          f'{output}: the coloring of {path} would replace a '
          'photograph of the input; choose another folder')
  return targets


def _use_full_names(names: dict[pathlib.Path, str],
                    targets: Mapping[pathlib.Path, pathlib.Path]) -> None:
  """Replaces the names of photographs with equal targets by full file names."""
  sharing: dict[pathlib.Path, list[pathlib.Path]] = {}
  for path, target in targets.items():
    sharing.setdefault(target, []).append(path)
  for paths in sharing.values():
    if len(paths) > 1:
      names.update({path: path.name for path in paths})


def outputs_of(target: pathlib.Path, num_proposals: int) -> list[pathlib.Path]:
  """Returns the files made from one photograph: colorings, then the sheet."""
  if not num_proposals:
    return [target]
  return [*(target.with_name(f'{target.stem}.{i}{target.suffix}')
            for i in range(num_proposals)),
          target.with_name(f'{target.stem}.sheet.png')]


def make_folder(path: pathlib.Path) -> None:
  """Makes a folder.

  Raises:
    UserError: it cannot be made or written to.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
        f'cannot make the folder {path}: {error.strerror}') from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise UserError(f'no permission to write to the folder {path}')
