"""Distances between a coloring and its photograph.

Each function takes a batch and returns one value for each photograph. ab fields
are in Lab units; see `colorjax.color` for ranges. Pictures must be 8-bit sRGB,
as they are delivered to a user; float pictures raise an error.
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
  return chroma(predicted - target).mean((-2, -1))


def chroma(ab: jax.Array) -> jax.Array:
  """sqrt(a^2 + b^2) of each pixel, with a finite gradient at grey.

  Args:
    ab: [..., 2].

  Returns:
    Lab units, shape [...].
  """
  squared = jnp.square(ab).sum(-1)
  # The gradient of sqrt is infinite at 0.
  root = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
  return jnp.where(squared > 0, root, 0.0)


def mean_chroma(ab: jax.Array) -> jax.Array:
  """Mean over pixels of the chroma, sqrt(a^2 + b^2).

  Args:
    ab: [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return chroma(ab).mean((-2, -1))


def best_of_k(proposals: jax.Array, target: jax.Array) -> jax.Array:
  """ab distance of the best of K colorings for the WHOLE photograph.

  One coloring is chosen for all pixels and both channels. The "best of 8" in
  some papers takes the minimum for each pixel and channel separately (as in the
  script of Ardizzone et al. 2019), which gives much smaller values, see
  `diversity.pixel_oracle_k`.

  Args:
    proposals: ab [K, ..., H, W, 2].
    target: true ab [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return ab_distance(proposals, target[None]).min(0)


def best_of_k_psnr(pictures: jax.Array, original: jax.Array) -> jax.Array:
  """PSNR of the best of K pictures for the WHOLE photograph.

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].
    original: uint8 sRGB [..., H, W, 3].

  Returns:
    dB, shape [...]; infinite for equal pictures.
  """
  return jax.vmap(psnr, (0, None))(pictures, original).max(0)


def ab_rmse(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Root mean squared error of ab over pixels AND both channels.

  sqrt(mean((p - t)^2)) for each photograph. (Larsson et al. 2016 average the
  squared error over the whole set before the root.) If every pixel has the
  Euclidean error d, the RMSE is d / sqrt(2), whereas `ab_distance` is d.

  Args:
    predicted: ab [..., H, W, 2].
    target: ab, broadcastable against `predicted`.

  Returns:
    Lab units, at least 0, shape [...].
  """
  return jnp.sqrt(jnp.square(predicted - target).mean((-3, -2, -1)))


def ab_psnr(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio of ab, with the width of the ab square as peak.

  20 log10(220 / ab_rmse). Papers that report a PSNR of ab rarely name the peak.
  With a peak of 255 it is 1.28 dB higher. With channels ab / 110 in [-1, 1] and
  a peak of 1 it is 6.02 dB lower.

  Args:
    predicted: ab [..., H, W, 2].
    target: ab, broadcastable against `predicted`.

  Returns:
    Decibels, shape [...]; infinite for equal fields.
  """
  return 20 * jnp.log10(color.UNIT_AB_WIDTH / ab_rmse(predicted, target))


def rgb_rmse(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Root mean squared error of sRGB in [0, 1] over pixels and channels.

  sqrt(mean(((p - t) / 255)^2)) for each photograph. The script of Ardizzone et
  al. 2019 prints 100 times the mean over photographs. It is equivalent to
  `psnr` = -20 log10(rgb_rmse).

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

  10 log10(255^2 / MSE), where MSE is the mean squared error over the pixels and
  the three channels of one photograph. Because lightness is given, even a grey
  picture often exceeds 20 dB.

  Args:
    predicted: uint8 sRGB [..., H, W, 3].
    target: uint8 sRGB, same shape.

  Returns:
    Decibels, at least 0, shape [...]; infinite for equal pictures.
  """
  return -20 * jnp.log10(rgb_rmse(predicted, target))


def psnr_of_mean_mse(rmse: np.ndarray) -> float:
  """PSNR of the mean squared error of a set of pictures.

  10 log10(1 / mean(rmse^2)). Unlike in a mean of `psnr`, nearly exact pictures
  do not dominate.

  Args:
    rmse: `rgb_rmse` of each photograph, [N].

  Returns:
    Decibels; infinite if all pictures are equal to their photographs.
  """
  return _decibels(1.0, rmse)


def ab_psnr_of_mean_mse(rmse: np.ndarray) -> float:
  """As `psnr_of_mean_mse`, for `ab_rmse` with the peak of `ab_psnr`."""
  return _decibels(color.UNIT_AB_WIDTH, rmse)


def _decibels(peak: float, rmse: np.ndarray) -> float:
  mean = np.square(np.asarray(rmse, np.float64)).mean()
  return math.inf if mean == 0 else float(10 * np.log10(peak**2 / mean))


def levels(*pictures: jax.Array) -> list[jax.Array]:
  """Converts 8-bit pictures of the same shape to floats.

  Args:
    *pictures: uint8 sRGB [..., H, W, 3].

  Returns:
    The pictures as float32 in 0..255.

  Raises:
    TypeError: a picture is not uint8.
    ValueError: the shapes differ, or the last axis is not 3.
  """
  for picture in pictures:
    if picture.dtype != jnp.uint8:
      raise TypeError(f'pictures must be uint8, got {picture.dtype}')
    if picture.ndim < 3 or picture.shape[-1] != 3:
      raise ValueError(
          f'pictures must be [..., H, W, 3], got {list(picture.shape)}')
    if picture.shape != pictures[0].shape:
      raise ValueError(
          'pictures must have the same shape, got '
          f'{list(pictures[0].shape)} and {list(picture.shape)}')
  return [picture.astype(jnp.float32) for picture in pictures]
