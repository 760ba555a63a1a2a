"""How well a coloring follows the region that was to be colored.

Each function returns one value for each photograph. ab fields are in Lab units.
A region is 1 inside and 0 outside.
"""

import jax
import jax.numpy as jnp

from colorjax.metrics import image


def chroma_outside(ab: jax.Array, region: jax.Array) -> jax.Array:
  """Mean chroma over the pixels outside the region, which should be grey.

  Args:
    ab: [..., H, W, 2].
    region: [..., H, W, 1].

  Returns:
    Lab units, shape [...]; 0 if no pixel is outside.
  """
  return _weighted_mean(image.chroma(ab), 1 - region[..., 0])


def difference_inside(
    ab: jax.Array, reference: jax.Array, region: jax.Array) -> jax.Array:
  """Mean distance between two ab fields over the pixels inside the region.

  Args:
    ab: [..., H, W, 2].
    reference: [..., H, W, 2]. Use the coloring without a region to measure the
      effect of the region, or the photograph to measure the error.
    region: [..., H, W, 1].

  Returns:
    Lab units, shape [...]; 0 if no pixel is inside.
  """
  return _weighted_mean(image.chroma(ab - reference), region[..., 0])


def _weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  total = weight.sum((-2, -1))
  return (values * weight).sum((-2, -1)) / jnp.where(total > 0, total, 1)
