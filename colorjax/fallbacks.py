"""Inputs and options for methods that do not support them themselves.

With these fallbacks, evaluation, `colorize` and reports can use regions, hints
and references with every method:

  region              the method colors the whole photograph, and ab is set to 0
                      outside the region
  hint_ab, hint_mask  the coloring is corrected at the hints and, along the
                      lightness, around them (`propagation.correct`)
  reference           the coloring gets the palette of the reference
                      (`palette.transfer`), before the hints

The option `saturation` multiplies the predicted ab. With the option
`candidates`, proposals are chosen out of many samples (`spread.choose`).
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, palette, propagation, spread
from colorjax.colorizer import (
    Colorizer,
    Inputs,
    Variables,
    constant_keys,
    options_for,
    passes_options,
)
from colorjax.errors import UserError

HINTS = frozenset({'hint_ab', 'hint_mask'})
"""The two inputs of hints."""

_CORRECTED_AT_ONCE = 8  # photographs; each needs 70 MB at 256 x 256


def with_fallbacks(colorizer: Colorizer) -> Colorizer:
  """Adds the inputs that a method does not accept itself.

  Args:
    colorizer: any method.

  Returns:
    A method whose `predict`, `sample` and `propose` accept regions, hints,
    references and the inputs of the original method. `log_prob`,
    `log_prob_and_error` and `draw` accept only the inputs of the original
    method. All of them raise UserError for other inputs.
  """
  predict, sample, propose = (
      colorizer.predict, colorizer.sample, colorizer.propose)
  accepts = colorizer.accepts | HINTS | {'region', 'reference'}
  missing = accepts - colorizer.accepts
  split = functools.partial(_split, accepts=accepts, missing=missing)

  @passes_options(predict)
  def predict_all(variables, inputs, **options):
    supported, rest = split(inputs)
    ab = predict(variables, supported, **options)
    return _apply_fallbacks(ab[None], inputs, rest)[0]

  @passes_options(sample)
  def sample_all(variables, inputs, keys, n, **options):
    supported, rest = split(inputs)
    ab = sample(variables, supported, keys, n, **options)
    return _apply_fallbacks(ab, inputs, rest)

  @passes_options(propose)
  def propose_all(variables, inputs, k, **options):
    supported, rest = split(inputs)
    ab, probability = propose(variables, supported, k, **options)
    return _apply_fallbacks(ab, inputs, rest), probability

  return dataclasses.replace(
      colorizer, predict=predict_all, sample=sample_all, propose=propose_all,
      log_prob=_with_check(colorizer.log_prob, colorizer.accepts),
      log_prob_and_error=_with_check(
          colorizer.log_prob_and_error, colorizer.accepts),
      draw=_with_check(colorizer.draw, colorizer.accepts), accepts=accepts)


def with_saturation(colorizer: Colorizer) -> Colorizer:
  """Adds the option `saturation` to a method that does not have it itself.

  Args:
    colorizer: any method.

  Returns:
    A method whose `predict`, `sample` and `propose` have the option
    `saturation`, a factor of ab: 0 is grey, 1 changes nothing, and above 1 the
    colors are stronger. `log_prob` and `draw` are those of the method, because
    a density has no saturation.
  """
  if 'saturation' in colorizer.options:
    return colorizer
  predict, sample, propose = (
      colorizer.predict, colorizer.sample, colorizer.propose)

  @passes_options(predict)
  def predict_scaled(variables, inputs, *, saturation=1.0, **options):
    return saturation * predict(variables, inputs, **options)

  @passes_options(sample)
  def sample_scaled(variables, inputs, keys, n, *, saturation=1.0,
                    **options):
    return saturation * sample(variables, inputs, keys, n, **options)

  @passes_options(propose)
  def propose_scaled(variables, inputs, k, *, saturation=1.0, **options):
    ab, probability = propose(variables, inputs, k, **options)
    return saturation * ab, probability

  return dataclasses.replace(colorizer, predict=predict_scaled,
                             sample=sample_scaled, propose=propose_scaled)


def with_candidates(colorizer: Colorizer) -> Colorizer:
  """Adds the option `candidates` to a method with random samples.

  With candidates=M, `propose` draws M samples with constant keys and returns k
  of them that differ and stand for the others, with probabilities
  (`spread.choose`). It then takes the options of `sample` too, and
  `max_proposals` is no limit for k. With 0, the default, the proposals are
  those of the method: M samples take M / k times as long.

  Args:
    colorizer: any method.

  Returns:
    The method with this option; the same method if it is deterministic or has
    the option itself.
  """
  if colorizer.is_deterministic or 'candidates' in colorizer.options:
    return colorizer
  sample, propose = colorizer.sample, colorizer.propose

  @passes_options(propose, sample)
  def propose_chosen(variables, inputs, k, *, candidates=0, **options):
    spread.check_candidates(candidates, k)
    if not candidates:
      return propose(variables, inputs, k, **options_for(propose, options))
    return spread.choose(
        sample(variables, inputs, constant_keys(inputs), candidates,
               **options_for(sample, options)), k)

  return dataclasses.replace(colorizer, propose=propose_chosen)


def _split(inputs: Inputs, *, accepts: frozenset[str],
           missing: frozenset[str]) -> tuple[Inputs, Inputs]:
  """Splits inputs into those for the method and those for the fallbacks."""
  _check(inputs, accepts)
  supported = {name: x for name, x in inputs.items() if name not in missing}
  return supported, {name: x for name, x in inputs.items() if name in missing}


def _check(inputs: Inputs, accepts: frozenset[str]) -> None:
  """Raises UserError for an unknown input, or for one of two hint inputs."""
  for name in inputs:
    if name != 'lightness' and name not in accepts:
      raise UserError(
          f'{name}: this method does not accept this input; it accepts '
          f'{", ".join(sorted(accepts)) or "lightness only"}')
  if len(HINTS & inputs.keys()) == 1:
    raise UserError('hint_ab and hint_mask must be given together')


def _with_check(function: Callable[..., Any] | None, accepts: frozenset[str]
                ) -> Callable[..., Any] | None:
  """Adds a check of the inputs to a prediction function."""
  if function is None:
    return None

  @passes_options(function)
  def checked(variables: Variables, inputs: Inputs, *args, **options):
    _check(inputs, accepts)
    return function(variables, inputs, *args, **options)

  return checked


def _apply_fallbacks(ab: jax.Array, inputs: Inputs, rest: Inputs) -> jax.Array:
  """Applies the inputs in `rest` to colorings [k, B, H, W, 2]."""
  if 'reference' in rest:
    _, reference_ab = color.split_lightness(rest['reference'])
    ab = palette.transfer(ab, reference_ab)
  if 'hint_ab' in rest:
    ab = jax.pure_callback(
        _correct_all, jax.ShapeDtypeStruct(ab.shape, jnp.float32),
        inputs['lightness'], ab, rest['hint_ab'], rest['hint_mask'],
        vmap_method='sequential')
  if 'region' in rest:
    ab = ab * rest['region']
  return ab


def _correct_all(lightness, ab, hint_ab, hint_mask) -> np.ndarray:
  """Applies `propagation.correct` to each photograph, on the host."""
  lightness, ab, hint_ab, hint_mask = map(
      np.asarray, (lightness, ab, hint_ab, hint_mask))

  def correct(i):
    return propagation.correct(lightness[i, ..., 0], ab[:, i], hint_ab[i],
                               hint_mask[i, ..., 0])

  # SciPy lets other threads run while it factorizes the matrix.
  with concurrent.futures.ThreadPoolExecutor(
      min(_CORRECTED_AT_ONCE, os.cpu_count() or 1)) as pool:
    return np.stack(list(pool.map(correct, range(len(lightness)))), axis=1)
