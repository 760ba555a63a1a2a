"""Dropout that each photograph draws for itself."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
  """Sets features to 0 with probability `rate`, the others grow to make up.

  Unlike `flax.linen.Dropout`, which draws once for the whole array, what a
  photograph loses does not depend on the batch around it.

  Args:
    x: [B, ...].
    keys: typed keys [B], one for each photograph.
    rate: in [0, 1].

  Returns:
    [B, ...], with the mean of x.
  """
  if rate == 0:
    return x
  if rate == 1:
    return jnp.zeros_like(x)
  kept = jax.vmap(
      lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
  return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
