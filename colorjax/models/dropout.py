"""Dropout with a separate random key for each photograph."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
  """Sets features to 0 with probability `rate` and scales the others up.

  Unlike `flax.linen.Dropout`, which draws once for the whole array, the
  features dropped from a photograph do not depend on the rest of the batch.

  Args:
    x: [B, ...].
    keys: typed keys [B], one for each photograph.
    rate: probability of dropping a feature, in [0, 1].

  Returns:
    [B, ...]; its expectation is x, except for rate 1.
  """
  if rate == 0:
    return x
  if rate == 1:
    return jnp.zeros_like(x)
  kept = jax.vmap(
      lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
  return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
