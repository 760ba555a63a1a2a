"""Colors photographs with a trained method.

    python -m experiments.colorize --checkpoint=runs/quickstart \\
        --input=photo.jpg --output=colored --proposals=8

A photograph becomes OUTPUT/<stem>.png in its own resolution, with its own
lightness, alpha and EXIF. With --proposals=K it becomes OUTPUT/<stem>.0.png and
so on, most probable first, and OUTPUT/<stem>.sheet.png shows them all.

Folders are searched whole and mirrored under OUTPUT. Photographs of one folder
that share a stem (a.jpg and a.png) keep their whole name: a.jpg.png, a.png.png.
A file that is there already is kept, so that a run that was stopped goes on;
with --overwrite it is made again. No photograph of the input is ever replaced.

Exit code: 0 if every photograph was colored, 1 if some were refused (each with
a line on stderr; the others are colored), 2 for wrong usage.
"""

import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags

from colorjax.errors import UserError
from experiments import common

if TYPE_CHECKING:
  import numpy as np

  from colorjax.photo import Photo

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Work directory of a training run.', required=True)
_INPUT = flags.DEFINE_string(
    'input', None, 'A photograph, or a folder of photographs.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the colorings; made if it is not there.',
    required=True)
_PROPOSALS = flags.DEFINE_integer(
    'proposals', 0, 'Write this many different colorings of each photograph, '
    'and a sheet of them; 0 writes the best single one.', lower_bound=0)
_FORMAT = flags.DEFINE_enum(
    'format', 'png', ['png', 'jpg', 'tiff', 'webp', 'same'], 'File format of '
    'the colorings. png and tiff keep 16 bits; all but jpg keep the lightness '
    'to the last bit. same: the format of the photograph, png for gif.')
_MASK = flags.DEFINE_string(
    'mask', None, 'Color only inside a mask: an image, or a folder with one '
    'image for each photograph, of the same name. White is inside; the rest '
    'stays grey.')
_HINTS = flags.DEFINE_string(
    'hints', None, 'Colors that you give, for a method that takes hints: a '
    'copy of the photograph with strokes on it, or a transparent layer of its '
    'size; or a folder with one for each photograph, of the same name.')
_OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Color photographs again whose colorings are there.')

_THUMBNAIL = 256


def main(argv: Sequence[str]) -> int:
  """Colors what the flags name; the exit code is described above."""
  del argv
  return colorize_all(
      pathlib.Path(_CHECKPOINT.value), pathlib.Path(_INPUT.value),
      pathlib.Path(_OUTPUT.value), num_proposals=_PROPOSALS.value,
      file_format=_FORMAT.value, overwrite=_OVERWRITE.value,
      mask=pathlib.Path(_MASK.value) if _MASK.value else None,
      hints=pathlib.Path(_HINTS.value) if _HINTS.value else None)


def colorize_all(workdir: pathlib.Path, source: pathlib.Path,
                 output: pathlib.Path, *, num_proposals: int = 0,
                 file_format: str = 'png', overwrite: bool = False,
                 mask: pathlib.Path | None = None,
                 hints: pathlib.Path | None = None) -> int:
  """Colors a photograph, or all of a folder.

  Args:
    workdir: of a training run.
    source: the photograph or the folder.
    output: the folder for colorings.
    num_proposals: value of --proposals.
    file_format: value of --format.
    overwrite: value of --overwrite.
    mask: value of --mask.
    hints: value of --hints.

  Returns:
    0, or 1 if a photograph was refused.

  Raises:
    UserError: wrong usage, found before any photograph is colored.
  """
  # Imported here: --help and mistyped names do not wait for them.
  import tqdm

  from colorjax import photo

  paths = find_photos(source, output, photo.SUFFIXES)
  targets = plan(paths, source, output, file_format,
                 num_proposals=num_proposals)
  if hints is not None and num_proposals:
    raise UserError('--hints gives one coloring: leave out --proposals')
  mask_of = _companions('--mask', 'mask', mask, paths, source)
  hints_of = _companions('--hints', 'hint', hints, paths, source)
  make_folder(output)

  from colorjax import inference, saved  # and with them JAX

  colorizer, variables, image_size = saved.load(workdir)
  if hints is not None and colorizer.predict_with_hints is None:
    raise UserError(
        f'--hints={hints}: the method of {workdir} takes none; python -m '
        'experiments.baselines --method=levin makes a work directory that does')
  answer = inference.answers(colorizer, num_proposals=num_proposals)
  kept = refused = 0
  for path in tqdm.tqdm(paths, unit='photo', disable=None):
    files = outputs_of(targets[path], num_proposals)
    if not overwrite and all(file.exists() for file in files):
      kept += 1
      continue
    try:
      make_folder(files[0].parent)
      picture = photo.read(path)
      colorings = inference.colorize(
          answer, variables, picture, image_size=image_size,
          region=_region(mask_of.get(path), picture.pixels),
          hints=_hints(hints_of.get(path), picture, image_size),
          bits=min(8 * picture.pixels.itemsize,
                   photo.output_format(files[0]).bits))
      write_colorings(colorings, picture, files, overwrite=overwrite)
    except (photo.UnreadablePhoto, photo.UnwritablePhoto) as error:
      tqdm.tqdm.write(f'refused: {error}', file=sys.stderr)
      refused += 1
  print(f'{len(paths) - kept - refused} colored into {output}'
        + (f', {kept} there already (--overwrite colors them again)'
           if kept else '')
        + (f', {refused} refused' if refused else ''))
  return 1 if refused else 0


