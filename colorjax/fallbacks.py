"""What every method can do, whatever it knows: regions and hints.

One piece of code does for a method what the method itself does not do, so that
evaluation, `colorize` and reports need not ask:

  region              the answer of the whole photograph, grey outside
  hint_ab, hint_mask  the answer, corrected at the hints and along the lightness
                      around them (`propagation.correct`)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import propagation
from colorjax.colorizer import Colorizer, Inputs, Variables, passes_options
from colorjax.errors import UserError

HINTS = frozenset({'hint_ab', 'hint_mask'})
"""The two inputs that hints are made of."""


def with_fallbacks(colorizer: Colorizer) -> Colorizer:
  """The method, accepting regions and hints.

  Args:
    colorizer: any method.

  Returns:
    A record whose `predict`, `sample` and `propose` accept region and hints
    beside all that the method accepts itself, and raise UserError for an input
    that it does not accept. `log_prob` and `draw` are the method's own; they
    too refuse what it does not accept.
  """
  predict, sample, propose = (
      colorizer.predict, colorizer.sample, colorizer.propose)
  accepts = colorizer.accepts | HINTS | {'region'}
  missing = accepts - colorizer.accepts
  split = functools.partial(_split, accepts=accepts, missing=missing)

  @passes_options(predict)
  def predict_all(variables, inputs, **options):
    own, rest = split(inputs)
    return _finish(predict(variables, own, **options)[None], inputs, rest)[0]

  @passes_options(sample)
  def sample_all(variables, inputs, keys, n, **options):
    own, rest = split(inputs)
    return _finish(sample(variables, own, keys, n, **options), inputs, rest)

  @passes_options(propose)
  def propose_all(variables, inputs, k, **options):
    own, rest = split(inputs)
    ab, probability = propose(variables, own, k, **options)
    return _finish(ab, inputs, rest), probability

  return dataclasses.replace(
      colorizer, predict=predict_all, sample=sample_all, propose=propose_all,
      log_prob=_refusing(colorizer.log_prob, colorizer.accepts),
      draw=_refusing(colorizer.draw, colorizer.accepts), accepts=accepts)


def _split(inputs: Inputs, *, accepts: frozenset[str],
           missing: frozenset[str]) -> tuple[Inputs, Inputs]:
  """What the method itself takes, and what is done for it."""
  _check(inputs, accepts)
  own = {name: x for name, x in inputs.items() if name not in missing}
  return own, {name: x for name, x in inputs.items() if name in missing}


def _check(inputs: Inputs, accepts: frozenset[str]) -> None:
  """UserError for an input that is not accepted, or that lacks its partner."""
  for name in inputs:
    if name != 'lightness' and name not in accepts:
      raise UserError(
          f'{name}: this method takes no such input; it takes '
          f'{", ".join(sorted(accepts)) or "lightness alone"}')
  if len(HINTS & inputs.keys()) == 1:
    raise UserError('hint_ab and hint_mask belong together: give both')


def _refusing(function: Callable[..., Any] | None, accepts: frozenset[str]
              ) -> Callable[..., Any] | None:
  if function is None:
    return None

  @passes_options(function)
  def checked(variables: Variables, inputs: Inputs, *args, **options):
    _check(inputs, accepts)
    return function(variables, inputs, *args, **options)

  return checked


def _finish(ab: jax.Array, inputs: Inputs, rest: Inputs) -> jax.Array:
  """Answers [k, B, H, W, 2] with the inputs that the method does not know."""
  if 'hint_ab' in rest:
    ab = jax.pure_callback(
        _correct_all, jax.ShapeDtypeStruct(ab.shape, jnp.float32),
        inputs['lightness'], ab, rest['hint_ab'], rest['hint_mask'],
        vmap_method='sequential')
  if 'region' in rest:
    ab = ab * rest['region']
  return ab


def _correct_all(lightness, ab, hint_ab, hint_mask) -> np.ndarray:
  """`propagation.correct` for each photograph."""
  lightness, ab, hint_ab, hint_mask = map(
      np.asarray, (lightness, ab, hint_ab, hint_mask))
  return np.stack([
      propagation.correct(lightness[i, ..., 0], ab[:, i], hint_ab[i],
                          hint_mask[i, ..., 0])
      for i in range(len(lightness))], axis=1)
