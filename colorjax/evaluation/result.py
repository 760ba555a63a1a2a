"""The files of a finished evaluation. Each is written atomically.

  metrics.json      {metric: {mean, low, high, n}}. A number that is not finite
                    is null. Some metrics leave out photographs without a finite
                    value (PSNR of equal pictures): n then counts the others,
                    and num_undefined the photographs that were left out.
  protocol.json     `protocol.Record`: how the metrics were obtained
  photographs.csv   one line for each photograph, one column for each metric
  statistics.npz    statistics of each photograph, needed for metrics of sets
                    and for comparisons
"""

import csv
import dataclasses
import io
import math
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from colorjax import files
from colorjax.errors import UserError
from colorjax.evaluation.protocol import Record
from colorjax.metrics.bootstrap import Interval

METRICS_FILE = 'metrics.json'
PROTOCOL_FILE = 'protocol.json'
PHOTOGRAPHS_FILE = 'photographs.csv'
STATISTICS_FILE = 'statistics.npz'


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
  """A finished evaluation.

  Attributes:
    record: how the metrics were obtained.
    statistics: statistics of each photograph, [N, ...], by the names of
      `catalogue.METRICS`.
    summary: each metric with its interval.
  """
  record: Record
  statistics: Mapping[str, np.ndarray]
  summary: Mapping[str, Interval]


def write(folder: pathlib.Path, result: EvaluationResult) -> None:
  """Writes all files. metrics.json is last and marks the result as complete.

  Args:
    folder: an existing folder.
    result: the evaluation.

  Raises:
    UserError: a file cannot be written.
  """
  try:
    # An old one must not mark files as complete that are being replaced.
    (folder / METRICS_FILE).unlink(missing_ok=True)
  except OSError as error:
    raise UserError(
        f'{folder}: cannot be written: {error.strerror or error}') from error
  files.write_bytes(folder / STATISTICS_FILE, pack(result.statistics))
  files.write_text(folder / PHOTOGRAPHS_FILE, _table(result))
  files.write_json(folder / PROTOCOL_FILE, result.record.as_json())
  files.write_json(folder / METRICS_FILE, {
      name: interval_fields(value)
      for name, value in result.summary.items()})


def load(folder: pathlib.Path) -> EvaluationResult:
  """Reads the files that `write` wrote.

  Args:
    folder: the work directory of an evaluation.

  Raises:
    UserError: the folder has no finished evaluation, or a file is damaged.
  """
  if not (folder / METRICS_FILE).is_file():
    raise UserError(
        f'{folder} has no {METRICS_FILE}: give the work directory of an '
        'evaluation that has finished')
  record = Record.from_json(
      _read_json(folder / PROTOCOL_FILE), folder / PROTOCOL_FILE)
  values = _read_json(folder / METRICS_FILE)
  try:
    summary = {name: Interval(
        mean=_number(fields['mean']), low=_number(fields['low']),
        high=_number(fields['high']), n=fields['n'],
        num_undefined=fields.get('num_undefined', 0))
        for name, fields in values.items()}
  except (TypeError, KeyError) as error:
    raise UserError(f'{folder / METRICS_FILE} is not a metrics file of this '
                    f'version: {error}; evaluate again in an empty work '
                    'directory') from error
  statistics = unpack(folder / STATISTICS_FILE)
  wrong = [name for name, rows in statistics.items()
           if rows.shape[:1] != (len(record.photographs),)]
  if wrong:
    raise UserError(
        f'{folder / STATISTICS_FILE}: {wrong[0]} does not have a row for each '
        f'of the {len(record.photographs)} photographs of {PROTOCOL_FILE}: '
        'evaluate again in an empty work directory')
  return EvaluationResult(record, statistics, summary)


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Named arrays as the bytes of an .npz file."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
  return buffer.getvalue()


def unpack(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of an .npz file.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    # Opened here, because NumPy does not close a damaged file.
    with path.open('rb') as raw, np.load(raw) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, zipfile.BadZipFile, zlib.error,
          EOFError) as error:
    raise UserError(f'{path} cannot be read ({error}): evaluate again in an '
                    'empty work directory') from error


def _table(result: EvaluationResult) -> str:
  """CSV of all metrics that have one number for each photograph."""
  columns = {name: values for name, values in result.statistics.items()
             if values.ndim == 1}
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['photograph', *columns])
  for i, name in enumerate(result.record.photographs):
    writer.writerow([name, *(f'{values[i]:.6g}' for values in
                             columns.values())])
  return text.getvalue()


def interval_fields(interval: Interval) -> dict[str, float | int | None]:
  """An interval as `metrics.json` holds it.

  Numbers that are not finite become None, because JSON has none of them, and
  `num_undefined` is left out where it is 0.
  """
  fields = dataclasses.asdict(interval)
  if not interval.num_undefined:
    del fields['num_undefined']
  return {key: None if isinstance(value, float) and not math.isfinite(value)
          else value for key, value in fields.items()}


def _number(value: float | None) -> float:
  return math.nan if value is None else value


def _read_json(path: pathlib.Path) -> dict:
  try:
    values = files.read_json(path)
  except UserError as error:
    raise UserError(
        f'{error}: evaluate again in an empty work directory') from error
  if not isinstance(values, dict):
    raise UserError(f'{path} is not a JSON object: evaluate again in an empty '
                    'work directory')
  return values