def _companions(flag: str, what: str, given: pathlib.Path | None,
                paths: Sequence[pathlib.Path], source: pathlib.Path
                ) -> dict[pathlib.Path, pathlib.Path]:
  """The mask or hints of each photograph, {} without; UserError if one lacks.

  Args:
    flag: what names them.
    what: what messages call one, see `companions`.
    given: the file or folder.
    paths: the photographs.
    source: the file or folder that they were found in.
  """
  if given is None:
    return {}
  if not given.is_dir():
    if not given.exists():
      raise UserError(f'{flag}={given}: no such file or folder')
    return dict.fromkeys(paths, given)

  from colorjax.data import companions

  root = source if source.is_dir() else source.parent
  names = [path.relative_to(root).as_posix() for path in paths]
  found = companions.folder(given, what)(names, str(source))
  return dict(zip(paths, found, strict=True))


def _region(mask: pathlib.Path | None, pixels: 'np.ndarray'
            ) -> 'np.ndarray | None':
  """Where a photograph is to be colored, bool [H, W]; None: everywhere."""
  if mask is None:
    return None

  from colorjax.data import masks

  return masks.laid_over(masks.read(mask), *pixels.shape[:2])


def _hints(strokes: pathlib.Path | None, picture: 'Photo', image_size: int
           ) -> 'tuple[np.ndarray, np.ndarray] | None':
  """The colors that a person gives for a photograph; None for none."""
  if strokes is None:
    return None

  from colorjax import photo
  from colorjax.photo import strokes as strokes_lib

  return strokes_lib.of_strokes(photo.read(strokes), picture, image_size)


def find_photos(source: pathlib.Path, output: pathlib.Path,
                suffixes: Sequence[str]) -> list[pathlib.Path]:
  """The photographs to color, sorted.

  Hidden files, and the output folder where it lies inside the input, are left
  out.

  Args:
    source: a file, whatever its name, or a folder.
    output: the folder that the colorings go to.
    suffixes: file name endings of photographs, in lower case.

  Returns:
    Paths that begin with `source`.

  Raises:
    UserError: there is nothing to color, or input and output are one folder.
  """
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise UserError(f'--input={source}: no such file or folder')
  if source.resolve() == output.resolve():
    raise UserError(f'--output={output}: is the input; name another folder')
  paths = []
  for folder, subfolders, names in os.walk(source):
    here = pathlib.Path(folder)
    subfolders[:] = [
        name for name in subfolders if not name.startswith('.')
        and (here / name).resolve() != output.resolve()]
    paths += [here / name for name in names if not name.startswith('.')
              and pathlib.Path(name).suffix.lower() in suffixes]
  if not paths:
    raise UserError(
        f'--input={source}: holds no photograph ({" ".join(suffixes)})')
  return sorted(paths)


def plan(paths: Sequence[pathlib.Path], source: pathlib.Path,
         output: pathlib.Path, file_format: str, *, num_proposals: int = 0
         ) -> dict[pathlib.Path, pathlib.Path]:
  """Where the coloring of each photograph goes; no two to one file.

  Args:
    paths: the photographs.
    source: the file or folder that they were found in.
    output: the folder for colorings.
    file_format: value of --format.
    num_proposals: value of --proposals.

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
    files = outputs_of(target, num_proposals)
    if any(file.resolve() in originals for file in files):
      raise UserError(
          f'--output={output}: the coloring of {path} would replace a '
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
        f'--output: cannot make the folder {path}: {error.strerror}') from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise UserError(f'--output: no permission to write in {path}')


def write_colorings(colorings, picture, files: Sequence[pathlib.Path], *,
                     overwrite: bool) -> None:
  """Writes each coloring to its file, and the sheet if there is one.

  Args:
    colorings: iterator of `inference.Coloring`.
    picture: the `photo.Photo` that they are of.
    files: what `outputs_of` returned.
    overwrite: whether files that are there are written again.
  """
  from colorjax import photo
  from colorjax.report import sheets

  def is_wanted(file):
    return overwrite or not file.exists()

  cells = []
  for i, (coloring, file) in enumerate(zip(colorings, files, strict=False)):
    if is_wanted(file):
      photo.write(file, coloring.pixels, like=picture)
    small = sheets.thumbnail(photo.with_depth(coloring.pixels, 8), _THUMBNAIL)
    cells.append(sheets.Cell(small, f'{i}: {coloring.weight:.3f}'))
  if len(files) > 1 and is_wanted(files[-1]):
    original = sheets.thumbnail(photo.to_rgb8(picture), _THUMBNAIL)
    cells.insert(0, sheets.Cell(sheets.lightness_only(original), 'lightness'))
    columns = math.ceil(math.sqrt(len(cells)))
    photo.write(files[-1], sheets.contact_sheet(
        [cells[i:i + columns] for i in range(0, len(cells), columns)],
        cell_size=_THUMBNAIL))


if __name__ == '__main__':
  common.run(main)
