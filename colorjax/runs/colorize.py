"""Colors photographs in files: what `experiments.colorize` does.

The coloring of a photograph is written to OUTPUT/<stem>.png, with the
resolution, lightness, alpha and EXIF data of the photograph. With K proposals,
the files are OUTPUT/<stem>.0.png and so on, most probable first, and
OUTPUT/<stem>.sheet.png shows them all.

Folders are searched recursively, as for training, and mirrored under OUTPUT.
Photographs of one folder with the same stem (a.jpg and a.png) keep their full
name: a.jpg.png, a.png.png. No photograph of the input is ever replaced.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from colorjax import photo
from colorjax.data import companions, region_sources
from colorjax.errors import UserError
from colorjax.runs import colorize_files

_THUMBNAIL = 256  # side in pixels of the pictures in a sheet

_BATCH = 8
"""Number of photographs that go through the network together."""

_BATCH_PIXELS = 32_000_000
"""Largest number of pixels of a batch; a larger photograph is alone."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Numbers of photographs.

  Attributes:
    colored: those that were colored.
    kept: those whose colorings existed already.
    refused: those that could not be colored, including unreadable folders.
    reasons: a line for each refusal, which names the file and the reason.
  """
  colored: int
  kept: int
  refused: int
  reasons: tuple[str, ...] = dataclasses.field(default=(), compare=False)


def _say(line: str) -> None:
  tqdm.tqdm.write(line, file=sys.stderr)


def colorize_all(checkpoint: pathlib.Path, source: pathlib.Path,
                 output: pathlib.Path, *, num_proposals: int = 0,
                 file_format: str = 'png', overwrite: bool = False,
                 mask: pathlib.Path | None = None,
                 hints: pathlib.Path | None = None,
                 reference: pathlib.Path | None = None,
                 seed: int | None = None,
                 options: Mapping[str, Any] | None = None,
                 replica: int | None = None,
                 say: Callable[[str], None] = _say) -> Outcome:
  """Colors one photograph, or all photographs of a folder.

  Args:
    checkpoint: work directory of a training run, or a model file.
    source: the photograph or the folder.
    output: folder for the colorings; made if it does not exist.
    num_proposals: number of different colorings to write, with a sheet of them;
      0 writes the best single coloring.
    file_format: png, jpg, tiff, webp, or same: the format of the photograph,
      but png for gif.
    overwrite: whether to color photographs again whose colorings exist.
    mask: image of the region to color, or a folder of such images with the
      names of the photographs; None colors everything.
    hints: color hints: a picture with strokes or a JSON file, see
      `photo.strokes`, or a folder of pictures with the names of the
      photographs; None for no hints.
    reference: a color photograph whose palette the colorings get.
    seed: draws random colorings in place of the most probable ones; None does
      not.
    options: options of prediction, see `Colorizer.options`.
    replica: number of the replica of a run that has several, from 0.
    say: called with a line for each refused photograph and for each file of
      which only the first picture is colored; by default prints to stderr.

  Returns:
    The numbers of photographs.

  Raises:
    UserError: an argument is wrong; no photograph has been colored then.
  """
  found = colorize_files.find_photos(source, output)
  paths = found.paths
  targets = colorize_files.plan(
      paths, source, output, file_format, num_proposals=num_proposals)
  mask_of = _companions('mask', mask, paths, source)
  hints_of = _companions('hint', hints, paths, source)
  colorize_files.make_folder(output)

  # Imported late, with JAX, so that the errors above appear without delay.
  from colorjax import inference, saved

  colorizer, variables, image_size = saved.load(checkpoint, replica=replica)
  colorizer = colorizer.ask(**(options or {}))
  reference_pixels = (None if reference is None
                      else photo.to_rgb8(photo.read(reference)))
  answer = inference.answers(colorizer, num_proposals=num_proposals, seed=seed)

  def read(path: pathlib.Path) -> _Job:
    to = colorize_files.outputs_of(targets[path], num_proposals)
    colorize_files.prepare(to)
    picture = photo.read(path)
    height, width = picture.pixels.shape[:2]
    photo.check_fits(to[0], width, height)
    region = _region(mask_of.get(path), picture.pixels)
    return _Job(path, to, picture, region, inference.inputs_of(
        picture, image_size=image_size, region=region,
        hints=_hints(hints_of.get(path), picture, image_size),
        reference=reference_pixels))

  def predict(jobs: list[_Job]) -> list[tuple[Any, Any]]:
    # A batch has one of two sizes, so that at most two programs are compiled.
    size = 1 if len(jobs) == 1 else _BATCH
    rows = [*jobs, *(jobs[-1:] * (size - len(jobs)))]
    ab, probability = answer(variables, {
        name: np.stack([row.inputs[name] for row in rows])
        for name in jobs[0].inputs})
    return [(ab[:, i], None if probability is None else probability[:, i])
            for i in range(len(jobs))]

  def finish(job: _Job, ab: Any, probability: Any) -> None:
    colorings = inference.finish(
        job.picture, job.inputs, ab, probability, region=job.region,
        bits=min(8 * job.picture.pixels.itemsize,
                 photo.output_format(job.to[0]).bits))
    write_colorings(colorings, job.picture, job.to, overwrite=overwrite)

  def is_done(path: pathlib.Path) -> bool:
    return not overwrite and all(
        os.path.exists(file) for file in colorize_files.outputs_of(
            targets[path], num_proposals))

  reasons = [*found.refused]
  for line in reasons:
    say(f'refused: {line}')
  waiting = [path for path in paths if not is_done(path)]
  progress = tqdm.tqdm(total=len(waiting), unit='photo', disable=None)
  num_failed = 0
  with progress:
    for job, error in _run(waiting, read, predict, finish):
      progress.update()
      if error is not None:
        say(f'refused: {error}')
        reasons.append(str(error))
        num_failed += 1
      elif job is not None and job.picture.pictures > 1:
        say(f'note: {job.path}: holds {job.picture.pictures} pictures (pages '
            'or frames); only the first is colored')
  return Outcome(len(waiting) - num_failed, len(paths) - len(waiting),
                 found.num_refused + num_failed, tuple(reasons))


class _Job(NamedTuple):
  """A photograph that was read.

  Attributes:
    path: its file.
    to: the files for its colorings.
    picture: the photograph.
    region: the pixels to color, None for all.
    inputs: what the network sees.
  """
  path: pathlib.Path
  to: list[pathlib.Path]
  picture: photo.Photo
  region: np.ndarray | None
  inputs: dict[str, np.ndarray]


def _run(paths: Sequence[pathlib.Path],
         read: Callable[[pathlib.Path], _Job],
         predict: Callable[[list[_Job]], list[tuple[Any, Any]]],
         finish: Callable[[_Job, Any, Any], None]
         ) -> Iterator[tuple[_Job | None, UserError | None]]:
  """Colors photographs, several at a time.

  Small photographs are read and written in parallel and go through the network
  in batches; while a batch is painted, the next one is read. A large photograph
  is colored alone, so that the memory is that of a single one.

  Args:
    paths: the photographs.
    read: `path -> job`.
    predict: `jobs -> (ab, probability) of each`.
    finish: `(job, ab, probability)`, paints and writes the colorings.

  Yields:
    For each photograph in order, its job and None, or its error.
  """
  pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

  def submit(batch, *call):
    if not batch.is_large:
      return pool.submit(_attempt, *call)
    # Of what a decoder or encoder frees, glibc gives back much more to the
    # system in the main thread: 0.8 GB of 100 megapixels.
    done: concurrent.futures.Future = concurrent.futures.Future()
    done.set_result(_attempt(*call))
    return done

  def start(batch):
    return [submit(batch, path, read, path) for path in batch.paths]

  ahead = None
  batches, later = itertools.tee(_batches(paths))
  next(later, None)
  try:
    for batch, following in itertools.zip_longest(batches, later):
      read_jobs = [future.result() for future in ahead or start(batch)]
      colorings = iter(_attempt_batch(
          [job for job, _ in read_jobs if job is not None], predict))
      ahead = None
      if following and not (batch.is_large or following.is_large):
        ahead = start(following)
      painting = []
      for job, error in read_jobs:
        if job is not None:
          coloring, error = next(colorings)
        painting.append((job, error, None if error else submit(
            batch, job.path, finish, job, *coloring)))
      del read_jobs, colorings
      while painting:
        job, error, future = painting.pop(0)
        yield job, error if future is None else future.result()[1]
  finally:
    pool.shutdown(cancel_futures=True)


class _Batch(NamedTuple):
  """Photographs that are colored together.

  Attributes:
    paths: the photographs.
    is_large: whether it is a single one with more than _BATCH_PIXELS.
  """
  paths: list[pathlib.Path]
  is_large: bool


def _batches(paths: Sequence[pathlib.Path]) -> Iterator[_Batch]:
  """Divides photographs into batches, in order."""
  batch: list[pathlib.Path] = []
  total = 0
  for path in paths:
    width, height = photo.size(path) or (0, 0)
    total += width * height
    if batch and (len(batch) == _BATCH or total > _BATCH_PIXELS):
      yield _Batch(batch, False)
      batch, total = [], width * height
    batch.append(path)
    if total > _BATCH_PIXELS:
      yield _Batch(batch, True)
      batch, total = [], 0
  if batch:
    yield _Batch(batch, False)


def _attempt_batch(jobs: list[_Job],
                   predict: Callable[[list[_Job]], list[tuple[Any, Any]]]
                   ) -> list[tuple[Any, UserError | None]]:
  """Predicts a batch, or its photographs one by one if memory is scarce."""
  if not jobs:
    return []
  results, error = _attempt(jobs[0].path, predict, jobs)
  if error is None:
    return [(result, None) for result in results]
  if len(jobs) == 1:
    return [(None, error)]
  return [_attempt_batch([job], predict)[0] for job in jobs]


def _attempt(path: pathlib.Path, function: Callable[..., Any], *args: Any
             ) -> tuple[Any, UserError | None]:
  """Returns the result of a call, or the reason why a photo is refused."""
  try:
    return function(*args), None
  except (photo.UnreadablePhoto, photo.UnwritablePhoto) as error:
    return None, error
  except UserError:
    raise
  except Exception as error:
    if photo.is_out_of_memory(error):
      return None, photo.out_of_memory(str(path), photo.size(path))
    raise


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


def _hints(file: pathlib.Path | None, picture: photo.Photo, image_size: int
           ) -> tuple[np.ndarray, np.ndarray] | None:
  """The color hints for a photograph, see `photo.strokes`; None for none."""
  if file is None:
    return None

  from colorjax.photo import strokes

  return strokes.read(file, picture, image_size)


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
