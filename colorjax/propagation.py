"""Propagates the colors of hints to pixels of similar lightness.

The method is that of Levin, Lischinski and Weiss 2004, "Colorization using
optimization": neighboring pixels of similar lightness should have similar
colors. Let Y be the lightness and s one of the up to eight neighbors of pixel
r. The weights are

    w_rs ~ exp(-(Y(r) - Y(s))^2 / (2 sigma_r^2)),    sum_s w_rs = 1,

where sigma_r^2 is the variance of Y in the 3x3 window of r. Each photograph
leads to a sparse linear system, which is solved on the host in float64.
"""

from typing import Literal

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

_MIN_VARIANCE = 0.16
"""In L^2. One 8-bit level is about 0.4 L; smaller differences are rounding."""

_NEIGHBORS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]

_REACH = 1 / 8
"""Distance at which a correction falls to 1 / e where there are no edges, as a
share of the shorter side."""

_STEP_VARIANCE = 0.75
"""Variance along one axis of a random step to one of the eight neighbors."""


def fill(lightness: np.ndarray, hint_ab: np.ndarray, hint_mask: np.ndarray, *,
         form: Literal['energy', 'equations'] = 'energy') -> np.ndarray:
  """Propagates hints over a whole photograph.

  Args:
    lightness: L in [0, 100], [H, W].
    hint_ab: Lab units, [H, W, 2]; ignored where there is no hint.
    hint_mask: [H, W], above 0 where there is a hint.
    form: 'energy' minimizes J(u) = sum_r (u(r) - sum_s w_rs u(s))^2 subject to
      u = hint at the hints, as in the paper. 'equations' solves
      u(r) = sum_s w_rs u(s) at each pixel without a hint, as in the code of the
      authors; every value is then a weighted mean of the hints.

  Returns:
    ab, float32 [H, W, 2]. It equals the hints at their pixels, and is 0
    everywhere if there are no hints.
  """
  given = np.asarray(hint_mask).reshape(-1) > 0
  ab = np.where(given[:, None], np.asarray(hint_ab).reshape(-1, 2), 0.0)
  if given.any() and not given.all():
    residual = scipy.sparse.eye_array(given.size) - averages(lightness)
    solve = _least_squares if form == 'energy' else _without_residual
    ab[~given] = solve(residual.tocsr(), given, ab[given])
  return ab.reshape(hint_ab.shape).astype(np.float32)


def correct(lightness: np.ndarray, ab: np.ndarray, hint_ab: np.ndarray,
            hint_mask: np.ndarray) -> np.ndarray:
  """Corrects colorings of one photograph so that they agree with hints.

  The difference u between hint and coloring spreads to similar neighbors and
  fades with distance: u(r) = (1 - c) sum_s w_rs u(s) at each pixel without a
  hint. The constant c is chosen such that, without edges, the difference falls
  to 1 / e over an eighth of the shorter side.

  Args:
    lightness: L in [0, 100], [H, W].
    ab: colorings, Lab units, [k, H, W, 2].
    hint_ab: Lab units, [H, W, 2]; ignored where there is no hint.
    hint_mask: [H, W], above 0 where there is a hint.

  Returns:
    ab, float32 [k, H, W, 2]. It equals the hints at their pixels.
  """
  given = np.asarray(hint_mask).reshape(-1) > 0
  flat = np.asarray(ab, np.float64).reshape(len(ab), -1, 2)
  difference = np.where(
      given[:, None], np.asarray(hint_ab).reshape(-1, 2) - flat, 0.0)
  if given.any() and not given.all():
    reach = _REACH * min(lightness.shape)
    fading = 1 / (1 + _STEP_VARIANCE / (2 * reach**2))
    residual = (scipy.sparse.eye_array(given.size)
                - fading * averages(lightness)).tocsr()
    # The colorings are columns of one right-hand side, so that the matrix is
    # factorized only once.
    columns = np.moveaxis(difference[:, given], 0, 1).reshape(given.sum(), -1)
    solved = _without_residual(residual, given, columns)
    difference[:, ~given] = np.moveaxis(
        solved.reshape(-1, len(ab), 2), 1, 0)
  return (flat + difference).reshape(ab.shape).astype(np.float32)


def averages(lightness: np.ndarray) -> scipy.sparse.csr_array:
  """Computes the matrix W of the weights w_rs.

  Args:
    lightness: L in [0, 100], [H, W].

  Returns:
    Sparse float64 [H W, H W], pixels in row-major order; each row sums to 1.
  """
  height, width = lightness.shape
  center = np.asarray(lightness, np.float64)
  number = np.arange(height * width).reshape(height, width)
  neighbor = _shifted(center, np.nan)  # [8, H, W]
  column = _shifted(number, -1)
  inside = column >= 0
  window = np.concatenate([center[None], neighbor])
  variance = np.maximum(np.nanvar(window, axis=0), _MIN_VARIANCE)
  # Two of nine numbers differ by at most sqrt(18) standard deviations. So each
  # weight is at least exp(-9) before normalization, and all pixels stay
  # connected.
  weight = np.where(inside, np.exp(
      -np.square(neighbor - center) / (2 * variance)), 0.0)
  weight /= weight.sum(0)
  row = np.broadcast_to(number, column.shape)
  return scipy.sparse.csr_array(
      (weight[inside], (row[inside], column[inside])),
      shape=(number.size, number.size))


def _least_squares(residual: scipy.sparse.csr_array, given: np.ndarray,
                   hints: np.ndarray) -> np.ndarray:
  """Values [n, 2] at the pixels without hints that minimize |residual u|^2."""
  by_column = residual.tocsc()
  free = by_column[:, ~given]
  # The matrix is symmetric and positive definite: all pixels are connected, so
  # only constant fields have residual 0, and the hints determine the constant.
  return scipy.sparse.linalg.splu(
      (free.T @ free).tocsc(), permc_spec='MMD_AT_PLUS_A',
      diag_pivot_thresh=0.0, options={'SymmetricMode': True}).solve(
          -free.T @ (by_column[:, given] @ hints))


def _without_residual(residual: scipy.sparse.csr_array, given: np.ndarray,
                      hints: np.ndarray) -> np.ndarray:
  """Values [n, c] at the pixels without hints that make their residual 0."""
  rows = residual[~given].tocsc()
  # This ordering needs half the time of the default one.
  return scipy.sparse.linalg.splu(
      rows[:, ~given], permc_spec='MMD_AT_PLUS_A').solve(
          -(rows[:, given] @ hints))


def _shifted(x: np.ndarray, outside: float) -> np.ndarray:
  """The eight neighbors of each pixel, [8, H, W]; `outside` at the borders."""
  height, width = x.shape
  padded = np.pad(x, 1, constant_values=outside)
  return np.stack([padded[1 + dy:1 + dy + height, 1 + dx:1 + dx + width]
                   for dy, dx in _NEIGHBORS])
