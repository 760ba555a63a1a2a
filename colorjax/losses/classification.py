"""Cross-entropy of color classes against soft codes, in nats.

A target is a distribution over Q bins of which k are not zero (see
`colorjax.quantize.SoftCode`): its bins `indices` [..., k] and their
probabilities `weights` [..., k]. No array of the target's full size [..., Q]
is made.

Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016.
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, indices: jax.Array, weights: jax.Array
                  ) -> jax.Array:
  """Cross-entropy -sum_q z_q log softmax(logits)_q with soft targets (eq. 2).

  Computed in float32 at least, whatever the logits' type; finite, and with a
  finite gradient, for logits of +-1e4.

  Args:
    logits: unnormalized log probabilities, [..., Q].
    indices: bins of the target, integers in [0, Q), [..., k].
    weights: their probabilities, [..., k]; they sum to 1.

  Returns:
    Nats, [...]; not reduced.

  Raises:
    ValueError: shapes do not fit each other; none is broadcast.
    TypeError: the indices are no integers.
  """
  if (indices.shape != weights.shape or logits.ndim != indices.ndim
      or logits.shape[:-1] != indices.shape[:-1]):
    raise ValueError(
        'logits [..., Q], indices [..., k] and weights [..., k] are needed, '
        f'got {list(logits.shape)}, {list(indices.shape)} and '
        f'{list(weights.shape)}')
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  # Only k logits of each row are gathered before the type is widened.
  chosen = jnp.take_along_axis(logits, indices, axis=-1).astype(dtype)
  total = jax.nn.logsumexp(logits.astype(dtype), axis=-1, keepdims=True)
  return (weights * (total - chosen)).sum(-1)


def rebalanced_cross_entropy(
    logits: jax.Array, indices: jax.Array, weights: jax.Array,
    class_weights: jax.Array) -> jax.Array:
  """Cross-entropy times the weight of the target's most probable bin (eq. 3).

  The weight multiplies the loss itself, hence its gradient too. The published
  Caffe release weights the gradient alone and logs the plain cross-entropy:
  its gradients are these, its figures are those of `cross_entropy`.

  Args:
    logits: as in `cross_entropy`.
    indices: as in `cross_entropy`.
    weights: as in `cross_entropy`.
    class_weights: how much each bin counts, [Q], see
      `colorjax.quantize.class_weights`.

  Returns:
    Nats times a weight, [...]; not reduced. ValueError and TypeError as in
    `cross_entropy`.
  """
  if class_weights.shape != logits.shape[-1:]:
    raise ValueError(f'class_weights of {logits.shape[-1]} bins are needed, '
                     f'got {list(class_weights.shape)}')
  nats = cross_entropy(logits, indices, weights)
  top = jnp.take_along_axis(
      indices, weights.argmax(-1, keepdims=True), axis=-1)[..., 0]
  return class_weights[top] * nats
