"""Photographs in files to colorings in files: what `experiments.colorize` does.

A photograph becomes OUTPUT/<stem>.png in its own resolution, with its own
lightness, alpha and EXIF. With K proposals it becomes OUTPUT/<stem>.0.png and
so on, most probable first, and OUTPUT/<stem>.sheet.png shows them all.

Folders are searched whole, as they are for training, and mirrored under OUTPUT.
Photographs of one folder that share a stem (a.jpg and a.png) keep their whole
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

_THUMBNAIL = 256
_LONGEST_NAME = 255  # bytes; of the file systems that do not say


@dataclasses.dataclass(frozen=True)
class Found:
  """What there is to color.

  Attributes:
    paths: the photographs.
    refused: a line for each folder that cannot be entered, and for each kind
      of image file that is not read.
    num_refused: folders and image files that these lines stand for.
  """
  paths: list[pathlib.Path]
  refused: list[str] = dataclasses.field(default_factory=list)
  num_refused: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How many photographs were colored, were there already, were refused."""
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
  """Colors a photograph, or all of a folder.

  Args:
    workdir: of a training run.
    source: the photograph or the folder.
    output: the folder for colorings; made if it is not there.
    num_proposals: so many different colorings and a sheet of them; 0 for the
      best single one.
    file_format: png, jpg, tiff, webp, or same: that of the photograph, png for
      gif.
    overwrite: whether photographs are colored again whose colorings are there.
    mask: color only inside: an image, or a folder of images by the names of
      the photographs.
    hints: colors that a person gives, painted; a file or a folder alike.
    reference: a color photograph whose colors are wanted, for a method that
      accepts one.
    options: what the method lets be chosen when it is asked, see
      `Colorizer.options`.
    say: takes a line for each refusal and each photograph of which not all was
      colored; by default stderr.

  Returns:
    The numbers.

  Raises:
    UserError: wrong usage, found before any photograph is colored.
  """
  found = find_photos(source, output)
  paths = found.paths
  targets = plan(paths, source, output, file_format,
                 num_proposals=num_proposals)
  mask_of = _companions('mask', mask, paths, source)
  hints_of = _companions('hint', hints, paths, source)
  make_folder(output)

  # And with them JAX: mistakes do not wait for it.
  from colorjax import inference, saved

  colorizer, variables, image_size = saved.load(workdir)
  colorizer = colorizer.ask(**(options or {}))
  shown = None
  if reference is not None:
    if 'reference' not in colorizer.accepts:
      raise UserError(
          f'reference={reference}: the method of {workdir} takes none; the '
          'baselines reinhard and welsh do')
    shown = photo.to_rgb8(photo.read(reference))
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
          reference=shown,
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
  """The mask or hints of each photograph, {} without; UserError if one lacks.

  Args:
    what: what messages call one, see `companions`.
    given: the file or folder.
    paths: the photographs.
    source: the file or folder that they were found in.
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
  """Where a photograph is to be colored, bool [H, W]; None: everywhere."""
  if mask is None:
    return None
  return region_sources.laid_over(region_sources.read(mask), *pixels.shape[:2])


def _hints(strokes: pathlib.Path | None, picture: photo.Photo, image_size: int
           ) -> tuple[np.ndarray, np.ndarray] | None:
  """The colors that a person gives for a photograph; None for none."""
  if strokes is None:
    return None

  from colorjax.photo import strokes as strokes_lib

  return strokes_lib.of_strokes(photo.read(strokes), picture, image_size)


def find_photos(source: pathlib.Path, output: pathlib.Path) -> Found:
  """The photographs to color, in the order of a file manager.

  They are looked for as training does it (`folders.walk`): hidden files are
  out, linked folders are followed once. The output folder is left out where it
  lies inside the input.

  Args:
    source: a file, whatever its name, or a folder.
    output: the folder that the colorings go to.

  Returns:
    Paths that begin with `source`, and what is there and cannot be colored.

  Raises:
    UserError: there is nothing to color, or input and output are one folder.
  """
  if source.is_file():
    return Found([source])
  if not source.is_dir():
    raise UserError(f'{source}: no such file or folder')
  if source.resolve() == output.resolve():
    raise UserError(f'{output}: is the input; name another folder')
  walk = folders.walk(source, without=output)
  refused = [f'{source / name}: cannot be entered: {reason}'
             for name, reason in walk.locked]
  refused += [f'{count} {ending} in {source}: not read; '
              f'{photo.NOT_READ[ending]} converts to png'
              for ending, count in walk.not_read.items()]
  if not walk.names:
    raise UserError('; '.join([
        f'{source}: holds no photograph ({" ".join(photo.SUFFIXES)})',
        *refused]))
  return Found([source / name for name in walk.names], refused,
               len(walk.locked) + sum(walk.not_read.values()))


def _prepare(to: Sequence[pathlib.Path]) -> None:
  """Makes the folder of some files; UnwritablePhoto if they cannot be."""
  try:
    to[0].parent.mkdir(parents=True, exist_ok=True)
    longest = os.pathconf(to[0].parent, 'PC_NAME_MAX')
  except OSError as error:
    raise photo.UnwritablePhoto(
        f'{to[0]}: cannot be written: {error.strerror or error}') from error
  except (AttributeError, ValueError):  # no such question on this system
    longest = _LONGEST_NAME
  for file in to:
    length = len(os.fsencode(file.name))
    if length > longest:
      raise photo.UnwritablePhoto(
          f'{file}: cannot be written: its name has {length} bytes, {longest} '
          'are possible; give the photograph a shorter name')


def plan(paths: Sequence[pathlib.Path], source: pathlib.Path,
         output: pathlib.Path, file_format: str, *, num_proposals: int = 0
         ) -> dict[pathlib.Path, pathlib.Path]:
  """Where the coloring of each photograph goes; no two to one file.

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
    # A second round is needed where a whole name meets another's stem.
    _use_whole_names(names, targets)
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
          'photograph of the input; name another folder')
  return targets


