"""Colorization using optimization (Levin, Lischinski and Weiss 2004).

Color hints on some pixels are propagated to all others, so that neighboring
pixels of similar lightness have similar colors. With Y the lightness and N(r)
the up to eight neighbors of pixel r, the ab field u minimizes

    J(u) = sum_r (u(r) - sum_{s in N(r)} w_rs u(s))^2,
    w_rs ~ exp(-(Y(r) - Y(s))^2 / (2 sigma_r^2)),    sum_s w_rs = 1,

subject to u = hint where a hint is given; sigma_r^2 is the variance of Y in the
3x3 window of r. Two forms:

  energy      minimizes J as defined in the paper, with the sum over all pixels
  equations   solves u(r) = sum_s w_rs u(s) at each pixel without a hint, like
              the authors' published program. This leaves out the terms of J at
              the hints; all other terms can then be 0. Every color is an
              average of hints.

They differ if there are few hints: the energy extrapolates a change of color
between two hints beyond them, to colors that are not among the hints. Mean ab
distance for 8 flowers of 64 x 64 pixels with 3, 10, 30 and 100 random hints:
energy 19.9, 13.9, 11.9, 8.9; equations 14.2, 11.8, 10.5, 8.6.

Both solve one sparse linear system for each photograph. Nothing is trained.
Without hints the result is grey.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import propagation
from colorjax.colorizer import Colorizer, Inputs
from colorjax.methods import checks
from colorjax.methods.baselines import untrained

FORMS = ('energy', 'equations')
"""The two forms, by the names used in settings and flags."""


def build(*, form: str = 'energy') -> Colorizer:
  """Builds the baseline; it accepts hints.

  The linear systems are solved on the host in float64, one photograph at a
  time. Pixels with hint_mask above 0 keep the color of their hint. The result
  has no gradient.

  Args:
    form: one of FORMS.

  Returns:
    A Colorizer with one prediction for each photograph.

  Raises:
    UserError: the form does not exist.
  """
  checks.check_choice('levin_form', form, FORMS)

  def predict(variables, inputs: Inputs) -> jax.Array:
    del variables
    lightness = inputs['lightness']
    if 'hint_ab' not in inputs:
      return untrained.constant(lightness, jnp.zeros(2))
    hint_ab = inputs['hint_ab']
    return jax.pure_callback(
        functools.partial(_fill_all, form=form),
        jax.ShapeDtypeStruct(hint_ab.shape, jnp.float32),
        lightness, hint_ab, inputs['hint_mask'], vmap_method='broadcast_all')

  return untrained.without_training(
      params={}, predict=predict,
      accepts=frozenset({'hint_ab', 'hint_mask'}))


def _fill_all(lightness, hint_ab, hint_mask, *, form) -> np.ndarray:
  """Applies `propagation.fill` over all leading axes."""
  lightness, hint_ab, hint_mask = map(
      np.asarray, (lightness, hint_ab, hint_mask))
  out = np.empty(hint_ab.shape, np.float32)
  for index in np.ndindex(hint_ab.shape[:-3]):
    out[index] = propagation.fill(
        lightness[index][..., 0], hint_ab[index], hint_mask[index][..., 0],
        form=form)
  return out
