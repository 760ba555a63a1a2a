"""Regression losses of ab fields: distances that have one answer in mind.

Each function takes the error `prediction - target`, [..., H, W, 2] in any one
unit (methods use network ab, Lab units / 110), and returns the mean over
pixels and the two channels for each photograph, [...]: nothing is reduced over
photographs. With rho(e) the penalty of one number e,

    loss = 1 / (2 H W) * sum over pixels i of w_i * (rho(a_i) + rho(b_i)),

    mse      rho(e) = e^2
    l1       rho(e) = |e|
    huber    rho(e) = e^2 / 2                    where |e| <= delta,
                      delta * (|e| - delta / 2)  elsewhere
    smooth   rho(e) = sqrt(e^2 + epsilon^2) - epsilon      (Charbonnier)

The weights w_i are 1 if none are given. They are not divided by their sum:
weights of class rebalancing have mean 1 over the data set, not over each
photograph, and a photograph of rare colors is to count for more.

The unit matters to huber and smooth, whose corner lies at delta and epsilon,
and scales the others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from colorjax import color

HUBER_DELTA = 1 / color.AB_SCALE
"""One Lab unit in network ab: where Zhang et al. 2017 put the corner."""

SMOOTH_EPSILON = 1e-3
"""The corner of Charbonnier's penalty as Lai et al. 2017 chose it."""

RegressionLoss = Callable[..., jax.Array]
"""`(error [..., H, W, 2], weights [..., H, W] or None) -> [...]`."""


def mse(error: jax.Array, weights: jax.Array | None = None) -> jax.Array:
  """Mean squared error; its optimum is the mean color, hence faded.

  Args:
    error: prediction - target, [..., H, W, 2].
    weights: of pixels, at least 0, [..., H, W]; None for 1.

  Returns:
    At least 0, squared units of the error, [...].
  """
  return _mean(jnp.square(_as_float(error)), weights)


def l1(error: jax.Array, weights: jax.Array | None = None) -> jax.Array:
  """Mean absolute error; its optimum is the median of each channel.

  Args:
    error: prediction - target, [..., H, W, 2].
    weights: of pixels, at least 0, [..., H, W]; None for 1.

  Returns:
    At least 0, unit of the error, [...]. The gradient at 0 is 0.
  """
  error = _as_float(error)
  # jnp.abs has the gradient 1 at 0, which would push a perfect answer away.
  return _mean(error * jax.lax.stop_gradient(jnp.sign(error)), weights)


def huber(error: jax.Array, weights: jax.Array | None = None, *,
          delta: float = HUBER_DELTA) -> jax.Array:
  """Squared near 0, absolute beyond delta (Huber 1964).

  Args:
    error: prediction - target, [..., H, W, 2].
    weights: of pixels, at least 0, [..., H, W]; None for 1.
    delta: the corner, above 0, in the unit of the error.

  Returns:
    At least 0, squared units of the error, [...].
  """
  if not delta > 0:
    raise ValueError(f'delta of a Huber loss is above 0, got {delta}')
  size = jnp.abs(_as_float(error))
  near = jnp.minimum(size, delta)
  return _mean(near * (size - near / 2), weights)


def smooth(error: jax.Array, weights: jax.Array | None = None, *,
           epsilon: float = SMOOTH_EPSILON) -> jax.Array:
  """The absolute value without its corner (Charbonnier et al. 1994).

  Args:
    error: prediction - target, [..., H, W, 2].
    weights: of pixels, at least 0, [..., H, W]; None for 1.
    epsilon: radius of the rounding, above 0, in the unit of the error.

  Returns:
    At least 0 and 0 where there is no error, unit of the error, [...].
  """
  if not epsilon > 0:
    raise ValueError(f'epsilon of a smooth loss is above 0, got {epsilon}')
  squared = jnp.square(_as_float(error))
  # e^2 / (sqrt(e^2 + epsilon^2) + epsilon) is the same without cancellation.
  return _mean(
      squared / (jnp.sqrt(squared + epsilon**2) + epsilon), weights)


LOSSES: dict[str, RegressionLoss] = {
    'mse': mse, 'l1': l1, 'huber': huber, 'smooth': smooth}
"""The losses by the name that settings and flags use."""


def _as_float(error: jax.Array) -> jax.Array:
  error = jnp.asarray(error)
  if error.ndim < 3 or error.shape[-1] != 2:
    raise ValueError(
        f'an ab error has shape [..., H, W, 2], got {list(error.shape)}')
  return error.astype(jnp.promote_types(error.dtype, jnp.float32))


def _mean(penalty: jax.Array, weights: jax.Array | None) -> jax.Array:
  """[..., H, W, 2] and weights [..., H, W] to [...]."""
  if weights is not None:
    # Broadcasting would hide a mistake: [B, H, W, 1] times [B, H, W, 2] fits.
    if weights.shape != penalty.shape[:-1]:
      raise ValueError(
          f'weights of pixels have shape {list(penalty.shape[:-1])}, got '
          f'{list(weights.shape)}')
    penalty = penalty * weights[..., None]
  return penalty.mean((-3, -2, -1))
