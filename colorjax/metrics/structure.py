"""Structural similarity of 8-bit sRGB pictures (Wang et al. 2004)."""

import jax
import jax.numpy as jnp

from colorjax import similarity
from colorjax.metrics import image


def ssim(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean structural similarity (SSIM) of sRGB pictures.

  The mean of `similarity.ssim_map` of levels 0..255 over R, G and B and over
  all windows inside the picture. Other scripts use luma only, pad the border,
  or set L = 225, and give other values. A coloring keeps the lightness, so even
  bad colorings have high values.

  Args:
    predicted: uint8 sRGB [B, H, W, 3], H and W at least 11.
    target: uint8 sRGB, same shape.

  Returns:
    In [-1, 1], shape [B]: 1 for equal pictures.

  Raises:
    TypeError: a picture is not uint8.
    ValueError: the shapes differ, or a side is shorter than the window.
  """
  pair = image.levels(predicted, target)
  if predicted.ndim != 4:
    raise ValueError('SSIM needs pictures [B, H, W, 3] of at least 11 x 11 '
                     f'pixels, got {list(predicted.shape)}')
  # One photograph at a time: its maps stay in the cache, and no memory for the
  # maps of a whole batch is allocated and freed again.
  return jax.lax.map(_ssim_of_one, pair)


def _ssim_of_one(pair: list[jax.Array]) -> jax.Array:
  values = similarity.ssim_map(*pair, limit=255)
  # The sum is a product with ones. With a plain sum, XLA would recompute the
  # maps for each value (15 times slower on a CPU).
  values = values.reshape(len(values), -1)
  rows = jnp.matmul(values, jnp.ones(values.shape[1]),
                    precision=jax.lax.Precision.HIGHEST)
  return rows.sum() / values.size
