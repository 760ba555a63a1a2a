"""Data parallelism: mapped steps, and sums and means over devices.

This is the only module that uses pmap, psum, axis indices and device counts. To
change the kind of parallelism, for example to jax.jit over a mesh, edit only
this file.

The state has no leading device axis: `pmap` takes it with in_axes=None and
returns it with out_axes=None. Inside a step, each device differentiates its own
loss, and `sum_over_devices` then sums the gradients. A psum inside the
differentiated function (batch normalization) is transposed to a psum by pmap,
as this sum requires. (`jax.shard_map` with its default check_vma=True behaves
differently.)
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from colorjax.errors import UserError

AXIS = 'batch'
"""Name of the mapped axis."""

Tree = TypeVar('Tree')


def replicate(tree: Tree) -> Tree:
  """Copies a pytree of arrays to every local device.

  Each leaf gets a buffer of its own. So a step may donate the result: the
  caller's arrays stay valid, and leaves that shared a buffer (such as moving
  averages initialized with the parameters) no longer do.

  Args:
    tree: pytree of arrays.

  Returns:
    The tree with the same shapes, replicated.
  """
  mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
  copies = jax.tree.map(lambda x: jnp.array(x, copy=True), tree)
  return jax.device_put(copies, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Splits host arrays [B, ...] into [devices, B / devices, ...].

  With several processes, B is the share of this process.

  Args:
    batch: arrays by name, with 'padding_mask'.

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
  """Checks that a global batch can be divided among all devices.

  Args:
    batch_size: photographs in the global batch.

  Raises:
    UserError: it is not a multiple of the number of devices.
  """
  processes = jax.process_count()
  devices = jax.local_device_count() * processes
  if batch_size % devices:
    whose = f'{processes} processes' if processes > 1 else 'this machine'
    raise UserError(
        f'batch_size={batch_size} cannot be divided among the {devices} '
        f'devices of {whose}: use a multiple of {devices}')


class Vote:
  """Lets all processes agree on one number at each step.

  The number that a process casts at one step is known to all processes one step
  later, so no device has to wait for the hosts. With one process it is known at
  once.
  """

  def __init__(self):
    """Starts without any cast number."""
    self._largest = jax.pmap(
        lambda x: jax.lax.pmax(x, AXIS), axis_name=AXIS, out_axes=None)
    self._last: jax.Array | None = None

  def __call__(self, value: int) -> int:
    """Casts a number; every process must call it at every step.

    Args:
      value: number of this process, at least 0.

    Returns:
      The largest number that any process cast at the previous step, 0 at the
      first step. With one process, `value`.
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
    donate: whether the outputs may reuse the buffers of the state, which is
      then invalid after the call. Use False for a step that returns no state.

  Returns:
    `(state, host batch [B, ...]) -> outputs`, without a device axis. It raises
    UserError if B is not divisible by the number of devices.
  """
  mapped = jax.pmap(
      step, axis_name=AXIS, in_axes=(None, 0), out_axes=None,
      donate_argnums=(0,) if donate else ())

  def call(state, batch):
    return mapped(state, shard_batch(batch))

  return call


def lower_step(step: Callable[..., Any], state: Any, batch: Any) -> Any:
  """Lowers a step as `pmap_step` runs it, for one device.

  Args:
    step: as in `pmap_step`.
    state: arrays, or their shapes and types.
    batch: arrays [B, ...] by name, or their shapes and types.

  Returns:
    `jax.stages.Lowered`; its `compile` reads and computes no data.
  """
  mapped = jax.pmap(
      step, axis_name=AXIS, in_axes=(None, 0), out_axes=None,
      donate_argnums=(0,), devices=jax.local_devices()[:1])
  return mapped.lower(state, {
      name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)
      for name, x in batch.items()})


def pmap_photos(measure: Callable[..., Any]) -> Callable[..., Any]:
  """Runs a pure function that treats photographs independently on all devices.

  Args:
    measure: `(state, batch) -> tree of [B, ...]`, a row for each photograph.

  Returns:
    `(state, host batch [B, ...]) -> tree of [B, ...]`. Every entry of the batch
    must have a row for each photograph. It raises UserError if B is not
    divisible by the number of devices.
  """
  mapped = jax.pmap(measure, axis_name=AXIS, in_axes=(None, 0))

  def call(state, batch):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]),
                        mapped(state, shard_batch(batch)))

  return call


def axis() -> str | None:
  """Returns AXIS inside a mapped step, else None.

  Networks call it when they are called (`nn.BatchNorm(axis_name=axis())`), so
  that the same network works inside and outside a mapped step.
  """
  try:
    jax.lax.axis_index(AXIS)
  except NameError:
    return None
  return AXIS


def positions(count: int) -> jax.Array:
  """Positions of this device's rows in the global batch.

  Args:
    count: number of rows on this device, equal on all devices.

  Returns:
    int32 [count].
  """
  places = jnp.arange(count, dtype=jnp.int32)
  return places if axis() is None else (
      jax.lax.axis_index(AXIS) * count + places)


def sum_over_devices(tree: Tree) -> Tree:
  """Sums each leaf over all devices; outside a mapped step, does nothing."""
  return tree if axis() is None else jax.lax.psum(tree, AXIS)


def mean_over_devices(tree: Tree) -> Tree:
  """Averages the floating-point leaves over all devices; keeps the integers."""
  if axis() is None:
    return tree

  def mean(x: jax.Array) -> jax.Array:
    is_real = jnp.issubdtype(x.dtype, jnp.floating)
    return jax.lax.pmean(x, AXIS) if is_real else x

  return jax.tree.map(mean, tree)


def first_row(rows: Mapping[str, jax.Array], selected: jax.Array
              ) -> dict[str, jax.Array]:
  """Returns the first selected row of the global batch on every device.

  Args:
    rows: this device's rows, arrays [B, ...] by name.
    selected: bool [B].

  Returns:
    Arrays [...] by name; zeros if no row is selected on any device.
  """
  nowhere = jnp.iinfo(jnp.int32).max
  place = jnp.where(selected, positions(len(selected)), nowhere).min()
  first = place if axis() is None else jax.lax.pmin(place, AXIS)
  is_here = (place == first) & (first != nowhere)
  row = selected.argmax()
  return {name: sum_over_devices(
      jnp.where(is_here, x[row], jnp.zeros_like(x[row]))).astype(x.dtype)
          for name, x in rows.items()}
