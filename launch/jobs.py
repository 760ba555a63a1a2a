"""Commands run one after the other, or one on each device, with logs.

Nothing here imports JAX. A job says by itself whether it is done, so that a
stopped launcher started again runs what is missing; jobs that can go on where
they were stopped do so.
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
  """A command.

  Attributes:
    name: for people.
    command: the program and its arguments.
    log: file that receives all that it prints; an earlier log is kept and
      added to.
    is_done: whether its result is there already.
  """
  name: str
  command: Sequence[str]
  log: pathlib.Path
  is_done: Callable[[], bool]


@dataclasses.dataclass
class _Running:
  job: Job
  process: subprocess.Popen
  slot: str | None
  begun: float
  said: float


def run(jobs: Sequence[Job], *, devices: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print) -> list[Job]:
  """Runs the jobs that are not done.

  Ctrl-C, SIGTERM and SIGHUP are handed on: each running job is asked by SIGINT
  to save and end, and is waited for, before KeyboardInterrupt is raised. A
  second one kills the jobs. Whatever else ends this function ends them too.

  Args:
    jobs: in the order in which they are begun.
    devices: GPUs by their numbers; a job is given one by CUDA_VISIBLE_DEVICES,
      and as many run at once. None: one job at a time, with all that there is.
    environment: set for each job.
    say: is told what begins, how it goes and what ends, a line at a time.

  Returns:
    The jobs that failed: the others are not kept from running.
  """
  missing = [job for job in jobs if not job.is_done()]
  waiting = collections.deque(missing)
  free: list[str | None] = list(devices) or [None]
  running: list[_Running] = []
  failed: list[Job] = []
  begun = time.monotonic()
  with _noticed() as received:
    try:
      while waiting or running:
        while waiting and free:
          running.append(_start(waiting.popleft(), free.pop(0), environment))
          say(f'{running[-1].job.name}: begins')
        time.sleep(_POLL_SECONDS)
        if received:
          say(f'interrupted: {len(running)} running jobs save and end')
          raise KeyboardInterrupt
        for one in list(running):
          code = one.process.poll()
          if code is None:
            _report(one, say)
            continue
          running.remove(one)
          free.append(one.slot)
          ok = code == 0 and one.job.is_done()
          if not ok:
            failed.append(one.job)
          done = len(missing) - len(waiting) - len(running)
          left = (time.monotonic() - begun) / done * (len(missing) - done)
          say(f'{_outcome(one, ok)}; {done} of {len(missing)}'
              + (f', about {left / 60:.0f} min left' if left else ''))
    except BaseException:
      _stop(running, received)
      raise
  return failed


def last_line(log: pathlib.Path) -> str:
  """The last line of a log, without what a progress bar wrote over."""
  try:
    # Read as text, a carriage return ends a line too.
    lines = log.read_text(errors='replace').split('\n')
  except OSError:
    return 'no output'
  return next((line.strip() for line in reversed(lines) if line.strip()),
              'no output')


def _start(job: Job, slot: str | None, environment: Mapping[str, str] | None
           ) -> _Running:
  job.log.parent.mkdir(parents=True, exist_ok=True)
  env = {**os.environ, **(environment or {})}
  if slot is not None:
    env['CUDA_VISIBLE_DEVICES'] = slot
  # Paths need not be UTF-8.
  with job.log.open('a', errors='surrogateescape') as log:
    print('+', *job.command, file=log, flush=True)
    # A session of its own: Ctrl-C reaches it once, by us, and not by the
    # terminal too.
    process = subprocess.Popen(
        job.command, stdout=log, stderr=subprocess.STDOUT, env=env,
        stdin=subprocess.DEVNULL, start_new_session=True)
  now = time.monotonic()
  return _Running(job, process, slot, now, now)


def _report(one: _Running, say: Callable[[str], None]) -> None:
  now = time.monotonic()
  if now - one.said >= _SECONDS_BETWEEN_LINES:
    one.said = now
    say(f'{one.job.name}: {last_line(one.job.log)[:120]}')


def _outcome(one: _Running, ok: bool) -> str:
  if ok:
    return f'{one.job.name}: done in {time.monotonic() - one.begun:.0f} s'
  return (f'{one.job.name}: FAILED ({last_line(one.job.log)}); all of it is in '
          f'{one.job.log}')


@contextlib.contextmanager
def _noticed() -> Iterator[list[int]]:
  """The signals that ask to end, as they come: none is lost between jobs."""
  received: list[int] = []

  def note(number: int, frame: object) -> None:
    received.append(number)

  before = {}
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      before[number] = signal.signal(number, note)
    elif number == signal.SIGINT:
      # A shell has what it starts in the background ignore Ctrl-C. Jobs would
      # inherit that, and could then not be asked to end.
      before[number] = signal.signal(number, lambda *_: None)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _stop(running: Sequence[_Running], received: Sequence[int]) -> None:
  """Asks jobs to save and end, waits for them; kills at the next signal."""
  for one in running:
    one.process.send_signal(signal.SIGINT)
  heard = len(received)
  while any(one.process.poll() is None for one in running):
    if len(received) > heard:
      for one in running:
        one.process.kill()
    time.sleep(_POLL_SECONDS)


def python(module: str, *arguments: str) -> list[str]:
  """`python -m module arguments` with the interpreter that runs this."""
  return [sys.executable, '-m', module, *arguments]
