"""A normal distribution of many values that vary together in a few ways.

    y = m + s * e + U z,    e ~ N(0, I_D),  z ~ N(0, I_r)

so y ~ N(m, diag(s^2) + U U^T). The covariance matrix is D x D, but only r x r
matrices are inverted (Woodbury's identity), so events of thousands of values
are cheap. The r columns of U are the ways in which the values vary together.
"""

import math

import jax
import jax.numpy as jnp


def log_prob(targets: jax.Array, loc: jax.Array, log_scale: jax.Array,
             factors: jax.Array) -> jax.Array:
  """Log density of the distribution.

  Args:
    targets: y, [..., D].
    loc: m, [..., D].
    log_scale: log s, [..., D].
    factors: U, [..., D, r].

  Returns:
    Nats, [...]; float32 or wider. Leading axes are broadcast.
  """
  inverse = jnp.exp(-log_scale)
  z = (targets - loc) * inverse
  scaled = factors * inverse[..., None]
  # z^T (I + A A^T)^-1 z = |z|^2 - |L^-1 A^T z|^2, where A is `scaled` and
  # L L^T = I + A^T A.
  inner = jnp.einsum('...di,...dj->...ij', scaled, scaled) + jnp.eye(
      factors.shape[-1], dtype=scaled.dtype)
  lower = jnp.linalg.cholesky(inner)
  projected = jnp.einsum('...di,...d->...i', scaled, z)
  shape = jnp.broadcast_shapes(lower.shape[:-1], projected.shape)
  solved = jax.scipy.linalg.solve_triangular(
      jnp.broadcast_to(lower, (*shape, shape[-1])),
      jnp.broadcast_to(projected, shape)[..., None], lower=True)[..., 0]
  squares = jnp.square(z).sum(-1) - jnp.square(solved).sum(-1)
  log_determinant = 2 * log_scale.sum(-1) + 2 * jnp.log(
      jnp.diagonal(lower, axis1=-2, axis2=-1)).sum(-1)
  return -0.5 * (squares + log_determinant
                 + targets.shape[-1] * math.log(2 * math.pi))


def sample(key: jax.Array, loc: jax.Array, log_scale: jax.Array,
           factors: jax.Array) -> jax.Array:
  """Draws one sample; shapes as in `log_prob`.

  Returns:
    y, [..., D].
  """
  key_e, key_z = jax.random.split(key)
  shape = jnp.broadcast_shapes(loc.shape, log_scale.shape, factors.shape[:-1])
  common = jax.random.normal(
      key_z, (*shape[:-1], factors.shape[-1]), factors.dtype)
  return (loc + jnp.exp(log_scale) * jax.random.normal(key_e, shape, loc.dtype)
          + jnp.einsum('...di,...i->...d', factors, common))
