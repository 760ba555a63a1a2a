"""Weighted sums of regression losses, written as text.

    mse
    huber(delta=0.01)
    huber(delta=0.01) + 0.1*perceptual(network='vgg19') + 0.02*colorfulness

A formula is a sum of terms. A term is a loss of `regression.LOSSES`, with
settings in parentheses if they differ from the defaults, and a positive weight
in front if it differs from 1. The settings of a loss are the keyword arguments
of its function. The text is parsed, never executed: settings are numbers,
strings and lists of them.
"""

import ast
import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from colorjax.errors import UserError
from colorjax.losses import regression

_FEATURES = 'features'  # argument of losses that use a pretrained network
_INPUTS = ('prediction', 'target', 'lightness', 'weights', _FEATURES)


@dataclasses.dataclass(frozen=True)
class Term:
  """One weighted loss of a sum.

  Attributes:
    weight: its factor, above 0.
    name: a key of `regression.LOSSES`.
    settings: all its settings, including defaults.
  """
  weight: float
  name: str
  settings: Mapping[str, Any]

  @property
  def needs_features(self) -> bool:
    """Whether the loss compares features of a pretrained network."""
    return _FEATURES in inspect.signature(
        regression.LOSSES[self.name]).parameters


@dataclasses.dataclass(frozen=True)
class Formula:
  """A sum of regression losses.

  Attributes:
    terms: at least one.
  """
  terms: tuple[Term, ...]

  @property
  def perceptual_term(self) -> Term | None:
    """The first term that needs a pretrained network, or None."""
    return next((term for term in self.terms if term.needs_features), None)

  def __call__(
      self,
      prediction: jax.Array,
      target: jax.Array,
      *,
      lightness: jax.Array,
      weights: jax.Array | None = None,
      features: regression.Features | None = None,
  ) -> dict[str, jax.Array]:
    """Evaluates the sum and its terms.

    Args:
      prediction: network ab [..., H, W, 2].
      target: network ab, same shape.
      lightness: L in [0, 100], [..., H, W, 1].
      weights: weights of pixels, at least 0, [..., H, W]; None for 1.
      features: the pretrained network; required if `perceptual_term` is not
        None.

    Returns:
      Values for each photograph, [...]: the sum as `loss` and, if there are
      several terms, each unweighted term as `loss/NAME`. If a loss occurs
      twice, the second is `loss/NAME/2`.
    """
    values: dict[str, jax.Array] = {}
    total = jnp.zeros(prediction.shape[:-3])
    for term in self.terms:
      options = dict(term.settings)
      if term.needs_features:
        options[_FEATURES] = features
      value = regression.LOSSES[term.name](
          prediction, target, lightness=lightness, weights=weights, **options)
      total = total + term.weight * value
      values[_unused_name(f'loss/{term.name}', values)] = value
    return {'loss': total} | (values if len(values) > 1 else {})


def parse(text: str) -> Formula:
  """Parses a formula.

  Args:
    text: a sum of losses, as described at the head of this file.

  Raises:
    UserError: the text is not a formula, or a loss or setting does not exist
      or has an invalid value. The message names the term and the choices.
  """
  text = ' '.join(text.split())
  try:
    tree = ast.parse(text, mode='eval').body
  except (SyntaxError, ValueError) as error:
    raise UserError(
        f'loss={text}: this is not a sum of losses; write for example '
        "'huber(delta=0.01)+0.1*ssim'") from error
  terms = tuple(_term(node, text) for node in _summands(tree))
  networks = dict.fromkeys(str(term.settings['network']) for term in terms
                           if term.needs_features)
  if len(networks) > 1:
    raise UserError(f'loss={text}: the terms use the networks '
                    f'{" and ".join(networks)}: give all the same network')
  return Formula(terms)


def _default_settings(name: str) -> dict[str, Any]:
  """Defaults of a loss's settings; `inspect.Parameter.empty` if required."""
  return {
      key: parameter.default for key, parameter in inspect.signature(
          regression.LOSSES[name]).parameters.items() if key not in _INPUTS}


def _signature(name: str) -> str:
  """A loss and the names of its settings, for example 'huber(delta)'."""
  settings = ', '.join(_default_settings(name))
  return f'{name}({settings})' if settings else name


