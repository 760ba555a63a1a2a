"""Confidence intervals over photographs by resampling (Efron 1979)."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean over photographs with its bootstrap interval.

  Attributes:
    mean: the plain mean.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of photographs.
  """
  mean: float
  low: float
  high: float
  n: int


def mean_interval(values: np.ndarray, *, level: float = 0.95,
                  num_resamples: int = 1000, seed: int = 0) -> Interval:
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
  draws = np.random.default_rng(seed).integers(
      0, values.size, (num_resamples, values.size))
  low, high = np.quantile(
      values[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
  return Interval(float(values.mean()), float(low), float(high), values.size)
