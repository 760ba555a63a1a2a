"""The checkpoints of a run: the best and the last few, written behind it.

`checkpoints/<step>/` are directories of `checkpoint_files`. A damaged one is
named, moved aside as `<step>.damaged`, and the one before it is taken. What
never changes in a run, its frozen networks, is written once, to
`checkpoints/frozen/`; each checkpoint holds the fingerprint of the frozen
weights that it was trained with, and is used with no others.
"""

import pathlib
import shutil
import threading
from collections.abc import Callable, Mapping
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
_NOTHING_FROZEN = files.fingerprint({})
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
    self._frozen: str | None = None  # what this run has in FROZEN/
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
  ) -> pathlib.Path | None:
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
      CheckpointError: this step exists, the save before this one failed, or
        the checkpoints there belong to other frozen weights.
    """
    self.wait()
    path = self._path(step)
    if path.exists():
      raise CheckpointError(f'checkpoint {path} exists already')
    # Looked at once: no step changes them.
    frozen = (files.snapshot(state, _is_frozen) if self._frozen is None
              else {})
    fingerprint = self._frozen or files.fingerprint(files.describe(frozen))
    if self._frozen is None and self._values and fingerprint != _fingerprint(
        self._directory):
      raise CheckpointError(
          f'the checkpoints in {self._directory} belong to other frozen '
          'weights than those of this run: begin again in a new workdir')
    leaves = files.snapshot(state, lambda name: not _is_frozen(name))
    about = {'step': step, 'value': value, 'host': dict(host),
             'frozen': fingerprint}
    self._thread = threading.Thread(
        target=self._write, args=(step, leaves, frozen, about), daemon=True,
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
      leaves |= _read_frozen(self._directory, about)
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

  def _write(self, step: int, leaves: files.Leaves, frozen: files.Leaves,
             about: Any) -> None:
    try:
      if self._frozen is None:
        self._write_frozen(frozen, about['frozen'])
        self._frozen = about['frozen']
      files.write(self._path(step), leaves, about)
      self._values[step] = about['value']
      self._prune()
    except BaseException as error:
      self._error = error  # Raised by the next wait() in the main thread.

  def _write_frozen(self, frozen: files.Leaves, fingerprint: str) -> None:
    """Writes the frozen weights unless just these are there.

    Others may be there without a checkpoint that needs them: those of a run
    that was killed before its first checkpoint, and begun again with others.
    """
    if _fingerprint(self._directory) == fingerprint:
      return
    path = self._directory / FROZEN
    if path.exists():
      shutil.rmtree(self._delete(path))
    if frozen:
      files.write(path, frozen, {})

  def _delete(self, path: pathlib.Path) -> pathlib.Path:
    """Renames what is to be deleted: a kill must not leave half of it."""
    doomed = path.with_suffix(_DELETED)
    path.rename(doomed)
    return doomed

  def _prune(self) -> None:
    last = sorted(self._values)[-self._keep:]
    for step in self._values.keys() - {*last, _best(self._values)}:
      shutil.rmtree(self._delete(self._path(step)))
      del self._values[step]


class NoCheckpoints(Checkpoints):
  """The checkpoints of a process that writes none."""

  def __init__(self):
    """Touches no file."""
    self._thread = self._error = None

  def save(self, step: int, state: Any, host: Mapping[str, Any], *,
           value: float | None = None) -> None:
    """Nothing."""

  def restore_latest(self, like: Tree) -> None:
    """None: the main process has them."""


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
    {'params', 'model_state'} with NumPy leaves; both are their moving average
    if the run kept one, frozen networks apart.

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
      about = files.read_about(path)
      leaves = _read_variables(path, about)
    except DamagedCheckpoint as error:
      say(f'damaged checkpoint {error}; taking another one')
      continue
    leaves |= _read_frozen(directory, about)
    return _nested(leaves) if like is None else files.fill(like, leaves, path)
  raise _none_sound(directory)


def _read_variables(path: pathlib.Path, about: Mapping[str, Any]
                    ) -> files.Leaves:
  """Parameters and state (their average, if there is one), frozen apart."""
  has_ema = any(name.startswith('ema/') for name in about['leaves'])
  prefix = 'ema/' if has_ema else ''
  leaves = files.read_leaves(
      path, about, lambda name: name.startswith(
          (f'{prefix}params/', f'{prefix}model_state/')))
  return {name.removeprefix(prefix): x for name, x in leaves.items()}


def _fingerprint(directory: pathlib.Path) -> str | None:
  """Of the frozen weights that lie there; None if they cannot be read."""
  path = directory / FROZEN
  if not path.exists():
    return _NOTHING_FROZEN
  try:
    return files.fingerprint(files.read_about(path)['leaves'])
  except DamagedCheckpoint:
    return None


def _read_frozen(directory: pathlib.Path, about: Mapping[str, Any]
                 ) -> files.Leaves:
  """The frozen networks of a checkpoint, {} if it has none.

  Args:
    directory: of the checkpoints.
    about: the checkpoint's description.

  Raises:
    CheckpointError: they are missing, damaged or others than those of the
      checkpoint; no checkpoint of the run can be used without them.
  """
  wanted = about['host'].get('frozen', _NOTHING_FROZEN)
  if wanted == _NOTHING_FROZEN:
    return {}
  path = directory / FROZEN
  try:
    frozen = files.read_about(path)
    if files.fingerprint(frozen['leaves']) != wanted:
      raise DamagedCheckpoint(
          f'{path}: these are not the weights that the checkpoints were '
          'trained with')
    return files.read_leaves(path, frozen)
  except DamagedCheckpoint as error:
    raise CheckpointError(
        f'damaged {error}: restore a copy of it, or begin again in a new '
        'workdir') from error


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
      'begin again in a new workdir')
