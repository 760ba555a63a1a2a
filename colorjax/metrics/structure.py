"""Structural similarity of 8-bit sRGB pictures (Wang et al. 2004)."""

import jax
import jax.numpy as jnp

from colorjax import similarity
from colorjax.metrics import image


def ssim(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean structural similarity, channel by channel, of sRGB pictures.

  The mean of `similarity.ssim_map` of levels 0..255 over R, G and B, and over
  the positions whose window lies inside the picture. Others take luma alone,
  pad the border, or give L = 225: those are other figures. A coloring keeps
  the lightness, so high values are cheap.

  Args:
    predicted: uint8 sRGB [B, H, W, 3], H and W at least 11.
    target: uint8 sRGB, same shape.

  Returns:
    In [-1, 1], 1 for equal pictures, shape [B].

  Raises:
    TypeError: a picture is not uint8.
    ValueError: the shapes differ, or a side is shorter than the window.
  """
  pair = image.levels(predicted, target)
  if predicted.ndim != 4:
    raise ValueError('SSIM needs pictures [B, H, W, 3] of at least 11 x 11 '
                     f'pixels, got {list(predicted.shape)}')
  # One photograph at a time: its maps stay in the cache, and no memory of the
  # size of a batch of maps is asked for and given back with each batch.
  return jax.lax.map(_ssim_of_one, pair)


def _ssim_of_one(pair: list[jax.Array]) -> jax.Array:
  values = similarity.ssim_map(*pair, limit=255)
  # A mean as a product with ones: XLA would compute the maps anew, value by
  # value, inside a sum (15 times slower on a CPU).
  values = values.reshape(len(values), -1)
  rows = jnp.matmul(values, jnp.ones(values.shape[1]),
                    precision=jax.lax.Precision.HIGHEST)
  return rows.sum() / values.size
