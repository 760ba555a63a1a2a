"""Structural similarity of 8-bit sRGB pictures (Wang et al. 2004)."""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.metrics import image

WINDOW = 11
"""Side of the Gaussian window, pixels."""

SIGMA = 1.5
"""Width of the Gaussian, pixels."""

_C1 = (0.01 * 255)**2
_C2 = (0.03 * 255)**2


def ssim(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean structural similarity, channel by channel, of sRGB pictures.

  (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2))
  with the means, population variances and covariance under a Gaussian window
  of 11 x 11 pixels and sigma 1.5, C1 = (0.01 L)^2, C2 = (0.03 L)^2, L = 255:
  the constants of Wang, Bovik, Sheikh and Simoncelli, "Image quality
  assessment: from error visibility to structural similarity" (2004). The mean
  is over R, G and B, and over the positions whose window lies inside the
  picture. Others take luma alone, pad the border, or give L = 225: those are
  other figures. A coloring keeps the lightness, so high values are cheap.

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
  if predicted.ndim != 4 or min(predicted.shape[1:3]) < WINDOW:
    raise ValueError(
        f'SSIM needs pictures [B, H, W, 3] of at least {WINDOW} x {WINDOW} '
        f'pixels, got {list(predicted.shape)}')
  # One photograph at a time: its maps stay in the cache, and no memory of the
  # size of a batch of maps is asked for and given back with each batch.
  return jax.lax.map(_ssim_of_one, pair)


def _ssim_of_one(pair: list[jax.Array]) -> jax.Array:
  # Columns and channels are one axis, along which a pixel is three steps.
  # Levels around 0 lose fewer digits in the difference of squares below.
  a, b = (x.reshape(len(x), -1) - 128 for x in pair)
  maps = _blur(jnp.stack([a, b, a * a + b * b, a * b]))
  mean_a, mean_b, squares, product = maps
  variances = squares - (mean_a * mean_a + mean_b * mean_b)
  covariance = product - mean_a * mean_b
  mean_a, mean_b = mean_a + 128, mean_b + 128
  similarity = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
                / ((mean_a * mean_a + mean_b * mean_b + _C1)
                   * (variances + _C2)))
  # A mean as a product with ones: XLA would compute the maps anew, value by
  # value, inside a sum (15 times slower on a CPU).
  rows = jnp.matmul(similarity, jnp.ones(similarity.shape[1]),
                    precision=jax.lax.Precision.HIGHEST)
  return rows.sum() / similarity.size


def _blur(x: jax.Array) -> jax.Array:
  """Gaussian mean over each whole window; [S, H, 3 W] to [S, H', 3 W']."""
  offset = np.arange(WINDOW) - WINDOW // 2
  weight = np.exp(-offset**2 / (2 * SIGMA**2))
  weight = (weight / weight.sum()).astype(np.float32)
  for axis, step in ((1, 1), (2, 3)):
    length = x.shape[axis] - (WINDOW - 1) * step
    x = sum(w * jax.lax.slice_in_dim(x, i * step, i * step + length, axis=axis)
            for i, w in enumerate(weight))
  return x
