"""One checkpoint on disk: an Orbax directory that knows its own hash.

Layout of a checkpoint directory, written whole or not at all (Orbax writes to
a temporary name and renames):

  state/   the arrays, as nested dicts by the path of each leaf
  about/   JSON: 'host', what the caller keeps beside the arrays; 'leaves', the
           dtype, shape and SHA-256 of each leaf; 'sha256' of all of that

Orbax restores an array file with a flipped byte silently, with wrong values;
here every byte that is read back is hashed and compared.
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
"""What the name of an unfinished checkpoint directory contains."""

# Orbax counts its saves in one number for the whole process and waits on it:
# of two at the same time, each can wait in vain for the other's.
_ONE_SAVE_AT_A_TIME = threading.Lock()


class CheckpointError(UserError):
  """A checkpoint that cannot be written, read or used; one line."""


class DamagedCheckpoint(CheckpointError):
  """A checkpoint whose bytes are not the ones that were written."""


def flatten(tree: Any) -> dict[str, Any]:
  """Leaves of any pytree by path, for example 'params/Dense_0/kernel'."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in leaves}


def snapshot(tree: Any, select: Callable[[str], bool] = lambda name: True
             ) -> Leaves:
  """Copies a pytree's arrays to the host.

  Copied even where host and device share memory: the step that follows
  reuses the device's buffers.

  Args:
    tree: the pytree.
    select: which leaves to copy, by their path.
  """
  chosen = {name: x for name, x in flatten(tree).items() if select(name)}
  return {name: np.array(x) for name, x in jax.device_get(chosen).items()}


def write(path: pathlib.Path, leaves: Leaves, host: Mapping[str, Any]) -> None:
  """Writes a checkpoint directory atomically.

  Args:
    path: the directory, which must not exist.
    leaves: what `snapshot` returns.
    host: JSON values to keep beside the arrays.

  Raises:
    CheckpointError: the disk is full, not writable, ...; nothing is left.
  """
  about: dict[str, Any] = {'host': dict(host), 'leaves': describe(leaves)}
  about['sha256'] = _digest_json(about)
  # Orbax refuses arrays without elements; 'leaves' alone recalls them.
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
        f'cannot write checkpoint {path}: {_reason(error)}; mend that, and the '
        'same command goes on from the checkpoint before') from error


def describe(leaves: Leaves) -> dict[str, dict[str, Any]]:
  """The dtype, shape and SHA-256 of each leaf."""
  return {name: _describe(name, x) for name, x in leaves.items()}


def fingerprint(description: Mapping[str, Any]) -> str:
  """One hash of names, shapes and contents.

  Args:
    description: what `describe` returns, or 'leaves' of `read_about`.
  """
  return _digest_json(dict(description))


def read_about(path: pathlib.Path) -> dict[str, Any]:
  """The JSON of a checkpoint: 'host', 'leaves', 'sha256'.

  Raises:
    DamagedCheckpoint: it is missing or not what was written.
  """
  def restore() -> dict[str, Any]:
    with _checkpointer() as checkpointer:
      return checkpointer.restore(
          path.absolute(),
          args=ocp.args.Composite(about=ocp.args.JsonRestore())).about

  about = _reading(path, restore)
  if not isinstance(about, dict) or about.get('sha256') != _digest_json(
      {name: about.get(name) for name in ('host', 'leaves')}):
    raise DamagedCheckpoint(f'{path}: its description is not what was written')
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
    select: which leaves to read, by their path.

  Raises:
    DamagedCheckpoint: an array is missing or not what was written.
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
      raise DamagedCheckpoint(f'{path}: {name} is not what was written')
  return leaves


def fill(like: Tree, leaves: Leaves, path: pathlib.Path) -> Tree:
  """A pytree of the structure of `like` with the leaves of a checkpoint.

  Strict: names, shapes and types must be the same.

  Args:
    like: arrays or `jax.ShapeDtypeStruct`s.
    leaves: what `read_leaves` returned.
    path: the checkpoint directory, for the message.

  Raises:
    CheckpointError: names the first leaves that differ.
  """
  expected = {name: _signature(x) for name, x in flatten(like).items()}
  found = {name: _signature(x) for name, x in leaves.items()}
  if expected != found:
    names = [name for name in (*expected, *(found.keys() - expected.keys()))
             if expected.get(name) != found.get(name)]
    first = ', '.join(
        f'{name} is {found.get(name, "absent")} there and '
        f'{expected.get(name, "absent")} here' for name in names[:2])
    more = f' (and {len(names) - 2} more)' if len(names) > 2 else ''
    raise CheckpointError(
        f'checkpoint in {path} holds another network: {first}{more}')
  return jax.tree.unflatten(
      jax.tree.structure(like), [leaves[name] for name in expected])


def _checkpointer() -> ocp.Checkpointer:
  # Orbax tells some forty lines a checkpoint to absl's logger, which scripts
  # under absl.app print. What matters it raises.
  logging.getLogger('absl').addFilter(_is_not_of_orbax)
  # With several processes Orbax would have all of them save together.
  alone = ocp.options.MultiprocessingOptions(
      primary_host=hosts.index(), active_processes={hosts.index()},
      barrier_sync_key_prefix=f'process{hosts.index()}')
  return ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(
          composite_options=ocp.CompositeOptions(
              multiprocessing_options=alone)),
      multiprocessing_options=alone)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
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
  """Runs `read`; whatever it meets is damage, except a lack of permission."""
  try:
    return read()
  except PermissionError as error:
    raise CheckpointError(
        f'cannot read checkpoint {path}: {_reason(error)}') from error
  except Exception as error:  # Orbax and its file layers raise many kinds.
    raise DamagedCheckpoint(f'{path}: {_reason(error)}') from error


def _describe(name: str, x: np.ndarray) -> dict[str, Any]:
  """Dtype, shape, and the hash of these, the name and the bytes."""
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
  """The cause in a few words: file layers wrap theirs in pages of context."""
  text = ' '.join(str(error).split())
  if 'No space left on device' in text:
    return 'No space left on device'
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return text[:160] or type(error).__name__
