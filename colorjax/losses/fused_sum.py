"""Sums of elementwise log-probabilities that keep no array of their terms.

The logits of a mixture are by far its largest arrays, and the plain way to
write the sum over an event keeps one to three more of that size from the
forward to the backward pass. Here the backward pass starts again from the
inputs: beside the gradient itself no array of the logits' size exists, for any
family, and forward-mode, higher derivatives, vmap and pmap all work.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from colorjax.losses.families import Family

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
  dtype = jnp.result_type(jnp.float32, targets, *params)
  axes = tuple(axes)

  def in_full(function):
    # The cast is inside the fusion: no float32 copy of bfloat16 logits.
    return lambda *arrays: function(*(a.astype(dtype) for a in arrays))

  elementwise = in_full(family.log_prob)
  split, max_group = None, 1
  if family.split_log_prob is not None:
    split = in_full(family.split_log_prob)
    max_group = int(_LOG_MAX / math.log1p(family.max_excess))

  def in_one(*arrays):
    return elementwise(*arrays).sum(axes)

  def in_slices(*arrays):
    return _sliced_sum(elementwise, split, max_group, axes, *arrays)

  @jax.custom_jvp
  def total(*arrays):
    # A GPU fuses terms and sum by itself.
    return jax.lax.platform_dependent(*arrays, cpu=in_slices, default=in_one)

  @total.defjvp
  def total_jvp(arrays, tangents):
    _, slopes = jax.jvp(elementwise, arrays, tangents)
    return total(*arrays), slopes.sum(axes)

  # Saves the inputs alone for the backward pass.
  return jax.checkpoint(total)(targets, *params)


def _sliced_sum(elementwise: Callable[..., jax.Array],
                split: Callable[..., tuple[jax.Array, jax.Array]] | None,
                max_group: int, axes: tuple[int, ...], *arrays: jax.Array
                ) -> jax.Array:
  """Sum over axes, a slice of the longest at a time."""
  shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
  axis = max(axes, key=shape.__getitem__, default=0)
  if not axes or not shape[axis]:
    return elementwise(*arrays).sum(axes)
  size, group, num_groups = _tile(shape[axis], max_group)

  def part(start, size):
    return [a if a.shape[axis] != shape[axis]
            else jax.lax.dynamic_slice_in_dim(a, start, size, axis)
            for a in arrays]

  def add_terms(i, total):
    return total + elementwise(*part(i * size, size))

  def add_group(split, i, total):
    # 1 + excess is the product over the group; kept without the 1, so that no
    # digit of a tiny one is lost.
    def add_split(j, carry):
      total, excess = carry
      term, factor = split(*part((i * group + j) * size, size))
      return total + term, excess + factor + excess * factor

    total, excess = jax.lax.fori_loop(
        0, group, add_split, (total, jnp.zeros_like(total)),
        unroll=min(group, _UNROLL))
    return total - jnp.log1p(excess)

  add = functools.partial(add_group, split) if split else add_terms
  total = jnp.zeros((*shape[:axis], size, *shape[axis + 1:]),
                    jnp.result_type(jnp.float32, *arrays))
  total = jax.lax.fori_loop(0, num_groups, add, total).sum(axes)
  covered = num_groups * group * size
  if covered < shape[axis]:
    rest = part(covered, shape[axis] - covered)
    total += elementwise(*rest).sum(axes)
  return total


def _tile(length: int, max_group: int) -> tuple[int, int, int]:
  """Size of a slice, slices in a group, groups: for the smallest arrays."""
  def group(count):
    return max(g for g in range(1, max_group + 1) if count % g == 0)

  count = min(range(1, min(length, _MAX_SLICES) + 1),
              key=lambda n: (length // n + length % n, -group(n)))
  return length // count, group(count), count // group(count)
