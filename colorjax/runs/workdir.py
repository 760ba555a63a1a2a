"""The work directory of a run: one process, one configuration.

`flags.txt` holds the configuration of the run, one value per line. When the run
is resumed, the new configuration is compared with it. Scripts write their flags
as `--name=value`, which `--flagfile` reads to repeat the run; a call from
Python writes `name=value`.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import time
from collections.abc import Collection, Iterator
from typing import IO

from colorjax import files, hosts
from colorjax.errors import UserError
from colorjax.training import checkpoint

FLAGS = 'flags.txt'
"""Name of the file with the configuration inside a work directory."""

METRICS = 'metrics.jsonl'
"""Name of the file with the logged metrics inside a work directory."""

SESSIONS = 'sessions.jsonl'
"""Name of the file with the durations of training inside a work directory.

It has one line for each time that training was started and ended normally.
"""

# Values that may differ between the processes of one run.
_OF_A_MACHINE = frozenset({
    'data_dir', 'embedding_dir', 'engine', 'num_threads'})

_LOCK = '.lock'
_SHOWN_SECONDS = 30.0  # what a network file system may take to show a file


class WorkdirError(UserError):
  """This run may not or cannot use a work directory."""


@contextlib.contextmanager
def claim_workdir(
    workdir: pathlib.Path,
    configuration: str,
    *,
    harmless: Collection[str] = (),
) -> Iterator[pathlib.Path]:
  """Holds a work directory for this process and this configuration.

  The kernel holds the lock, so it is released when the process ends for
  whatever reason. If several processes are connected, all must call this
  function; the main process holds the lock and writes `flags.txt`.

  Args:
    workdir: the directory; made if it does not exist.
    configuration: one value per line: `name=value`, or written as flags:
      `--name=value`, `--name` or `--noname`.
    harmless: names of values that may differ from those of the run that is
      resumed, because they do not change what it computes.

  Yields:
    The directory, with `flags.txt` written.

  Raises:
    WorkdirError: another process holds the directory, the configuration stored
      there differs (then nothing is changed), it cannot be written, or the
      processes do not see the same directory.
    UserError: the processes have different configurations.
  """
  workdir = pathlib.Path(workdir)
  if hosts.count() > 1:
    hosts.check_agreed(
        {name: value for name, value in _parse(configuration)[0].items()
         if name not in _OF_A_MACHINE},
        'start all processes of a run with the same values')
  with (_claimed(workdir, configuration, harmless) if hosts.is_main()
        else contextlib.nullcontext()):
    _check_shared(workdir)
    yield workdir


@contextlib.contextmanager
def _claimed(workdir: pathlib.Path, configuration: str,
             harmless: Collection[str]) -> Iterator[None]:
  """Holds the directory for this process and writes `flags.txt`."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / _LOCK).open('a+')
  except OSError as error:
    raise _cannot_write(workdir, error) from error
  with lock:
    _acquire(lock, workdir)
    try:
      _check_configuration(workdir, configuration, harmless)
    except OSError as error:
      raise _cannot_write(workdir, error) from error
    files.write_text(workdir / FLAGS, configuration)
    yield


def _check_shared(workdir: pathlib.Path) -> None:
  """Raises WorkdirError if a process does not see files of the main process."""
  if hosts.count() == 1:
    return
  token = hosts.on_main(lambda: secrets.token_hex(8))
  path = workdir / f'.{token}.shared'
  if hosts.is_main():
    files.write_text(path, token)
  hosts.barrier('a shared file')
  end = time.monotonic() + _SHOWN_SECONDS
  while not (is_seen := path.exists()) and time.monotonic() < end:
    time.sleep(0.1)
  blind = [str(number) for number, sees in enumerate(hosts.gather(is_seen))
           if not sees]
  if hosts.is_main():
    path.unlink(missing_ok=True)
  if blind:
    raise WorkdirError(
        f'workdir={workdir} is not the same directory for all processes: '
        f'process {", ".join(blind)} does not see the files of process 0; '
        'choose a directory on a file system that all processes share')


def _acquire(lock: IO[str], workdir: pathlib.Path) -> None:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.seek(0)
    raise WorkdirError(
        f'process {lock.read().strip() or "unknown"} is using {workdir}: wait '
        'until it has ended, or choose another work directory; to train with '
        'several processes, set coordinator_address, num_processes and '
        'process_id') from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
      raise _cannot_write(workdir, error) from error
    return  # The file system has no locks (some NFS): go on without one.
  try:
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
  except OSError as error:
    raise _cannot_write(workdir, error) from error


def _check_configuration(
    workdir: pathlib.Path, configuration: str, harmless: Collection[str]
) -> None:
  """Raises WorkdirError if the directory holds another configuration."""
  path = workdir / FLAGS
  if not path.exists():
    for name in (METRICS, checkpoint.DIRECTORY):
      if (workdir / name).exists():
        raise WorkdirError(
            f'{workdir} holds {name} but no {FLAGS}, so the configuration of '
            'that run is unknown: choose another work directory')
    return
  old, new = _parse(files.read_text(path), configuration)
  differing = [
      f'{name} was {old.get(name, "not set")}, is {new.get(name, "not set")}'
      for name in sorted(old.keys() | new.keys())
      if name not in harmless and old.get(name) != new.get(name)]
  if differing:
    raise WorkdirError(
        f'{workdir} holds a run with other values ({"; ".join(differing)}): '
        'use the same values, or choose another work directory')


def _parse(*texts: str) -> list[dict[str, str]]:
  """Returns the values of each text by name; those of a repeated flag joined.

  A Boolean flag is written --name or --noname, and --normal could be either. It
  is read as a negation only if the rest of its name occurs as a flag too.
  """
  lines = [[line.strip().removeprefix('--').partition('=')
            for line in text.splitlines() if line.strip()] for text in texts]
  bare = {name for text in lines for name, equals, _ in text if not equals}
  parsed: list[dict[str, str]] = []
  for text in lines:
    flags: dict[str, str] = {}
    for name, equals, value in text:
      if not equals:
        negates = name.startswith('no') and name[2:] in bare
        name, value = (name[2:], 'false') if negates else (name, 'true')
      flags[name] = f'{flags[name]},{value}' if name in flags else value
    parsed.append(flags)
  return parsed


def _cannot_write(workdir: pathlib.Path, error: OSError) -> WorkdirError:
  return WorkdirError(f'cannot write to workdir={workdir}: {error.strerror}')
