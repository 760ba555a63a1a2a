"""Tasks on this machine: one on each GPU, or on each share of the processors.

Every task is supervised in a process of its own (`launch.supervisor`). If this
launcher is killed, its tasks go on, and the next launcher waits for them
instead of starting them twice. Nothing here imports JAX.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from colorjax.errors import UserError
from launch import record, supervisor
from launch.progress import duration
from launch.supervisor import Task

_POLL_SECONDS = 0.2
_SECONDS_BETWEEN_LINES = 60.0
# JAX takes three quarters of a GPU if it is alone; what several take together.
_MEMORY_OF_ALL = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slot:
  """What one task at a time may use.

  Attributes:
    label: for people; two slots have different ones.
    environment: variables that keep a task to it.
    cores: processors of it; all if empty.
  """
  label: str = ''
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  cores: Sequence[int] = ()


EVERYTHING = Slot()
"""One task at a time, with all that there is."""


def gpus() -> list[str]:
  """Returns the numbers of the GPUs that may be used here, [] without one."""
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    return []
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [gpu.strip() for gpu in visible.split(',') if gpu.strip()]
  try:
    listed = subprocess.run(
        ['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
        capture_output=True, text=True, check=True, timeout=30)
  except (OSError, subprocess.SubprocessError):
    return []
  return listed.stdout.split()


def gpu_slots(devices: Sequence[str], *, gpus_per_run: int = 1,
              runs_per_gpu: int = 1) -> list[Slot]:
  """Returns slots on GPUs.

  Args:
    devices: numbers of the GPUs.
    gpus_per_run: how many of them one task uses.
    runs_per_gpu: how many tasks share one GPU, its memory in equal parts.

  Raises:
    UserError: the numbers do not fit each other.
  """
  if min(gpus_per_run, runs_per_gpu) < 1:
    raise UserError('--gpus_per_run and --runs_per_gpu: at least 1')
  if gpus_per_run > 1 and runs_per_gpu > 1:
    raise UserError('--gpus_per_run and --runs_per_gpu: only one of them may '
                    'be more than 1')
  if gpus_per_run > len(devices):
    raise UserError(f'--gpus_per_run={gpus_per_run}: there are '
                    f'{len(devices)} GPUs')
  groups = [devices[i:i + gpus_per_run]
            for i in range(0, len(devices) - gpus_per_run + 1, gpus_per_run)]
  slots = []
  for part in range(runs_per_gpu):
    for group in groups:
      environment = {'CUDA_VISIBLE_DEVICES': ','.join(group)}
      label = f'GPU {",".join(group)}'
      if runs_per_gpu > 1:
        label += f' part {part}'
        environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] = (
            f'{_MEMORY_OF_ALL / runs_per_gpu:.3f}')
      slots.append(Slot(label=label, environment=environment))
  return slots


def cpu_slots(runs_at_once: int) -> list[Slot]:
  """Returns slots that share the processors in equal parts.

  Raises:
    UserError: there are fewer processors than tasks at once.
  """
  cores = sorted(os.sched_getaffinity(0))
  if not 1 <= runs_at_once <= len(cores):
    raise UserError(f'--runs_at_once={runs_at_once}: from 1 to {len(cores)}, '
                    'the processors of this machine')
  if runs_at_once == 1:
    return [EVERYTHING]
  bounds = [len(cores) * i // runs_at_once for i in range(runs_at_once + 1)]
  shares = [cores[a:b] for a, b in itertools.pairwise(bounds)]
  return [Slot(label=f'core {share[0]}' if len(share) == 1 else
               f'cores {share[0]}-{share[-1]}', cores=share)
          for share in shares]


@dataclasses.dataclass
class _Running:
  task: Task
  process: subprocess.Popen | None  # None: another launcher started it
  slot: Slot
  begun: float
  said: float

  def is_over(self) -> bool:
    if self.process is not None:
      return self.process.poll() is not None
    return not _runs(self.task)


def run(
    tasks: Sequence[Task],
    *,
    slots: Sequence[Slot] = (EVERYTHING,),
    say: Callable[[str], None] = print,
) -> list[Task]:
  """Runs the tasks that are not done, as many at once as there are slots.

  After Ctrl-C, SIGTERM, SIGHUP, or when the stop file of a task appears, each
  running task receives SIGINT, so that it can save and end. When all have
  ended, KeyboardInterrupt is raised. A second signal kills the tasks. If this
  function ends by any other exception, the tasks are stopped in the same way.

  Args:
    tasks: the tasks, in the order in which they are started.
    slots: what the tasks run on; one task at a time runs on each.
    say: called with a line when a task starts or ends, and from time to time
      while it runs.

  Returns:
    The tasks that did not finish. The other tasks are run nevertheless.
  """
  missing = [task for task in tasks if not task.is_finished()]
  free = list(slots)
  running: list[_Running] = []
  waiting: collections.deque[Task] = collections.deque()
  for task in missing:
    if _runs(task):
      running.append(_adopt(task, free))
      say(f'{task.name}: runs already, started by another command')
    else:
      waiting.append(task)
  failed: list[Task] = []
  begun = time.monotonic()
  with _noticed() as received:
    try:
      while waiting or running:
        while waiting and free and not received:
          slot, task = free.pop(0), waiting.popleft()
          try:
            running.append(_start(task, slot))
          except OSError as error:  # a full disk: the others may have room
            free.append(slot)
            failed.append(task)
            say(f'{task.name}: FAILED ({error.filename}: {error.strerror})')
            continue
          say(f'{task.name}: started'
              + (f' on {slot.label}' if slot.label else ''))
        time.sleep(_POLL_SECONDS)
        if not received and any(_is_stopped(task) for task in missing):
          received.append(signal.SIGTERM)
        if received:
          say(f'interrupted: waiting for {len(running)} running tasks to save')
          raise KeyboardInterrupt
        for one in list(running):
          if not one.is_over():
            _report(one, say)
            continue
          running.remove(one)
          if one.slot in slots:
            free.append(one.slot)
          ok = one.task.is_finished() and not (
              one.process is not None and one.process.returncode)
          if not ok:
            failed.append(one.task)
          done = len(missing) - len(waiting) - len(running)
          left = (time.monotonic() - begun) / done * (len(missing) - done)
          say(f'{_outcome(one, ok)}; {done} of {len(missing)}'
              + (f', about {duration(left)} left' if left else ''))
    except BaseException:
      _stop(running, received)
      raise
  return failed


def _runs(task: Task) -> bool:
  return record.state(task.workdir)[0] in ('running', 'retrying')


def _is_stopped(task: Task) -> bool:
  return task.stop_file is not None and task.stop_file.exists()


def _adopt(task: Task, free: list[Slot]) -> _Running:
  """A task that another launcher started, in the slot that it has there."""
  found = record.read(task.workdir)
  slot = next((slot for slot in free
               if found is not None and slot.label == found.place),
              Slot(label='-'))
  if slot in free:
    free.remove(slot)
  now = time.monotonic()
  return _Running(task, None, slot, now, now)


def _start(task: Task, slot: Slot) -> _Running:
  task = dataclasses.replace(
      task, cores=slot.cores, place=slot.label,
      environment={**task.environment, **slot.environment})
  task.workdir.mkdir(parents=True, exist_ok=True)
  task.log.parent.mkdir(parents=True, exist_ok=True)
  # The supervisor needs this package; the task has its own directory.
  paths = [str(pathlib.Path(__file__).parents[1]),
           *filter(None, [os.environ.get('PYTHONPATH')])]
  with task.log.open('a') as log:
    # A session of its own: Ctrl-C reaches it once, by us, and not by the
    # terminal too.
    process = subprocess.Popen(
        supervisor.command_of(task), stdin=subprocess.DEVNULL, stdout=log,
        stderr=log, start_new_session=True,
        env={**os.environ, **task.environment,
             'PYTHONPATH': os.pathsep.join(paths)})
  now = time.monotonic()
  return _Running(task, process, slot, now, now)


def _report(one: _Running, say: Callable[[str], None]) -> None:
  now = time.monotonic()
  if now - one.said >= _SECONDS_BETWEEN_LINES:
    one.said = now
    say(f'{one.task.name}: {supervisor.last_line(one.task.log)[:120]}')


def _outcome(one: _Running, ok: bool) -> str:
  if ok:
    return f'{one.task.name}: done in {duration(time.monotonic() - one.begun)}'
  found = record.read(one.task.workdir)
  reason = (found.reason if found is not None and found.reason
            else supervisor.last_line(one.task.log))
  return f'{one.task.name}: FAILED ({reason}); see {one.task.log}'


@contextlib.contextmanager
def _noticed() -> Iterator[list[int]]:
  """The signals that ask to end, as they come: none is lost between tasks."""
  received: list[int] = []

  def note(number: int, frame: object) -> None:
    received.append(number)

  before = {}
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      before[number] = signal.signal(number, note)
    elif number == signal.SIGINT:
      # A shell has what it starts in the background ignore Ctrl-C. Tasks would
      # inherit that, and could then not be asked to end.
      before[number] = signal.signal(number, lambda *_: None)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _stop(running: Sequence[_Running], received: Sequence[int]) -> None:
  """Asks tasks to save and end, waits for them; kills at the next signal."""
  processes = [one.process for one in running if one.process is not None]
  for process in processes:
    if process.poll() is None:
      process.send_signal(signal.SIGINT)
  heard = len(received)
  while any(process.poll() is None for process in processes):
    if len(received) > heard:
      for process in processes:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
    time.sleep(_POLL_SECONDS)


def python(module: str, *arguments: str) -> list[str]:
  """`python -m module arguments` with the interpreter that runs this."""
  return [sys.executable, '-m', module, *arguments]


def compilation_cache(directory: pathlib.Path) -> dict[str, str]:
  """Returns variables that let runs share compiled programs."""
  return {
      'JAX_COMPILATION_CACHE_DIR': os.environ.get(
          'JAX_COMPILATION_CACHE_DIR', str(directory.absolute())),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'}
