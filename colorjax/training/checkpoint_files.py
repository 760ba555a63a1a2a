"""One checkpoint on disk: an Orbax directory that holds its own hashes.

Layout of a checkpoint directory, which is written completely or not at all
(Orbax writes to a temporary name and renames it):

  state/   the arrays, as nested dicts by the path of each leaf
  about/   JSON: 'host', the caller's values; 'leaves', the dtype, shape and
           SHA-256 of each leaf; 'sha256' of all of that

If a byte of an array file is flipped, Orbax restores wrong values without an
error. Here every array that is read back is hashed and compared.
"""

import hashlib
import json
import logging
import pathlib
import shutil
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from colorjax import hosts
from colorjax.errors import UserError

Tree = TypeVar('Tree')
Leaves = dict[str, np.ndarray]
"""Arrays by their path in the pytree, joined with '/'."""

TEMPORARY = '.orbax-checkpoint-tmp'
"""The name of an unfinished checkpoint directory contains this text."""

# Orbax counts its saves in one counter for the whole process and waits on it:
# two saves at the same time can wait for each other forever.
_ONE_SAVE_AT_A_TIME = threading.Lock()


class CheckpointError(UserError):
  """A checkpoint cannot be written, read or used; the message is one line."""


class DamagedCheckpoint(CheckpointError):
  """A checkpoint does not contain the bytes that were written."""


def flatten(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a pytree by path, e.g. 'params/Dense_0/kernel'."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in leaves}


def snapshot(tree: Any, select: Callable[[str], bool] = lambda name: True
             ) -> Leaves:
  """Copies a pytree's arrays to the host.

  They are copied even where host and device share memory, because the next
  training step reuses the device's buffers.

  Args:
    tree: the pytree.
    select: `path -> bool`, which leaves to copy.
  """
  chosen = {name: x for name, x in flatten(tree).items() if select(name)}
  return {name: np.array(x) for name, x in jax.device_get(chosen).items()}


def write(path: pathlib.Path, leaves: Leaves, host: Mapping[str, Any]) -> None:
  """Writes a checkpoint directory atomically.

  Args:
    path: the directory, which must not exist.
    leaves: arrays, as `snapshot` returns them.
    host: JSON values to store with the arrays.

  Raises:
    CheckpointError: it cannot be written, for example because the disk is
      full; no partial checkpoint is left.
  """
  about: dict[str, Any] = {'host': dict(host), 'leaves': describe(leaves)}
  about['sha256'] = _digest_json(about)
  # Orbax refuses arrays without elements; they are restored from 'leaves'.
  arrays = flax.traverse_util.unflatten_dict(
      {name: x for name, x in leaves.items() if x.size}, sep='/')
  try:
    with _ONE_SAVE_AT_A_TIME, _checkpointer() as checkpointer:
      checkpointer.save(path.absolute(), args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(arrays), about=ocp.args.JsonSave(about)))
  except Exception as error:  # Orbax and its file layers raise many kinds.
    for unfinished in path.parent.glob(f'{path.name}{TEMPORARY}*'):
      shutil.rmtree(unfinished, ignore_errors=True)
    raise CheckpointError(
        f'cannot write checkpoint {path}: {_reason(error)}; fix this and run '
        'the same command again: it resumes from the previous checkpoint'
        ) from error


def describe(leaves: Leaves) -> dict[str, dict[str, Any]]:
  """Returns the dtype, shape and SHA-256 of each leaf."""
  return {name: _describe(name, x) for name, x in leaves.items()}


def fingerprint(description: Mapping[str, Any]) -> str:
  """Returns one hash of all names, shapes and contents.

  Args:
    description: what `describe` returned, or 'leaves' of `read_about`.
  """
  return _digest_json(dict(description))


def read_about(path: pathlib.Path) -> dict[str, Any]:
  """Reads the JSON of a checkpoint: 'host', 'leaves', 'sha256'.

  Raises:
    DamagedCheckpoint: it is missing or differs from what was written.
    CheckpointError: there is no permission to read it.
  """
  def restore() -> dict[str, Any]:
    with _checkpointer() as checkpointer:
      return checkpointer.restore(
          path.absolute(),
          args=ocp.args.Composite(about=ocp.args.JsonRestore())).about

  about = _reading(path, restore)
  if not isinstance(about, dict) or about.get('sha256') != _digest_json(
      {name: about.get(name) for name in ('host', 'leaves')}):
    raise DamagedCheckpoint(f'{path}: its description has changed')
  return about


