"""The checkpoints of a run: the best and the last few, written behind it.

`checkpoints/<step>/` are directories of `checkpoint_files`. A damaged one is
named, moved aside as `<step>.damaged`, and the one before it is taken. What
never changes in a run, its frozen networks, is written once, to
`checkpoints/frozen/`.
"""

import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import flax.traverse_util

from colorjax.colorizer import FROZEN, Variables
from colorjax.training import checkpoint_files as files
from colorjax.training.checkpoint_files import (
    CheckpointError,
    DamagedCheckpoint,
)
from colorjax.training.console import say

Tree = TypeVar('Tree')

DIRECTORY = 'checkpoints'
"""Name of the directory of checkpoints inside a work directory."""

_FROZEN_PREFIX = f'model_state/{FROZEN}/'
_DAMAGED = '.damaged'
_DELETED = '.deleted'


class Checkpoints:
  """Writes, keeps and restores the checkpoints of one run.

  Use it as a context manager: leaving it waits for the save under way. One
  process at a time may write to a directory.
  """

  def __init__(
      self,
      directory: pathlib.Path,
      *,
      keep: int = 3,
      say: Callable[[str], None] = say,
  ):
    """Makes the directory and clears what a killed process left half-way.

    Args:
      directory: where the checkpoints lie or shall lie.
      keep: how many of the last to keep, beside the best.
      say: receives the one line about a damaged checkpoint.

    Raises:
      CheckpointError: the directory cannot be made or written.
    """
    if keep < 1:
      raise ValueError(f'keep={keep}: at least one checkpoint must be kept')
    self._directory = pathlib.Path(directory)
    self._keep = keep
    self._say = say
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      for path in self._directory.iterdir():
        if files.TEMPORARY in path.name or path.suffix == _DELETED:
          shutil.rmtree(path)
    except OSError as error:
      raise CheckpointError(
          f'cannot write to {self._directory}: {error.strerror}') from error
    self._values = {step: _value(self._path(step))
                    for step in steps(self._directory)}

  def __enter__(self) -> 'Checkpoints':
    """Returns itself."""
    return self

  def __exit__(self, kind, error, trace) -> None:
    """Waits for the save under way; its failure must not hide another."""
    if error is None:
      self.wait()
    elif self._thread:
      self._thread.join()

  def save(
      self,
      step: int,
      state: Any,
      host: Mapping[str, Any],
      *,
      value: float | None = None,
  ) -> pathlib.Path:
    """Copies a state to the host and begins to write it; returns at once.

    Args:
      step: number of the checkpoint, which must not exist yet.
      state: pytree of arrays.
      host: JSON values, given back by `restore_latest`.
      value: validation loss, if it was measured at this step: the checkpoint
        of the least one is the best, and kept.

    Returns:
      The directory that it will be in.

    Raises:
      CheckpointError: this step exists, or the save before this one failed.
    """
    self.wait()
    path = self._path(step)
    if path.exists():
      raise CheckpointError(f'checkpoint {path} exists already')
    is_frozen_kept = (self._directory / FROZEN).exists()
    leaves = files.snapshot(
        state, lambda name: not (is_frozen_kept and _is_frozen(name)))
    about = {'step': step, 'value': value, 'host': dict(host)}
    self._thread = threading.Thread(
        target=self._write, args=(step, leaves, about), daemon=True,
        name=f'checkpoint {step}')
    self._thread.start()
    return path

  def wait(self) -> None:
    """Waits for the save under way; CheckpointError if it failed."""
    if self._thread:
      self._thread.join()
      self._thread = None
    error, self._error = self._error, None
    if error:
      raise error

  def restore_latest(self, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """The last sound checkpoint, or None if there is no checkpoint at all.

    Args:
      like: pytree of the structure, shapes and types to restore.

    Returns:
      The state with NumPy leaves, and the host values saved with it.

    Raises:
      CheckpointError: all are damaged, or the last sound one holds another
        network.
    """
    damaged: list[int] = []
    for step in sorted(self._values, reverse=True):
      path = self._path(step)
      try:
        about = files.read_about(path)
        leaves = files.read_leaves(path, about)
      except DamagedCheckpoint as error:
        self._say(f'damaged checkpoint {error}; taking the one before it')
        damaged.append(step)
        continue
      leaves |= _read_frozen(self._directory, files.flatten(like))
      state = files.fill(like, leaves, path)
      self._set_aside(damaged)
      return state, about['host']['host']
    if damaged:
      raise _none_sound(self._directory)
    return None

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / str(step)

  def _set_aside(self, damaged: list[int]) -> None:
    """Frees the numbers of damaged checkpoints: they will be saved again."""
    for step in damaged:
      aside = self._path(step).with_suffix(_DAMAGED)
      shutil.rmtree(aside, ignore_errors=True)
      self._path(step).rename(aside)
      del self._values[step]

  def _write(self, step: int, leaves: files.Leaves, about: Any) -> None:
    try:
      frozen = {name: x for name, x in leaves.items() if _is_frozen(name)}
      if frozen:
        files.write(self._directory / FROZEN, frozen, {})
      files.write(
          self._path(step),
          {name: x for name, x in leaves.items() if name not in frozen}, about)
      self._values[step] = about['value']
      self._prune()
    except BaseException as error:
      self._error = error  # Raised by the next wait() in the main thread.

  def _prune(self) -> None:
    last = sorted(self._values)[-self._keep:]
    for step in self._values.keys() - {*last, _best(self._values)}:
      # Renamed first: a kill half-way must not leave a mutilated checkpoint.
      doomed = self._path(step).with_suffix(_DELETED)
      self._path(step).rename(doomed)
      shutil.rmtree(doomed)
      del self._values[step]


def steps(directory: pathlib.Path) -> list[int]:
  """Numbers of the finished checkpoints in a directory, ascending."""
  return sorted(int(path.name) for path in directory.glob('*')
                if path.name.isdecimal())


def restore_variables(
    workdir: pathlib.Path,
    *,
    which: Literal['best', 'latest'] = 'best',
    like: Variables | None = None,
    say: Callable[[str], None] = say,
) -> Variables:
  """What inference needs from a run, without knowing its optimizer.

  Args:
    workdir: work directory of a run; it is only read.
    which: 'best', of the least validation loss (the last where none was
      measured), or 'latest'.
    like: variables of the network to restore into, arrays or
      `jax.ShapeDtypeStruct`s; None takes what is there.
    say: receives the one line about a damaged checkpoint.

  Returns:
    {'params', 'model_state'} with NumPy leaves; the params are their moving
    average if the run kept one.

  Raises:
    CheckpointError: there is no sound checkpoint, or it holds another network
      than `like`.
  """
  directory = pathlib.Path(workdir) / DIRECTORY
  order = steps(directory)[::-1]
  if not order:
    raise CheckpointError(
        f'no checkpoint in {directory}: train first, or name the work '
        'directory of a run')
  if which == 'best':
    best = _best({step: _value(directory / str(step)) for step in order})
    order.sort(key=lambda step: step != best)
  for step in order:
    path = directory / str(step)
    try:
      leaves = _read_variables(path)
    except DamagedCheckpoint as error:
      say(f'damaged checkpoint {error}; taking another one')
      continue
    if like is None:
      wanted = [_FROZEN_PREFIX] if (directory / FROZEN).exists() else []
      return _nested(leaves | _read_frozen(directory, wanted))
    leaves |= _read_frozen(directory, files.flatten(like))
    return files.fill(like, leaves, path)
  raise _none_sound(directory)


def _read_variables(path: pathlib.Path) -> files.Leaves:
  """Parameters (their average, if there is one) and state, frozen apart."""
  about = files.read_about(path)
  has_ema = any(name.startswith('ema/') for name in about['leaves'])
  params = 'ema' if has_ema else 'params'
  leaves = files.read_leaves(
      path, about,
      lambda name: name.split('/')[0] in (params, 'model_state'))
  return {'params' + name.removeprefix(params)
          if name.startswith(f'{params}/') else name: x
          for name, x in leaves.items()}


def _read_frozen(directory: pathlib.Path, wanted: Iterable[str]
                 ) -> files.Leaves:
  """The frozen networks of a run, {} if none is among the wanted leaves.

  Raises:
    CheckpointError: they are missing or damaged; no checkpoint of the run can
      be used without them.
  """
  if not any(map(_is_frozen, wanted)):
    return {}
  path = directory / FROZEN
  try:
    return files.read_leaves(path, files.read_about(path))
  except DamagedCheckpoint as error:
    raise CheckpointError(
        f'damaged {error}: restore a copy of it, or begin again in a new '
        '--workdir') from error


def _is_frozen(name: str) -> bool:
  return name.startswith(_FROZEN_PREFIX)


def _nested(leaves: files.Leaves) -> dict[str, Any]:
  """Leaves by path as {'params', 'model_state'}."""
  return {'model_state': {}} | flax.traverse_util.unflatten_dict(
      leaves, sep='/')


def _value(path: pathlib.Path) -> float | None:
  """The validation loss of a checkpoint; None if unknown or damaged."""
  try:
    return files.read_about(path)['host']['value']
  except CheckpointError:
    return None


def _best(values: Mapping[int, float | None]) -> int | None:
  """The step of the least value, the first of equals."""
  known = {step: value for step, value in sorted(values.items())
           if value is not None}
  return min(known, key=known.__getitem__) if known else None


def _none_sound(directory: pathlib.Path) -> CheckpointError:
  return CheckpointError(
      f'every checkpoint in {directory} is damaged: restore a copy of one, or '
      'begin again in a new --workdir')
