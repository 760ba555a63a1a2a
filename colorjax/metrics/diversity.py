"""Metrics of several colorings of each photograph: diversity, and the best one.

Each function takes K colorings of each photograph and returns one value for
each photograph.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.metrics import image


def best_of_k_rmse(pictures: jax.Array, original: jax.Array) -> jax.Array:
  """RMSE of sRGB of the best of K colorings for the WHOLE photograph.

  min_k sqrt(mean over pixels and channels of the squared difference).

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].
    original: uint8 sRGB [..., H, W, 3].

  Returns:
    In [0, 1], as `pixel_oracle_k`, shape [...].
  """
  squared = _squared_differences(pictures, original)
  return jnp.sqrt(squared.mean((-3, -2, -1)).min(0))


def pixel_oracle_k(pictures: jax.Array, original: jax.Array) -> jax.Array:
  """RMSE of sRGB with the nearest of K colorings for each pixel AND channel.

  sqrt(mean over pixels and channels of min_k of the squared difference). The
  script of Ardizzone et al. 2019 (cINN) prints this, times 100, as "best of 8".
  It is not the error of any one coloring: independent noise at each pixel gives
  a low value. `best_of_k_rmse` is never smaller.

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].
    original: uint8 sRGB [..., H, W, 3].

  Returns:
    In [0, 1], shape [...].
  """
  squared = _squared_differences(pictures, original)
  return jnp.sqrt(squared.min(0).mean((-3, -2, -1)))


def pixel_oracle_k_ab(proposals: jax.Array, target: jax.Array) -> jax.Array:
  """Mean ab distance with the nearest of K colorings for each pixel.

  The minimum is over Euclidean distances, so both channels of a pixel are from
  the same coloring. `image.best_of_k`, which chooses one coloring for the whole
  photograph, is never smaller.

  Args:
    proposals: ab [K, ..., H, W, 2].
    target: true ab [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  squared = jnp.square(proposals - target[None]).sum(-1)
  return jnp.sqrt(squared.min(0)).mean((-2, -1))


def pairwise_ab_distance(colorings: jax.Array) -> jax.Array:
  """Mean ab distance over all K (K - 1) / 2 pairs of colorings.

  Unlike a mean over consecutive colorings, it does not depend on their order.

  Args:
    colorings: ab [K, ..., H, W, 2], K at least 2.

  Returns:
    Lab units, shape [...]: 0 if all colorings are equal.

  Raises:
    ValueError: K is 1.
  """
  k = len(colorings)
  if k < 2:
    raise ValueError(f'needs at least 2 colorings, got {k}')

  # One pair at a time, to save memory.
  colorings = jnp.asarray(colorings)
  first, second = (jnp.asarray(x) for x in np.triu_indices(k, 1))

  def add(pair, total):
    return total + image.ab_distance(
        colorings[first[pair]], colorings[second[pair]])

  zero = jnp.zeros(colorings.shape[1:-3], colorings.dtype)
  return jax.lax.fori_loop(0, len(first), add, zero) / len(first)


def variance(pictures: jax.Array) -> jax.Array:
  """Variance of sRGB over K colorings, averaged over pixels and channels.

  Population variance of sRGB in [0, 1]. With 8 colorings, this is the variance
  that Ardizzone et al. 2019 report as 35.2e-4.

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].

  Returns:
    In [0, 1/4], shape [...].
  """
  levels, = image.levels(pictures)
  return (levels / 255).var(0).mean((-3, -2, -1))


def ab_std_map(colorings: jax.Array) -> jax.Array:
  """Map of the standard deviation of ab over K colorings.

  sqrt(var a + var b) with population variances: the root mean squared distance
  from the mean color of each pixel.

  Args:
    colorings: ab [K, ..., H, W, 2].

  Returns:
    Lab units, shape [..., H, W].
  """
  return jnp.sqrt(colorings.var(0).sum(-1))


def ab_std(colorings: jax.Array) -> jax.Array:
  """Mean of `ab_std_map` over pixels.

  Args:
    colorings: ab [K, ..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return ab_std_map(colorings).mean((-2, -1))


def _squared_differences(
    pictures: jax.Array, original: jax.Array) -> jax.Array:
  """Squared differences of sRGB in [0, 1], [K, ..., H, W, 3]."""
  levels, = image.levels(pictures)
  target, = image.levels(original)
  if levels.shape[1:] != target.shape:
    raise ValueError(
        f'pictures must be [K, ...] of originals {list(target.shape)}, got '
        f'{list(levels.shape)}')
  return jnp.square((levels - target[None]) / 255)
