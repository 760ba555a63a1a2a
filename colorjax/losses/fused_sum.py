"""Sums of elementwise log-probabilities that keep no array of their terms.

The logits of a mixture are by far its largest arrays, and the plain way to
write the sum over an event keeps one to three more of that size from the
forward to the backward pass. Here the backward pass starts again from the
inputs: beside the gradient itself no array of the logits' size exists, for any
family, and forward-mode, higher derivatives, vmap and pmap all work. (For
bfloat16, XLA on a CPU makes float32 copies of its own, of gradients too.)
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from colorjax.losses.families import Family, LogProduct

# On a CPU, XLA writes the terms of a fused sum to memory, or not, depending on
# its flags; a loop over slices of the event never does. 64 slices make the
# partial sums 1/64 of the logits.
_MAX_SLICES = 64
# A product below the largest float32, 2^128.
_LOG_MAX = 128 * math.log(2)
# Slices taken in one turn of the loop, which then passes less memory.
_UNROLL = 4


def sum_log_prob(family: Family, targets: jax.Array,
                 params: Sequence[jax.Array], axes: Sequence[int]
                 ) -> jax.Array:
  """Sum of `family.log_prob` over axes.

  Args:
    family: the elementwise distribution.
    targets: values in [0, 1], rank n.
    params: `family.num_params` raw arrays of rank n that broadcast with the
      targets; sizes are equal or 1.
    axes: axes to sum over, non-negative.

  Returns:
    Nats; the broadcast shape without the axes; float32, or float64 if any
    input is. Gradients have the dtypes of the inputs.
  """
  axes = tuple(axes)

  def elementwise(*arrays):
    # The cast is inside the fusion: no float32 copy of bfloat16 logits.
    return family.log_prob(*_in_full(arrays))

  @jax.custom_jvp
  def total(*arrays):
    # A GPU fuses terms and sum by itself.
    return jax.lax.platform_dependent(
        *arrays, cpu=lambda *a: _sliced_sum(family, axes, *a),
        default=lambda *a: elementwise(*a).sum(axes))

  @functools.partial(total.defjvp, symbolic_zeros=True)
  def total_jvp(arrays, tangents):
    active = [i for i, t in enumerate(tangents)
              if not isinstance(t, jax.custom_derivatives.SymbolicZero)]
    slopes = functools.partial(_slopes, elementwise, active, axes)
    in_slices = functools.partial(_sliced_slopes, elementwise, active, axes)
    if len(active) == 1:  # fuses with whatever takes it
      values = slopes(*arrays)
    else:
      values = jax.lax.platform_dependent(
          *arrays, cpu=in_slices, default=slopes)
    return total(*arrays), sum(
        (value * tangents[i].astype(value.dtype)).sum(axes)
        for i, value in zip(active, values, strict=True))

  # Saves the inputs alone for the backward pass.
  return jax.checkpoint(total)(targets, *params)


def _in_full(arrays: Sequence[jax.Array]) -> list[jax.Array]:
  dtype = jnp.result_type(jnp.float32, *arrays)
  return [a.astype(dtype) for a in arrays]


def _sliced_sum(family: Family, axes: tuple[int, ...], *arrays: jax.Array
                ) -> jax.Array:
  """Sum of `family.log_prob` over axes, a slice of the longest at a time."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  axis = _longest(axes, shape)
  if axis is None:
    return family.log_prob(*_in_full(arrays)).sum(axes)

  def part(start, size):
    return _in_full(_slices(arrays, axis, shape[axis], start, size))

  size, group, num_groups = _tile(shape[axis], _largest_group(family))
  total = jnp.zeros((*shape[:axis], size, *shape[axis + 1:]),
                    jnp.result_type(jnp.float32, *arrays))

  def add_term(i, total):
    return total + family.log_prob(*part(i * size, size))

  add_group = (add_term if family.log_product is None else functools.partial(
      _add_product, family.log_product, part, size, group))
  total = jax.lax.fori_loop(0, num_groups, add_group, total).sum(axes)
  covered = num_groups * group * size
  if covered < shape[axis]:
    rest = part(covered, shape[axis] - covered)
    total += family.log_prob(*rest).sum(axes)
  return total


