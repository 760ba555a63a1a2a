"""What an evaluation prints, and leaves in `report/` to look at."""

import pathlib
from collections.abc import Sequence

import numpy as np

from colorjax import files, photo
from colorjax.errors import UserError
from colorjax.evaluation import catalogue, listing, result
from colorjax.evaluation.protocol import Record
from colorjax.metrics.bootstrap import Interval
from colorjax.report import page
from colorjax.runs import evaluation_pictures
from colorjax.runs.subject import EvaluateOptions, Judged, Photographs

EXAMPLES_FILE = 'report/examples.npz'
"""Some photographs and their colorings, for the sheets of comparisons."""

_INDEX_FILE = 'report/index.html'
_NAMED = 3  # of those left out; protocol.json names all


def write(workdir: pathlib.Path, judged: Judged, photos: Photographs,
          finished: result.EvaluationResult, indices: np.ndarray,
          options: EvaluateOptions, *, settings: str, command: str
          ) -> list[str]:
  """Writes `report/`.

  Args:
    workdir: of the evaluation.
    judged: what was judged; the answers that are shown are computed again.
    photos: the photographs.
    finished: the figures.
    indices: numbers in the source of the photographs that were judged, [N].
    options: of the evaluation.
    settings: shown at the end of the page.
    command: shown above them.

  Returns:
    The files, relative to `workdir`.

  Raises:
    UserError: a file cannot be written.
  """
  folder = workdir / 'report'
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
        f'{folder}: cannot be made: {error.strerror or error}') from error
  number = min(options.report_photos, len(indices))
  # Spread over the source: a folder is sorted by class.
  chosen = indices[np.linspace(0, len(indices) - 1, number).round().astype(int)]
  shown = evaluation_pictures.answered(judged, photos, chosen)
  files.write_bytes(workdir / EXAMPLES_FILE, result.pack(
      {'original': shown.original, 'picture': shown.picture}))
  pictures = [
      evaluation_pictures.histograms(finished),
      evaluation_pictures.extremes(judged, photos, finished, indices),
      *evaluation_pictures.uncertainty(shown, options),
      *evaluation_pictures.calibrations(finished)]
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  page.write_index(
      workdir / _INDEX_FILE, title=f'colorjax: {judged.name}',
      tables=[table(finished), _origin(finished.record)],
      figures=[figure for figure, _ in pictures],
      command=command, settings=settings)
  return [_INDEX_FILE, *(f'report/{figure.file}' for figure, _ in pictures)]


def load_examples(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """Some photographs, 'original', and their colorings, 'picture'."""
  return result.unpack(workdir / EXAMPLES_FILE)


def table(finished: result.EvaluationResult) -> page.Table:
  """All metrics with their intervals."""
  record = finished.record
  return page.Table(
      caption=f'{record.judged}: {len(record.photographs)} photographs, '
      f'protocol {record.protocol.name} version {record.protocol.version}, '
      f'{record.protocol.image_size} x {record.protocol.image_size} '
      f'{record.protocol.fit}; mean and 95 % bootstrap interval',
      header=['figure', 'mean', '95 %', 'better', 'what it is'],
      words=['better', 'what it is'],
      rows=[[name, *_texts(value), catalogue.METRICS[name].better,
             _meaning(name, value)]
            for name, value in finished.summary.items()])


def say(workdir: pathlib.Path, finished: result.EvaluationResult,
        files: Sequence[str]) -> None:
  """Prints the figures, what was noticed, and the paths.

  Args:
    workdir: of the evaluation.
    finished: the figures.
    files: what `write` returned.
  """
  printed = table(finished)
  print(f'\n{printed.caption}:')
  for name, mean, interval, _, meaning in printed.rows:
    print(f'  {name:<31} {mean:>8}  ({interval})  {meaning}')
  print()
  for name, text in _noticed(finished.record):
    print(f'{name}: {text}')
  print(f'\nWritten to {workdir}:')
  for file in (result.METRICS_FILE, result.PROTOCOL_FILE,
               result.PHOTOGRAPHS_FILE, result.STATISTICS_FILE, *files):
    print(f'  {workdir / file}')


def _meaning(name: str, value: Interval) -> str:
  """What a figure is, and over which photographs where that is not all."""
  metric = catalogue.METRICS[name]
  if not value.num_undefined:
    return metric.meaning
  return (f'{metric.meaning}; over {value.n} photographs, '
          f'{value.num_undefined} left out ({metric.undefined})')


def _texts(value: Interval) -> tuple[str, str]:
  """Mean and interval; an infinite figure has none."""
  if np.isinf(value.mean):
    return ('∞' if value.mean > 0 else '-∞'), 'equal pictures among them'
  return f'{value.mean:.4g}', f'{value.low:.4g} to {value.high:.4g}'


def _noticed(record: Record) -> list[tuple[str, str]]:
  """What a reader of the figures has to know of the photographs."""
  noticed = [
      *(('warning', text) for text in record.warnings),
      ('left out', _count(record.left_out)),
      ('grey by nature', f'{record.num_grey} of {len(record.photographs)} '
       'photographs judged')]
  if record.near_duplicates is not None:
    what = 'dropped' if record.drops_near_duplicates else 'kept'
    noticed.append(('near-duplicates of training photographs', _count(
        record.near_duplicates, what)))
  return noticed


def _count(lines: Sequence[str], what: str = '') -> str:
  if not lines:
    return 'none'
  named = list(lines[:_NAMED])
  if len(lines) > _NAMED:
    named.append(f'{len(lines) - _NAMED} more')
  return f'{len(lines)}{f", {what}" if what else ""} ({"; ".join(named)})'


def _origin(record: Record) -> page.Table:
  """How the figures were obtained; protocol.json has every name."""
  rows = [('photographs', f'{record.data}: {len(record.photographs)}, '
           f'{listing.examples(record.photographs)}'),
          ('SHA-256 of the pixels', record.pixels), *_noticed(record),
          ('proposals, samples, draws', f'at most {record.num_proposals}, '
           f'{record.num_samples}, {record.num_draws}; seed {record.seed}')]
  if record.density:
    rows.append(('density', f'of the ab field at {record.density}'))
  return page.Table(
      caption='How this was obtained; protocol.json has it whole',
      header=['what', 'value'], words=['value'], rows=rows)
