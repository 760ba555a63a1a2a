"""Colorization using optimization (Levin, Lischinski and Weiss 2004).

Colors that a person puts on some pixels spread to all others: neighboring
pixels of similar lightness are to have similar colors. With Y the lightness
and N(r) the up to eight neighbors of pixel r, the ab field u minimizes

    J(u) = sum_r (u(r) - sum_{s in N(r)} w_rs u(s))^2,
    w_rs ~ exp(-(Y(r) - Y(s))^2 / (2 sigma_r^2)),    sum_s w_rs = 1,

subject to u = hint where a hint is given; sigma_r^2 is the variance of Y in the
3x3 window of r. Two forms:

  energy      the minimum of J as the paper has it, the sum over all pixels
  equations   u(r) = sum_s w_rs u(s) at each pixel without a hint, which is what
              the program solves that the authors published: the terms of J at
              the hints are left out, so the others can all be 0. Each answer
              is then an average of hints, and none lies beyond them.

They are unlike where hints are few: the energy goes on with a change of color
between two hints past them, into colors that nobody gave. Mean ab distance for
8 flowers of 64 x 64 with 3, 10, 30 and 100 random pixels given: energy 19.9,
13.9, 11.9, 8.9; equations 14.2, 11.8, 10.5, 8.6.

Each is one sparse linear system for a photograph. Nothing is trained: without
hints the answer is grey.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from colorjax.colorizer import Colorizer
from colorjax.methods import checks
from colorjax.methods.baselines import untrained

_MIN_VARIANCE = 0.16
"""In L^2: one level of 8 bits is about 0.4 L, and less is rounding, no edge."""

_NEIGHBORS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]

FORMS = ('energy', 'equations')
"""What is solved, by the name that settings and flags use."""


def build(*, form: str = 'energy') -> Colorizer:
  """Levin's scribbles as a Colorizer.

  `predict_with_hints` solves the linear system on the host, in float64, one
  photograph after the other; a hint is given where hint_mask is above 0, and
  the answer there is the hint to the last bit. It has no gradient.

  Args:
    form: one of FORMS.

  Returns:
    The record of functions. UserError for an unknown form.
  """
  checks.check_choice('levin_form', form, FORMS)

  def predict_with_hints(variables, lightness, hint_ab, hint_mask):
    del variables
    return jax.pure_callback(
        functools.partial(_propagate_all, form=form),
        jax.ShapeDtypeStruct(hint_ab.shape, jnp.float32),
        lightness, hint_ab, hint_mask, vmap_method='broadcast_all')

  return untrained.without_training(
      params={}, predict=lambda variables, lightness: untrained.constant(
          lightness, jnp.zeros(2)),
      predict_with_hints=predict_with_hints)


def propagate(lightness: np.ndarray, hint_ab: np.ndarray,
              hint_mask: np.ndarray, *, form: str = 'energy') -> np.ndarray:
  """Spreads the hints over one photograph.

  Args:
    lightness: L in [0, 100], [H, W].
    hint_ab: Lab units, [H, W, 2]; read only where there is a hint.
    hint_mask: [H, W], above 0 where there is a hint.
    form: one of FORMS.

  Returns:
    ab, float32 [H, W, 2]; all 0 if there is no hint.
  """
  given = np.asarray(hint_mask).reshape(-1) > 0
  ab = np.where(given[:, None], np.asarray(hint_ab).reshape(-1, 2), 0.0)
  if given.any() and not given.all():
    residual = residual_matrix(lightness)
    ab[~given] = (_least_squares if form == 'energy' else _zeros)(
        residual, given, ab[given])
  return ab.reshape(hint_ab.shape).astype(np.float32)


def _least_squares(residual: scipy.sparse.csr_array, given: np.ndarray,
                   hints: np.ndarray) -> np.ndarray:
  """ab [n, 2] of the pixels without hints that minimizes J."""
  residual = residual.tocsc()
  free = residual[:, ~given]
  # Symmetric and positive definite: the pixels hang together, so only a
  # constant field has no residual, and the hints fix the constant.
  return scipy.sparse.linalg.splu(
      (free.T @ free).tocsc(), permc_spec='MMD_AT_PLUS_A',
      diag_pivot_thresh=0.0, options={'SymmetricMode': True}).solve(
          -free.T @ (residual[:, given] @ hints))


def _zeros(residual: scipy.sparse.csr_array, given: np.ndarray,
           hints: np.ndarray) -> np.ndarray:
  """ab [n, 2] of the pixels without hints that leaves them no residual."""
  rows = residual[~given].tocsc()
  return scipy.sparse.linalg.splu(rows[:, ~given]).solve(
      -(rows[:, given] @ hints))


def residual_matrix(lightness: np.ndarray) -> scipy.sparse.csr_array:
  """I - W, so that J(u) = |(I - W) u|^2.

  Args:
    lightness: L in [0, 100], [H, W].

  Returns:
    Sparse float64 [H W, H W], pixels in row-major order; rows sum to 0.
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
  averages = scipy.sparse.csr_array(
      (weight[inside], (row[inside], column[inside])),
      shape=(number.size, number.size))
  return scipy.sparse.eye_array(number.size, format='csr') - averages


def _shifted(x: np.ndarray, outside: float) -> np.ndarray:
  """[H, W] to its eight neighbors [8, H, W]; `outside` past the borders."""
  height, width = x.shape
  padded = np.pad(x, 1, constant_values=outside)
  return np.stack([padded[1 + dy:1 + dy + height, 1 + dx:1 + dx + width]
                   for dy, dx in _NEIGHBORS])


def _propagate_all(lightness, hint_ab, hint_mask, *, form) -> np.ndarray:
  """`propagate` over any leading axes."""
  lightness, hint_ab, hint_mask = map(
      np.asarray, (lightness, hint_ab, hint_mask))
  out = np.empty(hint_ab.shape, np.float32)
  for place in np.ndindex(hint_ab.shape[:-3]):
    out[place] = propagate(
        lightness[place][..., 0], hint_ab[place], hint_mask[place][..., 0],
        form=form)
  return out
