"""Runs one command and keeps a record of it in its work directory.

Every executor starts runs through this module, so a run is recorded, stopped
and retried in the same way on a laptop and on a cluster:

* The record (`launch.record`) is written at the start, at every heartbeat and
  at the end.
* SIGINT, SIGTERM and SIGHUP are passed on once, so that the run saves and ends.
* A stop file, which appears on the file system that all machines share, does
  the same.
* A run that crashed is started again after a pause. A run that failed with an
  error that would happen again is not.

Nothing here imports JAX.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from launch import progress, record
from launch.record import Record

_POLL_SECONDS = 0.1
_STOP_SECONDS = 1.0
# Within so long a second signal is the first one, come by another way: batch
# systems send it to every process of a job.
_SAME_SIGNAL_SECONDS = 5.0
_LONGEST_BACKOFF_SECONDS = 600.0
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A command that has a work directory.

  Attributes:
    name: for people.
    command: the program and its arguments.
    workdir: where the record of it is kept.
    log: file that receives all that it prints; an earlier log is kept and
      added to.
    environment: variables that are set for it.
    cwd: directory that it runs in; that of the launcher if None.
    cores: processors that it may use; all if empty.
    place: what it runs on, for people.
    stop_file: it is asked to save and end when this file appears.
    max_retries: how often it is started again after a crash.
    backoff_seconds: pause before the first of these, doubled for each next.
    is_done: whether its result is there; None: what its record says.
  """
  name: str
  command: Sequence[str]
  workdir: pathlib.Path
  log: pathlib.Path
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  cwd: str | None = None
  cores: Sequence[int] = ()
  place: str = ''
  stop_file: pathlib.Path | None = None
  max_retries: int = 0
  backoff_seconds: float = 10.0
  is_done: Callable[[], bool] | None = None

  def is_finished(self) -> bool:
    """Whether its result is there."""
    if self.is_done is not None:
      return self.is_done()
    return record.state(self.workdir)[0] == 'finished'


