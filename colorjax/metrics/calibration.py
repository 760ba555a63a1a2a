"""Calibration of predictive distributions.

A method is calibrated if the true color of a photograph is exchangeable with
colors drawn from its predictive distribution. The expected value of each metric
for a calibrated method is known exactly for every number of draws n, so a small
number of draws does not look like miscalibration. Each draw is an exact sample
of the ab field of a whole photograph. Pixels and channels are evaluated
separately, except for the highest-density metrics, which evaluate the density
of whole photographs.

Device functions return statistics of each photograph. Host functions take these
statistics for a set, [N, ...], and pool all pixels. The pixels of a photograph
are not independent, so intervals must be over photographs.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import quantize
from colorjax.metrics import diversity, image

NUM_CLASSES = 10
"""Number of confidence classes of equal width in `bin_reliability`."""


def pit_counts(draws: jax.Array, truth: jax.Array, keys: jax.Array
               ) -> jax.Array:
  """Histogram of the ranks of the true values among the draws.

  The rank of a true value is the number of draws below it. Ties are broken at
  random, so the ranks of a calibrated method are uniform on 0..n even if its
  values are discrete. For large n, rank / n is the probability integral
  transform (Dawid 1984).

  Args:
    draws: ab [n, B, h, w, 2].
    truth: true ab [B, h, w, 2].
    keys: a typed key for each photograph, [B].

  Returns:
    float32 [B, 2, n + 1]: for a and for b, the number of pixels with each rank.
  """
  n = _check(draws, truth, fewest=1)
  below = (draws < truth).sum(0)
  equal = (draws == truth).sum(0)
  uniform = jax.vmap(
      lambda key: jax.random.uniform(key, truth.shape[1:]))(keys)
  # The minimum is needed if the product is rounded up to equal + 1.
  rank = below + jnp.minimum(
      jnp.floor(uniform * (equal + 1)).astype(jnp.int32), equal)
  counts = (rank[..., None] == jnp.arange(n + 1)).sum((1, 2))
  return counts.astype(jnp.float32)


def pit_error(statistics: np.ndarray) -> float:
  """Distance of the ranks from a uniform distribution.

  Mean over the two channels and over r = 0..n-1 of |F(r) - (r + 1) / (n + 1)|,
  where F(r) is the fraction of all pixels of the set with a rank of at most r.

  Args:
    statistics: [N, 2, n + 1] from `pit_counts`.

  Returns:
    In [0, 1/2]: 1/2 if all true values are below all draws, or all above. For
    a calibrated method it tends to 0 with the number of photographs, but is
    positive for any finite set.
  """
  share = _ranks(statistics)
  num_ranks = share.shape[1]
  uniform = np.arange(1, num_ranks) / num_ranks
  return float(np.abs(share.cumsum(1)[:, :-1] - uniform).mean())


def coverage(statistics: np.ndarray, level: float) -> float:
  """Fraction of true values (pixels and channels) in the central interval.

  The interval of n draws is from their k-th smallest to their k-th largest
  value. k is chosen so that `expected_coverage` is as close to `level` as
  possible.

  Args:
    statistics: [N, 2, n + 1] from `pit_counts`, n at least 2.
    level: nominal coverage, in (0, 1).

  Returns:
    In [0, 1]. It is above `expected_coverage(n, level)` if the distribution is
    too wide (underconfident), and below if it is too narrow (overconfident) or
    shifted.
  """
  share = _ranks(statistics)
  n = share.shape[1] - 1
  k = _interval_rank(n, level)
  return float(share[:, k:n + 1 - k].sum(1).mean())


def expected_coverage(n: int, level: float) -> float:
  """The exact `coverage` of a calibrated method.

  Args:
    n: number of draws, at least 2.
    level: nominal coverage, in (0, 1).

  Returns:
    (n + 1 - 2k) / (n + 1); for example 0.9 for n = 19 and a level of 0.9.
  """
  return (n + 1 - 2 * _interval_rank(n, level)) / (n + 1)


def energy_score(draws: jax.Array, truth: jax.Array) -> jax.Array:
  """Energy score of the predictive distribution of the ab of each pixel.

  mean_i |x_i - y| - 1/2 mean_{i != j} |x_i - x_j| with Euclidean distances in
  the ab plane, averaged over pixels (Gneiting and Raftery 2007). The second
  mean is over pairs of different draws, which makes the score unbiased for
  every n. It is a proper score: in expectation, no distribution scores lower
  than the true one. If all draws are equal, the score is `image.ab_distance`.

  Args:
    draws: ab [n, B, h, w, 2], n at least 2.
    truth: true ab [B, h, w, 2].

  Returns:
    Lab units, lower is better, [B]. Negative values occur only by chance.
  """
  _check(draws, truth, fewest=2)
  return (image.ab_distance(draws, truth[None]).mean(0)
          - diversity.pairwise_ab_distance(draws) / 2)


def bin_reliability(draws: jax.Array, truth: jax.Array, *,
                    num_classes: int = NUM_CLASSES) -> jax.Array:
  """Counts how often the most probable ab bin is correct, by confidence.

  The predicted bin of a pixel is the square of 10 x 10 ab units that contains
  most of its first n - 1 draws. Of several such squares, it is the one drawn
  first. The confidence is the fraction of draws in this bin. For a calibrated
  method the true color is in the predicted bin as often as the n-th draw, which
  is held out from the prediction. This holds for every n, whereas the
  confidence itself equals the hit rate only for large n. Therefore the hits of
  both are counted.

  Args:
    draws: ab [n, B, h, w, 2], n at least 2.
    truth: true ab [B, h, w, 2].
    num_classes: M; class m has the confidences in (m / M, (m + 1) / M].

  Returns:
    float32 [B, M, 3]: for each class, its number of pixels, the hits of the
    true color, and the hits of the held-out draw.
  """
  n = _check(draws, truth, fewest=2)
  squares = quantize.grid_place(draws)
  used, held_out = squares[:-1], squares[-1]

  def vote(i, best):
    votes = (used == used[i]).sum(0)
    more = votes > best[0]
    return jnp.where(more, votes, best[0]), jnp.where(more, used[i], best[1])

  zeros = jnp.zeros(used.shape[1:], jnp.int32)
  votes, predicted = jax.lax.fori_loop(0, n - 1, vote, (zeros, zeros))
  # ceil(M votes / (n - 1)) - 1 in integers, which is exact at class bounds.
  confidence = (num_classes * votes + n - 2) // (n - 1) - 1
  in_class = confidence[..., None] == jnp.arange(num_classes)
  hits = [jnp.ones_like(predicted, bool),
          predicted == quantize.grid_place(truth), predicted == held_out]
  return jnp.stack([(in_class & hit[..., None]).sum((1, 2)) for hit in hits],
                   -1).astype(jnp.float32)


class Reliability(NamedTuple):
  """A reliability curve. Hit rates are NaN in classes without pixels.

  Attributes:
    share: fraction of all pixels in each confidence class, [M].
    truth: fraction of these pixels whose true color is in the predicted bin,
      [M].
    draw: fraction of these pixels whose held-out draw is in the predicted bin,
      [M]. This is the hit rate that the method claims.
  """
  share: np.ndarray
  truth: np.ndarray
  draw: np.ndarray


def reliability_curve(statistics: np.ndarray) -> Reliability:
  """Hit rates by confidence.

  For a calibrated method both hit rates are equal in expectation.

  Args:
    statistics: [N, M, 3] from `bin_reliability`.

  Returns:
    The curve, from the lowest confidence to the highest.
  """
  count, truth, draw = _sum(statistics, 3, 3).T
  with np.errstate(invalid='ignore'):
    return Reliability(count / count.sum(), truth / count, draw / count)


def expected_calibration_error(statistics: np.ndarray) -> float:
  """Expected calibration error over ab bins: sum_m share_m |truth_m - draw_m|.

  Follows Guo et al. (2017), but uses the hit rate of a held-out draw in place
  of the confidence, see `bin_reliability`.

  Args:
    statistics: [N, M, 3] from `bin_reliability`.

  Returns:
    In [0, 1]. For a calibrated method it tends to 0 with the number of
    photographs, but is positive for any finite set.
  """
  count, truth, draw = _sum(statistics, 3, 3).T
  return float(np.abs(truth - draw).sum() / count.sum())


def hpd_level(log_prob_of_truth: jax.Array, log_prob_of_draws: jax.Array
              ) -> jax.Array:
  """Probability of the smallest highest-density set that contains the truth.

  Estimated as the fraction of draws whose density is higher than that of the
  photograph; draws of equal density count one half. It evaluates whole
  photographs: a method can be calibrated for each pixel and still model the
  dependence between pixels wrongly.

  Args:
    log_prob_of_truth: log density of the photograph, nats [B].
    log_prob_of_draws: log density of the draws of the method, nats [n, B].

  Returns:
    In [0, 1], [B]. Uniform on 0, 1/n, ..., 1 for a calibrated method (without
    equal densities). 1 if the photograph is less probable than all draws. NaN
    if a density is NaN.
  """
  higher = (log_prob_of_draws > log_prob_of_truth).mean(0)
  equal = (log_prob_of_draws == log_prob_of_truth).mean(0)
  # Comparisons with NaN are false, which would give level 0.
  is_nan = (jnp.isnan(log_prob_of_truth)
            | jnp.isnan(log_prob_of_draws).any(0))
  return jnp.where(is_nan, jnp.nan, higher + equal / 2)


def hpd_coverage(levels: np.ndarray, level: float) -> float:
  """Fraction of photographs inside their highest-density set.

  Args:
    levels: `hpd_level` of each photograph, [N].
    level: probability of the highest-density set, in [0, 1].

  Returns:
    In [0, 1]. The expected value for a calibrated method is
    `expected_hpd_coverage`; densities that are too narrow give less, and those
    that are too wide give more. NaN if any of `levels` is NaN.
  """
  levels = np.asarray(levels, np.float64)
  if np.isnan(levels).any():
    return math.nan
  # float32 may round a multiple of 1/n up.
  return float((levels <= level + 1e-6).mean())


def expected_hpd_coverage(n: int, level: float) -> float:
  """The exact `hpd_coverage` of a calibrated method.

  Args:
    n: number of draws.
    level: probability of the highest-density set, in [0, 1].

  Returns:
    (floor(n level) + 1) / (n + 1).
  """
  return (math.floor(n * (level + 1e-6)) + 1) / (n + 1)


def _check(draws: jax.Array, truth: jax.Array, *, fewest: int) -> int:
  """Checks the shapes and returns the number of draws."""
  if draws.shape[1:] != truth.shape or truth.ndim != 4 or len(draws) < fewest:
    raise ValueError(
        f'draws must be [n, B, h, w, 2] and truth [B, h, w, 2], with n >= '
        f'{fewest}, got {list(draws.shape)} and {list(truth.shape)}')
  return len(draws)


def _sum(statistics: np.ndarray, ndim: int, last: int | None = None
         ) -> np.ndarray:
  """Checks statistics of photographs, [N, ...], and sums them over the set."""
  statistics = np.asarray(statistics, np.float64)
  if (statistics.ndim != ndim or not statistics.sum()
      or last not in (None, statistics.shape[-1])):
    raise ValueError(
        f'statistics must be [N, ...] with {ndim} axes and must not all be 0, '
        f'got shape {list(statistics.shape)} and sum {statistics.sum():g}')
  return statistics.sum(0)


def _ranks(statistics: np.ndarray) -> np.ndarray:
  """Relative frequency of each rank, for each channel, [2, n + 1]."""
  counts = _sum(statistics, 3)
  return counts / counts.sum(1, keepdims=True)


def _interval_rank(n: int, level: float) -> int:
  """k: the central interval is from the k-th smallest to k-th largest draw."""
  if n < 2 or not 0 < level < 1:
    raise ValueError(
        'an interval needs n >= 2 draws and a level in (0, 1), '
        f'got n = {n} and level = {level}')
  nearest = math.floor((1 - level) * (n + 1) / 2 + 0.5)
  return min(max(nearest, 1), n // 2)
