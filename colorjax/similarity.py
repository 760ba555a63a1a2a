"""Maps of structural similarity (SSIM, Wang et al. 2004)."""

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 11
"""Side of the Gaussian window in pixels."""

SIGMA = 1.5
"""Standard deviation of the Gaussian in pixels."""


def ssim_map(a: jax.Array, b: jax.Array, *, limit: float) -> jax.Array:
  """Computes the structural similarity of two pictures at every position.

    (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2))

  with the means m, population variances s^2 and covariance s_ab under a
  Gaussian window of 11 x 11 pixels and sigma 1.5, and C1 = (0.01 L)^2 and
  C2 = (0.03 L)^2 for values in [0, L]. The constants are those of Wang, Bovik,
  Sheikh and Simoncelli, "Image quality assessment: from error visibility to
  structural similarity" (2004).

  Args:
    a: picture, float [..., H, W, C], H and W at least WINDOW.
    b: picture, same shape.
    limit: L, the maximum value of a pixel.

  Returns:
    SSIM in [-1, 1], 1 for equal windows, [..., H - 10, W - 10, C]. Only windows
    completely inside the picture are used.

  Raises:
    ValueError: the shapes differ, or a side is shorter than the window.
  """
  if a.shape != b.shape or a.ndim < 3 or min(a.shape[-3:-1]) < WINDOW:
    raise ValueError(
        f'SSIM needs two pictures [..., H, W, C] of at least {WINDOW} x '
        f'{WINDOW} pixels, got {list(a.shape)} and {list(b.shape)}')
  *lead, height, width, channels = a.shape
  # Columns and channels are merged into one axis, on which neighboring pixels
  # are C steps apart. Values are centered around 0, which loses fewer digits in
  # the difference of squares below.
  middle = limit / 2
  a, b = (x.reshape(*lead, height, width * channels) - middle for x in (a, b))

  mean_a, mean_b, squares, product = _blur(
      jnp.stack([a, b, a * a + b * b, a * b]), channels)
  variances = squares - (mean_a * mean_a + mean_b * mean_b)
  covariance = product - mean_a * mean_b
  mean_a, mean_b = mean_a + middle, mean_b + middle
  c1, c2 = (0.01 * limit)**2, (0.03 * limit)**2
  similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)
                / ((mean_a * mean_a + mean_b * mean_b + c1)
                   * (variances + c2)))
  return similarity.reshape(
      *lead, height - WINDOW + 1, width - WINDOW + 1, channels)


def _blur(x: jax.Array, channels: int) -> jax.Array:
  """Gaussian mean over each full window; [..., H, W C] to [..., H', W' C]."""
  offset = np.arange(WINDOW) - WINDOW // 2
  weight = np.exp(-offset**2 / (2 * SIGMA**2))
  weight = (weight / weight.sum()).astype(np.float32)
  for axis, step in ((-2, 1), (-1, channels)):
    length = x.shape[axis] - (WINDOW - 1) * step
    x = sum(w * jax.lax.slice_in_dim(x, i * step, i * step + length, axis=axis)
            for i, w in enumerate(weight))
  return x
