"""What an evaluation leaves on disk, written whole or not at all.

  metrics.json      {metric: {mean, low, high, n}}; null: a number that is not
                    finite. Where photographs without a finite value (PSNR of
                    equal pictures) are left out, n counts the others, and
                    num_undefined those
  protocol.json     `protocol.Record`: how it was obtained
  photographs.csv   a line a photograph, a column a metric
  statistics.npz    what metrics of sets, and comparisons, are computed from
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
    record: how it was obtained.
    statistics: of each photograph, [N, ...] by the names of `catalogue`.
    summary: each metric with its interval.
  """
  record: Record
  statistics: Mapping[str, np.ndarray]
  summary: Mapping[str, Interval]


def write(folder: pathlib.Path, result: EvaluationResult) -> None:
  """Writes the files; metrics.json last: its presence says that all are there.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    # An older one would vouch for files that are being replaced.
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
  """Reads what `write` wrote.

  Raises:
    UserError: the folder holds no finished evaluation, or a damaged one.
  """
  if not (folder / METRICS_FILE).is_file():
    raise UserError(
        f'{folder} holds no {METRICS_FILE}: name the work directory of an '
        'experiments.evaluate that has ended')
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
    raise UserError(f'{folder / METRICS_FILE} is no file of metrics by this '
                    f'version: {error}') from error
  statistics = unpack(folder / STATISTICS_FILE)
  wrong = [name for name, rows in statistics.items()
           if rows.shape[:1] != (len(record.photographs),)]
  if wrong:
    raise UserError(
        f'{folder / STATISTICS_FILE}: {wrong[0]} is not of the '
        f'{len(record.photographs)} photographs of {PROTOCOL_FILE}: evaluate '
        'again in an empty work directory')
  return EvaluationResult(record, statistics, summary)


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Named arrays as the bytes of an .npz file."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
  return buffer.getvalue()


def unpack(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of an .npz file; UserError where it is damaged."""
  try:
    # NumPy leaves a damaged file open.
    with path.open('rb') as raw, np.load(raw) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, zipfile.BadZipFile, zlib.error,
          EOFError) as error:
    raise UserError(f'{path} cannot be read ({error}): evaluate again in an '
                    'empty work directory') from error


write_whole = files.write_bytes
"""For callers that have not moved to `colorjax.files` yet."""


def _table(result: EvaluationResult) -> str:
  """CSV of what is one number a photograph."""
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
    raise UserError(f'{path} holds no JSON object: evaluate again in an empty '
                    'work directory')
  return values
