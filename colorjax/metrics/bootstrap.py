"""Bootstrap confidence intervals over photographs (Efron 1979).

Photographs are drawn with replacement. The same seed and number of photographs
give the same draws, so two methods are resampled with the same photographs and
their difference is paired.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

NUM_RESAMPLES = 1000

Reduce = Callable[[np.ndarray], float]
"""Computes the metric of a set from the statistics [N, ...] of photographs."""

_CHUNK = 2**22  # random numbers to draw at a time


@dataclasses.dataclass(frozen=True)
class Interval:
  """A metric of a set of photographs with its bootstrap interval.

  Attributes:
    mean: the mean over photographs, or the metric of the set if it is not a
      mean.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of photographs that are included.
    num_undefined: number of photographs that were left out because their value
      is not finite, such as the PSNR of equal pictures.
  """
  mean: float
  low: float
  high: float
  n: int
  num_undefined: int = 0


def mean_interval(values: np.ndarray, *, level: float = 0.95,
                  num_resamples: int = NUM_RESAMPLES, seed: int = 0
                  ) -> Interval:
  """Mean and percentile-bootstrap interval over photographs.

  Args:
    values: one value for each photograph, [N], N >= 1.
    level: coverage of the interval, in (0, 1).
    num_resamples: number of resamples.
    seed: seed of the resampling.

  Returns:
    The Interval. With one photograph, both ends are the value itself.

  Raises:
    ValueError: `values` is not one-dimensional, or empty.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size:
    raise ValueError(
        f'values must be [N] with N >= 1, got {list(values.shape)}')
  return interval(values.mean(), replicates(
      values, num_resamples=num_resamples, seed=seed), len(values), level=level)


def interval(value: float, resampled: np.ndarray, n: int, *,
             level: float = 0.95, recenter: bool = False) -> Interval:
  """Percentile-bootstrap interval from replicates.

  Args:
    value: the metric of the set itself.
    resampled: replicates of the metric, [R], see `replicates`.
    n: number of photographs.
    level: coverage of the interval, in (0, 1).
    recenter: shift the replicates so that their mean is `value`. A resample
      contains some photographs several times and others not at all. This
      biases metrics that are not a mean over photographs: the FID of a
      resample is too large.

  Returns:
    The Interval. If `value` is not finite (PSNR of equal pictures), both ends
    are `value`. If a replicate is NaN or -infinity, both ends are NaN.
  """
  value = float(value)
  if not np.isfinite(value):
    return Interval(value, value, value, n)
  if np.isnan(resampled).any() or np.isneginf(resampled).any():
    return Interval(value, math.nan, math.nan, n)
  if np.isposinf(resampled).any():
    # Some resamples contain only equal pictures, so an end may be infinite.
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2],
                            method='inverted_cdf')
    return Interval(value, float(low), float(high), n)
  if recenter:
    resampled = recentered(resampled, value)
  low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
  return Interval(value, float(low), float(high), n)


def recentered(resampled: np.ndarray, value: float) -> np.ndarray:
  """Replicates [R], shifted so that their mean is `value`."""
  return resampled - (resampled.mean() - value)


def draws(n: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
          ) -> Iterator[np.ndarray]:
  """Draws the photographs of each resample, several resamples at a time.

  Args:
    n: number of photographs.
    num_resamples: number of resamples, R.
    seed: seed of the draws.

  Yields:
    Indices in [0, n), int64 [r, n]; R rows in total.
  """
  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // n)
  for start in range(0, num_resamples, rows):
    yield rng.integers(0, n, (min(rows, num_resamples - start), n))


def counts(n: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
           ) -> np.ndarray:
  """Counts how often each photograph occurs in each resample.

  Args:
    n: number of photographs.
    num_resamples: number of resamples, R.
    seed: seed of the draws; the same seed gives the resamples of `replicates`.

  Returns:
    int32 [R, n]; every row sums to n.
  """
  return np.array([
      np.bincount(draw, minlength=n) for some in draws(
          n, num_resamples=num_resamples, seed=seed) for draw in some],
                  np.int32)


def replicates(statistics: np.ndarray, reduce: Reduce | None = None, *,
               num_resamples: int = NUM_RESAMPLES, seed: int = 0
               ) -> np.ndarray:
  """Computes the metric of resampled sets of photographs.

  Args:
    statistics: statistics of each photograph, [N] or [N, ...].
    reduce: computes the metric of a set; None for the mean of [N].
    num_resamples: number of resamples, R.
    seed: seed of the draws.

  Returns:
    float64 [R].

  Raises:
    ValueError: there is no photograph.
  """
  statistics = np.asarray(statistics, np.float64)
  n = len(statistics)
  if not n:
    raise ValueError('statistics must have at least one row')
  found: list[np.ndarray] = []
  for some in draws(n, num_resamples=num_resamples, seed=seed):
    if reduce is None:
      found.append(statistics[some].mean(1))
    else:
      found.append(np.array([reduce(statistics[draw]) for draw in some]))
  return np.concatenate(found)


def over_seeds(by_seed: np.ndarray, *, seed: int = 0) -> np.ndarray:
  """Replicates of a mean over training seeds, which are resampled too.

  Of S seeds, S - 1 are drawn (McCarthy and Snowden 1985). The variance over
  seeds is then the unbiased s^2 / S. Drawing S seeds would give (S - 1) / S of
  it, which is one half for two seeds.

  Args:
    by_seed: replicates for each training seed, with the same photographs in
      each column, [S, R].
    seed: seed of the draws of training seeds.

  Returns:
    Replicates [R], which vary with photographs and seeds. With one training
    seed they vary with photographs only.
  """
  number, resamples = by_seed.shape
  drawn = np.random.default_rng(seed).integers(
      0, number, (max(1, number - 1), resamples))
  return np.take_along_axis(by_seed, drawn, axis=0).mean(0)


def sign_probability(differences: np.ndarray) -> float:
  """Two-sided bootstrap p-value of a paired difference.

  Twice the fraction of replicates on the rarer side of zero, where zero counts
  for both sides. It is at least 2 / (R + 1), the resolution of R replicates.

  Args:
    differences: replicates of A minus replicates of B, [R].

  Returns:
    In (0, 1].
  """
  below = int((differences <= 0).sum())
  above = int((differences >= 0).sum())
  return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def error_of_mean(errors: np.ndarray) -> float:
  """Standard error of a mean, from those of its independent terms [N]."""
  squares = np.square(np.asarray(errors, np.float64))
  return float(np.sqrt(squares.sum()) / len(squares))
