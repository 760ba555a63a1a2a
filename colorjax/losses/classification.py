"""Cross-entropy of color classes against soft targets, in nats.

A target is a sparse distribution over Q bins (`colorjax.quantize.SoftCode`):
the `indices` [..., k] of the k bins with non-zero probability, and their
probabilities `weights` [..., k]. The dense target [..., Q] is never built.

Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016.
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, indices: jax.Array, weights: jax.Array
                  ) -> jax.Array:
  """Cross-entropy -sum_q z_q log softmax(logits)_q with soft targets (eq. 2).

  Computed in float32 or wider, whatever the type of the logits. The value and
  its gradient are finite for logits of +-1e4.

  Args:
    logits: unnormalized log probabilities, [..., Q].
    indices: bins of the target, integers in [0, Q), [..., k].
    weights: probabilities of these bins, [..., k]; they sum to 1.

  Returns:
    Nats, [...]; not reduced.

  Raises:
    ValueError: the shapes do not match; none is broadcast.
    TypeError: the indices are not integers.
  """
  if (indices.shape != weights.shape or logits.ndim != indices.ndim
      or logits.shape[:-1] != indices.shape[:-1]):
    raise ValueError(
        'logits must be [..., Q], indices and weights [..., k]: '
        f'got {list(logits.shape)}, {list(indices.shape)} and '
        f'{list(weights.shape)}')
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  # Gather k logits of each row before widening, so that fewer are converted.
  chosen = jnp.take_along_axis(logits, indices, axis=-1).astype(dtype)
  total = jax.nn.logsumexp(logits.astype(dtype), axis=-1, keepdims=True)
  return (weights * (total - chosen)).sum(-1)


def rebalanced_cross_entropy(
    logits: jax.Array, indices: jax.Array, weights: jax.Array,
    class_weights: jax.Array) -> jax.Array:
  """Cross-entropy times the weight of the target's most probable bin (eq. 3).

  The weight multiplies the loss, and therefore its gradient. The published
  Caffe release weights only the gradient and logs the plain cross-entropy: its
  gradients equal those of this function, its logged losses equal
  `cross_entropy`.

  Args:
    logits: as in `cross_entropy`.
    indices: as in `cross_entropy`.
    weights: as in `cross_entropy`.
    class_weights: weight of each bin, [Q], see
      `colorjax.quantize.class_weights`.

  Returns:
    Weighted nats, [...]; not reduced.

  Raises:
    ValueError: the shapes do not match; none is broadcast.
    TypeError: the indices are not integers.
  """
  if class_weights.shape != logits.shape[-1:]:
    raise ValueError(
        f'class_weights must be [{logits.shape[-1]}], one for each bin of the '
        f'logits: got {list(class_weights.shape)}')
  nats = cross_entropy(logits, indices, weights)
  top = jnp.take_along_axis(
      indices, weights.argmax(-1, keepdims=True), axis=-1)[..., 0]
  return class_weights[top] * nats
