"""The manifest of a sweep: which runs there are, written before the first.

    SWEEPDIR/sweep.json            this file
    SWEEPDIR/runs/NAME/            work directory of a run
    SWEEPDIR/runs/NAME/launch.flags    its flags, for --flagfile
    SWEEPDIR/runs/NAME/launch.json     how it stands (`launch.record`)
    SWEEPDIR/runs/NAME/log.txt         all that it prints
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from colorjax import files
from colorjax.errors import UserError
from launch import flag_check
from launch.flag_check import Checked

FILE = 'sweep.json'
"""Name of the manifest inside the directory of a sweep."""

FLAGFILE = 'launch.flags'
"""Name of the flagfile inside the work directory of a run."""

LOG = 'log.txt'
"""Name of the log inside the work directory of a run."""

STOP = 'stop'
"""Name of the file whose presence ends a sweep."""

_VERSION = 1
_LOCK = '.lock'
_LONGEST_NAME = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One run of a sweep.

  Attributes:
    name: of its directory.
    values: of the swept flags.
  """
  name: str
  values: Mapping[str, str | list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """A sweep.

  Attributes:
    directory: of it.
    experiment: module of the script.
    cwd: directory that the runs are started in; paths in flags are relative to
      it.
    flags: those that all runs share, a word each.
    effective: value of each of these flags.
    swept: by swept flag: the value that a run has which does not set it.
    repeated: the swept flags that are given once for each value.
    launch: the options of the executor that it was last run with.
    runs: in the order in which they are begun.
  """
  directory: pathlib.Path
  experiment: str
  cwd: str
  flags: Sequence[str]
  effective: Mapping[str, str]
  swept: Mapping[str, str]
  repeated: Sequence[str]
  launch: Mapping[str, Any]
  runs: Sequence[Run]

  def workdir(self, run: Run) -> pathlib.Path:
    """The work directory of a run."""
    return self.directory / 'runs' / run.name

  def workdirs(self) -> dict[str, pathlib.Path]:
    """The work directories of all runs by name."""
    return {run.name: self.workdir(run) for run in self.runs}

  @property
  def stop_file(self) -> pathlib.Path:
    """The file whose presence ends the sweep."""
    return self.directory / STOP

  def value(self, run: Run, flag: str) -> str:
    """The value of a swept flag in a run, lists with commas."""
    value = run.values.get(flag, self.swept[flag])
    return ','.join(value) if isinstance(value, list) else value


def load(directory: pathlib.Path) -> Sweep:
  """The sweep of a directory.

  Raises:
    UserError: there is none, or it is damaged.
  """
  path = pathlib.Path(directory) / FILE
  if not path.is_file():
    raise UserError(f'--sweepdir={directory}: holds no {FILE}; `run` begins a '
                    'sweep')
  found = files.read_json(path)
  try:
    if found.pop('version') != _VERSION:
      raise UserError(f'{path}: was written by another version of this program')
    runs = [Run(**run) for run in found.pop('runs')]
    return Sweep(directory=pathlib.Path(directory), runs=runs, **found)
  except (TypeError, KeyError, AttributeError) as error:
    raise UserError(f'{path} is damaged: {error}') from error


def extend(directory: pathlib.Path, *, experiment: str, cwd: str,
           checked: Checked, launch: Mapping[str, Any]) -> Sweep:
  """Writes a manifest, or adds runs to that which is there.

  Args:
    directory: of the sweep; made if it does not exist.
    experiment: module of the script.
    cwd: see `Sweep`.
    checked: flags and runs.
    launch: see `Sweep`.

  Returns:
    The whole sweep, earlier runs first.

  Raises:
    UserError: the directory holds a sweep of another script or other flags, or
      cannot be written.
  """
  directory = pathlib.Path(directory)
  earlier: Sequence[Run] = ()
  swept = dict(checked.swept)
  repeated = list(checked.repeated)
  if (directory / FILE).exists():
    before = load(directory)
    _compare(before, experiment, checked)
    earlier = before.runs
    swept = {**before.swept, **swept}
    repeated = sorted({*before.repeated, *repeated})
  runs = named(checked.runs, earlier)
  sweep = Sweep(
      directory=directory, experiment=experiment, cwd=cwd, flags=checked.flags,
      effective=checked.effective, swept=swept, repeated=repeated,
      launch=launch, runs=runs)
  save(sweep)
  return sweep


def named(values: Sequence[Mapping[str, str | list[str]]],
          earlier: Sequence[Run] = ()) -> list[Run]:
  """Runs with names: the earlier ones, then those that are new."""
  known = [dict(run.values) for run in earlier]
  runs = list(earlier)
  for each in values:
    if dict(each) not in known:
      name = _name(each, {run.name for run in runs})
      runs.append(Run(name=name, values=each))
  return runs


def save(sweep: Sweep) -> None:
  """Writes the manifest and the flagfile of each run that has none."""
  for run in sweep.runs:
    workdir = sweep.workdir(run)
    if not (workdir / FLAGFILE).exists():
      _make(workdir)
      words = flag_check.run_flags(sweep.flags, sweep.repeated, run.values)
      files.write_text(workdir / FLAGFILE,
                       ''.join(f'{word}\n' for word in words))
  fields = {field.name: getattr(sweep, field.name)
            for field in dataclasses.fields(sweep)}
  del fields['directory']
  fields['runs'] = [dataclasses.asdict(run) for run in sweep.runs]
  files.write_json(sweep.directory / FILE, {'version': _VERSION, **fields})


def _make(directory: pathlib.Path) -> None:
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--sweepdir: {directory} cannot be made: '
                    f'{error.strerror or error}') from error


def _compare(before: Sweep, experiment: str, checked: Checked) -> None:
  """UserError where a directory holds another sweep."""
  differing = []
  if before.experiment != experiment:
    differing.append(f'the experiment was {before.experiment}')
  # A flag that is swept now has no meaning beside its set.
  swept = before.swept.keys() | checked.swept.keys()
  old, new = before.effective, checked.effective
  differing += [
      f'--{name} was {old.get(name, "not set")}, is {new.get(name, "not set")}'
      for name in sorted(old.keys() | new.keys())
      if name not in swept and old.get(name) != new.get(name)]
  if differing:
    raise UserError(f'{before.directory} holds another sweep '
                    f'({"; ".join(differing)}): choose another --sweepdir, or '
                    'the same flags')


def _name(values: Mapping[str, str | list[str]], taken: set[str]) -> str:
  """A name of a directory that a person can read: flag=value__flag=value."""
  name = '__'.join(
      f'{flag}={"-".join(value) if isinstance(value, list) else value}'
      for flag, value in values.items()) or 'run'
  plain = re.sub(r'[^A-Za-z0-9._=+-]+', '-', name).strip('-')
  if plain != name or len(plain) > _LONGEST_NAME or plain in taken:
    digest = hashlib.sha256(
        json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]
    plain = f'{plain[:_LONGEST_NAME]}-{digest}'
  return plain


@contextlib.contextmanager
def claimed(directory: pathlib.Path) -> Iterator[None]:
  """Holds a sweep for this process, so that no second one starts its runs.

  Raises:
    UserError: another process holds it, or the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  _make(directory)
  try:
    lock = (directory / _LOCK).open('a+')
  except OSError as error:
    raise UserError(f'--sweepdir={directory}: cannot be written: '
                    f'{error.strerror}') from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f'--sweepdir={directory}: another command is running '
                      'this sweep; `status` shows it, `stop` ends it') from None
    except OSError:
      pass  # A file system without locks cannot protect us.
    yield
