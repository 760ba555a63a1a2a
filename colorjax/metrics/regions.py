"""How well a coloring keeps to the region that it was asked for.

Every function returns one value for each photograph. ab fields are in Lab
units; a region is 1 inside and 0 outside.
"""

import jax
import jax.numpy as jnp


def chroma_outside(ab: jax.Array, region: jax.Array) -> jax.Array:
  """Mean chroma over the pixels outside, where grey was asked for.

  Args:
    ab: [..., H, W, 2].
    region: [..., H, W, 1].

  Returns:
    Lab units, shape [...]; 0 where no pixel is outside.
  """
  return _mean(_length(ab), 1 - region[..., 0])


def difference_inside(
    ab: jax.Array, reference: jax.Array, region: jax.Array) -> jax.Array:
  """Mean distance of two ab fields over the pixels inside.

  Args:
    ab: [..., H, W, 2].
    reference: [..., H, W, 2]: the coloring without a region, to see what the
      region does to what is inside; or the photograph, to see the error.
    region: [..., H, W, 1].

  Returns:
    Lab units, shape [...]; 0 where no pixel is inside.
  """
  return _mean(_length(ab - reference), region[..., 0])


def _length(ab: jax.Array) -> jax.Array:
  squared = jnp.square(ab).sum(-1)
  # The guard keeps the gradient finite at grey.
  return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  total = weight.sum((-2, -1))
  return (values * weight).sum((-2, -1)) / jnp.where(total > 0, total, 1)
