"""The states of all runs of a sweep, as a table."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence

from launch import progress, record
from launch.progress import Progress
from launch.record import Record

OVER = ('finished', 'failed')
"""States that only a person changes."""

STARTED_AGAIN = ('waiting', 'lost', 'interrupted', 'preempted')
"""States of runs that `run` starts."""

# What a batch system says of a run whose record says that it does not run, if
# the run is still in its hands.
_PHASES_UNDER_WAY = {
    'waiting': ('pending', 'started'), 'lost': ('pending', 'started'),
    'preempted': ('pending', 'started', 'ending'), 'interrupted': ('pending',)}

_LONGEST_REASON = 80  # all of it is in launch.json

_HEAD = ('run', 'state', 'step', 'left', 'best loss', 'on', 'reason')

UNDER_WAY = ('queued', 'running', 'retrying')
"""States that change by themselves."""

RETRIED = ('failed', 'lost', 'interrupted')
"""States of runs that `retry` starts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
  """The state of one run.

  Attributes:
    name: of the run.
    state: see `record.state`; or 'queued' by a batch system.
    record: None for a run that never started.
    progress: how far it has come.
    reason: why it is as it is, '' where there is nothing to say.
  """
  name: str
  state: str
  record: Record | None
  progress: Progress
  reason: str = ''


def read(workdirs: Mapping[str, pathlib.Path],
         queue: Mapping[str, str] | None = None) -> list[Standing]:
  """Returns the states of all runs.

  Args:
    workdirs: their work directories by name.
    queue: what a batch system says about the runs that it received, by name:
      see `slurm.queue`.
  """
  return [_standing(name, workdir, (queue or {}).get(name))
          for name, workdir in workdirs.items()]


def _standing(name: str, workdir: pathlib.Path, queued: str | None) -> Standing:
  # What the work directory says counts; the queue is asked only about runs that
  # say nothing, or that are to be gone on with.
  state, found = record.state(workdir)
  reason = found.reason if found is not None else ''
  if state == 'lost':
    reason = 'ended without a word: killed, or its machine was'
  if state in STARTED_AGAIN and queued in _PHASES_UNDER_WAY[state]:
    state = 'queued'
  elif state == 'waiting' and queued == '':
    state = 'lost'
    reason = ('its job ended without a word; is the directory on a disk that '
              'all nodes share? See slurm/ there')
  return Standing(name=name, state=state, record=found, reason=reason,
                  progress=progress.read(workdir))


def table(standings: Sequence[Standing]) -> str:
  """Returns a table with a line for each run, and a line that counts them."""
  rows: list[tuple[str, ...]] = [_HEAD]
  rows += [_row(standing) for standing in standings]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
  lines = ['  '.join([*(cell.ljust(width) for cell, width in
                        zip(row, widths, strict=False)), row[-1]]).rstrip()
           for row in rows]
  return '\n'.join([*lines, '', counts(standings)])


def counts(standings: Sequence[Standing]) -> str:
  """Returns a summary such as '12 runs: 3 running, 9 finished'."""
  states = [standing.state for standing in standings]
  parts = [f'{states.count(state)} {state}' for state in dict.fromkeys(states)]
  return f'{len(states)} runs: {", ".join(parts)}'


def _row(standing: Standing) -> tuple[str, ...]:
  done = standing.progress
  step = f'{done.step}/{done.num_steps or "?"}' if done.step else ''
  left = ''
  if standing.state == 'running' and standing.record is not None:
    seconds = progress.seconds_left(done, standing.record)
    left = '' if seconds is None else progress.duration(seconds)
  best = '' if done.best is None else f'{done.best:.4g} @ {done.best_step}'
  place = standing.record.place if standing.record is not None else ''
  reason = standing.reason
  if standing.record is not None and standing.record.starts > 1:
    reason = f'{reason} (start {standing.record.starts})'.strip()
  if len(reason) > _LONGEST_REASON:
    reason = f'{reason[:_LONGEST_REASON]}...'
  return (standing.name, standing.state, step, left, best, place, reason)


def stamp() -> str:
  """The time of day."""
  return time.strftime('%H:%M:%S')
