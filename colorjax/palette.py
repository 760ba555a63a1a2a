"""Gives a coloring the palette of another photograph.

The linear map of Pitie and Kokaram 2007 ("The linear Monge-Kantorovitch linear
colour mapping for example-based colour transfer") gives the ab of a coloring
the mean and the covariance of the reference, and moves colors as little as
possible. With the covariances A of the coloring and B of the reference it is

    T = A^(-1/2) (A^(1/2) B A^(1/2))^(1/2) A^(-1/2).
"""

import jax
import jax.numpy as jnp

_MIN_DEVIATION = 2.0
"""Lab units. A coloring with less spread counts as having this one, so that the
noise of a grey coloring does not become a pattern of strong colors."""


def transfer(ab: jax.Array, reference: jax.Array) -> jax.Array:
  """Gives colorings the mean and covariance of a reference.

  Args:
    ab: colorings, Lab units, [..., H, W, 2].
    reference: ab of the reference, [..., h, w, 2].

  Returns:
    ab [..., H, W, 2].
  """
  mean, covariance = _moments(ab)
  target_mean, target = _moments(reference)
  covariance = covariance + _MIN_DEVIATION**2 * jnp.eye(2)
  root = _root(covariance)
  inverse = jnp.linalg.inv(root)
  matrix = inverse @ _root(root @ target @ root) @ inverse
  moved = jnp.einsum('...ij,...hwj->...hwi', matrix, ab - _at_pixels(mean))
  return moved + _at_pixels(target_mean)


def _moments(ab: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean [..., 2] and covariance [..., 2, 2] over pixels."""
  mean = ab.mean((-3, -2))
  centered = ab - _at_pixels(mean)
  return mean, jnp.einsum('...hwi,...hwj->...ij', centered, centered) / (
      ab.shape[-3] * ab.shape[-2])


def _root(matrix: jax.Array) -> jax.Array:
  """Square root of symmetric positive semidefinite matrices [..., 2, 2].

  By the theorem of Cayley and Hamilton,
  root(M) = (M + sqrt(det M) I) / sqrt(trace M + 2 sqrt(det M)).
  """
  (a, b), (c, d) = jnp.moveaxis(matrix, (-2, -1), (0, 1))
  scale = jnp.sqrt(jnp.maximum(a * d - b * c, 0))[..., None, None]
  trace = (a + d)[..., None, None]
  size = jnp.sqrt(jnp.maximum(trace + 2 * scale, jnp.finfo(jnp.float32).tiny))
  return (matrix + scale * jnp.eye(2)) / size


def _at_pixels(x: jax.Array) -> jax.Array:
  return x[..., None, None, :]
