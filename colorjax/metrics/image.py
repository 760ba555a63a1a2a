"""Distances between a colouring and the photograph it stands for.

Every function takes batches and returns one value for each photograph, not
reduced further. ab fields are in Lab units; see `colorjax.color` for ranges.
"""

import jax
import jax.numpy as jnp

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


def psnr(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio of sRGB photographs rounded to 8 bits.

  10 log10(255^2 / MSE), the mean square taken jointly over pixels and the
  three channels of one photograph. Because the lightness is given, even the
  grey photograph reaches well over 20 dB.

  Args:
    predicted: sRGB in [0, 1], shape [..., H, W, 3].
    target: sRGB in [0, 1], same shape.

  Returns:
    Decibels, shape [...]; infinite for equal photographs.
  """
  def to_8_bit(x):
    return jnp.round(jnp.clip(x, 0, 1) * 255)

  mse = jnp.square(to_8_bit(predicted) - to_8_bit(target)).mean((-3, -2, -1))
  return 10 * jnp.log10(255.0**2 / mse)


def colour(lightness: jax.Array, ab: jax.Array) -> jax.Array:
  """Lightness [..., H, W, 1] and ab [..., H, W, 2] to sRGB in [0, 1]."""
  lightness = jnp.broadcast_to(lightness, (*ab.shape[:-1], 1))
  return color.lab_to_rgb(jnp.concatenate([lightness, ab], -1))
