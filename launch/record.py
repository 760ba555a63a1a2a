"""The record of a run in its work directory: started, alive, ended, and how.

The supervisor of a run (`launch.supervisor`) writes one small file into the
work directory. Every question about a run is answered from there. A batch
system is asked only whether a run that has not started is still in its queue.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import signal
import time
from typing import Any

from colorjax import files
from colorjax.errors import UserError

FILE = 'launch.json'
"""Name of the record inside a work directory."""

HEARTBEAT_SECONDS = 5.0
"""Time between two signs of life of a run."""

LOST_SECONDS = 60.0
"""A run of another machine without a sign of life for so long is lost."""

EXIT_OWN_REASONS = 2
"""Exit code of a run that would fail in the same way if it were started again.

A wrong flag, a loss that is not finite, a full disk: `colorjax.errors`.
"""

INTERRUPTIONS = frozenset({
    signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1,
    signal.SIGUSR2})
"""Signals that tell a run to save and end; it can be resumed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """The state of a run.

  Attributes:
    state: 'running'; 'retrying', waiting to start again after a crash;
      'finished'; 'failed'; 'interrupted', asked to end; 'preempted', asked to
      end by a batch system that starts it again.
    started: when this start of it began, seconds since 1970.
    heartbeat: last sign of life, seconds since 1970.
    starts: how often the run was started, this time included.
    crashes: how often it crashed since a person last asked for it.
    from_step: step that this start goes on from.
    host: name of the machine.
    pid: process of the supervisor there.
    pid_began: when that process began, in ticks of the machine's clock: a
      number of a process is given again.
    place: what it runs on, for people: 'GPU 0', 'SLURM 12_3'.
    ended: when it ended, None while it runs.
    exit_code: of the script, 128 + signal where a signal ended it.
    reason: how it ended, one line.
  """
  state: str
  started: float
  heartbeat: float
  starts: int
  crashes: int = 0
  from_step: int = 0
  host: str = ''
  pid: int = 0
  pid_began: int = 0
  place: str = ''
  ended: float | None = None
  exit_code: int | None = None
  reason: str = ''


def read(workdir: pathlib.Path) -> Record | None:
  """Returns the record of a work directory, or None if there is none.

  Raises:
    UserError: the file is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.is_file():
    return None
  try:
    found = files.read_json(path)
    names = {field.name for field in dataclasses.fields(Record)}
    return Record(**{name: found[name] for name in found.keys() & names})
  except (UserError, TypeError, AttributeError) as error:
    raise UserError(f'{path} is damaged: remove it, and the run is started '
                    'again') from error


def write(workdir: pathlib.Path, record: Record) -> None:
  """Writes the record of a work directory.

  On a full disk the old file is written over in place, which needs no new
  block, so that a run which ended because of it can say so.
  """
  path = pathlib.Path(workdir) / FILE
  try:
    files.write_json(path, dataclasses.asdict(record))
  except UserError:
    with contextlib.suppress(OSError), path.open('r+b') as file:
      size = path.stat().st_size
      file.write(json.dumps(dataclasses.asdict(record)).encode().ljust(size))


def began(**fields: Any) -> Record:
  """Returns the record of a run that this process starts now."""
  now = time.time()
  return Record(
      state='running', started=now, heartbeat=now, host=platform.node(),
      pid=os.getpid(), pid_began=_began(os.getpid()), **fields)


def state(workdir: pathlib.Path) -> tuple[str, Record | None]:
  """Returns the state of a run and its record.

  Args:
    workdir: of the run.

  Returns:
    `Record.state`, or 'waiting' for a run that was never started, or 'lost'
    for one whose supervisor was killed; and the record.

  Raises:
    UserError: the record is damaged.
  """
  found = read(workdir)
  if found is None:
    return 'waiting', None
  if found.state in ('running', 'retrying') and not _is_alive(found):
    return 'lost', found
  return found.state, found


def _is_alive(record: Record) -> bool:
  if record.host == platform.node():
    # Where /proc is not, every process that exists is taken for it.
    return _began(record.pid) == record.pid_began and _exists(record.pid)
  return time.time() - record.heartbeat < LOST_SECONDS


def _exists(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def _began(pid: int) -> int:
  """When a process began, in clock ticks since boot; 0 if not known."""
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return 0
  # The name of the program stands in parentheses and may hold blanks.
  fields = text.rpartition(')')[2].split()
  return 0 if fields[0] == 'Z' else int(fields[19])