def _slopes(elementwise: Callable[..., jax.Array], active: Sequence[int],
            axes: tuple[int, ...], *arrays: jax.Array) -> list[jax.Array]:
  """Derivatives by the active arrays, summed where elements share a value."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  slopes = []
  for i in active:
    def along(array, i=i):
      return elementwise(*arrays[:i], array, *arrays[i + 1:])

    _, slope = jax.jvp(along, arrays[i:i + 1], (jnp.ones_like(arrays[i]),))
    shared = tuple(a for a in axes if arrays[i].shape[a] == 1 != shape[a])
    slopes.append(slope.sum(shared, keepdims=True) if shared else slope)
  return slopes


def _sliced_slopes(elementwise: Callable[..., jax.Array],
                   active: Sequence[int], axes: tuple[int, ...],
                   *arrays: jax.Array) -> list[jax.Array]:
  """`_slopes` by slices: what they share is kept for one slice at a time."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  axis = _longest(axes, shape)
  if axis is None:
    return _slopes(elementwise, active, axes, *arrays)

  def put(start, size, totals):
    slices = _slices(arrays, axis, shape[axis], start, size)
    slopes = _slopes(elementwise, active, axes, *slices)
    return [
        total + slope if total.shape[axis] == 1
        else jax.lax.dynamic_update_slice_in_dim(total, slope, start, axis)
        for total, slope in zip(totals, slopes, strict=True)]

  size, _, count = _tile(shape[axis], 1)
  like = jax.eval_shape(
      functools.partial(_slopes, elementwise, active, axes), *arrays)
  totals = jax.lax.fori_loop(
      0, count, lambda i, totals: put(i * size, size, totals),
      [jnp.zeros(a.shape, a.dtype) for a in like])
  covered = count * size
  if covered < shape[axis]:
    totals = put(covered, shape[axis] - covered, totals)
  return totals


def _add_product(form: LogProduct, part: Callable[..., list[jax.Array]],
                 size: int, group: int, i: jax.Array, total: jax.Array
                 ) -> jax.Array:
  """Adds the i-th group of slices, which share one logarithm."""
  def add_slice(j, carry):
    total, excess = carry
    term, factor = form.parts(*part((i * group + j) * size, size))
    # 1 + excess is the product; without the 1 no digit of a tiny one is lost.
    return total + term, excess + factor + excess * factor

  total, excess = jax.lax.fori_loop(
      0, group, add_slice, (total, jnp.zeros_like(total)),
      unroll=min(group, _UNROLL))
  return total + form.sign * jnp.log1p(excess)


def _largest_group(family: Family) -> int:
  if family.log_product is None:
    return 1
  return int(_LOG_MAX / math.log1p(family.log_product.max_excess))


def _longest(axes: tuple[int, ...], shape: Sequence[int]) -> int | None:
  """The longest of the axes; None if there is nothing to sum."""
  axis = max(axes, key=shape.__getitem__, default=None)
  return None if axis is None or not shape[axis] else axis


def _slices(arrays: Sequence[jax.Array], axis: int, length: int,
            start: jax.typing.ArrayLike, size: int) -> list[jax.Array]:
  """A slice of each array that is not broadcast along the axis."""
  return [a if a.shape[axis] != length
          else jax.lax.dynamic_slice_in_dim(a, start, size, axis)
          for a in arrays]


def _tile(length: int, max_group: int) -> tuple[int, int, int]:
  """Size of a slice, slices in a group, groups: for the smallest arrays."""
  def group(count):
    return max(g for g in range(1, max_group + 1) if count % g == 0)

  count = min(range(1, min(length, _MAX_SLICES) + 1),
              key=lambda n: (length // n + length % n, -group(n)))
  return length // count, group(count), count // group(count)
