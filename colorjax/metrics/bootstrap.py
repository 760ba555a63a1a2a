"""Confidence intervals over photographs by resampling (Efron 1979).

Photographs are drawn with replacement; the same seed and number of photographs
give the same draws, so that figures of two methods are resampled together and
their difference is a paired one.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

NUM_RESAMPLES = 1000

Reduce = Callable[[np.ndarray], float]
"""A figure of a set, from the statistics [N, ...] of its photographs."""

_CHUNK = 2**22  # numbers drawn at a time


@dataclasses.dataclass(frozen=True)
class Interval:
  """A figure of a set of photographs with its bootstrap interval.

  Attributes:
    mean: the plain mean, or what another reduction gives of the whole set.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of photographs that it is over.
    num_undefined: photographs that were left out, because their value is not
      finite: the PSNR of equal pictures, say.
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
    values: one value for each photograph, shape [N], N >= 1.
    level: coverage of the interval.
    num_resamples: resamples with replacement.
    seed: of the resampling; the same values and seed give the same interval.

  Returns:
    The Interval; with one photograph its ends are the value itself.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size:
    raise ValueError(
        f'needs one value for each photograph, got shape {list(values.shape)}')
  return interval(values.mean(), replicates(
      values, num_resamples=num_resamples, seed=seed), len(values), level=level)


def interval(figure: float, resampled: np.ndarray, n: int, *,
             level: float = 0.95, recenter: bool = False) -> Interval:
  """An Interval from replicates.

  Args:
    figure: of the set itself.
    resampled: what `replicates` gave, [R].
    n: number of photographs.
    level: coverage.
    recenter: shift the ends by what the replicates lie beside the figure in
      the mean. A resample holds each photograph more than once or not at all,
      which biases what is no mean of photographs: the FID of a resample is too
      large.

  Returns:
    The Interval. An infinite figure (PSNR of equal pictures) is its own ends;
    those of a finite one are nan where a replicate is nan or -infinity.
  """
  figure = float(figure)
  if not np.isfinite(figure):
    return Interval(figure, figure, figure, n)
  if np.isnan(resampled).any() or np.isneginf(resampled).any():
    return Interval(figure, math.nan, math.nan, n)
  if np.isposinf(resampled).any():
    # A resample of nothing but equal pictures: an end may be infinite.
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2],
                            method='inverted_cdf')
    return Interval(figure, float(low), float(high), n)
  if recenter:
    resampled = recentered(resampled, figure)
  low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
  return Interval(figure, float(low), float(high), n)


def recentered(resampled: np.ndarray, figure: float) -> np.ndarray:
  """Replicates [R] shifted so that their mean is the figure of the set."""
  return resampled - (resampled.mean() - figure)


def draws(n: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
          ) -> Iterator[np.ndarray]:
  """The photographs of each resample, some resamples at a time.

  Args:
    n: number of photographs.
    num_resamples: R.
    seed: of the draws.

  Yields:
    int64 [r, n] in [0, n), R rows altogether.
  """
  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // n)
  for start in range(0, num_resamples, rows):
    yield rng.integers(0, n, (min(rows, num_resamples - start), n))


def counts(n: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
           ) -> np.ndarray:
  """How often each photograph is in each resample.

  Args:
    n: number of photographs.
    num_resamples: R.
    seed: the resamples are those of `replicates` with the same seed.

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
  """The figure of resampled sets of photographs.

  Args:
    statistics: of each photograph, [N] or [N, ...].
    reduce: what makes a figure of them; None for the mean of [N].
    num_resamples: R.
    seed: of the draws.

  Returns:
    float64 [R].
  """
  statistics = np.asarray(statistics, np.float64)
  n = len(statistics)
  if not n:
    raise ValueError('needs at least one photograph')
  found: list[np.ndarray] = []
  for some in draws(n, num_resamples=num_resamples, seed=seed):
    if reduce is None:
      found.append(statistics[some].mean(1))
    else:
      found.append(np.array([reduce(statistics[draw]) for draw in some]))
  return np.concatenate(found)


def over_seeds(by_seed: np.ndarray, *, seed: int = 0) -> np.ndarray:
  """Replicates of a mean over training seeds, seeds drawn again too.

  Of S seeds, S - 1 are drawn (McCarthy and Snowden 1985): the variance over
  seeds is then the unbiased s^2 / S. Drawing all S makes it smaller by
  (S - 1) / S, which is a half for two seeds.

  Args:
    by_seed: replicates of each training seed from the same draws of
      photographs, [S, R].
    seed: of the draws of training seeds.

  Returns:
    [R]: the spread over photographs and over seeds together; with one seed,
    that over photographs.
  """
  number, resamples = by_seed.shape
  drawn = np.random.default_rng(seed).integers(
      0, number, (max(1, number - 1), resamples))
  return np.take_along_axis(by_seed, drawn, axis=0).mean(0)


def sign_probability(differences: np.ndarray) -> float:
  """Two-sided bootstrap p-value of a paired difference.

  Twice the smaller share of replicates on one side of zero, zero itself
  counted on both; at least 2 / (R + 1), for R replicates cannot say less.

  Args:
    differences: replicates of A minus those of B, [R].

  Returns:
    In (0, 1].
  """
  below = int((differences <= 0).sum())
  above = int((differences >= 0).sum())
  return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