def _use_whole_names(names: dict[pathlib.Path, str],
                     targets: Mapping[pathlib.Path, pathlib.Path]) -> None:
  """Gives the whole file name to those whose targets coincide."""
  takers: dict[pathlib.Path, list[pathlib.Path]] = {}
  for path, target in targets.items():
    takers.setdefault(target, []).append(path)
  for paths in takers.values():
    if len(paths) > 1:
      names.update({path: path.name for path in paths})


def outputs_of(target: pathlib.Path, num_proposals: int) -> list[pathlib.Path]:
  """The files made of one photograph: colorings, and the sheet last."""
  if not num_proposals:
    return [target]
  return [*(target.with_name(f'{target.stem}.{i}{target.suffix}')
            for i in range(num_proposals)),
          target.with_name(f'{target.stem}.sheet.png')]


def make_folder(path: pathlib.Path) -> None:
  """Makes a folder; UserError if that is not possible."""
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
        f'cannot make the folder {path}: {error.strerror}') from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise UserError(f'no permission to write in {path}')


def write_colorings(colorings, picture, to: Sequence[pathlib.Path], *,
                    overwrite: bool) -> None:
  """Writes each coloring to its file, and the sheet if there is one.

  Args:
    colorings: iterator of `inference.Coloring`.
    picture: the `photo.Photo` that they are of.
    to: what `outputs_of` returned.
    overwrite: whether files that are there are written again.
  """
  from colorjax.report import sheets

  def is_wanted(file):
    return overwrite or not os.path.exists(file)

  cells = []
  for i, (coloring, file) in enumerate(zip(colorings, to, strict=False)):
    if is_wanted(file):
      photo.write(file, coloring.pixels, like=picture)
    if len(to) == 1:
      continue
    small = sheets.thumbnail(photo.with_depth(coloring.pixels, 8), _THUMBNAIL)
    cells.append(sheets.Tile(small, f'{i}' if coloring.probability is None
                             else f'{i}: {coloring.probability:.3f}'))
  if len(to) > 1 and is_wanted(to[-1]):
    original = sheets.thumbnail(photo.to_rgb8(picture), _THUMBNAIL)
    cells.insert(0, sheets.Tile(sheets.lightness_only(original), 'lightness'))
    columns = math.ceil(math.sqrt(len(cells)))
    photo.write(to[-1], sheets.contact_sheet(
        [cells[i:i + columns] for i in range(0, len(cells), columns)],
        tile_size=_THUMBNAIL))