def read_leaves(
    path: pathlib.Path,
    about: Mapping[str, Any],
    select: Callable[[str], bool] = lambda name: True,
) -> Leaves:
  """Reads arrays and compares each with its hash.

  Args:
    path: the checkpoint directory.
    about: what `read_about` returned for it.
    select: `path -> bool`, which leaves to read.

  Raises:
    DamagedCheckpoint: an array is missing or differs from what was written.
    CheckpointError: there is no permission to read it.
  """
  wanted = {name: leaf for name, leaf in about['leaves'].items()
            if select(name)}
  placeholders = {
      name: np.zeros(leaf['shape'], jnp.dtype(leaf['dtype']))
      for name, leaf in wanted.items()}
  stored = {name: x for name, x in placeholders.items() if x.size}
  leaves = placeholders | _reading(path, lambda: _restore(path, stored))
  for name, leaf in wanted.items():
    if _describe(name, np.asarray(leaves[name])) != leaf:
      raise DamagedCheckpoint(f'{path}: {name} has changed')
  return leaves


def fill(like: Tree, leaves: Leaves, path: pathlib.Path) -> Tree:
  """Puts the leaves of a checkpoint into the structure of `like`.

  Names, shapes and types must be the same.

  Args:
    like: pytree of arrays or `jax.ShapeDtypeStruct`s.
    leaves: what `read_leaves` returned.
    path: the checkpoint directory, for the error message.

  Raises:
    CheckpointError: leaves differ; the message names the first ones.
  """
  expected = {name: _signature(x) for name, x in flatten(like).items()}
  found = {name: _signature(x) for name, x in leaves.items()}
  if expected != found:
    names = [name for name in (*expected, *(found.keys() - expected.keys()))
             if expected.get(name) != found.get(name)]
    first = ', '.join(
        f'{name} is {found.get(name, "absent")} in the checkpoint and '
        f'{expected.get(name, "absent")} in the network'
        for name in names[:2])
    more = f' (and {len(names) - 2} more)' if len(names) > 2 else ''
    raise CheckpointError(
        f'checkpoint in {path} holds another network: {first}{more}')
  return jax.tree.unflatten(
      jax.tree.structure(like), [leaves[name] for name in expected])


def _checkpointer() -> ocp.Checkpointer:
  # Orbax logs about forty lines for each checkpoint to absl's logger, and
  # scripts that use absl.app print them. Errors are raised anyway.
  logging.getLogger('absl').addFilter(_is_not_from_orbax)
  # By default, Orbax makes all connected processes save together.
  alone = ocp.options.MultiprocessingOptions(
      primary_host=hosts.index(), active_processes={hosts.index()},
      barrier_sync_key_prefix=f'process{hosts.index()}')
  return ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(
          composite_options=ocp.CompositeOptions(
              multiprocessing_options=alone)),
      multiprocessing_options=alone)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in pathlib.PurePath(record.pathname).parts


def _restore(path: pathlib.Path, stored: Leaves) -> Leaves:
  if not stored:
    return {}
  item = flax.traverse_util.unflatten_dict(stored, sep='/')
  as_numpy = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
  with _checkpointer() as checkpointer:
    restored = checkpointer.restore(
        path.absolute(), args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
            item, restore_args=as_numpy, partial_restore=True))).state
  return flax.traverse_util.flatten_dict(restored, sep='/')


def _reading(path: pathlib.Path, read: Callable[[], Any]) -> Any:
  """Runs `read`; any error but a lack of permission means damage."""
  try:
    return read()
  except PermissionError as error:
    raise CheckpointError(
        f'cannot read checkpoint {path}: {_reason(error)}') from error
  except Exception as error:  # Orbax and its file layers raise many kinds.
    raise DamagedCheckpoint(f'{path}: {_reason(error)}') from error


def _describe(name: str, x: np.ndarray) -> dict[str, Any]:
  """Dtype, shape, and the SHA-256 of name, dtype, shape and bytes."""
  about: dict[str, Any] = {'dtype': str(x.dtype), 'shape': list(x.shape)}
  digest = hashlib.sha256(json.dumps([name, about]).encode())
  digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
  return about | {'sha256': digest.hexdigest()}


def _digest_json(value: Any) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _signature(x: Any) -> str:
  return f'{x.dtype}[{",".join(map(str, x.shape))}]'


def _reason(error: BaseException) -> str:
  """The cause in a few words; file layers wrap it in pages of context."""
  text = ' '.join(str(error).split())
  if 'No space left on device' in text:
    return 'No space left on device'
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return text[:160] or type(error).__name__
