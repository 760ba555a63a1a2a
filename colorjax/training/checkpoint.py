"""The checkpoints of a run: the best and the last few, saved in the background.

Each `checkpoints/<step>/` is a directory that `checkpoint_files` writes. A
damaged checkpoint is reported and renamed to `<step>.damaged`, and the one
before it is restored instead. Frozen networks never change during a run, so
they are written once, to `checkpoints/frozen/`. Each checkpoint stores the
fingerprint of the frozen weights that it was trained with and is never
combined with others.

Orbax reads and writes the arrays. Its CheckpointManager, which also keeps the
best and the last few, is not used: it has no hashes, does not go back to the
checkpoint before a damaged one, and would write the frozen networks each time.
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

  Use it as a context manager: leaving it waits for the save in progress. Only
  one process at a time may write to a directory.
  """

  def __init__(
      self,
      directory: pathlib.Path,
      *,
      keep: int = 3,
      say: Callable[[str], None] = say,
  ):
    """Makes the directory and deletes the unfinished files of a killed process.

    Args:
      directory: the directory of the checkpoints; made if it does not exist.
      keep: number of latest checkpoints to keep, in addition to the best one.
      say: called with one line for each damaged checkpoint.

    Raises:
      CheckpointError: the directory cannot be made or written.
      ValueError: `keep` is less than 1.
    """
    if keep < 1:
      raise ValueError(f'keep={keep}: at least one checkpoint must be kept')
    self._directory = pathlib.Path(directory)
    self._keep = keep
    self._say = say
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None
    self._frozen: str | None = None  # fingerprint of what FROZEN/ holds
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
    """Waits for the save in progress.

    Its failure is raised only if no other exception is already on its way.
    """
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
    """Copies a state to the host and writes it in the background.

    Args:
      step: number of the checkpoint, which must not exist yet.
      state: pytree of arrays.
      host: JSON values; `restore_latest` returns them.
      value: validation loss, None if it was not measured at this step. The
        checkpoint with the lowest one is the best and is kept.

    Returns:
      The directory that the checkpoint will be in.

    Raises:
      CheckpointError: this step exists already, the previous save failed, or
        the existing checkpoints were trained with other frozen weights.
    """
    self.wait()
    path = self._path(step)
    if path.exists():
      raise CheckpointError(f'checkpoint {path} exists already')
    # Copied and hashed once: no step changes the frozen weights.
    frozen = (files.snapshot(state, _is_frozen) if self._frozen is None
              else {})
    fingerprint = self._frozen or files.fingerprint(files.describe(frozen))
    if self._frozen is None and self._values and fingerprint != _fingerprint(
        self._directory):
      raise CheckpointError(
          f'the checkpoints in {self._directory} were trained with other '
          'frozen weights than this run has: start again in a new workdir')
    leaves = files.snapshot(state, lambda name: not _is_frozen(name))
    about = {'step': step, 'value': value, 'host': dict(host),
             'frozen': fingerprint}
    self._thread = threading.Thread(
        target=self._write, args=(step, leaves, frozen, about), daemon=True,
        name=f'checkpoint {step}')
    self._thread.start()
    return path

  def wait(self) -> None:
    """Waits for the save in progress.

    Raises:
      CheckpointError: the save failed.
    """
    if self._thread:
      self._thread.join()
      self._thread = None
    error, self._error = self._error, None
    if error:
      raise error

  def restore_latest(self, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """Restores the latest undamaged checkpoint.

    Damaged checkpoints that are newer are renamed to `<step>.damaged`.

    Args:
      like: pytree with the structure, shapes and types to restore.

    Returns:
      The state with NumPy leaves, and the host values saved with it. None if
      there is no checkpoint.

    Raises:
      CheckpointError: all checkpoints are damaged, or the latest undamaged one
        holds another network.
    """
    damaged: list[int] = []
    for step in sorted(self._values, reverse=True):
      path = self._path(step)
      try:
        about = files.read_about(path)
        leaves = files.read_leaves(path, about)
      except DamagedCheckpoint as error:
        self._say(f'damaged checkpoint {error}; using the one before it')
        damaged.append(step)
        continue
      leaves |= _read_frozen(self._directory, about)
      state = files.fill(like, leaves, path)
      self._set_aside(damaged)
      return state, about['host']['host']
    if damaged:
      raise _all_damaged(self._directory)
    return None

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / str(step)

  def _set_aside(self, damaged: list[int]) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again."""
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
    """Writes the frozen weights, unless the same ones are stored already.

    The directory may hold other frozen weights that no checkpoint needs: those
    of a run that was killed before its first checkpoint and then restarted with
    other weights.
    """
    if _fingerprint(self._directory) == fingerprint:
      return
    path = self._directory / FROZEN
    if path.exists():
      shutil.rmtree(self._delete(path))
    if frozen:
      files.write(path, frozen, {})

  def _delete(self, path: pathlib.Path) -> pathlib.Path:
    """Renames a directory before it is deleted and returns the new name.

    A process that is killed while deleting must not leave half a checkpoint
    under a valid name.
    """
    doomed = path.with_suffix(_DELETED)
    path.rename(doomed)
    return doomed

  def _prune(self) -> None:
    last = sorted(self._values)[-self._keep:]
    for step in self._values.keys() - {*last, _best(self._values)}:
      shutil.rmtree(self._delete(self._path(step)))
      del self._values[step]


class NoCheckpoints(Checkpoints):
  """Checkpoints of a process that writes none, because another one does."""

  def __init__(self):
    """Opens no file."""
    self._thread = self._error = None

  def save(self, step: int, state: Any, host: Mapping[str, Any], *,
           value: float | None = None) -> None:
    """Does nothing."""

  def restore_latest(self, like: Tree) -> None:
    """Returns None: only the main process reads checkpoints."""


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
  """Restores the variables that inference needs, without the optimizer state.

  Args:
    workdir: work directory of a run; it is only read.
    which: 'best' for the checkpoint with the lowest validation loss (the latest
      if none was measured), or 'latest'.
    like: variables with the structure, shapes and types to restore, arrays or
      `jax.ShapeDtypeStruct`s. None restores whatever the checkpoint holds.
    say: called with one line for each damaged checkpoint.

  Returns:
    {'params', 'model_state'} with NumPy leaves. If the run kept a moving
    average, both are the averaged values; frozen networks are not averaged.

  Raises:
    CheckpointError: there is no undamaged checkpoint, or it holds another
      network than `like`.
  """
  directory = pathlib.Path(workdir) / DIRECTORY
  order = steps(directory)[::-1]
  if not order:
    raise CheckpointError(
        f'no checkpoint in {directory}: train first, or give the work '
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
      say(f'damaged checkpoint {error}; using another one')
      continue
    leaves |= _read_frozen(directory, about)
    return _nested(leaves) if like is None else files.fill(like, leaves, path)
  raise _all_damaged(directory)


def _read_variables(path: pathlib.Path, about: Mapping[str, Any]
                    ) -> files.Leaves:
  """Parameters and model state without its frozen part, averaged if kept so."""
  has_ema = any(name.startswith('ema/') for name in about['leaves'])
  prefix = 'ema/' if has_ema else ''
  leaves = files.read_leaves(
      path, about, lambda name: name.startswith(
          (f'{prefix}params/', f'{prefix}model_state/')))
  return {name.removeprefix(prefix): x for name, x in leaves.items()}


def _fingerprint(directory: pathlib.Path) -> str | None:
  """Fingerprint of the stored frozen weights; None if they are unreadable."""
  path = directory / FROZEN
  if not path.exists():
    return _NOTHING_FROZEN
  try:
    return files.fingerprint(files.read_about(path)['leaves'])
  except DamagedCheckpoint:
    return None


def _read_frozen(directory: pathlib.Path, about: Mapping[str, Any]
                 ) -> files.Leaves:
  """Reads the frozen networks of a checkpoint; {} if it has none.

  Args:
    directory: the directory of the checkpoints.
    about: the checkpoint's description, from `checkpoint_files.read_about`.

  Raises:
    CheckpointError: they are missing, damaged, or not the ones that the
      checkpoint was trained with. No checkpoint of the run works without them.
  """
  wanted = about['host'].get('frozen', _NOTHING_FROZEN)
  if wanted == _NOTHING_FROZEN:
    return {}
  path = directory / FROZEN
  try:
    frozen = files.read_about(path)
    if files.fingerprint(frozen['leaves']) != wanted:
      raise DamagedCheckpoint(
          f'{path}: these are not the frozen weights that the checkpoints '
          'were trained with')
    return files.read_leaves(path, frozen)
  except DamagedCheckpoint as error:
    raise CheckpointError(
        f'damaged {error}: restore it from a copy, or start again in a new '
        'workdir') from error


def _is_frozen(name: str) -> bool:
  return name.startswith(_FROZEN_PREFIX)


def _nested(leaves: files.Leaves) -> dict[str, Any]:
  """Turns leaves by path into {'params', 'model_state'}."""
  return {'model_state': {}} | flax.traverse_util.unflatten_dict(
      leaves, sep='/')


def _value(path: pathlib.Path) -> float | None:
  """Validation loss of a checkpoint; None if not measured or damaged."""
  try:
    return files.read_about(path)['host']['value']
  except CheckpointError:
    return None


def _best(values: Mapping[int, float | None]) -> int | None:
  """The step with the lowest value; the earliest of equal ones."""
  known = {step: value for step, value in sorted(values.items())
           if value is not None}
  return min(known, key=known.__getitem__) if known else None


def _all_damaged(directory: pathlib.Path) -> CheckpointError:
  return CheckpointError(
      f'every checkpoint in {directory} is damaged: restore one from a copy, '
      'or start again in a new workdir')
