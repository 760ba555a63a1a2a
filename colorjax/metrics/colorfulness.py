"""Colorfulness and how it differs from the originals', both conventions.

Some scripts leave pictures whose colorfulness is at most 1 out of the mean
(ColorFormer's does). Nothing is left out here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.metrics import image


def colorfulness(picture: jax.Array) -> jax.Array:
  """Colorfulness M3 of Hasler and Suesstrunk (2003), as they define it.

  sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2), where rg = R - G and
  yb = (R + G) / 2 - B are signed, m is the mean and s the population standard
  deviation over pixels, of levels 0..255. Published tables of colorization
  mostly print `colorfulness_abs`.

  Args:
    picture: uint8 sRGB [..., H, W, 3].

  Returns:
    At least 0 and 0 for grey, about 100 for the most colorful photographs,
    shape [...].
  """
  return _spread_and_shift(*_opponents(picture))


def colorfulness_abs(picture: jax.Array) -> jax.Array:
  """The colorfulness that DDColor, CT2 and ColorFormer compute.

  As `colorfulness`, but of |R - G| and |(R + G) / 2 - B|. That changes means
  and deviations alike: a picture half red and half green of the same strength
  has a large spread with the sign and none without it.

  Args:
    picture: uint8 sRGB [..., H, W, 3].

  Returns:
    At least 0 and 0 for grey, shape [...].
  """
  return _spread_and_shift(*map(jnp.abs, _opponents(picture)))


def delta_of_means(statistics: np.ndarray) -> float:
  """|mean CF of the colorings - mean CF of the originals|.

  The delta of the tables of DDColor and MultiColor. Photographs painted too
  vividly make up for those painted too dull, so it can be near 0 where no
  photograph is right; `mean_delta` does not forgive that.

  Args:
    statistics: colorfulness of the coloring and of its original, [N, 2].

  Returns:
    At least 0 and at most `mean_delta`.
  """
  predicted, original = _columns(statistics)
  return float(abs(predicted.mean() - original.mean()))


def mean_delta(statistics: np.ndarray) -> float:
  """Mean over photographs of |CF of the coloring - CF of its original|.

  Args:
    statistics: colorfulness of the coloring and of its original, [N, 2].

  Returns:
    At least 0.
  """
  predicted, original = _columns(statistics)
  return float(np.abs(predicted - original).mean())


def _opponents(picture: jax.Array) -> tuple[jax.Array, jax.Array]:
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
        'statistics are (coloring, original) of each photograph, [N, 2], got '
        f'{list(statistics.shape)}')
  return statistics.T
