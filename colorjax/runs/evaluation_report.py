"""The report of an evaluation: what it prints and writes to `report/`."""

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
from colorjax.runs.subject import EvaluateOptions, Photographs, Subject

_EXAMPLES_FILE = 'report/examples.npz'  # for the sheets of comparisons
_INDEX_FILE = 'report/index.html'
_MAX_NAMED = 3  # of the photographs left out; protocol.json names all


def write(workdir: pathlib.Path, subject: Subject, photos: Photographs,
          finished: result.EvaluationResult, indices: np.ndarray,
          options: EvaluateOptions, *, configuration: str, command: str
          ) -> list[str]:
  """Writes `report/`.

  Args:
    workdir: work directory of the evaluation.
    subject: what was measured; the colorings in pictures are computed again.
    photos: the photographs.
    finished: the result.
    indices: numbers of the measured photographs in their source, [N].
    options: options of the evaluation.
    configuration: text for the end of the page.
    command: the command line that repeats the evaluation, for the page.

  Returns:
    The paths of the page and its pictures, relative to `workdir`.

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
  # Spread over the source, because folders are sorted by class.
  chosen = indices[np.linspace(0, len(indices) - 1, number).round().astype(int)]
  shown = evaluation_pictures.colored(subject, photos, chosen)
  files.write_bytes(workdir / _EXAMPLES_FILE, result.pack(
      {'original': shown.original, 'picture': shown.picture}))
  pictures = [
      evaluation_pictures.histograms(finished),
      evaluation_pictures.extremes(subject, photos, finished, indices),
      *evaluation_pictures.uncertainty(shown, options),
      *evaluation_pictures.calibrations(finished)]
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  page.write_index(
      workdir / _INDEX_FILE, title=f'colorjax: {subject.name}',
      tables=[table(finished), _origin(finished.record)],
      figures=[figure for figure, _ in pictures],
      command=command, settings=configuration)
  return [_INDEX_FILE, *(f'report/{figure.file}' for figure, _ in pictures)]


def load_examples(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads example photographs of an evaluation, to show them in a comparison.

  Args:
    workdir: work directory of the evaluation.

  Returns:
    'original' and 'picture', the coloring; uint8 sRGB [N, S, S, 3].

  Raises:
    UserError: the file does not exist or is damaged.
  """
  return result.unpack(workdir / _EXAMPLES_FILE)


def table(finished: result.EvaluationResult) -> page.Table:
  """Makes the table of all metrics with their intervals."""
  record = finished.record
  return page.Table(
      caption=f'{record.judged}: {len(record.photographs)} photographs, '
      f'protocol {record.protocol.name} version {record.protocol.version}, '
      f'{record.protocol.image_size} x {record.protocol.image_size} '
      f'{record.protocol.fit}; mean and 95 % bootstrap interval',
      header=['metric', 'mean', '95 %', 'better', 'meaning'],
      words=['better', 'meaning'],
      rows=[[name, *_texts(value), catalogue.METRICS[name].better,
             _meaning(name, value)]
            for name, value in finished.summary.items()])


def say(workdir: pathlib.Path, finished: result.EvaluationResult,
        files: Sequence[str]) -> None:
  """Prints the metrics, notes on the photographs, and the paths of the files.

  Args:
    workdir: work directory of the evaluation.
    finished: the result.
    files: what `write` returned.
  """
  printed = table(finished)
  print(f'\n{printed.caption}:')
  for name, mean, interval, _, meaning in printed.rows:
    print(f'  {name:<31} {mean:>8}  ({interval})  {meaning}')
  print()
  for name, text in _notes(finished.record):
    print(f'{name}: {text}')
  print(f'\nWritten to {workdir}:')
  for file in (result.METRICS_FILE, result.PROTOCOL_FILE,
               result.PHOTOGRAPHS_FILE, result.STATISTICS_FILE, *files):
    print(f'  {workdir / file}')


def _meaning(name: str, value: Interval) -> str:
  """The meaning of a metric, and how many photographs it is undefined for."""
  metric = catalogue.METRICS[name]
  if not value.num_undefined:
    return metric.meaning
  return (f'{metric.meaning}; over {value.n} photographs, '
          f'{value.num_undefined} left out ({metric.undefined})')


def _texts(value: Interval) -> tuple[str, str]:
  """Mean and interval as text; an infinite mean has no interval."""
  if np.isinf(value.mean):
    return ('∞' if value.mean > 0 else '-∞'), 'equal pictures among them'
  return f'{value.mean:.4g}', f'{value.low:.4g} to {value.high:.4g}'


def _notes(record: Record) -> list[tuple[str, str]]:
  """What a reader of the metrics has to know about the photographs."""
  notes = [
      *([('colored', f'imitated scans ({record.film}); metrics of RGB contain '
          'their damage')] if record.film else []),
      *(('warning', text) for text in record.warnings),
      ('left out', _count(record.left_out)),
      ('grey originals', f'{record.num_grey} of {len(record.photographs)} '
       'measured photographs')]
  if record.near_duplicates is not None:
    what = 'dropped' if record.drops_near_duplicates else 'kept'
    notes.append(('near-duplicates of training photographs', _count(
        record.near_duplicates, what)))
  return notes


def _count(lines: Sequence[str], what: str = '') -> str:
  if not lines:
    return 'none'
  named = list(lines[:_MAX_NAMED])
  if len(lines) > _MAX_NAMED:
    named.append(f'{len(lines) - _MAX_NAMED} more')
  return f'{len(lines)}{f", {what}" if what else ""} ({"; ".join(named)})'


def _origin(record: Record) -> page.Table:
  """The table of how the metrics were obtained."""
  rows = [('photographs', f'{record.data}: {len(record.photographs)}, '
           f'{listing.examples(record.photographs)}'),
          ('SHA-256 of the pixels', record.pixels), *_notes(record),
          ('proposals, samples, draws', f'at most {record.num_proposals}, '
           f'{record.num_samples}, {record.num_draws}; seed {record.seed}')]
  if record.density:
    rows.append(('density', f'of the ab field at {record.density}'))
  return page.Table(
      caption='How the metrics were obtained; protocol.json has all details',
      header=['item', 'value'], words=['value'], rows=rows)
