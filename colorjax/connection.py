"""Connects several processes that train or evaluate together, and ends them.

The processes may run on one machine or on several. JAX's distributed runtime
connects them. If one process disappears, JAX ends the others with an exception,
or XLA aborts them. This module turns both into a one-line message and an exit
code that says whether the same command can be run again.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax
from jax._src import distributed

from colorjax import hosts, parallel
from colorjax.errors import UserError
from colorjax.membership import Membership, split_address

EXIT_LOST = 75
"""Exit code after another process was lost: EX_TEMPFAIL of sysexits.h.

The run has not failed: the same command, run again, resumes it."""

HEARTBEAT_SECONDS = 25
"""A process that sends nothing for this many seconds is considered lost."""

CONNECT_SECONDS = 300
"""How long processes wait for each other at the start, in seconds."""

_ENDED = 'colorjax/ended'  # key in JAX's store: which process ended, and why
_POLL_SECONDS = 0.5  # interval between two reads of that key
_SILENT_SECONDS = 10  # how long process 0 may not answer, if it is only slow


Describe = Callable[[BaseException], tuple[str, int] | None]
"""Returns the line to print for an exception, and the exit code.

It returns None for a bug, which is printed with its traceback."""


def describe_user_error(error: BaseException) -> tuple[str, int] | None:
  """Describes a `UserError` by its message and exit code 2."""
  return (f'error: {error}', 2) if isinstance(error, UserError) else None


@contextlib.contextmanager
def connected(membership: Membership, *,
              describe: Describe = describe_user_error,
              seconds: int = CONNECT_SECONDS) -> Iterator[None]:
  """Runs the block as one of several processes that end together.

  Enter it before JAX uses a device. Only the main process prints to stdout.

  If the block raises an exception, this process exits at once and does not wait
  for the others, because they may be in the middle of a step. The other
  processes then exit with the same message and exit code. If a process is
  killed or cannot be reached, the others exit with EXIT_LOST. Errors while
  connecting are handled like exceptions of the block.

  Args:
    membership: which process this is.
    describe: returns the message and exit code for an exception.
    seconds: how long to wait for the other processes at the start.
  """
  watch = _Watch(membership, describe)
  try:
    _connect(membership, watch, seconds)
    with contextlib.ExitStack() as stack:
      if membership.process_id:
        stack.enter_context(contextlib.redirect_stdout(
            stack.enter_context(open(os.devnull, 'w'))))
      yield
    hosts.barrier('end of the run')
  except BaseException as error:
    watch.leave(error)
  watch.close()
  jax.distributed.shutdown()


def _connect(membership: Membership, watch: '_Watch', seconds: int) -> None:
  """Connects the processes.

  Raises:
    UserError: the coordinator cannot be reached, or the processes have
      different numbers of devices.
  """
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # JAX's service would catch SIGTERM, which the training loop handles.
  jax.config.update('jax_enable_preemption_service', False)
  address = membership.coordinator_address
  if address is not None:
    _check_address(address, membership, seconds)
  watch.message = (
      f'{membership}: not all processes connected to '
      f'{address or "the coordinator"} within {seconds} s: start all '
      f'{membership.num_processes} processes with the same coordinator_address '
      'and num_processes, and each with its own process_id')
  jax.distributed.initialize(
      address, membership.num_processes, membership.process_id,
      local_device_ids=list(membership.gpus),
      cluster_detection_method='deactivate' if address else None,
      initialization_timeout=seconds,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
  watch.start()
  devices = hosts.gather(parallel.num_local_devices())
  if len(set(devices)) > 1:
    raise UserError(
        f'the processes have {", ".join(map(str, devices))} devices: give '
        'each process the same number')


def _check_address(address: str, membership: Membership, seconds: int) -> None:
  """Waits until process 0 listens; in process 0, checks that the port is free.

  Without this check, JAX would abort the process.

  Raises:
    UserError: the port is not free, or process 0 did not listen in time.
  """
  host, port = split_address(address)
  if not membership.process_id:
    try:
      family = socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET
      with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(('', port))
    except OSError as error:
      raise UserError(
          f'coordinator_address={address}: process 0 cannot listen on port '
          f'{port} ({error.strerror}): choose a free port') from error
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
      f'coordinator_address={address}: {membership} could not connect to '
      f'process 0 within {seconds} s ({reason}): start process 0, and check '
      'host and port')


class _Watch:
  """Ends this process when another process has ended.

  Attributes:
    message: what to print if the connection fails.
  """

  def __init__(self, membership: Membership, describe: Describe):
    """Handles aborts by XLA from now on; `start` begins to watch the others.

    Args:
      membership: which process this is.
      describe: returns the message and exit code for an exception.
    """
    self._membership = membership
    self._describe = describe
    self._closed = threading.Event()
    self._thread = threading.Thread(
        target=self._poll, name='connection', daemon=True)
    self._exiting = threading.Lock()
    self.message, self._code = '', 2
    # If XLA has lost the other processes, one of its threads calls abort().
    # Python's own signal handlers would not run then.
    self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
    self._set_handler = ctypes.CDLL(None).signal
    self._set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
    self._set_handler.restype = ctypes.c_void_p
    self._before = self._set_handler(
        signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

  def start(self) -> None:
    """Begins to watch the other processes, which must be connected."""
    self.message = (
        f'{self._membership}: another process has been killed or cannot be '
        'reached; run the same command again in all processes to resume from '
        'the last checkpoint')
    self._code = EXIT_LOST
    self._thread.start()

  def close(self) -> None:
    """Stops watching the other processes."""
    self._closed.set()
    self._thread.join()
    self._set_handler(signal.SIGABRT, self._before)

  def leave(self, error: BaseException) -> NoReturn:
    """Exits because of an exception; the other processes will follow."""
    self._closed.set()
    if isinstance(error, SystemExit) and not error.code:
      self._exit(0)
    described = self._describe(error)
    if described is None and _is_of_connection(error):
      # The process that ended first may have published the reason.
      described = self._lost(error), self._code
      with contextlib.suppress(Exception):  # The store may be unreachable.
        described = self._ended(seconds=3.0) or described
    elif described is None:
      traceback.print_exception(error)
      described = (f'{type(error).__name__}: {error}'.splitlines()[0], 1)
      self._publish(*described)
      self._exit(described[1])
    else:
      self._publish(*described)
    self._print_and_exit(*described)

  def _publish(self, line: str, code: int) -> None:
    """Tells the other processes why this process ends."""
    client = distributed.global_state.client
    if client is None:
      return
    with contextlib.suppress(Exception):  # Another process has ended before.
      client.key_value_set(_ENDED, json.dumps(
          {'process': self._membership.process_id, 'line': line,
           'code': code}))
    if not self._membership.process_id:
      # The store ends with process 0, so the others need time to read it.
      time.sleep(4 * _POLL_SECONDS)

  def _ended(self, seconds: float = 0.0) -> tuple[str, int] | None:
    """Reads which process ended first, and why.

    Args:
      seconds: how long to wait for an entry.

    Returns:
      The line to print and the exit code; None if no process has ended.
    """
    end = time.monotonic() + seconds
    while True:
      client = distributed.global_state.client
      found = dict(client.key_value_dir_get('colorjax')) if client else {}
      if _ENDED in found:
        entry = json.loads(found[_ENDED])
        if entry['process'] == self._membership.process_id:
          return entry['line'], entry['code']
        return (f'process {entry["process"]} of '
                f'{self._membership.num_processes} ended: {entry["line"]}',
                entry['code'])
      if time.monotonic() >= end:
        return None
      time.sleep(_POLL_SECONDS)

  def _poll(self) -> None:
    """Exits as soon as another process has ended; runs in a thread."""
    answered = time.monotonic()
    while not self._closed.wait(_POLL_SECONDS):
      try:
        ended = self._ended()
        answered = time.monotonic()
      except Exception as error:  # Process 0 does not answer.
        ended = (self._lost(error), EXIT_LOST) if (
            time.monotonic() - answered > _SILENT_SECONDS) else None
      if ended and not self._closed.is_set():
        self._print_and_exit(*ended)

  def _lost(self, error: BaseException) -> str:
    """The line to print after the connection has failed, with its cause."""
    cause = ' '.join(str(error).split())[:160] or type(error).__name__
    return f'error: {self.message} ({cause})'

  def _aborted(self, number: int) -> None:
    """Handles SIGABRT."""
    del number
    self._print_and_exit(f'error: {self.message}', self._code)

  def _print_and_exit(self, line: str, code: int) -> NoReturn:
    """Prints one line to stderr and exits."""
    with self._exiting:  # If several threads notice the end, one prints.
      with contextlib.suppress(OSError, ValueError):
        print(' '.join(line.splitlines()), file=sys.stderr, flush=True)
      self._exit(code)

  def _exit(self, code: int) -> NoReturn:
    """Exits without cleanup, which would wait for the other processes."""
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(code)


def _is_of_connection(error: BaseException) -> bool:
  """Returns whether JAX raised an exception because a process was lost.

  XLA raises JaxRuntimeError while it waits for a step, and ValueError when it
  starts one.
  """
  return isinstance(error, RuntimeError | ValueError) and bool(
      _CONNECTION.search(str(error)))


_CONNECTION = re.compile(
    r'Gloo|NCCL|oordination|^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)')
