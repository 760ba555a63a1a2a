"""Accuracy as an area under a curve (AuC) over thresholds of the ab error.

Deshpande, Rock and Forsyth (2015); Zhang, Isola and Efros (2016). For each
threshold t = 0, 1, ..., 150 ab units, the curve is the fraction of pixels whose
ab is within t of the true ab. AuC is the area under this curve by the trapezoid
rule, divided by 150. The papers do not say what is averaged. Here the raw
metric is computed for each photograph, and the rebalanced one pools the pixels
of the whole set. Both use the resolution of the input.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import quantize

LARGEST = 150
"""The last threshold, ab units."""


def auc(ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """Raw accuracy of each photograph: all pixels have equal weight.

  Args:
    ab_predicted: predicted ab, Lab units, [..., H, W, 2].
    ab: true ab, same shape.

  Returns:
    Percent, shape [...]: 100 if all pixels are exact, 0 if all errors are
    above 150.
  """
  return 100 * _area(ab_predicted, ab).mean((-2, -1)) / LARGEST


def rebalanced_auc_statistics(
    ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """Statistics of each photograph for `rebalanced_auc`.

  Each pixel is assigned to one of the published 313 bins: the one whose square
  contains the TRUE color, without smoothing. Every sRGB color is in one of
  these squares. The rest of the ab plane is assigned to the bin nearest to the
  center of its square.

  Args:
    ab_predicted: predicted ab, Lab units, [B, H, W, 2].
    ab: true ab, same shape.

  Returns:
    float32 [B, 2, 313]: for each bin, the sum of the areas under the curves of
    its pixels (each in [0, 150]), and the number of its pixels.
  """
  bins = quantize.published_bins()
  true_bin = jnp.asarray(_bin_of_square(bins))[quantize.grid_place(ab)]
  area = _area(ab_predicted, ab)
  rows = jnp.arange(len(ab))[:, None, None]

  def total(values):
    return jnp.zeros((len(ab), len(bins))).at[rows, true_bin].add(values)

  return jnp.stack([total(area), total(1.0)], 1)


def rebalanced_auc(
    statistics: np.ndarray, prior: np.ndarray | None = None) -> float:
  """Class-rebalanced accuracy of a set of photographs.

  Pixels are weighted by 1 / p(bin of the true color), eq. 4 of Zhang et al.
  with lambda = 0, normalized over the set. By default, p are the frequencies
  in the evaluated set (or resample). The metric is then the mean area in each
  bin, averaged over the bins that occur: a rare color counts as much as grey.

  Args:
    statistics: [N, 2, 313] from `rebalanced_auc_statistics`.
    prior: p from another set, [313]; need not be normalized.

  Returns:
    Percent in [0, 100].

  Raises:
    ValueError: the statistics have another shape or no pixels, or the prior is
      not positive in a bin that occurs.
  """
  statistics = np.asarray(statistics, np.float64)
  num_bins = len(quantize.published_bins())
  if statistics.ndim != 3 or statistics.shape[1:] != (2, num_bins):
    raise ValueError(f'statistics must be [N, 2, {num_bins}], got '
                     f'{list(statistics.shape)}')
  area, count = statistics.sum(0)
  occurs = count > 0
  if not occurs.any():
    raise ValueError('the statistics contain no pixels')
  p = count if prior is None else np.asarray(prior, np.float64)
  if p.shape != count.shape or not (p[occurs] > 0).all():
    raise ValueError(f'the prior must have {num_bins} bins, and be positive in '
                     'each bin that occurs')
  weight = 1 / p[occurs]
  mean = (weight * area[occurs]).sum() / (weight * count[occurs]).sum()
  return float(100 * mean / LARGEST)


def _area(ab_predicted: jax.Array, ab: jax.Array) -> jax.Array:
  """Area under the curve of each pixel, in [0, 150].

  The curve of one pixel is 0 below the threshold c = ceil(distance) and 1 from
  c on. Its trapezoids sum to 150 - c, plus 1/2 for the step (if c > 0).
  """
  distance = jnp.sqrt(jnp.square(ab_predicted - ab).sum(-1))
  first = jnp.ceil(distance)
  area = jnp.where(first > 0, LARGEST + 0.5 - first, float(LARGEST))
  return jnp.where(first <= LARGEST, area, 0.0)


def _bin_of_square(bins: np.ndarray) -> np.ndarray:
  """The bin nearest to the center of each square of the grid, int32 [529]."""
  axis = np.arange(-110, 111, 10)
  centers = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  squared = np.square(centers.reshape(-1, 1, 2) - bins).sum(-1)
  return squared.argmin(1).astype(np.int32)
