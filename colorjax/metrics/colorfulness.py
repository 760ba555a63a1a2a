"""Colorfulness, and its difference from the originals, in two conventions.

Some scripts, such as ColorFormer's, leave out pictures with a colorfulness of
at most 1. These functions leave out nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.metrics import image


def colorfulness(picture: jax.Array) -> jax.Array:
  """Colorfulness M3 of Hasler and Suesstrunk (2003).

  sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2), where rg = R - G and
  yb = (R + G) / 2 - B are signed, and m is the mean and s the population
  standard deviation over pixels of levels 0..255. Most colorization papers
  report `colorfulness_abs` instead.

  Args:
    picture: uint8 sRGB [..., H, W, 3].

  Returns:
    At least 0, shape [...]: 0 for grey, about 100 for the most colorful
    photographs.
  """
  return _spread_and_shift(*_opponents(picture))


def colorfulness_abs(picture: jax.Array) -> jax.Array:
  """Colorfulness of absolute opponents, as in DDColor, CT2 and ColorFormer.

  Like `colorfulness`, but with |R - G| and |(R + G) / 2 - B|. This changes both
  means and standard deviations: for a picture that is half red and half green,
  equally strong, the standard deviation of R - G is large, and that of |R - G|
  is 0.

  Args:
    picture: uint8 sRGB [..., H, W, 3].

  Returns:
    At least 0, shape [...]: 0 for grey.
  """
  return _spread_and_shift(*map(jnp.abs, _opponents(picture)))


def delta_of_means(statistics: np.ndarray) -> float:
  """|mean colorfulness of the colorings - mean colorfulness of the originals|.

  This is the delta in the tables of DDColor and MultiColor. Colorings that are
  too vivid and colorings that are too dull cancel out, so it can be near 0 even
  if every coloring is wrong. They do not cancel out in `mean_delta`.

  Args:
    statistics: colorfulness of each coloring and of its original, [N, 2].

  Returns:
    At least 0 and at most `mean_delta`.
  """
  predicted, original = _columns(statistics)
  return float(abs(predicted.mean() - original.mean()))


def mean_delta(statistics: np.ndarray) -> float:
  """Mean of |colorfulness of the coloring - colorfulness of its original|.

  Args:
    statistics: colorfulness of each coloring and of its original, [N, 2].

  Returns:
    At least 0.
  """
  predicted, original = _columns(statistics)
  return float(np.abs(predicted - original).mean())


def _opponents(picture: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The signed opponents rg and yb, each [..., H, W]."""
  levels, = image.levels(picture)
  red, green, blue = (levels[..., i] for i in range(3))
  return red - green, (red + green) / 2 - blue


def _spread_and_shift(rg: jax.Array, yb: jax.Array) -> jax.Array:
  pixels = (-2, -1)
  spread = jnp.sqrt(rg.var(pixels) + yb.var(pixels))
  shift = jnp.hypot(rg.mean(pixels), yb.mean(pixels))
  return spread + 0.3 * shift


def _columns(statistics: np.ndarray) -> np.ndarray:
  statistics = np.asarray(statistics, np.float64)
  if statistics.ndim != 2 or statistics.shape[1] != 2 or not len(statistics):
    raise ValueError(
        'statistics must be [N, 2], coloring and original of each photograph, '
        f'with N >= 1, got {list(statistics.shape)}')
  return statistics.T
