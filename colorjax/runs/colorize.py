"""Colors photographs in files: what `experiments.colorize` does.

The coloring of a photograph is written to OUTPUT/<stem>.png, with the
resolution, lightness, alpha and EXIF data of the photograph. With K proposals,
the files are OUTPUT/<stem>.0.png and so on, most probable first, and
OUTPUT/<stem>.sheet.png shows them all.

Folders are searched recursively, as for training, and mirrored under OUTPUT.
Photographs of one folder with the same stem (a.jpg and a.png) keep their full
name: a.jpg.png, a.png.png. No photograph of the input is ever replaced.
"""

import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from colorjax import photo
from colorjax.data import companions, folders, region_sources
from colorjax.errors import UserError

_THUMBNAIL = 256  # side in pixels of the pictures in a sheet
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


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Numbers of photographs.

  Attributes:
    colored: those that were colored.
    kept: those whose colorings existed already.
    refused: those that could not be colored, including unreadable folders.
  """
  colored: int
  kept: int
  refused: int


def _say(line: str) -> None:
  tqdm.tqdm.write(line, file=sys.stderr)


def colorize_all(workdir: pathlib.Path, source: pathlib.Path,
                 output: pathlib.Path, *, num_proposals: int = 0,
                 file_format: str = 'png', overwrite: bool = False,
                 mask: pathlib.Path | None = None,
                 hints: pathlib.Path | None = None,
                 reference: pathlib.Path | None = None,
                 options: Mapping[str, Any] | None = None,
                 say: Callable[[str], None] = _say) -> Outcome:
  """Colors one photograph, or all photographs of a folder.

  Args:
    workdir: work directory of a training run.
    source: the photograph or the folder.
    output: folder for the colorings; made if it does not exist.
    num_proposals: number of different colorings to write, with a sheet of them;
      0 writes the best single coloring.
    file_format: png, jpg, tiff, webp, or same: the format of the photograph,
      but png for gif.
    overwrite: whether to color photographs again whose colorings exist.
    mask: image of the region to color, or a folder of such images with the
      names of the photographs; None colors everything.
    hints: painted color hints: a file, or a folder of files with the names of
      the photographs; None for no hints.
    reference: a color photograph whose colors are transferred, for a method
      that accepts one.
    options: options of prediction, see `Colorizer.options`.
    say: called with a line for each refused photograph and for each file of
      which only the first picture is colored; by default prints to stderr.

  Returns:
    The numbers of photographs.

  Raises:
    UserError: an argument is wrong; no photograph has been colored then.
  """
  found = find_photos(source, output)
  paths = found.paths
  targets = plan(paths, source, output, file_format,
                 num_proposals=num_proposals)
  mask_of = _companions('mask', mask, paths, source)
  hints_of = _companions('hint', hints, paths, source)
  make_folder(output)

  # Imported late, with JAX, so that the errors above appear without delay.
  from colorjax import inference, saved

  colorizer, variables, image_size = saved.load(workdir)
  colorizer = colorizer.ask(**(options or {}))
  reference_pixels = None
  if reference is not None:
    if 'reference' not in colorizer.accepts:
      raise UserError(
          f'reference={reference}: the method of {workdir} uses no reference; '
          'the baselines reinhard and welsh do')
    reference_pixels = photo.to_rgb8(photo.read(reference))
  answer = inference.answers(colorizer, num_proposals=num_proposals)

  def color(path: pathlib.Path, to: Sequence[pathlib.Path]) -> None:
    picture = photo.read(path)
    height, width = picture.pixels.shape[:2]
    try:
      photo.check_fits(to[0], width, height)
      if picture.pictures > 1:
        say(f'note: {path}: holds {picture.pictures} pictures (pages or '
            'frames); only the first is colored')
      colorings = inference.colorize(
          answer, variables, picture, image_size=image_size,
          region=_region(mask_of.get(path), picture.pixels),
          hints=_hints(hints_of.get(path), picture, image_size),
          reference=reference_pixels,
          bits=min(8 * picture.pixels.itemsize,
                   photo.output_format(to[0]).bits))
      write_colorings(colorings, picture, to, overwrite=overwrite)
    except UserError:
      raise
    except Exception as error:
      if photo.is_out_of_memory(error):
        raise photo.out_of_memory(str(path), (width, height)) from error
      raise

  for line in found.refused:
    say(f'refused: {line}')
  kept, refused = 0, found.num_refused
  for path in tqdm.tqdm(paths, unit='photo', disable=None):
    to = outputs_of(targets[path], num_proposals)
    if not overwrite and all(os.path.exists(file) for file in to):
      kept += 1
      continue
    try:
      _prepare(to)
      color(path, to)
    except (photo.UnreadablePhoto, photo.UnwritablePhoto) as error:
      say(f'refused: {error}')
      refused += 1
  return Outcome(len(paths) - kept - (refused - found.num_refused), kept,
                 refused)


def _companions(what: str, given: pathlib.Path | None,
                paths: Sequence[pathlib.Path], source: pathlib.Path
                ) -> dict[pathlib.Path, pathlib.Path]:
  """Finds the mask or hints of each photograph.

  Args:
    what: word for error messages, see `companions`.
    given: the file or folder, or None.
    paths: the photographs.
    source: the file or folder that they were found in.

  Returns:
    The file for each photograph; {} if `given` is None.

  Raises:
    UserError: the file for a photograph does not exist.
  """
  if given is None:
    return {}
  if not given.is_dir():
    if not given.exists():
      raise UserError(f'{what} {given}: no such file or folder')
    return dict.fromkeys(paths, given)
  root = source if source.is_dir() else source.parent
  names = [path.relative_to(root).as_posix() for path in paths]
  found = companions.folder(given, what)(names, str(source))
  return dict(zip(paths, found, strict=True))


def _region(mask: pathlib.Path | None, pixels: np.ndarray
            ) -> np.ndarray | None:
  """The region to color, bool [H, W]; None for the whole photograph."""
  if mask is None:
    return None
  return region_sources.laid_over(region_sources.read(mask), *pixels.shape[:2])


def _hints(strokes: pathlib.Path | None, picture: photo.Photo, image_size: int
           ) -> tuple[np.ndarray, np.ndarray] | None:
  """The color hints for a photograph, see `photo.strokes`; None for none."""
  if strokes is None:
    return None

  from colorjax.photo import strokes as strokes_lib

  return strokes_lib.of_strokes(photo.read(strokes), picture, image_size)


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


def _prepare(to: Sequence[pathlib.Path]) -> None:
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


def write_colorings(colorings, picture, to: Sequence[pathlib.Path], *,
                    overwrite: bool) -> None:
  """Writes each coloring to its file, and the sheet if there is one.

  Args:
    colorings: iterator of `inference.Coloring`.
    picture: the `photo.Photo` that was colored.
    to: what `outputs_of` returned.
    overwrite: whether to replace existing files.
  """
  from colorjax.report import sheets

  def is_needed(file):
    return overwrite or not os.path.exists(file)

  cells = []
  for i, (coloring, file) in enumerate(zip(colorings, to, strict=False)):
    if is_needed(file):
      photo.write(file, coloring.pixels, like=picture)
    if len(to) == 1:
      continue
    small = sheets.thumbnail(photo.with_depth(coloring.pixels, 8), _THUMBNAIL)
    cells.append(sheets.Tile(small, f'{i}' if coloring.probability is None
                             else f'{i}: {coloring.probability:.3f}'))
  if len(to) > 1 and is_needed(to[-1]):
    original = sheets.thumbnail(photo.to_rgb8(picture), _THUMBNAIL)
    cells.insert(0, sheets.Tile(sheets.lightness_only(original), 'lightness'))
    columns = math.ceil(math.sqrt(len(cells)))
    photo.write(to[-1], sheets.contact_sheet(
        [cells[i:i + columns] for i in range(0, len(cells), columns)],
        tile_size=_THUMBNAIL))
