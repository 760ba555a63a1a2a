"""How far a run has come, from the files of its work directory."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from launch.record import Record

_METRICS = 'metrics.jsonl'
_FLAGS = 'flags.txt'
_TAIL_BYTES = 65536


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """How far a run has come.

  Attributes:
    step: the last step that metrics.jsonl tells of, 0 before the first line.
    num_steps: where the run ends, None if it does not say so.
    best: least validation loss so far, None where none was measured.
    best_step: the step of it.
  """
  step: int = 0
  num_steps: int | None = None
  best: float | None = None
  best_step: int | None = None


def read(workdir: pathlib.Path) -> Progress:
  """Returns the progress of a run, which may have no files yet."""
  best, best_step = None, None
  for line in lines(workdir, 'validation'):
    loss = line.get('loss')
    if isinstance(loss, (int, float)) and (best is None or loss < best):
      best, best_step = float(loss), line['step']
  return Progress(step=last_step(workdir), num_steps=_num_steps(workdir),
                  best=best, best_step=best_step)


def lines(workdir: pathlib.Path, split: str | None = None
          ) -> Iterator[Mapping[str, Any]]:
  """Yields the lines of metrics.jsonl, of one split or all.

  A line that was not written to its end is left out.
  """
  try:
    text = (pathlib.Path(workdir) / _METRICS).read_text(errors='replace')
  except OSError:
    return
  for text_line in text.splitlines():
    line = _parsed(text_line)
    if line and split in (None, line.get('split')):
      yield line


def last_step(workdir: pathlib.Path) -> int:
  """Returns the last step in metrics.jsonl; reads only the end of the file."""
  try:
    with (pathlib.Path(workdir) / _METRICS).open('rb') as file:
      size = file.seek(0, 2)
      file.seek(max(0, size - _TAIL_BYTES))
      tail = file.read().decode(errors='replace').splitlines()
  except OSError:
    return 0
  return next((line['step'] for line in map(_parsed, reversed(tail)) if line),
              0)


def _parsed(text: str) -> Mapping[str, Any]:
  """A line of metrics.jsonl; {} for one that was not written to its end."""
  try:
    line = json.loads(text)
  except ValueError:
    return {}
  is_whole = isinstance(line, dict) and isinstance(line.get('step'), int)
  return line if is_whole else {}


def _num_steps(workdir: pathlib.Path) -> int | None:
  try:
    text = (pathlib.Path(workdir) / _FLAGS).read_text(errors='replace')
  except OSError:
    return None
  for line in text.splitlines():
    name, _, value = line.partition('=')
    if name == '--num_steps' and value.isdigit():
      return int(value)
  return None


def seconds_left(progress: Progress, record: Record) -> float | None:
  """Returns the seconds until a run ends, estimated from its speed so far.

  Args:
    progress: how far it has come.
    record: of the run.

  Returns:
    None before the first step is known.
  """
  made = progress.step - record.from_step
  if progress.num_steps is None or made <= 0:
    return None
  seconds = (record.heartbeat - record.started) / made
  return max(0.0, seconds * (progress.num_steps - progress.step))


def duration(seconds: float) -> str:
  """Formats seconds: 48 s, 12 min, 3 h 20 min, 2 d 4 h."""
  if seconds < 90:
    return f'{math.ceil(seconds)} s'
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 24:
    return f'{hours} h {minutes} min'
  return f'{hours // 24} d {hours % 24} h'
