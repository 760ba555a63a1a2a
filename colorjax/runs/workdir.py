"""The work directory: one process, one configuration.

`flags.txt` holds what the run was told, a value a line. A later start is
compared with it. Scripts write their flags as `--name=value`, which
`--flagfile` reads to repeat the run; a call from Python writes `name=value`.
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
"""Name of the file of flags inside a work directory."""

METRICS = 'metrics.jsonl'
"""Name of the file of figures inside a work directory."""

# Values that may differ between the processes of one run.
_OF_A_MACHINE = frozenset({
    'data_dir', 'embedding_dir', 'engine', 'num_threads'})

_LOCK = '.lock'
_SHOWN_SECONDS = 30.0  # what a network file system may take to show a file


class WorkdirError(UserError):
  """A work directory that this run may not or cannot use; one line."""


@contextlib.contextmanager
def claim_workdir(
    workdir: pathlib.Path,
    text: str,
    *,
    harmless: Collection[str] = (),
) -> Iterator[pathlib.Path]:
  """Holds a work directory for this process and this configuration.

  The lock is the kernel's: it ends with the process, however that dies. Of
  several connected processes, all of which have to call this, the main one
  holds the directory and writes `flags.txt`.

  Args:
    workdir: made if it does not exist.
    text: one value a line, `name=value`, or as flags are written:
      `--name=value`, `--name` or `--noname`.
    harmless: names that may differ from those of the run that is gone on with,
      because they do not change what it computes.

  Yields:
    The directory, with `flags.txt` written.

  Raises:
    WorkdirError: another process is training there, the values recorded there
      differ (nothing is changed then), it cannot be written, or the processes
      do not see the same directory.
    UserError: the processes were told different values.
  """
  workdir = pathlib.Path(workdir)
  if hosts.count() > 1:
    hosts.check_agreed(
        {name: value for name, value in _parse(text)[0].items()
         if name not in _OF_A_MACHINE},
        'start all processes of a run with the same values')
  with (_claimed(workdir, text, harmless) if hosts.is_main()
        else contextlib.nullcontext()):
    _check_shared(workdir)
    yield workdir


@contextlib.contextmanager
def _claimed(workdir: pathlib.Path, text: str, harmless: Collection[str]
             ) -> Iterator[None]:
  """Holds the directory for this process, with `flags.txt` written."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / _LOCK).open('a+')
  except OSError as error:
    raise _cannot_write(workdir, error) from error
  with lock:
    _acquire(lock, workdir)
    try:
      _check_flags(workdir, text, harmless)
    except OSError as error:
      raise _cannot_write(workdir, error) from error
    files.write_text(workdir / FLAGS, text)
    yield


def _check_shared(workdir: pathlib.Path) -> None:
  """WorkdirError where a process does not see what the main one writes."""
  if hosts.count() == 1:
    return
  token = hosts.on_main(lambda: secrets.token_hex(8))
  path = workdir / f'.{token}.shared'
  if hosts.is_main():
    files.write_text(path, token)
  hosts.barrier('a file to be seen')
  end = time.monotonic() + _SHOWN_SECONDS
  while not (is_seen := path.exists()) and time.monotonic() < end:
    time.sleep(0.1)
  blind = [str(number) for number, sees in enumerate(hosts.gather(is_seen))
           if not sees]
  if hosts.is_main():
    path.unlink(missing_ok=True)
  if blind:
    raise WorkdirError(
        f'workdir={workdir} is not one directory for all processes: what '
        f'process 0 writes there, process {", ".join(blind)} does not see; '
        'choose one on a file system that all share')


def _acquire(lock: IO[str], workdir: pathlib.Path) -> None:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.seek(0)
    raise WorkdirError(
        f'process {lock.read().strip() or "unknown"} is training in {workdir}: '
        'wait for it, or choose another work directory; processes of one run '
        'are told of each other by coordinator_address, num_processes and '
        'process_id') from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
      raise _cannot_write(workdir, error) from error
    return  # A file system without locks (some NFS) cannot protect us.
  try:
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
  except OSError as error:
    raise _cannot_write(workdir, error) from error


def _check_flags(
    workdir: pathlib.Path, text: str, harmless: Collection[str]
) -> None:
  """WorkdirError where the directory belongs to another configuration."""
  path = workdir / FLAGS
  if not path.exists():
    for name in (METRICS, checkpoint.DIRECTORY):
      if (workdir / name).exists():
        raise WorkdirError(
            f'{workdir} holds {name} but no {FLAGS}, so it is not known whose '
            'they are: choose another work directory')
    return
  old, new = _parse(files.read_text(path), text)
  differing = [
      f'{name} was {old.get(name, "not set")}, is {new.get(name, "not set")}'
      for name in sorted(old.keys() | new.keys())
      if name not in harmless and old.get(name) != new.get(name)]
  if differing:
    raise WorkdirError(
        f'{workdir} holds a run of other values ({"; ".join(differing)}): '
        'choose another work directory, or the same values')


def _parse(*texts: str) -> list[dict[str, str]]:
  """Values by flag of each text; those of a repeated flag are joined.

  A boolean is written --name or --noname, and --normal could be either; it is
  taken for the negation of a name only where that name occurs.
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
