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
"""Name of the mapped axis; see `axis`."""

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

  With several processes, B is the share of this one.

  Raises:
    UserError: B is not divisible by the number of local devices.
  """
  devices = jax.local_device_count()
  size = len(batch['padding_mask'])
  if size % devices:
    check_batch_size(size * jax.process_count())
  return {name: np.asarray(x).reshape(devices, size // devices, *x.shape[1:])
          for name, x in batch.items()}


def num_local_devices() -> int:
  """Number of devices of this process."""
  return jax.local_device_count()


def check_batch_size(batch_size: int) -> None:
  """Refuses a global batch that the devices of all processes cannot share.

  Args:
    batch_size: photographs in the global batch.

  Raises:
    UserError: it is no multiple of the number of devices.
  """
  processes = jax.process_count()
  devices = jax.local_device_count() * processes
  if batch_size % devices:
    whose = f'{processes} processes' if processes > 1 else 'this machine'
    raise UserError(
        f'batch_size={batch_size} cannot be shared by the {devices} devices '
        f'of {whose}: choose a multiple of {devices}')


class Vote:
  """One number that all processes agree on at each step.

  What a process casts at a step, all know one step later: no device has to
  wait for the hosts. With one process it is known at once.
  """

  def __init__(self):
    """Nothing has been cast yet."""
    self._largest = jax.pmap(
        lambda x: jax.lax.pmax(x, AXIS), axis_name=AXIS, out_axes=None)
    self._last: jax.Array | None = None

  def __call__(self, value: int) -> int:
    """Casts a number; every process has to call it at every step.

    Args:
      value: of this process, at least 0.

    Returns:
      The largest number that any process has cast at the step before, 0 at
      the first; with one process, `value`.
    """
    if jax.process_count() == 1:
      return value
    last, self._last = self._last, self._largest(
        np.full(jax.local_device_count(), value, np.int32))
    return 0 if last is None else int(last)


def pmap_step(
    step: Callable[..., Any], *, donate: bool = True) -> Callable[..., Any]:
  """Runs a pure step on all local devices.

  Args:
    step: `(state, batch) -> outputs`; its outputs must be equal on all devices.
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


def axis() -> str | None:
  """AXIS where the code that is being traced runs on all devices, else None.

  Networks ask for it when they are called (`nn.BatchNorm(axis_name=axis())`),
  so the same network works inside a mapped step and outside of it.
  """
  try:
    jax.lax.axis_index(AXIS)
  except NameError:
    return None
  return AXIS


def positions(count: int) -> jax.Array:
  """Places in the global batch of this device's rows, int32 [count].

  Args:
    count: number of rows on this device, the same on all devices.
  """
  places = jnp.arange(count, dtype=jnp.int32)
  return places if axis() is None else (
      jax.lax.axis_index(AXIS) * count + places)


def sum_over_devices(tree: Tree) -> Tree:
  """Sum of each leaf over all devices; the tree itself outside of a map."""
  return tree if axis() is None else jax.lax.psum(tree, AXIS)


def mean_over_devices(tree: Tree) -> Tree:
  """Mean of each floating leaf over all devices; integers are kept."""
  if axis() is None:
    return tree

  def mean(x: jax.Array) -> jax.Array:
    is_real = jnp.issubdtype(x.dtype, jnp.floating)
    return jax.lax.pmean(x, AXIS) if is_real else x

  return jax.tree.map(mean, tree)


def first_row(rows: Mapping[str, jax.Array], wanted: jax.Array
              ) -> dict[str, jax.Array]:
  """The first wanted row of the global batch, on every device.

  Args:
    rows: arrays [B, ...] by name, this device's rows.
    wanted: bool [B].

  Returns:
    Arrays [...] by name; zeros where no device has a wanted row.
  """
  nowhere = jnp.iinfo(jnp.int32).max
  place = jnp.where(wanted, positions(len(wanted)), nowhere).min()
  first = place if axis() is None else jax.lax.pmin(place, AXIS)
  is_here = (place == first) & (first != nowhere)
  row = wanted.argmax()
  return {name: sum_over_devices(
      jnp.where(is_here, x[row], jnp.zeros_like(x[row]))).astype(x.dtype)
          for name, x in rows.items()}
