"""Sums of elementwise log-probabilities that never store their terms.

The component params of a mixture are by far its largest arrays. A plain sum
over an event keeps one to three more arrays of that size between the forward
and the backward pass. Here the backward pass recomputes from the inputs: apart
from the gradient itself, no array of that size exists, for any family.
Forward-mode and higher derivatives, vmap and pmap all work. (For bfloat16
inputs, XLA on a CPU makes float32 copies of its own, also of gradients.)
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from colorjax.losses import mixture_axes
from colorjax.losses.families import Family, LogProduct

# Whether XLA writes the terms of a fused sum to memory on a CPU depends on its
# flags. A loop over slices of the event never does. With 64 slices the partial
# sums have 1/64 of the logits' size.
_MAX_SLICES = 64
# Log of 2^128, the bound of float32 numbers: products must stay below it.
_LOG_MAX = 128 * math.log(2)
# Slices per iteration of the inner loop; fewer iterations move less memory.
_UNROLL = 4


def sum_log_prob(family: Family, targets: jax.Array,
                 params: Sequence[jax.Array], axes: Sequence[int]
                 ) -> jax.Array:
  """Sums `family.log_prob` over axes.

  Args:
    family: the elementwise distribution.
    targets: values in [0, 1], rank n.
    params: `family.num_params` raw arrays of rank n that broadcast with the
      targets; sizes are equal or 1.
    axes: axes to sum over, non-negative.

  Returns:
    Nats in the broadcast shape without the axes; float64 if any input is
    float64, else float32. Gradients have the dtypes of the inputs.
  """
  axes = tuple(axes)

  def elementwise(*arrays):
    # The cast is part of the fusion: bfloat16 logits are never copied to
    # float32.
    return family.log_prob(*mixture_axes.at_least_float32(arrays))

  @jax.custom_jvp
  def total(*arrays):
    # On a GPU XLA fuses the terms and their sum by itself.
    return jax.lax.platform_dependent(
        *arrays, cpu=lambda *a: _sliced_sum(family, axes, *a),
        default=lambda *a: elementwise(*a).sum(axes))

  @functools.partial(total.defjvp, symbolic_zeros=True)
  def total_jvp(arrays, tangents):
    active = [i for i, t in enumerate(tangents)
              if not isinstance(t, jax.custom_derivatives.SymbolicZero)]
    plain = functools.partial(_partials, elementwise, active, axes)
    sliced = functools.partial(_sliced_partials, elementwise, active, axes)
    if len(active) == 1:  # a single derivative fuses with the code that uses it
      partials = plain(*arrays)
    else:
      partials = jax.lax.platform_dependent(*arrays, cpu=sliced, default=plain)
    return total(*arrays), sum(
        (partial * tangents[i].astype(partial.dtype)).sum(axes)
        for i, partial in zip(active, partials, strict=True))

  # The checkpoint stores only the inputs for the backward pass.
  return jax.checkpoint(total)(targets, *params)


def _sliced_sum(family: Family, axes: tuple[int, ...], *arrays: jax.Array
                ) -> jax.Array:
  """Sums `family.log_prob` over axes, slice by slice along the longest."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  axis = _longest_axis(axes, shape)
  if axis is None:
    return family.log_prob(*mixture_axes.at_least_float32(arrays)).sum(axes)

  def part(start, size):
    return mixture_axes.at_least_float32(
        _slices(arrays, axis, shape[axis], start, size))

  size, group, num_groups = _choose_slices(
      shape[axis], _largest_group(family))
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


def _partials(elementwise: Callable[..., jax.Array], active: Sequence[int],
              axes: tuple[int, ...], *arrays: jax.Array) -> list[jax.Array]:
  """Partial derivatives by the active arrays, summed where these broadcast.

  Args:
    elementwise: function of all arrays.
    active: indices of the arrays to differentiate by.
    axes: axes that will be summed over.
    *arrays: arguments of `elementwise`.
  """
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  partials = []
  for i in active:
    def along(array, i=i):
      return elementwise(*arrays[:i], array, *arrays[i + 1:])

    _, partial = jax.jvp(along, arrays[i:i + 1], (jnp.ones_like(arrays[i]),))
    shared = tuple(a for a in axes if arrays[i].shape[a] == 1 != shape[a])
    partials.append(partial.sum(shared, keepdims=True) if shared else partial)
  return partials


def _sliced_partials(elementwise: Callable[..., jax.Array],
                     active: Sequence[int], axes: tuple[int, ...],
                     *arrays: jax.Array) -> list[jax.Array]:
  """`_partials`, slice by slice, to keep common subexpressions small."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  axis = _longest_axis(axes, shape)
  if axis is None:
    return _partials(elementwise, active, axes, *arrays)

  def update(start, size, totals):
    slices = _slices(arrays, axis, shape[axis], start, size)
    partials = _partials(elementwise, active, axes, *slices)
    return [
        total + partial if total.shape[axis] == 1
        else jax.lax.dynamic_update_slice_in_dim(total, partial, start, axis)
        for total, partial in zip(totals, partials, strict=True)]

  size, _, count = _choose_slices(shape[axis], 1)
  like = jax.eval_shape(
      functools.partial(_partials, elementwise, active, axes), *arrays)
  totals = jax.lax.fori_loop(
      0, count, lambda i, totals: update(i * size, size, totals),
      [jnp.zeros(a.shape, a.dtype) for a in like])
  covered = count * size
  if covered < shape[axis]:
    totals = update(covered, shape[axis] - covered, totals)
  return totals


def _add_product(form: LogProduct, part: Callable[..., list[jax.Array]],
                 size: int, group: int, i: jax.Array, total: jax.Array
                 ) -> jax.Array:
  """Adds the i-th group of slices, which share one logarithm."""
  def add_slice(j, carry):
    total, excess = carry
    term, factor = form.parts(*part((i * group + j) * size, size))
    # The product is 1 + excess. Storing only the excess keeps tiny values
    # exact.
    return total + term, excess + factor + excess * factor

  total, excess = jax.lax.fori_loop(
      0, group, add_slice, (total, jnp.zeros_like(total)),
      unroll=min(group, _UNROLL))
  return total + form.sign * jnp.log1p(excess)


def _largest_group(family: Family) -> int:
  """The number of elements that can share a logarithm without overflow."""
  if family.log_product is None:
    return 1
  return int(_LOG_MAX / math.log1p(family.log_product.max_excess))


def _longest_axis(axes: tuple[int, ...], shape: Sequence[int]) -> int | None:
  """The longest of the axes; None if there are none or they are empty."""
  axis = max(axes, key=shape.__getitem__, default=None)
  return None if axis is None or not shape[axis] else axis


def _slices(arrays: Sequence[jax.Array], axis: int, length: int,
            start: jax.typing.ArrayLike, size: int) -> list[jax.Array]:
  """Slices each array along the axis, unless it broadcasts there."""
  return [a if a.shape[axis] != length
          else jax.lax.dynamic_slice_in_dim(a, start, size, axis)
          for a in arrays]


def _choose_slices(length: int, max_group: int) -> tuple[int, int, int]:
  """Divides an axis into slices, so that intermediate arrays are smallest.

  Args:
    length: size of the axis.
    max_group: largest number of slices in a group.

  Returns:
    The size of a slice, the number of slices in a group, and the number of
    groups. A remainder of the axis may be left over.
  """
  def group(count):
    return max(g for g in range(1, max_group + 1) if count % g == 0)

  count = min(range(1, min(length, _MAX_SLICES) + 1),
              key=lambda n: (length // n + length % n, -group(n)))
  return length // count, group(count), count // group(count)
