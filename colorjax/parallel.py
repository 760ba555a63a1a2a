"""All that knows of devices: the mapped step, and what is summed over it.

This is the only file with pmap, psum, axis indices and device counts, so that
another way of being parallel (jax.jit over a mesh) is an edit of one file.

The state stays logically unreplicated: `pmap` takes it with in_axes=None and
gives it back with out_axes=None, one array a leaf, without a leading device
axis. Inside the step, gradients are taken of the device's own loss and summed
with `sum_over_devices` afterwards; a psum inside the differentiated function
(batch normalization) is transposed to a psum by pmap, which is what that sum
needs. (`jax.shard_map` with its default check_vma=True differs there.)
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from colorjax.errors import UserError

AXIS = 'batch'
"""Name of the mapped axis: what BatchNorm's axis_name is set to."""

Tree = TypeVar('Tree')


def replicate(tree: Tree) -> Tree:
  """Copies a pytree of arrays to every local device, shapes unchanged.

  The step donates its state; because this copies leaf by leaf, the caller's
  own arrays stay alive, and no two leaves share a buffer (as an average does
  with the parameters that it starts from).
  """
  mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
  copies = jax.tree.map(lambda x: jnp.array(x, copy=True), tree)
  return jax.device_put(copies, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Splits host arrays [B, ...] into [devices, B / devices, ...].

  Raises:
    UserError: B is not divisible by the number of local devices.
  """
  devices = jax.local_device_count()
  size = len(batch['mask'])
  if size % devices:
    raise UserError(
        f'--batch_size={size} cannot be shared by the {devices} devices of '
        f'this machine: choose a multiple of {devices}')
  return {name: np.asarray(x).reshape(devices, size // devices, *x.shape[1:])
          for name, x in batch.items()}


def pmap_step(
    step: Callable[..., Any], *, donate: bool = True) -> Callable[..., Any]:
  """Runs a pure step on all local devices.

  Args:
    step: `(state, batch) -> outputs`, made with axis_name=AXIS; its outputs
      must be equal on all devices.
    donate: hand the state's buffers over to the outputs. The state given is
      then dead afterwards; False for a step that gives no state back.

  Returns:
    `(state, host batch [B, ...]) -> outputs`, without a device axis. UserError
    where B is not divisible by the number of devices.
  """
  mapped = jax.pmap(
      step, axis_name=AXIS, in_axes=(None, 0), out_axes=None,
      donate_argnums=(0,) if donate else ())

  def call(state, batch):
    return mapped(state, shard_batch(batch))

  return call


def pmap_photos(measure: Callable[..., Any]) -> Callable[..., Any]:
  """Runs a pure function of independent photographs on all local devices.

  Args:
    measure: `(state, batch) -> tree of [B, ...]`, a row for each photograph.

  Returns:
    `(state, host batch [B, ...]) -> tree of [B, ...]`; every entry of the
    batch has a row for each photograph. UserError where B is not divisible by
    the number of devices.
  """
  mapped = jax.pmap(measure, axis_name=AXIS, in_axes=(None, 0))

  def call(state, batch):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]),
                        mapped(state, shard_batch(batch)))

  return call


def sum_over_devices(tree: Tree, axis_name: str | None) -> Tree:
  """Sum of each leaf over the mapped axis; the tree itself for None."""
  return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def mean_over_devices(tree: Tree, axis_name: str | None) -> Tree:
  """Mean of each floating leaf over the mapped axis; counters are kept."""
  if axis_name is None:
    return tree

  def mean(x: jax.Array) -> jax.Array:
    is_real = jnp.issubdtype(x.dtype, jnp.floating)
    return jax.lax.pmean(x, axis_name) if is_real else x

  return jax.tree.map(mean, tree)


def device_index(axis_name: str | None) -> jax.Array | int:
  """Index of this device on the mapped axis, 0 for None."""
  return 0 if axis_name is None else jax.lax.axis_index(axis_name)
