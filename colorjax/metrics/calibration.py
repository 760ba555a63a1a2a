"""Whether a predictive distribution is as sure as it may be.

A method is calibrated if the true color of a photograph is exchangeable with
colors drawn from its predictive distribution. What each figure would be then
is known exactly for every number of draws n, so that no figure mistakes few
draws for a wrong distribution. Draws are exact samples of ab, each of the
whole photograph; pixels and channels are looked at apart, except in the last
figures, of densities over whole photographs.

Statistics are of one photograph each and add up over a set: [N, ...] stacked
goes into the host functions, which pool all pixels. Pixels of one photograph
go together, so the spread of a figure is that over photographs.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import quantize
from colorjax.metrics import diversity, image

NUM_CLASSES = 10
"""Classes of equal width that `bin_reliability` sorts confidences into."""


def pit_counts(draws: jax.Array, truth: jax.Array, keys: jax.Array
               ) -> jax.Array:
  """Ranks of the true values among the draws, counted over pixels.

  The rank is the number of draws below the truth; among draws equal to it the
  truth takes any place with the same probability, so that a calibrated method
  has ranks uniform on 0..n even if its values are coarse. rank / n tends to
  the probability integral transform (Dawid 1984) as n grows.

  Args:
    draws: ab [n, B, h, w, 2].
    truth: ab [B, h, w, 2].
    keys: a key of its own for each photograph, typed, [B].

  Returns:
    float32 [B, 2, n + 1]: for a and for b the pixels with each rank.
  """
  n = _check(draws, truth, fewest=1)
  below = (draws < truth).sum(0)
  equal = (draws == truth).sum(0)
  chance = jax.vmap(
      lambda key: jax.random.uniform(key, truth.shape[1:]))(keys)
  # The minimum is for a product that rounds up to the next place.
  rank = below + jnp.minimum(
      jnp.floor(chance * (equal + 1)).astype(jnp.int32), equal)
  counts = (rank[..., None] == jnp.arange(n + 1)).sum((1, 2))
  return counts.astype(jnp.float32)


def pit_error(statistics: np.ndarray) -> float:
  """How far the ranks are from uniform.

  Mean over the two channels and over r = 0..n-1 of |F(r) - (r + 1) / (n + 1)|,
  F(r) being the share of all pixels of the set whose rank is at most r.

  Args:
    statistics: [N, 2, n + 1] of `pit_counts`.

  Returns:
    In [0, 1/2]: 1/2 where every truth lies below all draws, or above. A
    calibrated method tends to 0 with more photographs, and is above 0 by
    chance in any finite set.
  """
  share = _ranks(statistics)
  num_ranks = share.shape[1]
  uniform = np.arange(1, num_ranks) / num_ranks
  return float(np.abs(share.cumsum(1)[:, :-1] - uniform).mean())


def coverage(statistics: np.ndarray, level: float) -> float:
  """Share of pixels and channels whose truth lies in the central interval.

  The interval of n draws reaches from their k-th smallest to their k-th
  largest, k such that `expected_coverage` is as near to the level as it can be.

  Args:
    statistics: [N, 2, n + 1] of `pit_counts`, n at least 2.
    level: wanted coverage, in (0, 1).

  Returns:
    In [0, 1]; more than `expected_coverage(n, level)` for a distribution too
    wide, less for one too narrow or shifted.
  """
  share = _ranks(statistics)
  n = share.shape[1] - 1
  k = _interval_rank(n, level)
  return float(share[:, k:n + 1 - k].sum(1).mean())


def expected_coverage(n: int, level: float) -> float:
  """`coverage` that a calibrated method has, exactly.

  Args:
    n: number of draws, at least 2.
    level: as in `coverage`.

  Returns:
    (n + 1 - 2k) / (n + 1); 0.9 where the level is 0.9 and n = 19.
  """
  return (n + 1 - 2 * _interval_rank(n, level)) / (n + 1)


def energy_score(draws: jax.Array, truth: jax.Array) -> jax.Array:
  """Energy score of the predictive distribution of each pixel's ab.

  mean_i |x_i - y| - 1/2 mean_{i != j} |x_i - x_j|, Euclidean in the ab plane,
  mean over pixels (Gneiting and Raftery 2007). The second mean is over
  different draws, so the score is unbiased for every n. It is proper: in the
  mean no distribution scores lower than the true one. One color drawn n
  times scores its `image.ab_distance`.

  Args:
    draws: ab [n, B, h, w, 2], n at least 2.
    truth: ab [B, h, w, 2].

  Returns:
    Lab units, lower is better, [B]. Below 0 by chance at most.
  """
  _check(draws, truth, fewest=2)
  return (image.ab_distance(draws, truth[None]).mean(0)
          - diversity.pairwise_ab_distance(draws) / 2)


def bin_reliability(draws: jax.Array, truth: jax.Array, *,
                    num_classes: int = NUM_CLASSES) -> jax.Array:
  """How often the most probable bin is right, by how sure the method is.

  Of the first n - 1 draws of a pixel the square of 10 x 10 ab units that most
  fall into is the forecast (of several the one drawn first), and their share
  is its confidence. The truth falls into the forecast square as often as the
  confidence says only if n is large; but for every n it does so as often as
  the n-th draw, which takes no part in the forecast. So the hits of both are
  counted.

  Args:
    draws: ab [n, B, h, w, 2], n at least 2.
    truth: ab [B, h, w, 2].
    num_classes: M; class m holds the confidences in (m / M, (m + 1) / M].

  Returns:
    float32 [B, M, 3]: pixels in the class, hits of the truth among them, hits
    of the n-th draw.
  """
  n = _check(draws, truth, fewest=2)
  squares = quantize.grid_place(draws)
  known, held_out = squares[:-1], squares[-1]

  def vote(i, best):
    votes = (known == known[i]).sum(0)
    more = votes > best[0]
    return jnp.where(more, votes, best[0]), jnp.where(more, known[i], best[1])

  nothing = jnp.zeros(known.shape[1:], jnp.int32)
  votes, forecast = jax.lax.fori_loop(0, n - 1, vote, (nothing, nothing))
  # ceil(M votes / (n - 1)) - 1 in whole numbers, exact at the bounds.
  chosen = (num_classes * votes + n - 2) // (n - 1) - 1
  in_class = chosen[..., None] == jnp.arange(num_classes)
  hits = [jnp.ones_like(forecast, bool),
          forecast == quantize.grid_place(truth), forecast == held_out]
  return jnp.stack([(in_class & hit[..., None]).sum((1, 2)) for hit in hits],
                   -1).astype(jnp.float32)


class Reliability(NamedTuple):
  """A reliability curve; NaN in a class without a pixel.

  Attributes:
    share: share of all pixels in each class of confidence, [M].
    truth: how often the truth hits the forecast square, [M].
    draw: how often a draw does, which is what the method claims, [M].
  """
  share: np.ndarray
  truth: np.ndarray
  draw: np.ndarray


def reliability_curve(statistics: np.ndarray) -> Reliability:
  """Hit rates by confidence; a calibrated method's are equal up to chance.

  Args:
    statistics: [N, M, 3] of `bin_reliability`.

  Returns:
    The curve, from the lowest confidence to the highest.
  """
  count, truth, draw = _sum(statistics, 3, 3).T
  with np.errstate(invalid='ignore'):
    return Reliability(count / count.sum(), truth / count, draw / count)


def expected_calibration_error(statistics: np.ndarray) -> float:
  """Expected calibration error over ab bins: sum_m share_m |truth_m - draw_m|.

  After Guo et al. (2017), with the hit rate of a draw in place of the
  confidence, see `bin_reliability`.

  Args:
    statistics: [N, M, 3] of `bin_reliability`.

  Returns:
    In [0, 1]. In every class truth_m - draw_m is 0 in expectation for a
    calibrated method; the absolute value is above 0 by chance, less with more
    photographs.
  """
  count, truth, draw = _sum(statistics, 3, 3).T
  return float(np.abs(truth - draw).sum() / count.sum())


def hpd_level(log_prob_of_truth: jax.Array, log_prob_of_draws: jax.Array
              ) -> jax.Array:
  """Content of the smallest highest-density set that holds the truth.

  The share of draws whose density is higher than that of the truth, those of
  equal density counting half. It speaks of whole photographs: a method may
  have every pixel calibrated and yet miss how pixels go together.

  Args:
    log_prob_of_truth: nats [B].
    log_prob_of_draws: nats [n, B], of draws of the same method.

  Returns:
    In [0, 1], [B]. Uniform on 0, 1/n, ..., 1 for a calibrated method whose
    densities differ; 1 where the truth is less probable than any draw; NaN
    where a density is.
  """
  higher = (log_prob_of_draws > log_prob_of_truth).mean(0)
  equal = (log_prob_of_draws == log_prob_of_truth).mean(0)
  # NaN compares as false, which would read as the most probable of all.
  unknown = (jnp.isnan(log_prob_of_truth)
             | jnp.isnan(log_prob_of_draws).any(0))
  return jnp.where(unknown, jnp.nan, higher + equal / 2)


def hpd_coverage(levels: np.ndarray, level: float) -> float:
  """Share of photographs inside their highest-density set of this content.

  Args:
    levels: `hpd_level` of each photograph, [N].
    level: content of the set, in [0, 1].

  Returns:
    In [0, 1]; `expected_hpd_coverage` in expectation if calibrated, less for
    densities too narrow, more for those too wide; NaN if a level is.
  """
  levels = np.asarray(levels, np.float64)
  if np.isnan(levels).any():
    return math.nan
  # float32 may have rounded a multiple of 1/n up.
  return float((levels <= level + 1e-6).mean())


def expected_hpd_coverage(n: int, level: float) -> float:
  """`hpd_coverage` that a calibrated method has, exactly.

  Args:
    n: number of draws.
    level: content of the set, in [0, 1].

  Returns:
    (floor(n level) + 1) / (n + 1).
  """
  return (math.floor(n * (level + 1e-6)) + 1) / (n + 1)


def _check(draws: jax.Array, truth: jax.Array, *, fewest: int) -> int:
  """Number of draws; ValueError where these are no draws of this truth."""
  if draws.shape[1:] != truth.shape or truth.ndim != 4 or len(draws) < fewest:
    raise ValueError(
        f'needs draws [n, B, h, w, 2] of truth [B, h, w, 2] with n >= {fewest},'
        f' got {list(draws.shape)} and {list(truth.shape)}')
  return len(draws)


def _sum(statistics: np.ndarray, ndim: int, last: int | None = None
         ) -> np.ndarray:
  """Statistics of the whole set; ValueError where there are none."""
  statistics = np.asarray(statistics, np.float64)
  if (statistics.ndim != ndim or not statistics.sum()
      or last not in (None, statistics.shape[-1])):
    raise ValueError(
        f'no statistics of photographs: shape {list(statistics.shape)}, '
        f'sum {statistics.sum():g}')
  return statistics.sum(0)


def _ranks(statistics: np.ndarray) -> np.ndarray:
  """Share of each rank, for each channel, [2, n + 1]."""
  counts = _sum(statistics, 3)
  return counts / counts.sum(1, keepdims=True)


def _interval_rank(n: int, level: float) -> int:
  """k: the central interval is from the k-th smallest to the k-th largest."""
  if n < 2 or not 0 < level < 1:
    raise ValueError(
        f'an interval needs 2 draws and a level in (0, 1), got {n} and {level}')
  nearest = math.floor((1 - level) * (n + 1) / 2 + 0.5)
  return min(max(nearest, 1), n // 2)
