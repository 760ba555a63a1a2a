"""Connects several processes that train or evaluate together, and ends them.

The processes may run on one machine or on several. JAX's distributed runtime
connects them. If one of them disappears, JAX ends the others, some with an
exception and some with an abort inside XLA. Here both become one line and an
exit code that says whether the same command can be run again.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import jax
from jax._src import distributed

from colorjax import hosts, parallel
from colorjax.errors import UserError

EXIT_LOST = 75
"""Exit code where another process was lost: EX_TEMPFAIL of sysexits.h.

The run itself has done nothing wrong: the same command goes on."""

HEARTBEAT_SECONDS = 25
"""A process that is silent for so long counts as lost."""

CONNECT_SECONDS = 300
"""How long processes wait for each other at the start."""

_ENDED = 'colorjax/ended'  # of JAX's key-value store: who ended first, and why
_LOOK_SECONDS = 0.5  # between two looks at it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meeting:
  """Which process this is, and where the processes of a run meet.

  Attributes:
    num_processes: how many there are.
    process_id: which one this is, from 0.
    coordinator_address: 'HOST:PORT' of process 0, where it listens; None lets
      JAX find it out from SLURM or Open MPI.
    gpus: numbers of the GPUs of this process; none for all that it
      sees.
  """
  num_processes: int
  process_id: int
  coordinator_address: str | None = None
  gpus: Sequence[int] = ()

  def __str__(self) -> str:
    """As errors name it."""
    return f'process {self.process_id} of {self.num_processes}'


def meeting(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Meeting | None:
  """Which process this is, as flags or a launcher say.

  srun and Open MPI say it themselves, where they have started more than one
  task; what is given here comes before what they say.

  Args:
    coordinator_address: 'HOST:PORT' of process 0.
    num_processes: how many there are.
    process_id: which one this is, from 0.
    environment: variables by name.

  Returns:
    None for a process that is alone.

  Raises:
    UserError: something is missing, or the numbers do not fit.
  """
  launched = _launched(environment)
  given = (coordinator_address, num_processes, process_id)
  if launched is None and given == (None, None, None):
    return None
  if launched is not None:
    size = launched.num_processes if num_processes is None else num_processes
    number = launched.process_id if process_id is None else process_id
  elif num_processes == 1:
    return None
  else:
    missing = [name for name, value in (
        ('coordinator_address', coordinator_address),
        ('num_processes', num_processes), ('process_id', process_id))
               if value is None]
    if missing:
      raise UserError(
          f'{" and ".join(missing)} is missing: a process that is one of '
          'several needs coordinator_address=HOST:PORT (where process 0 '
          'listens), num_processes=N and process_id=0 to N - 1')
    assert num_processes is not None
    assert process_id is not None
    size, number = num_processes, process_id
  if not 0 <= number < size:
    raise UserError(f'process_id={number}: with num_processes={size} it is '
                    f'0 to {size - 1}')
  if size == 1:
    return None
  if coordinator_address is not None:
    _split(coordinator_address)
  elif 'OMPI_COMM_WORLD_SIZE' in environment and (
      'OMPI_MCA_orte_hnp_uri' not in environment):
    raise UserError(
        'coordinator_address is missing: this Open MPI does not say where '
        'process 0 runs; give coordinator_address=HOST:PORT')
  return Meeting(num_processes=size, process_id=number,
                 coordinator_address=coordinator_address,
                 gpus=_own_gpus(environment))


def _launched(environment: Mapping[str, str]) -> Meeting | None:
  """What srun or Open MPI say about a process that is one of several."""
  for number, size in (('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
                       ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')):
    if int(environment.get(size, 1)) > 1 and number in environment:
      return Meeting(num_processes=int(environment[size]),
                     process_id=int(environment[number]))
  return None


def _own_gpus(environment: Mapping[str, str]) -> Sequence[int]:
  """The GPUs of a task among those that all tasks of its machine see.

  None, which stands for all, where each task sees its own.
  """
  if int(environment.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
    number = int(environment.get('SLURM_LOCALID', 0))
    tasks = _tasks_on_node(environment)
    if any(name in environment for name in (
        'SLURM_GPUS_PER_TASK', 'SLURM_TRES_PER_TASK')):
      return ()
  elif int(environment.get('OMPI_COMM_WORLD_SIZE', 1)) > 1:
    number = int(environment.get('OMPI_COMM_WORLD_LOCAL_RANK', 0))
    tasks = int(environment.get('OMPI_COMM_WORLD_LOCAL_SIZE', 1))
  else:
    return ()
  gpus = _num_gpus(environment)
  if tasks < 2 or gpus < 2:
    return ()
  if gpus % tasks:
    raise UserError(
        f'{tasks} tasks of one machine cannot share its {gpus} GPUs evenly: '
        'start as many tasks as there are GPUs, or one')
  share = gpus // tasks
  return range(number * share, (number + 1) * share)


def _tasks_on_node(environment: Mapping[str, str]) -> int:
  """How many tasks srun has started on this machine.

  SLURM_STEP_TASKS_PER_NODE is '4', '4(x2)' or '4(x2),3': a number a machine.
  """
  counts: list[int] = []
  for part in environment.get('SLURM_STEP_TASKS_PER_NODE', '1').split(','):
    tasks, _, times = part.rstrip(')').partition('(x')
    counts += [int(tasks)] * int(times or 1)
  return counts[int(environment.get('SLURM_NODEID', 0)) % len(counts)]


def _num_gpus(environment: Mapping[str, str]) -> int:
  """NVIDIA GPUs that this process sees, without a driver being asked."""
  visible = environment.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return len([x for x in visible.split(',') if x])
  try:
    return len(os.listdir('/proc/driver/nvidia/gpus'))
  except OSError:
    return 0


def _split(address: str) -> tuple[str, int]:
  """Host and port; UserError for what is no HOST:PORT."""
  host, colon, port = address.rpartition(':')
  if not colon or not host or not port.isdecimal() or (
      not 0 < int(port) < 1 << 16):
    raise UserError(f'coordinator_address={address}: HOST:PORT is meant, the '
                    'machine of process 0 and a free port there')
  return host.strip('[]'), int(port)


Judge = Callable[[BaseException], tuple[str, int] | None]
"""An exception to its line for people and the exit code, None for a bug."""


def judge_user_errors(error: BaseException) -> tuple[str, int] | None:
  """A `UserError` is its message and exit code 2."""
  return (f'error: {error}', 2) if isinstance(error, UserError) else None


@contextlib.contextmanager
def connected(where: Meeting, *, judge: Judge = judge_user_errors,
              seconds: int = CONNECT_SECONDS) -> Iterator[None]:
  """Runs the block as one of several processes that end together.

  It has to begin before JAX uses a device. On processes other than the main
  one nothing is printed to stdout.

  Whatever the block raises ends this process here, and soon all others: waiting
  for them would be in vain, they may be in the middle of a step. They end with
  the same line and exit code, and with EXIT_LOST where a process has been
  killed or cannot be reached any more.

  Args:
    where: which process this is.
    judge: what an exception of the block means.
    seconds: how long to wait for the other processes at the start.
  """
  watch = _Watch(where, judge)
  try:
    _connect(where, watch, seconds)
    with contextlib.ExitStack() as stack:
      if where.process_id:
        stack.enter_context(contextlib.redirect_stdout(
            stack.enter_context(open(os.devnull, 'w'))))
      yield
    hosts.barrier('the end')
  except BaseException as error:
    watch.leave(error)
  watch.close()
  jax.distributed.shutdown()


def _connect(where: Meeting, watch: '_Watch', seconds: int) -> None:
  """Connects the processes; UserError where they cannot be."""
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would catch SIGTERM, which ends training in a way of its own.
  jax.config.update('jax_enable_preemption_service', False)
  address = where.coordinator_address
  if address is not None:
    _try_address(address, where, seconds)
  watch.phase = (
      f'{where}: not all processes came together within {seconds} s at '
      f'{address or "the coordinator"}: start all {where.num_processes}, with '
      'the same coordinator_address and num_processes and a process_id each')
  jax.distributed.initialize(
      address, where.num_processes, where.process_id,
      local_device_ids=list(where.gpus),
      cluster_detection_method='deactivate' if address else None,
      initialization_timeout=seconds,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
  watch.start()
  devices = hosts.gather(parallel.num_local_devices())
  if len(set(devices)) > 1:
    raise UserError(
        f'the processes have {", ".join(map(str, devices))} devices: each '
        'needs the same number')


def _try_address(address: str, where: Meeting, seconds: int) -> None:
  """Waits for the coordinator; UserError where it does not come.

  JAX itself would abort the process.
  """
  host, port = _split(address)
  if not where.process_id:
    try:
      family = socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET
      with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(('', port))
    except OSError as error:
      raise UserError(
          f'coordinator_address={address}: process 0 cannot listen at port '
          f'{port}: {error.strerror}; choose a free one') from error
    return
  end, reason = time.monotonic() + seconds, ''
  while time.monotonic() < end:
    try:
      socket.create_connection((host, port), timeout=5).close()
      return
    except OSError as error:
      reason = error.strerror or str(error)
    time.sleep(0.2)
  raise UserError(
      f'coordinator_address={address}: {where} found no process 0 there within '
      f'{seconds} s ({reason}): start it, and look at host and port')


class _Watch:
  """Ends this process when another one has ended."""

  def __init__(self, where: Meeting, judge: Judge):
    """Nothing is watched before `start`.

    Args:
      where: which process this is.
      judge: what an exception means.
    """
    self._where = where
    self._judge = judge
    self._over = threading.Event()
    self._thread = threading.Thread(
        target=self._look, name='hosts', daemon=True)
    self._leaving = threading.Lock()
    self.phase, self._code = '', 2
    # XLA ends a process that has lost the others by abort(), from a thread of
    # its own; Python's signal handlers would not run.
    self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
    self._set_handler = ctypes.CDLL(None).signal
    self._set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
    self._set_handler.restype = ctypes.c_void_p
    self._before = self._set_handler(
        signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

  def start(self) -> None:
    """Begins to watch, once the processes are connected."""
    self.phase = (
        f'{self._where}: another process has been killed or cannot be reached; '
        'the same command on all goes on from the last checkpoint')
    self._code = EXIT_LOST
    self._thread.start()

  def close(self) -> None:
    """Ends watching."""
    self._over.set()
    self._thread.join()
    self._set_handler(signal.SIGABRT, self._before)

  def leave(self, error: BaseException) -> NoReturn:
    """Ends this process because of an exception, and all others with it."""
    self._over.set()
    if isinstance(error, SystemExit) and not error.code:
      self._exit(0)
    judged = self._judge(error)
    if judged is None and _is_of_connection(error):
      # The one that ended first may have said why.
      judged = f'error: {self.phase}', self._code
      with contextlib.suppress(Exception):  # It may be out of reach.
        judged = self._ended(seconds=3.0) or judged
    elif judged is None:
      traceback.print_exception(error)
      judged = (f'{type(error).__name__}: {error}'.splitlines()[0], 1)
      self._publish(judged)
      self._exit(judged[1])
    else:
      self._publish(judged)
    self._say_and_exit(*judged)

  def _publish(self, judged: tuple[str, int]) -> None:
    """Tells the others why this process ends, and lets them hear it."""
    client = distributed.global_state.client
    if client is None:
      return
    with contextlib.suppress(Exception):  # Another one has ended before.
      client.key_value_set(_ENDED, json.dumps(
          {'process': self._where.process_id, 'line': judged[0],
           'code': judged[1]}))
    if not self._where.process_id:
      time.sleep(4 * _LOOK_SECONDS)  # What they ask ends with this process.

  def _ended(self, seconds: float = 0.0) -> tuple[str, int] | None:
    """Line and exit code of the process that ended first; None if none has."""
    end = time.monotonic() + seconds
    while True:
      client = distributed.global_state.client
      found = dict(client.key_value_dir_get('colorjax')) if client else {}
      if _ENDED in found:
        told = json.loads(found[_ENDED])
        if told['process'] == self._where.process_id:
          return told['line'], told['code']
        return (f'process {told["process"]} of {self._where.num_processes} '
                f'ended: {told["line"]}', told['code'])
      if time.monotonic() >= end:
        return None
      time.sleep(_LOOK_SECONDS)

  def _look(self) -> None:
    while not self._over.wait(_LOOK_SECONDS):
      try:
        ended = self._ended()
      except Exception:  # The coordinator does not answer.
        ended = f'error: {self.phase}', EXIT_LOST
      if ended and not self._over.is_set():
        self._say_and_exit(*ended)

  def _aborted(self, number: int) -> None:
    del number
    self._say_and_exit(f'error: {self.phase}', self._code)

  def _say_and_exit(self, line: str, code: int) -> NoReturn:
    with self._leaving:  # One line, whichever way it is noticed.
      with contextlib.suppress(OSError, ValueError):
        print(' '.join(line.splitlines()), file=sys.stderr, flush=True)
      self._exit(code)

  def _exit(self, code: int) -> NoReturn:
    """Without clean-up, which would wait for the other processes."""
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(code)


def _is_of_connection(error: BaseException) -> bool:
  """Whether an exception of JAX says that another process is gone.

  XLA raises a JaxRuntimeError where it waits for a step, and a ValueError where
  it begins one.
  """
  return isinstance(error, RuntimeError | ValueError) and bool(
      _CONNECTION.search(str(error)))


_CONNECTION = re.compile(
    r'Gloo|NCCL|oordination|^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)')