class Supervisor:
  """One task, from its start to its end."""

  def __init__(self, task: Task, *, keeps_record: bool = True):
    """Prepares to run a task.

    Args:
      task: what to run.
      keeps_record: whether the record and the log are written. Of the
        processes of one run on several machines, the first one writes them.
    """
    self._task = task
    self._keeps_record = keeps_record
    self._child: subprocess.Popen | None = None
    self._asked: int | None = None
    self._asked_at = 0.0
    self._record: Record | None = None

  @property
  def asked(self) -> int | None:
    """The signal by which the run was asked to end, or None."""
    return self._asked

  def run(self) -> int:
    """Runs the task to its end.

    Returns:
      0 for a finished run, 2 for an error that would happen again, 128 + signal
      for an interrupted run, and otherwise the code of the last crash.
    """
    task = self._task
    state, before = self._others()
    if state in ('running', 'retrying'):
      print(f'{task.name}: runs already, started by another command')
      return 0
    self._record = record.began(
        starts=before.starts + 1 if before else 1, place=task.place,
        crashes=before.crashes if before and before.state == 'preempted' else 0,
        from_step=progress.last_step(task.workdir))
    if task.stop_file is not None and task.stop_file.exists():
      return self._ends('interrupted', 128 + signal.SIGTERM,
                        'the sweep was stopped before it began')
    while True:
      self._write()
      code = self._attempt()
      if code == 0:
        return self._ends('finished', code, '')
      if self._asked is not None or _is_interruption(code):
        number = self._asked or code - 128
        return self._ends('interrupted', 128 + number,
                          f'{signal.Signals(number).name}: saved, to be gone '
                          'on with')
      reason = reason_of(task.log, code)
      crashes = self._record.crashes + 1
      if code == record.EXIT_OWN_REASONS or crashes > task.max_retries:
        return self._ends('failed', code, reason)
      pause = min(task.backoff_seconds * 2 ** (crashes - 1),
                  _LONGEST_BACKOFF_SECONDS)
      self._write(state='retrying', crashes=crashes, exit_code=code,
                  reason=f'{reason}; starts again in '
                         f'{progress.duration(pause)}')
      self._wait(pause)
      if self._asked is not None:
        return self._ends('interrupted', 128 + self._asked,
                          'stopped before it was started again')
      self._write(state='running', started=time.time(),
                  starts=self._record.starts + 1, reason='', exit_code=None,
                  from_step=progress.last_step(task.workdir))

  def _others(self) -> tuple[str, Record | None]:
    """How the run stands before this start of it.

    A batch system starts a run again soon after its machine failed. Until its
    sign of life is too old it could be running there still.
    """
    state, before = record.state(self._task.workdir)
    until = time.monotonic() + 1.5 * record.LOST_SECONDS
    while (self._keeps_record and state in ('running', 'retrying')
           and time.monotonic() < until):
      time.sleep(_STOP_SECONDS)
      now, found = record.state(self._task.workdir)
      if found is not None and before is not None and (
          found.heartbeat > before.heartbeat):
        return now, found
      state, before = now, found
    return ('waiting' if not self._keeps_record else state), before

  def ask(self, number: int) -> None:
    """Asks the run to save and end; a second time, to end at once."""
    now = time.monotonic()
    if self._asked is not None and now - self._asked_at < _SAME_SIGNAL_SECONDS:
      return
    self._asked, self._asked_at = self._asked or number, now
    if self._child is not None and self._child.poll() is None:
      # Scripts know Ctrl-C and SIGTERM.
      self._child.send_signal(
          signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

  def preempt(self, number: int) -> bool:
    """Has the run save and end, because it will be started again elsewhere.

    Called inside a signal handler, while `run` waits.

    Args:
      number: the signal.

    Returns:
      Whether there is something to go on with: False for a run that has
      meanwhile ended, whether well or not.
    """
    self.ask(number)
    if self._child is not None:
      code = self._code_in_handler(self._child)
      if code == 0:
        self._ends('finished', code, '')
        return False
      if code == record.EXIT_OWN_REASONS:
        self._ends('failed', code, reason_of(self._task.log, code))
        return False
    self._ends('preempted', 128 + number, 'saved; the batch system starts it '
               'again')
    return True

  def _code_in_handler(self, child: subprocess.Popen) -> int:
    """Waits inside a signal handler; Popen.wait could hold its lock there."""
    with contextlib.suppress(ChildProcessError):
      ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
      if ended is not None:
        is_exit = ended.si_code == os.CLD_EXITED
        return ended.si_status if is_exit else 128 + ended.si_status
    return _code(child.returncode or 0)

  def _attempt(self) -> int:
    """Starts the command and waits for it; its exit code as shells have it."""
    with self._output() as output:
      try:
        self._child = subprocess.Popen(
            self._task.command, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, cwd=self._task.cwd,
            env={**os.environ, **self._task.environment},
            preexec_fn=self._prepare_child)
      except (OSError, subprocess.SubprocessError) as error:
        if output is not None:
          print(f'error: {self._task.command[0]}: {error}', file=output)
        return record.EXIT_OWN_REASONS
    if self._asked is not None:  # between the last look and the start
      self._child.send_signal(signal.SIGTERM)
    self._wait(None)
    return _code(self._child.wait())

  def _prepare_child(self) -> None:
    """In the child, before the command: signals, processors, end of life."""
    # Batch systems send these to every process; their default is death.
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
      signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A killed supervisor leaves no run behind that nobody knows of.
    with contextlib.suppress(OSError, AttributeError):
      ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if self._task.cores:
      os.sched_setaffinity(0, self._task.cores)

  @contextlib.contextmanager
  def _output(self) -> Iterator:
    if not self._keeps_record:
      yield None  # what the process itself prints to
      return
    self._task.log.parent.mkdir(parents=True, exist_ok=True)
    # Paths need not be UTF-8. A full disk ends the run, and not this process.
    with self._task.log.open('a', errors='surrogateescape') as log:
      with contextlib.suppress(OSError):
        print('+', *self._task.command, file=log, flush=True)
      yield log

  def _wait(self, seconds: float | None) -> None:
    """Waits for the child, or so long; beats, and looks for the stop file."""
    until = None if seconds is None else time.monotonic() + seconds
    beat = look = time.monotonic()
    while True:
      now = time.monotonic()
      if until is None:
        if self._child is None or self._child.poll() is not None:
          return
      elif now >= until or self._asked is not None:
        return
      if now - look >= _STOP_SECONDS:
        look = now
        stop = self._task.stop_file
        if stop is not None and self._asked is None and stop.exists():
          self.ask(signal.SIGTERM)
      if now - beat >= record.HEARTBEAT_SECONDS:
        beat = now
        self._write()
      time.sleep(_POLL_SECONDS)

  def _ends(self, state: str, code: int, reason: str) -> int:
    self._write(state=state, ended=time.time(), exit_code=code, reason=reason)
    return code

  def _write(self, **changes) -> None:
    assert self._record is not None
    self._record = dataclasses.replace(
        self._record, heartbeat=time.time(), **changes)
    if self._keeps_record:
      record.write(self._task.workdir, self._record)


def _code(returncode: int) -> int:
  """An exit code as shells have it: 128 + signal for a killed process."""
  return 128 - returncode if returncode < 0 else returncode


def _is_interruption(code: int) -> bool:
  return code - 128 in record.INTERRUPTIONS


def reason_of(log: pathlib.Path, code: int) -> str:
  """Why a command failed, in one line: the end of its log, or its signal."""
  if code == 128 + signal.SIGKILL:
    return 'killed by SIGKILL; if nobody did so, the memory was full'
  if code > 128 and code - 128 in set(signal.Signals):
    return f'killed by {signal.Signals(code - 128).name}'
  return last_line(log)


def last_line(log: pathlib.Path) -> str:
  """The last line of a log, without what a progress bar wrote over."""
  try:
    # Read as text, a carriage return ends a line too.
    lines = log.read_text(errors='replace').split('\n')
  except OSError:
    return 'no output'
  return next((line.strip() for line in reversed(lines)
               if line.strip() and not line.startswith('+ ')), 'no output')


@contextlib.contextmanager
def handing_on(supervisor: Supervisor) -> Iterator[None]:
  """SIGINT, SIGTERM and SIGHUP ask the run to save and end."""
  before = {
      number: signal.signal(number, lambda number, _: supervisor.ask(number))
      for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def command_of(task: Task) -> list[str]:
  """The command that supervises a task in a process of its own."""
  words = [
      sys.executable, '-m', 'launch.supervisor', f'--name={task.name}',
      f'--workdir={task.workdir}', f'--log={task.log}',
      f'--cores={",".join(map(str, task.cores))}', f'--place={task.place}',
      f'--max_retries={task.max_retries}', f'--backoff={task.backoff_seconds}']
  if task.stop_file is not None:
    words.append(f'--stop_file={task.stop_file}')
  return [*words, '--', *task.command]


def main() -> int:
  """Supervises the task that the command line describes."""
  parser = argparse.ArgumentParser(allow_abbrev=False)
  for name in ('name', 'workdir', 'log', 'cores', 'place'):
    parser.add_argument(f'--{name}', required=True)
  parser.add_argument('--max_retries', type=int, required=True)
  parser.add_argument('--backoff', type=float, required=True)
  parser.add_argument('--stop_file', type=pathlib.Path)
  parser.add_argument('command', nargs='+')
  given = parser.parse_args()
  supervisor = Supervisor(Task(
      name=given.name, command=given.command,
      workdir=pathlib.Path(given.workdir), log=pathlib.Path(given.log),
      cores=[int(core) for core in given.cores.split(',') if core],
      place=given.place, stop_file=given.stop_file,
      max_retries=given.max_retries, backoff_seconds=given.backoff))
  pathlib.Path(given.workdir).mkdir(parents=True, exist_ok=True)
  with handing_on(supervisor):
    return supervisor.run()


if __name__ == '__main__':
  sys.exit(main())
