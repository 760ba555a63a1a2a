"""Distances between a coloring and the photograph it stands for.

Every function takes batches and returns one value for each photograph, not
reduced further. ab fields are in Lab units; see `colorjax.color` for ranges.
Pictures are 8-bit sRGB, which is what a person gets; floats are refused, not
rescaled.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color


def ab_distance(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean over pixels of the Euclidean distance in the ab plane.

  Args:
    predicted: ab [..., H, W, 2].
    target: ab, broadcastable against `predicted`.

  Returns:
    Lab units, shape [...].
  """
  squared = jnp.square(predicted - target).sum(-1)
  # The guard keeps the gradient finite where a pixel is hit exactly.
  distance = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
  return jnp.where(squared > 0, distance, 0.0).mean((-2, -1))


def mean_chroma(ab: jax.Array) -> jax.Array:
  """Mean over pixels of the distance from grey, sqrt(a^2 + b^2).

  Args:
    ab: [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return ab_distance(ab, jnp.zeros_like(ab))


def best_of_k(proposals: jax.Array, target: jax.Array) -> jax.Array:
  """ab distance of the best of K answers, chosen for the WHOLE photograph.

  The choice is one for all pixels and both channels. The published "best of
  8" of several papers takes the minimum for each pixel and channel apart,
  which is another and much smaller figure (see Ardizzone et al. 2019, whose
  script does so); it is not this one.

  Args:
    proposals: ab [K, ..., H, W, 2].
    target: ab [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return ab_distance(proposals, target[None]).min(0)


def ab_rmse(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Root mean square error of ab over pixels AND the two channels.

  sqrt(mean((p - t)^2)), for each photograph apart (Larsson et al. 2016 pool
  the square over the whole set before the root). An error of one Euclidean
  distance d at every pixel gives d / sqrt(2), see `ab_distance`.

  Args:
    predicted: ab [..., H, W, 2].
    target: ab, broadcastable against `predicted`.

  Returns:
    Lab units, at least 0, shape [...].
  """
  return jnp.sqrt(jnp.square(predicted - target).mean((-3, -2, -1)))


def ab_psnr(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio of ab, with the ab square's width for a peak.

  20 log10(220 / ab_rmse). Papers that print a PSNR of ab rarely name their
  peak: with one of 255 it is 1.28 dB higher, with one of 1 over channels in
  [-1, 1] as 110ths it is 6.02 dB lower.

  Args:
    predicted: ab [..., H, W, 2].
    target: ab, broadcastable against `predicted`.

  Returns:
    Decibels, shape [...]; infinite for equal fields.
  """
  return 20 * jnp.log10(color.UNIT_AB_WIDTH / ab_rmse(predicted, target))


def rgb_rmse(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Root mean square error of sRGB in [0, 1] over pixels and channels.

  sqrt(mean(((p - t) / 255)^2)), for each photograph; the script of Ardizzone
  et al. 2019 prints 100 times its mean over photographs. It holds the same as
  `psnr`, in another unit: psnr = -20 log10(rgb_rmse).

  Args:
    predicted: uint8 sRGB [..., H, W, 3].
    target: uint8 sRGB, same shape.

  Returns:
    In [0, 1], shape [...].
  """
  predicted, target = levels(predicted, target)
  return jnp.sqrt(
      jnp.square((predicted - target) / 255).mean((-3, -2, -1)))


def psnr(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio of 8-bit sRGB pictures.

  10 log10(255^2 / MSE), the mean square taken jointly over pixels and the
  three channels of one photograph. Because the lightness is given, even the
  grey photograph reaches well over 20 dB.

  Args:
    predicted: uint8 sRGB [..., H, W, 3].
    target: uint8 sRGB, same shape.

  Returns:
    Decibels, at least 0, shape [...]; infinite for equal pictures.
  """
  return -20 * jnp.log10(rgb_rmse(predicted, target))


def psnr_of_mean_mse(rmse: np.ndarray) -> float:
  """PSNR of the mean square error of a set of pictures.

  10 log10(1 / mean(rmse^2)). Pictures that are nearly right do not outweigh
  the others, as they do in a mean of `psnr`.

  Args:
    rmse: `rgb_rmse` of each photograph, [N].

  Returns:
    Decibels; infinite only if all pictures are equal to their photographs.
  """
  return _decibels(1.0, rmse)


def ab_psnr_of_mean_mse(rmse: np.ndarray) -> float:
  """As `psnr_of_mean_mse`, of `ab_rmse` with the peak of `ab_psnr`."""
  return _decibels(color.UNIT_AB_WIDTH, rmse)


def _decibels(peak: float, rmse: np.ndarray) -> float:
  mean = np.square(np.asarray(rmse, np.float64)).mean()
  return math.inf if mean == 0 else float(10 * np.log10(peak**2 / mean))


def levels(*pictures: jax.Array) -> list[jax.Array]:
  """8-bit pictures of one shape as floats.

  Args:
    *pictures: uint8 sRGB [..., H, W, 3].

  Returns:
    Each as float32 in 0..255.

  Raises:
    TypeError: a picture is not uint8.
    ValueError: the shapes differ, or the last axis is not 3.
  """
  for picture in pictures:
    if picture.dtype != jnp.uint8:
      raise TypeError(f'pictures are uint8, got {picture.dtype}')
    if picture.ndim < 3 or picture.shape[-1] != 3:
      raise ValueError(
          f'pictures are [..., H, W, 3], got {list(picture.shape)}')
    if picture.shape != pictures[0].shape:
      raise ValueError(
          f'pictures of one shape are compared, got '
          f'{list(pictures[0].shape)} and {list(picture.shape)}')
  return [picture.astype(jnp.float32) for picture in pictures]
