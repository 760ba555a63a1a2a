"""Spreading colors that are given on some pixels along the lightness.

Levin, Lischinski and Weiss 2004, "Colorization using optimization":
neighboring pixels of similar lightness should have similar colors. With Y the
lightness and N(r) the up to eight neighbors of pixel r,

    w_rs ~ exp(-(Y(r) - Y(s))^2 / (2 sigma_r^2)),    sum_s w_rs = 1,

where sigma_r^2 is the variance of Y in the 3x3 window of r. Everything here is
a sparse linear system for one photograph, solved on the host in float64.
"""

from typing import Literal

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

_MIN_VARIANCE = 0.16
"""In L^2: one level of 8 bits is about 0.4 L; less is rounding and no edge."""

_NEIGHBORS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]

_REACH = 1 / 8
"""Distance, as a share of the shorter side, at which a correction has fallen to
1 / e of its size where there is no edge."""

_STEP_VARIANCE = 0.75
"""Variance along one axis of a random step to one of eight neighbors."""


def fill(lightness: np.ndarray, hint_ab: np.ndarray, hint_mask: np.ndarray, *,
         form: Literal['energy', 'equations'] = 'energy') -> np.ndarray:
  """Spreads hints over one photograph, however far away they are.

  Args:
    lightness: L in [0, 100], [H, W].
    hint_ab: Lab units, [H, W, 2]; read only where there is a hint.
    hint_mask: [H, W], above 0 where there is a hint.
    form: 'energy' minimizes J(u) = sum_r (u(r) - sum_s w_rs u(s))^2 subject to
      u = hint where one is given, as the paper has it. 'equations' solves
      u(r) = sum_s w_rs u(s) at each pixel without a hint, as the program of
      the paper's authors does: every answer is then an average of hints.

  Returns:
    ab, float32 [H, W, 2]; the hints themselves where there are some, and 0
    everywhere if there are none.
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
  """Changes colorings of one photograph so that they agree with hints.

  The difference between hint and coloring spreads to similar neighbors and
  fades with the distance: u(r) = (1 - c) sum_s w_rs u(s) at each pixel without
  a hint. c is such that the difference falls to 1 / e within an eighth of the
  shorter side where there is no edge.

  Args:
    lightness: L in [0, 100], [H, W].
    ab: colorings, Lab units, [k, H, W, 2].
    hint_ab: Lab units, [H, W, 2]; read only where there is a hint.
    hint_mask: [H, W], above 0 where there is a hint.

  Returns:
    ab, float32 [k, H, W, 2]; the hints themselves where there are some.
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
    # One factorization for all colorings: they are columns of one right side.
    columns = np.moveaxis(difference[:, given], 0, 1).reshape(given.sum(), -1)
    solved = _without_residual(residual, given, columns)
    difference[:, ~given] = np.moveaxis(
        solved.reshape(-1, len(ab), 2), 1, 0)
  return (flat + difference).reshape(ab.shape).astype(np.float32)


def averages(lightness: np.ndarray) -> scipy.sparse.csr_array:
  """W: the weights with which a pixel is the average of its neighbors.

  Args:
    lightness: L in [0, 100], [H, W].

  Returns:
    Sparse float64 [H W, H W], pixels in row-major order; rows sum to 1.
  """
  height, width = lightness.shape
  center = np.asarray(lightness, np.float64)
  number = np.arange(height * width).reshape(height, width)
  neighbor = _shifted(center, np.nan)  # [8, H, W]
  column = _shifted(number, -1)
  inside = column >= 0
  window = np.concatenate([center[None], neighbor])
  variance = np.maximum(np.nanvar(window, axis=0), _MIN_VARIANCE)
  # Two of nine numbers differ by at most sqrt(18) of their deviations: weights
  # are at least exp(-9), and all pixels stay connected.
  weight = np.where(inside, np.exp(
      -np.square(neighbor - center) / (2 * variance)), 0.0)
  weight /= weight.sum(0)
  row = np.broadcast_to(number, column.shape)
  return scipy.sparse.csr_array(
      (weight[inside], (row[inside], column[inside])),
      shape=(number.size, number.size))


def _least_squares(residual: scipy.sparse.csr_array, given: np.ndarray,
                   hints: np.ndarray) -> np.ndarray:
  """Values [n, 2] of the pixels without hints that minimize |residual u|^2."""
  by_column = residual.tocsc()
  free = by_column[:, ~given]
  # Symmetric and positive definite: all pixels are connected, so only a
  # constant field has no residual, and the hints fix the constant.
  return scipy.sparse.linalg.splu(
      (free.T @ free).tocsc(), permc_spec='MMD_AT_PLUS_A',
      diag_pivot_thresh=0.0, options={'SymmetricMode': True}).solve(
          -free.T @ (by_column[:, given] @ hints))


def _without_residual(residual: scipy.sparse.csr_array, given: np.ndarray,
                      hints: np.ndarray) -> np.ndarray:
  """Values [n, c] of the pixels without hints whose own residual is 0."""
  rows = residual[~given].tocsc()
  return scipy.sparse.linalg.splu(rows[:, ~given]).solve(
      -(rows[:, given] @ hints))


def _shifted(x: np.ndarray, outside: float) -> np.ndarray:
  """[H, W] to its eight neighbors [8, H, W]; `outside` past the borders."""
  height, width = x.shape
  padded = np.pad(x, 1, constant_values=outside)
  return np.stack([padded[1 + dy:1 + dy + height, 1 + dx:1 + dx + width]
                   for dy, dx in _NEIGHBORS])
