"""Distances of two sets of pictures by their features: FID and KID.

Host functions of features [N, D] in float64. A set's distance depends on whose
features they are (see `colorjax.metrics.inception_features`) and on which
pictures the other set holds: name both beside the figure. Two variants of the
features never compare.

FID is biased: that of n pictures is too large by about c / n, with another c
for each method, so that figures of 5,000 and of 50,000 pictures do not compare
either. `kernel_distance` has no such bias.
"""

from typing import NamedTuple

import numpy as np

from colorjax.errors import UserError

_ROWS = 1024  # of features that are in memory in float64 at a time
_TILE = 2048  # side of the part of a kernel matrix that is in memory


class _Moments(NamedTuple):
  """A set of features by its mean and a factor of its covariance.

  Attributes:
    mean: [D].
    factor: [R, D] with covariance factor^T factor, R <= min(N, D).
  """
  mean: np.ndarray
  factor: np.ndarray


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
  """FID: the Frechet distance of two normal distributions (Heusel 2017).

  |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), of means m and unbiased
  covariances S (arXiv:1706.08500, eq. 6). It is the SQUARE of a distance.

  With S = F^T F the trace of the root is the sum of the singular values of
  F_a F_b^T: no root of a matrix is taken, which may fail or turn complex where
  there are fewer pictures than features.

  Args:
    a: features [N, D], N >= 2.
    b: features [M, D], M >= 2.

  Returns:
    In squared units of the features, >= 0; 0 for equal sets. UserError where
    a set is too small, has another D or is not finite.
  """
  _check(a, b)
  return _frechet(*(_weighted_moments(x, np.ones(len(x))) for x in (a, b)))


def resampled_frechet_distance(a: np.ndarray, b: np.ndarray, counts: np.ndarray
                      ) -> np.ndarray:
  """FID of many resamples of the same photographs.

  `frechet_distance(a[draw], b[draw])` of each draw, to rounding, but no
  features are copied: a resample enters by its weighted means and covariances.

  For N = 50,000 and D = 2,048, a resample takes 2 N D^2 operations for the
  covariances and about 10 D^3 for the distance: about 10
  minutes for 50 resamples on 2 CPU cores, estimated from the time of its parts.
  Beside the features, memory is that of some arrays [D, D] and [1024, D] in
  float64: 0.3 GB.

  Args:
    a: features [N, D], N >= 2, of any float type.
    b: features [N, D]; row i of both is of photograph i.
    counts: how often each photograph is in each resample, [R, N]; at least two
      photographs in each. All ones is the set itself.

  Returns:
    float64 [R]. UserError as for `frechet_distance`.
  """
  _check(a, b)
  _check_counts(a, b, counts)
  return np.array([
      _frechet(*(_weighted_moments(x, count) for x in (a, b)), quick=True)
      for count in counts])


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
  """KID of ALL pictures (Binkowski et al. 2018, arXiv:1801.01401).

  The unbiased estimate of the squared maximum mean discrepancy with the kernel
  k(x, y) = (x . y / D + 1)^3: the mean of k within `a` and within `b`, pairs
  of a picture with itself apart, less twice the mean of k between them.

  Where both sets show the same photographs, they are not independent, and
  equal sets have a figure slightly below 0.

  Args:
    a: features [N, D], N >= 2.
    b: features [M, D], M >= 2.

  Returns:
    The plain figure, which papers like to print times 100 or 1000; may be
    below 0. UserError as for `frechet_distance`.
  """
  _check(a, b)
  return float(_discrepancies(a, b, *(np.ones((1, len(x))) for x in (a, b)))[0])


def resampled_kernel_distance(a: np.ndarray, b: np.ndarray, counts: np.ndarray
                     ) -> np.ndarray:
  """KID of many resamples of the same photographs.

  Exactly `kernel_distance(a[draw], b[draw])` for each draw, but each kernel is
  computed once, not once a resample: the sums over a resample are quadratic
  forms of its counts. A photograph that is drawn twice makes a pair with
  itself, as it does in the copied features.

  For N = 50,000 and D = 2,048 this takes 4 N^2 D operations: about 15
  minutes on 2 busy CPU cores, extrapolated from the 35 s of N = 10,000. Beside
  the features, memory is that of some arrays [2048, 2048] and of the counts in
  float64: 0.3 GB.

  Args:
    a: features [N, D], N >= 2, of any float type.
    b: features [N, D]; row i of both is of photograph i.
    counts: see `resampled_frechet_distance`.

  Returns:
    float64 [R]. UserError as for `frechet_distance`.
  """
  _check(a, b)
  _check_counts(a, b, counts)
  weights = np.asarray(counts, np.float64)
  return _discrepancies(a, b, weights, weights)


