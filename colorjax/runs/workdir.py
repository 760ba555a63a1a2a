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
from collections.abc import Collection, Iterator
from typing import IO

from colorjax import files
from colorjax.errors import UserError
from colorjax.training import checkpoint

FLAGS = 'flags.txt'
"""Name of the file of flags inside a work directory."""

METRICS = 'metrics.jsonl'
"""Name of the file of figures inside a work directory."""

_LOCK = '.lock'


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

  The lock is the kernel's: it ends with the process, however that dies.

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
      differ (nothing is changed then), or it cannot be written.
  """
  workdir = pathlib.Path(workdir)
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
    yield workdir


def _acquire(lock: IO[str], workdir: pathlib.Path) -> None:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.seek(0)
    raise WorkdirError(
        f'process {lock.read().strip() or "unknown"} is training in {workdir}: '
        'wait for it, or choose another work directory') from None
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
