"""Runs commands one after the other, or one on each device, with logs.

Nothing here imports JAX. Each job knows whether it is done, so a launcher that
is started again runs only the jobs that are not done. Jobs that can be resumed
are resumed.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

_POLL_SECONDS = 0.2
_SECONDS_BETWEEN_LINES = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """A command to run.

  Attributes:
    name: name for the printed lines.
    command: the program and its arguments.
    log: file for its stdout and stderr; they are appended to an existing log.
    is_done: returns whether its result exists.
  """
  name: str
  command: Sequence[str]
  log: pathlib.Path
  is_done: Callable[[], bool]


@dataclasses.dataclass
class _Running:
  job: Job
  process: subprocess.Popen
  device: str | None
  start: float  # time.monotonic() at the start
  reported: float  # time.monotonic() at the last printed line


def run(jobs: Sequence[Job], *, devices: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print) -> list[Job]:
  """Runs the jobs that are not done.

  After Ctrl-C, SIGTERM or SIGHUP, each running job receives SIGINT, so that it
  can save and end. When all have ended, KeyboardInterrupt is raised. A second
  signal kills the jobs. If this function ends by any other exception, the jobs
  are stopped in the same way.

  Args:
    jobs: the jobs, in the order in which they are started.
    devices: numbers of GPUs. One job at a time runs on each, selected by
      CUDA_VISIBLE_DEVICES. If empty, one job at a time runs on all devices.
    environment: environment variables to set for each job.
    say: called with a line when a job starts or ends, and from time to time
      while it runs.

  Returns:
    The jobs that failed. The other jobs are run nevertheless.

  Raises:
    KeyboardInterrupt: a signal was received; all jobs have ended.
    OSError: a job cannot be started, or its log cannot be written.
  """
  missing = [job for job in jobs if not job.is_done()]
  waiting = collections.deque(missing)
  free: list[str | None] = list(devices) or [None]
  running: list[_Running] = []
  failed: list[Job] = []
  start = time.monotonic()
  with _noticed() as received:
    try:
      while waiting or running:
        while waiting and free:
          running.append(_start(waiting.popleft(), free.pop(0), environment))
          say(f'{running[-1].job.name}: started')
        time.sleep(_POLL_SECONDS)
        if received:
          say(f'interrupted: waiting for {len(running)} running jobs to save')
          raise KeyboardInterrupt
        for one in list(running):
          code = one.process.poll()
          if code is None:
            _report(one, say)
            continue
          running.remove(one)
          free.append(one.device)
          is_ok = code == 0 and one.job.is_done()
          if not is_ok:
            failed.append(one.job)
          done = len(missing) - len(waiting) - len(running)
          left = (time.monotonic() - start) / done * (len(missing) - done)
          say(f'{_outcome(one, is_ok)}; {done} of {len(missing)}'
              + (f', about {left / 60:.0f} min left' if left else ''))
    except BaseException:
      _stop(running, received)
      raise
  return failed


def last_line(log: pathlib.Path) -> str:
  """Returns the last line of a log that is not blank.

  If a progress bar has overwritten its line, the latest version is returned;
  'no output' if there is no line.
  """
  try:
    # read_text also ends a line at a carriage return.
    lines = log.read_text(errors='replace').split('\n')
  except OSError:
    return 'no output'
  return next((line.strip() for line in reversed(lines) if line.strip()),
              'no output')


def _start(job: Job, device: str | None, environment: Mapping[str, str] | None
           ) -> _Running:
  job.log.parent.mkdir(parents=True, exist_ok=True)
  env = {**os.environ, **(environment or {})}
  if device is not None:
    env['CUDA_VISIBLE_DEVICES'] = device
  # Paths need not be UTF-8.
  with job.log.open('a', errors='surrogateescape') as log:
    print('+', *job.command, file=log, flush=True)
    # In its own session, so that Ctrl-C in the terminal does not reach the job
    # directly: it receives SIGINT from us only.
    process = subprocess.Popen(
        job.command, stdout=log, stderr=subprocess.STDOUT, env=env,
        stdin=subprocess.DEVNULL, start_new_session=True)
  now = time.monotonic()
  return _Running(job, process, device, now, now)


def _report(one: _Running, say: Callable[[str], None]) -> None:
  now = time.monotonic()
  if now - one.reported >= _SECONDS_BETWEEN_LINES:
    one.reported = now
    say(f'{one.job.name}: {last_line(one.job.log)[:120]}')


def _outcome(one: _Running, is_ok: bool) -> str:
  if is_ok:
    return f'{one.job.name}: done in {time.monotonic() - one.start:.0f} s'
  return (f'{one.job.name}: FAILED ({last_line(one.job.log)}); see '
          f'{one.job.log}')


@contextlib.contextmanager
def _noticed() -> Iterator[list[int]]:
  """Yields a list to which the signals that end a process are appended.

  Signals that this process ignores (nohup ignores SIGHUP) stay ignored.
  """
  received: list[int] = []

  def note(number: int, frame: object) -> None:
    received.append(number)

  before = {}
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      before[number] = signal.signal(number, note)
    elif number == signal.SIGINT:
      # Shells start background processes with SIGINT ignored. Jobs would
      # inherit that, and SIGINT could not end them. So it gets a handler that
      # does nothing.
      before[number] = signal.signal(number, lambda *_: None)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _stop(running: Sequence[_Running], received: Sequence[int]) -> None:
  """Sends SIGINT to all jobs and waits; kills them at the next signal."""
  for one in running:
    one.process.send_signal(signal.SIGINT)
  num_received = len(received)
  while any(one.process.poll() is None for one in running):
    if len(received) > num_received:
      for one in running:
        one.process.kill()
    time.sleep(_POLL_SECONDS)


def python(module: str, *arguments: str) -> list[str]:
  """Returns the command `python -m module arguments`, with this interpreter."""
  return [sys.executable, '-m', module, *arguments]
