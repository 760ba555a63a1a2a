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

from colorjax import propagation
from colorjax.colorizer import Colorizer, Inputs
from colorjax.methods import checks
from colorjax.methods.baselines import untrained

FORMS = ('energy', 'equations')
"""What is solved, by the name that settings and flags use."""


def build(*, form: str = 'energy') -> Colorizer:
  """Levin's scribbles as a Colorizer that accepts hints.

  With hints, the linear system is solved on the host, in float64, one
  photograph after the other. A hint is given where hint_mask is above 0, and
  the answer there is the hint itself. The answer has no gradient.

  Args:
    form: one of FORMS.

  Returns:
    The record of functions. UserError for an unknown form.
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
  """`propagation.fill` over any leading axes."""
  lightness, hint_ab, hint_mask = map(
      np.asarray, (lightness, hint_ab, hint_mask))
  out = np.empty(hint_ab.shape, np.float32)
  for place in np.ndindex(hint_ab.shape[:-3]):
    out[place] = propagation.fill(
        lightness[place][..., 0], hint_ab[place], hint_mask[place][..., 0],
        form=form)
  return out