def _summands(node: ast.expr) -> list[ast.expr]:
  """Splits a + b + c into [a, b, c]."""
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return [*_summands(node.left), *_summands(node.right)]
  return [node]


def _term(node: ast.expr, text: str) -> Term:
  """One term of the formula `text`; UserError if it is invalid."""
  source = ast.unparse(node)
  where = f'loss={text}: ' + ('' if source == text else f'term {source}: ')
  weight = 1.0
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
    weight, node = _weight(node.left, where), node.right
  keywords: list[ast.keyword] = []
  if isinstance(node, ast.Call) and not node.args:
    keywords, node = node.keywords, node.func
  if not isinstance(node, ast.Name):
    raise UserError(f'{where}write a term as NAME, NAME(setting=value) or '
                    'WEIGHT*NAME(...)')
  if node.id not in regression.LOSSES:
    raise UserError(
        f'{where}there is no loss {node.id}: choose one of '
        f'{", ".join(map(_signature, regression.LOSSES))}')
  settings = _default_settings(node.id)
  for keyword in keywords:
    if keyword.arg not in settings:
      raise UserError(
          f'{where}{node.id} has no setting {keyword.arg}: '
          + (f'it takes {", ".join(settings)}' if settings
             else 'it takes none'))
    settings[keyword.arg] = _setting(keyword, settings[keyword.arg], where)
  for name, value in settings.items():
    if value is inspect.Parameter.empty:
      raise UserError(f'{where}{node.id} needs a value for {name}')
  term = Term(weight, node.id, settings)
  _check_values(term, where)
  return term


def _weight(node: ast.expr, where: str) -> float:
  """The weight in front of a loss; `where` begins every error message."""
  value = _literal(node, where)
  if (isinstance(value, bool) or not isinstance(value, int | float)
      or not 0 < value < math.inf):
    raise UserError(f'{where}the weight of a loss must be a number above 0')
  return float(value)


def _setting(keyword: ast.keyword, default: Any, where: str) -> Any:
  """The value of a setting; UserError if its type is not the default's."""
  value = _literal(keyword.value, where)
  if default is None or default is inspect.Parameter.empty:
    return value
  if isinstance(default, float):
    if (isinstance(value, bool) or not isinstance(value, int | float)
        or not math.isfinite(value)):
      raise UserError(f'{where}{keyword.arg} must be a finite number')
    return float(value)
  if isinstance(default, tuple) and isinstance(value, list | tuple):
    value = tuple(value)
    if all(isinstance(x, type(default[0])) for x in value):
      return value
  elif type(value) is type(default):
    return value
  kind = {str: "quoted text such as 'a'", bool: 'True or False',
          int: 'an integer', tuple: "a list such as ['a', 'b']"}
  raise UserError(f'{where}{keyword.arg} must be {kind[type(default)]}')


def _literal(node: ast.expr, where: str) -> Any:
  """The value of a literal; UserError for any other expression."""
  try:
    return ast.literal_eval(node)
  except (ValueError, TypeError, MemoryError, RecursionError) as error:
    raise UserError(f'{where}{ast.unparse(node)} is not a number, quoted '
                    'text or a list of them') from error


def _check_values(term: Term, where: str) -> None:
  """Traces the loss on abstract arrays, so that it checks its own settings."""
  def zeros(channels: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)

  def run(ab: jax.Array, lightness: jax.Array) -> jax.Array:
    options = dict(term.settings)
    if term.needs_features:
      stages = term.settings['stages']
      options[_FEATURES] = lambda rgb: dict.fromkeys(stages, rgb)
    return regression.LOSSES[term.name](ab, ab, lightness=lightness, **options)

  try:
    jax.eval_shape(run, zeros(2), zeros(1))
  except ValueError as error:
    raise UserError(f'{where}{error}') from error


def _unused_name(name: str, used: Mapping[str, Any]) -> str:
  """`name`, or the first of name/2, name/3, ... that is not in use."""
  number = 2
  unused = name
  while unused in used:
    unused, number = f'{name}/{number}', number + 1
  return unused
