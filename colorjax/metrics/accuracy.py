"""Accuracy as the area under the curve of pixels within a distance.

Deshpande, Rock and Forsyth (2015), Zhang, Isola and Efros (2016): for each
threshold t = 0, 1, ..., 150 ab units, the share of pixels whose ab lies within
t of the truth; the area under this curve by trapezoids, divided by 150. The
papers leave open what is averaged. Here the raw figure is of one photograph,
and the rebalanced one pools the pixels of the whole set, at the resolution
that is given.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import quantize

LARGEST = 150
"""The last threshold, ab units."""


def auc(ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """Raw accuracy of each photograph: all pixels count alike.

  Args:
    ab_predicted: Lab units, [..., H, W, 2].
    ab: the truth, same shape.

  Returns:
    Percent, 100 where every pixel is exact and 0 where all are farther than
    150 off, shape [...].
  """
  return 100 * _area(ab_predicted, ab).mean((-2, -1)) / LARGEST


def rebalanced_auc_statistics(
    ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """What `rebalanced_auc` needs to know of each photograph.

  The bin of a pixel is that of the published 313 whose square holds the TRUE
  color, without smoothing. Every color of sRGB lies in one; any other counts
  to the bin nearest to the middle of its square.

  Args:
    ab_predicted: Lab units, [B, H, W, 2].
    ab: the truth, same shape.

  Returns:
    float32 [B, 2, 313]: for each bin the sum over its pixels of the area under
    the curve, in [0, 150], and their number.
  """
  bins = quantize.published_bins()
  found = jnp.asarray(_bin_of_square(bins))[quantize.grid_place(ab)]
  area = _area(ab_predicted, ab)
  rows = jnp.arange(len(ab))[:, None, None]

  def total(values):
    return jnp.zeros((len(ab), len(bins))).at[rows, found].add(values)

  return jnp.stack([total(area), total(1.0)], 1)


def rebalanced_auc(
    statistics: np.ndarray, prior: np.ndarray | None = None) -> float:
  """Class-rebalanced accuracy of a set of photographs.

  Pixels are weighted by 1 / p(bin of the true color), eq. 4 of Zhang et al.
  with lambda = 0, normalized over the set. With the shares of the evaluated
  set itself for p this is the mean over the bins that occur of the mean area
  in each: a rare color counts as much as grey. A resample of photographs has
  shares of its own.

  Args:
    statistics: [N, 2, 313] of `rebalanced_auc_statistics`.
    prior: p of another set, [313]; only its proportions matter.

  Returns:
    Percent in [0, 100].

  Raises:
    ValueError: the statistics are no such, there is no pixel, or the prior is
      not above 0 in a bin that occurs.
  """
  statistics = np.asarray(statistics, np.float64)
  num_bins = len(quantize.published_bins())
  if statistics.ndim != 3 or statistics.shape[1:] != (2, num_bins):
    raise ValueError(f'statistics are [N, 2, {num_bins}], got '
                     f'{list(statistics.shape)}')
  area, count = statistics.sum(0)
  occurs = count > 0
  if not occurs.any():
    raise ValueError('there is no pixel to be accurate about')
  share = count if prior is None else np.asarray(prior, np.float64)
  if share.shape != count.shape or not (share[occurs] > 0).all():
    raise ValueError(f'a prior gives each of {num_bins} bins a probability, '
                     'above 0 where the bin occurs')
  weight = 1 / share[occurs]
  mean = (weight * area[occurs]).sum() / (weight * count[occurs]).sum()
  return float(100 * mean / LARGEST)


def _area(ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """Area under one pixel's curve, in [0, 150].

  The curve is 0 before the threshold c = ceil(distance) and 1 from it on, so
  that the trapezoids sum to 150 - c, and to half a one more that rises to c.
  """
  distance = jnp.sqrt(jnp.square(ab_predicted - ab).sum(-1))
  first = jnp.ceil(distance)
  area = jnp.where(first > 0, LARGEST + 0.5 - first, float(LARGEST))
  return jnp.where(first <= LARGEST, area, 0.0)


def _bin_of_square(bins: np.ndarray) -> np.ndarray:
  """The bin nearest to the middle of each square of the grid, int32 [529]."""
  axis = np.arange(-110, 111, 10)
  middles = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  squared = np.square(middles.reshape(-1, 1, 2) - bins).sum(-1)
  return squared.argmin(1).astype(np.int32)
