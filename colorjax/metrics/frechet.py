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

_ROWS = 1024  # of a kernel matrix that are in memory at a time


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
  a, b = _checked(a, b)
  return _frechet(_moments(a), _moments(b))


def frechet_infinity(
    a: np.ndarray, b: np.ndarray, *, paired: bool = False,
    num_points: int = 15, smallest: int | None = None, seed: int = 0) -> float:
  """FID extrapolated to infinitely many pictures (Chong and Forsyth 2020).

  FID of random subsets of n pictures, at sizes n evenly spaced from `smallest`
  to N, is fitted by c0 + c1 / n (least squares); c0 is returned
  (arXiv:1911.07023). The law holds where n is well above D; below it the
  figure is a rough one.

  Args:
    a: features [N, D] of the colorings.
    b: features [M, D] of the reference.
    paired: False as published: subsets of `a` against the whole of `b`, whose
      own bias remains. True, where row i of both is of one photograph: subsets
      of photographs, the same on both sides; equal sets then have distance 0,
      which they have not otherwise.
    num_points: sizes, at least 2.
    smallest: number of pictures in the smallest subset; None for N / 10. (The
      authors take 5,000 of 50,000.)
    seed: of the subsets.

  Returns:
    In squared units of the features; may be a little below 0. UserError as
    for `frechet_distance`, and where the sizes or pairs cannot be had.
  """
  a, b = _checked(a, b)
  smallest = max(2, len(a) // 10) if smallest is None else smallest
  if paired and len(a) != len(b):
    raise UserError(f'pairs need sets of one size, got {len(a)} and {len(b)}')
  if num_points < 2 or not 2 <= smallest < len(a):
    raise UserError(
        'an extrapolation needs two sizes of 2 pictures or more: got '
        f'{num_points} from {smallest} to {len(a)}')
  rng = np.random.default_rng(seed)
  sizes = np.linspace(smallest, len(a), num_points).round().astype(int)
  whole = _moments(b)
  distances = []
  for size in sizes:
    rows = rng.permutation(len(a))[:size]
    other = _moments(b[rows]) if paired else whole
    distances.append(_frechet(_moments(a[rows]), other))
  _, intercept = np.polyfit(1 / sizes, distances, 1)
  return float(intercept)


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
  a, b = _checked(a, b)
  return _squared_discrepancy(a, b)


def kernel_distances(
    a: np.ndarray, b: np.ndarray, *, num_subsets: int = 100,
    subset_size: int = 1000, seed: int = 0) -> np.ndarray:
  """KID of random subsets, of which papers give mean and deviation.

  Args:
    a: features [N, D].
    b: features [M, D].
    num_subsets: number of subsets.
    subset_size: pictures drawn from each set without replacement, the two
      draws apart; 2 ... min(N, M).
    seed: of the draws.

  Returns:
    `kernel_distance` of each subset, [num_subsets]. UserError as there, and
    where a set has fewer pictures than `subset_size`.
  """
  a, b = _checked(a, b)
  if num_subsets < 1 or not 2 <= subset_size <= min(len(a), len(b)):
    raise UserError(
        f'{num_subsets} subsets of {subset_size} cannot be drawn from sets of '
        f'{len(a)} and {len(b)} pictures')
  rng = np.random.default_rng(seed)
  draws = [[rng.choice(len(x), subset_size, replace=False) for x in (a, b)]
           for _ in range(num_subsets)]
  return np.array([_squared_discrepancy(a[i], b[j]) for i, j in draws])


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Both sets as float64."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  for x in (a, b):
    if x.ndim != 2:
      raise UserError(f'a set of features has shape [N, D], got {[*x.shape]}')
    if len(x) < 2:
      raise UserError(f'a set needs two pictures or more, got {len(x)}')
    if not np.isfinite(x).all():
      bad = int((~np.isfinite(x).all(1)).sum())
      raise UserError(f'features of {bad} of {len(x)} pictures are not finite')
  if a.shape[1] != b.shape[1]:
    raise UserError('features of different networks do not compare: '
                    f'{a.shape[1]} and {b.shape[1]} for each picture')
  return a, b


def _moments(x: np.ndarray) -> _Moments:
  mean = x.mean(0)
  factor = (x - mean) / np.sqrt(len(x) - 1)
  if len(factor) > factor.shape[1]:
    # The triangle of QR has the same F^T F and only D rows.
    factor = np.linalg.qr(factor, mode='r')
  return _Moments(mean, factor)


def _frechet(a: _Moments, b: _Moments) -> float:
  means = np.square(a.mean - b.mean).sum()
  traces = np.square(a.factor).sum() + np.square(b.factor).sum()
  root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
  # What equal sets have below 0 is rounding.
  return max(0., float(means + traces - 2 * root))


def _squared_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
  within = sum((_kernel_sum(x, x) - _kernel_diagonal(x)) / (n * (n - 1))
               for x, n in ((a, len(a)), (b, len(b))))
  return float(within - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
  """Sum of the kernel over all pairs, a block of rows at a time."""
  return sum(
      float(_kernel(a[i:i + _ROWS] @ b.T, a.shape[1]).sum())
      for i in range(0, len(a), _ROWS))


def _kernel_diagonal(a: np.ndarray) -> float:
  return float(_kernel(np.square(a).sum(1), a.shape[1]).sum())


def _kernel(product: np.ndarray, num_features: int) -> np.ndarray:
  return (product / num_features + 1) ** 3