def _check(a: np.ndarray, b: np.ndarray) -> None:
  """UserError where these are no two sets of features."""
  for x in (a, b):
    if x.ndim != 2:
      raise UserError(f'a set of features has shape [N, D], got {[*x.shape]}')
    if len(x) < 2:
      raise UserError(f'a set needs two pictures or more, got {len(x)}')
    bad = sum(int((~np.isfinite(x[i:i + _ROWS]).all(1)).sum())
              for i in range(0, len(x), _ROWS))
    if bad:
      raise UserError(f'features of {bad} of {len(x)} pictures are not finite')
  if a.shape[1] != b.shape[1]:
    raise UserError('features of different networks do not compare: '
                    f'{a.shape[1]} and {b.shape[1]} for each picture')


def _check_counts(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> None:
  """ValueError where the counts are not of these photographs."""
  if len(a) != len(b) or counts.ndim != 2 or counts.shape[1] != len(a):
    raise ValueError(
        f'counts [R, N] are of N pairs of features, got {list(counts.shape)} '
        f'for {len(a)} and {len(b)}')
  if (counts.sum(1) < 2).any():
    raise ValueError('a resample needs two photographs or more')


def _weighted_moments(x: np.ndarray, counts: np.ndarray) -> _Moments:
  """Moments of a set that holds row i of `x` `counts[i]` times."""
  number = counts.sum()
  used = np.flatnonzero(counts)
  chunks = [used[i:i + _ROWS] for i in range(0, len(used), _ROWS)]
  mean = sum(counts[rows] @ np.asarray(x[rows], np.float64)
             for rows in chunks) / number

  def factors():
    """Rows [r, D] whose products with themselves add up to the covariance."""
    for rows in chunks:
      scale = np.sqrt(counts[rows] / (number - 1))
      yield scale[:, None] * (x[rows] - mean)

  if len(used) <= x.shape[1]:
    return _Moments(mean, np.concatenate([*factors()]))
  covariance = np.zeros((x.shape[1],) * 2)
  for factor in factors():
    covariance += factor.T @ factor
  try:
    return _Moments(mean, np.linalg.cholesky(covariance).T)
  except np.linalg.LinAlgError:  # a feature that is the same everywhere, say
    values, vectors = np.linalg.eigh(covariance)
    noise = len(values) * np.finfo(values.dtype).eps * values[-1]
    root = np.sqrt(np.where(values > noise, values, 0))
    return _Moments(mean, root[:, None] * vectors.T)


def _frechet(a: _Moments, b: _Moments, *, quick: bool = False) -> float:
  """FID; `quick` is several times faster, to about 1e-8 of the traces."""
  means = np.square(a.mean - b.mean).sum()
  traces = np.square(a.factor).sum() + np.square(b.factor).sum()
  product = a.factor @ b.factor.T
  if quick:
    squares = np.linalg.eigvalsh(product @ product.T)
    root = np.sqrt(np.maximum(squares, 0)).sum()
  else:
    root = np.linalg.svd(product, compute_uv=False).sum()
  # What equal sets have below 0 is rounding.
  return max(0., float(means + traces - 2 * root))


def _discrepancies(a: np.ndarray, b: np.ndarray, of_a: np.ndarray,
                   of_b: np.ndarray) -> np.ndarray:
  """KID of sets that hold row i `of_a[r, i]`, `of_b[r, i]` times, [R]."""
  within = []
  for x, weights in ((a, of_a), (b, of_b)):
    size = weights.sum(1)
    of_itself = weights @ _kernel(_squared_lengths(x), x.shape[1])
    within.append((_quadratic_form(x, x, weights, weights) - of_itself)
                  / (size * (size - 1)))
  between = _quadratic_form(a, b, of_a, of_b) / (of_a.sum(1) * of_b.sum(1))
  return sum(within) - 2 * between


def _quadratic_form(a: np.ndarray, b: np.ndarray, of_a: np.ndarray,
                    of_b: np.ndarray) -> np.ndarray:
  """sum_ij of_a[r, i] k(a_i, b_j) of_b[r, j], [R].

  A tile of the kernel is in memory at a time; where both sets are one, those
  on one side of the diagonal count for both.
  """
  is_one_set = a is b
  total = np.zeros(len(of_a))
  for i in range(0, len(a), _TILE):
    rows = np.asarray(a[i:i + _TILE], np.float64)
    for j in range(i if is_one_set else 0, len(b), _TILE):
      tile = _kernel(
          rows @ np.asarray(b[j:j + _TILE], np.float64).T, a.shape[1])
      part = ((of_a[:, i:i + _TILE] @ tile) * of_b[:, j:j + _TILE]).sum(1)
      total += 2 * part if is_one_set and i != j else part
  return total


def _squared_lengths(x: np.ndarray) -> np.ndarray:
  return np.concatenate([
      np.square(np.asarray(x[i:i + _ROWS], np.float64)).sum(1)
      for i in range(0, len(x), _ROWS)])


def _kernel(product: np.ndarray, num_features: int) -> np.ndarray:
  """(product / D + 1)^3; the product's memory is used."""
  product /= num_features
  product += 1
  return product * product * product
