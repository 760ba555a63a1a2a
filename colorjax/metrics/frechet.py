"""Distances between the features of two sets of pictures: FID and KID.

These are host functions of features [N, D], computed in float64. The values
depend on the variant of the features (see `inception_features`) and on the
reference set: always state both. Values of different variants are not
comparable.

FID is biased: for n pictures it is too large by about c / n, where c depends on
the method. Values of 5,000 and of 50,000 pictures are therefore not comparable
either. KID (`kernel_distance`) is unbiased.
"""

from typing import NamedTuple

import numpy as np

from colorjax.errors import UserError

_ROWS = 1024  # rows of features to convert to float64 at a time
_TILE = 2048  # side of the block of the kernel matrix to compute at a time


class _Moments(NamedTuple):
  """Mean and covariance of a set of features.

  Attributes:
    mean: [D].
    factor: [R, D], R <= min(N, D); the covariance is factor^T factor.
  """
  mean: np.ndarray
  factor: np.ndarray


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
  """FID: the Frechet distance between two normal distributions (Heusel 2017).

  |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with means m and unbiased
  covariances S (arXiv:1706.08500, eq. 6). This is the SQUARE of a distance.

  With S = F^T F, the trace of the matrix root is the sum of the singular values
  of F_a F_b^T. This avoids the matrix root, which can fail or become complex if
  there are fewer pictures than features.

  Args:
    a: features [N, D], N >= 2.
    b: features [M, D], M >= 2.

  Returns:
    Squared units of the features, at least 0; 0 for equal sets.

  Raises:
    UserError: a set has fewer than 2 pictures or values that are not finite, or
      the sets have different D.
  """
  _check(a, b)
  return _frechet(*(_weighted_moments(x, np.ones(len(x))) for x in (a, b)))


def resampled_frechet_distance(
    a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """FID of bootstrap resamples.

  Equal to `frechet_distance(a[draw], b[draw])` for each resample, up to
  rounding, but computed from weighted means and covariances without copying
  features.

  For N = 50,000 and D = 2,048, a resample takes 2 N D^2 operations for the
  covariances and about 10 D^3 for the distance. 50 resamples take about 10
  minutes on 2 CPU cores (estimated from the time of the parts). Memory in
  addition to the features is 0.3 GB, for arrays [D, D] and [1024, D] in
  float64.

  Args:
    a: features [N, D], N >= 2, of any float type.
    b: features [N, D]; row i of `a` and `b` belongs to photograph i.
    counts: how often each photograph occurs in each resample, [R, N], with a
      sum of at least 2 in each row. All ones give the set itself.

  Returns:
    float64 [R].

  Raises:
    UserError: as in `frechet_distance`.
    ValueError: counts have the wrong shape or a row with a sum below 2.
  """
  _check(a, b)
  _check_counts(a, b, counts)
  return np.array([
      _frechet(*(_weighted_moments(x, count) for x in (a, b)), quick=True)
      for count in counts])


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
  """KID of ALL pictures (Binkowski et al. 2018, arXiv:1801.01401).

  The unbiased estimate of the squared maximum mean discrepancy with the kernel
  k(x, y) = (x . y / D + 1)^3: the mean of k within `a` plus the mean within
  `b`, both without pairs of a picture with itself, minus twice the mean of k
  between `a` and `b`.

  If both sets show the same photographs, they are not independent, and the
  estimate for equal sets is slightly below 0.

  Args:
    a: features [N, D], N >= 2.
    b: features [M, D], M >= 2.

  Returns:
    KID, which papers often multiply by 100 or 1000; may be negative.

  Raises:
    UserError: as in `frechet_distance`.
  """
  _check(a, b)
  return float(_discrepancies(a, b, *(np.ones((1, len(x))) for x in (a, b)))[0])


def resampled_kernel_distance(
    a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """KID of bootstrap resamples.

  Equal to `kernel_distance(a[draw], b[draw])` for each resample, but the kernel
  is computed only once: sums over a resample are quadratic forms of its counts.
  A photograph that is drawn twice forms a pair with itself, as it would in
  copied features.

  For N = 50,000 and D = 2,048 this takes 4 N^2 D operations: about 15 minutes
  on 2 busy CPU cores (extrapolated from 35 s for N = 10,000). Memory in
  addition to the features is 0.3 GB, for arrays [2048, 2048] and the counts in
  float64.

  Args:
    a: features [N, D], N >= 2, of any float type.
    b: features [N, D]; row i of `a` and `b` belongs to photograph i.
    counts: see `resampled_frechet_distance`.

  Returns:
    float64 [R].

  Raises:
    As in `resampled_frechet_distance`.
  """
  _check(a, b)
  _check_counts(a, b, counts)
  weights = np.asarray(counts, np.float64)
  return _discrepancies(a, b, weights, weights)


def _check(a: np.ndarray, b: np.ndarray) -> None:
  """UserError unless both are sets of features of the same network."""
  for x in (a, b):
    if x.ndim != 2:
      raise UserError(f'features must be [N, D], got {[*x.shape]}')
    if len(x) < 2:
      raise UserError(f'a set must have at least 2 pictures, got {len(x)}')
    bad = sum(int((~np.isfinite(x[i:i + _ROWS]).all(1)).sum())
              for i in range(0, len(x), _ROWS))
    if bad:
      raise UserError(f'features of {bad} of {len(x)} pictures are not finite: '
                      'check the pictures and the weights of the network')
  if a.shape[1] != b.shape[1]:
    raise UserError('features must be of the same network, got '
                    f'{a.shape[1]} and {b.shape[1]} features for each picture')


def _check_counts(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> None:
  """ValueError unless the counts belong to N photographs in both sets."""
  if len(a) != len(b) or counts.ndim != 2 or counts.shape[1] != len(a):
    raise ValueError(
        f'counts must be [R, N] for N pairs of features, got '
        f'{list(counts.shape)} for {len(a)} and {len(b)}')
  if (counts.sum(1) < 2).any():
    raise ValueError('each resample must have at least 2 photographs')


def _weighted_moments(x: np.ndarray, counts: np.ndarray) -> _Moments:
  """Moments of a set that contains row i of `x` counts[i] times."""
  number = counts.sum()
  used = np.flatnonzero(counts)
  chunks = [used[i:i + _ROWS] for i in range(0, len(used), _ROWS)]
  mean = sum(counts[rows] @ np.asarray(x[rows], np.float64)
             for rows in chunks) / number

  def factors():
    """Chunks [r, D] of a factor of the covariance."""
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
  except np.linalg.LinAlgError:  # singular, for example a constant feature
    values, vectors = np.linalg.eigh(covariance)
    noise = len(values) * np.finfo(values.dtype).eps * values[-1]
    root = np.sqrt(np.where(values > noise, values, 0))
    return _Moments(mean, root[:, None] * vectors.T)


def _frechet(a: _Moments, b: _Moments, *, quick: bool = False) -> float:
  """FID from moments.

  Args:
    a: moments of one set.
    b: moments of the other set.
    quick: several times faster, with an error of about 1e-8 of the traces.
  """
  means = np.square(a.mean - b.mean).sum()
  traces = np.square(a.factor).sum() + np.square(b.factor).sum()
  product = a.factor @ b.factor.T
  if quick:
    squares = np.linalg.eigvalsh(product @ product.T)
    root = np.sqrt(np.maximum(squares, 0)).sum()
  else:
    root = np.linalg.svd(product, compute_uv=False).sum()
  # Rounding may give a value slightly below 0 for equal sets.
  return max(0., float(means + traces - 2 * root))


def _discrepancies(a: np.ndarray, b: np.ndarray, a_counts: np.ndarray,
                   b_counts: np.ndarray) -> np.ndarray:
  """KID of R resamples, float64 [R].

  Args:
    a: features [N, D].
    b: features [M, D].
    a_counts: how often each row of `a` is in each resample, [R, N].
    b_counts: how often each row of `b` is in each resample, [R, M].
  """
  within = []
  for x, weights in ((a, a_counts), (b, b_counts)):
    size = weights.sum(1)
    diagonal = weights @ _kernel(_squared_lengths(x), x.shape[1])
    within.append((_quadratic_form(x, x, weights, weights) - diagonal)
                  / (size * (size - 1)))
  between = _quadratic_form(a, b, a_counts, b_counts) / (
      a_counts.sum(1) * b_counts.sum(1))
  return sum(within) - 2 * between


def _quadratic_form(a: np.ndarray, b: np.ndarray, a_counts: np.ndarray,
                    b_counts: np.ndarray) -> np.ndarray:
  """sum_ij a_counts[r, i] k(a_i, b_j) b_counts[r, j], [R].

  Computes the kernel block by block. If `a` is `b`, the kernel is symmetric and
  only blocks on one side of the diagonal are computed.
  """
  is_one_set = a is b
  total = np.zeros(len(a_counts))
  for i in range(0, len(a), _TILE):
    rows = np.asarray(a[i:i + _TILE], np.float64)
    for j in range(i if is_one_set else 0, len(b), _TILE):
      tile = _kernel(
          rows @ np.asarray(b[j:j + _TILE], np.float64).T, a.shape[1])
      part = ((a_counts[:, i:i + _TILE] @ tile)
              * b_counts[:, j:j + _TILE]).sum(1)
      total += 2 * part if is_one_set and i != j else part
  return total


def _squared_lengths(x: np.ndarray) -> np.ndarray:
  """Squared Euclidean norm of each row of [N, D], float64 [N]."""
  return np.concatenate([
      np.square(np.asarray(x[i:i + _ROWS], np.float64)).sum(1)
      for i in range(0, len(x), _ROWS)])


def _kernel(product: np.ndarray, num_features: int) -> np.ndarray:
  """(product / D + 1)^3; overwrites `product`."""
  product /= num_features
  product += 1
  return product * product * product
