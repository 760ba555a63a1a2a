"""Sums of regression losses, written as text.

    mse
    huber(delta=0.01)
    huber(delta=0.01) + 0.1*perceptual(network='vgg19') + 0.02*colorfulness

A formula is a sum of terms; a term is a loss of `regression.LOSSES`, its
settings in brackets where they differ from the defaults, and a weight above 0
before it where that differs from 1. The settings of a loss are read from its
signature. Nothing in the text is evaluated: settings are numbers, strings and
lists of them.
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

FEATURES = 'features'
"""Argument of losses that look through a pretrained network."""

_INPUTS = ('prediction', 'target', 'lightness', 'weights', FEATURES)


@dataclasses.dataclass(frozen=True)
class Term:
  """One loss of a sum.

  Attributes:
    weight: what it is multiplied by, above 0.
    name: a key of `regression.LOSSES`.
    settings: all its settings, defaults included.
  """
  weight: float
  name: str
  settings: Mapping[str, Any]

  @property
  def needs_features(self) -> bool:
    """Whether the loss looks through a pretrained network."""
    return FEATURES in inspect.signature(
        regression.LOSSES[self.name]).parameters


@dataclasses.dataclass(frozen=True)
class Formula:
  """A sum of regression losses.

  Attributes:
    terms: at least one.
  """
  terms: tuple[Term, ...]

  @property
  def pretrained(self) -> Term | None:
    """The first term that looks through a pretrained network, if any."""
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
    """The sum and, where there are several terms, each of them.

    Args:
      prediction: network ab [..., H, W, 2].
      target: network ab, same shape.
      lightness: L in [0, 100], [..., H, W, 1].
      weights: of pixels, at least 0, [..., H, W]; None for 1.
      features: the pretrained network; needed if `pretrained` is not None.

    Returns:
      For each photograph, [...]: `loss`, and `loss/NAME` of each term before
      its weight. A loss that stands twice is `loss/NAME` and `loss/NAME/2`.
    """
    values: dict[str, jax.Array] = {}
    total = jnp.zeros(prediction.shape[:-3])
    for term in self.terms:
      options = dict(term.settings)
      if term.needs_features:
        options[FEATURES] = features
      value = regression.LOSSES[term.name](
          prediction, target, lightness=lightness, weights=weights, **options)
      total = total + term.weight * value
      values[_free_name(f'loss/{term.name}', values)] = value
    return {'loss': total} | (values if len(values) > 1 else {})


def parse(text: str) -> Formula:
  """Reads a formula.

  Args:
    text: see the module.

  Returns:
    The formula. UserError, in one line, names the term that is wrong and what
    there is in its place.
  """
  text = ' '.join(text.split())
  try:
    tree = ast.parse(text, mode='eval').body
  except (SyntaxError, ValueError) as error:
    raise UserError(
        f'loss={text}: is not a sum of losses such as '
        "'huber(delta=0.01)+0.1*ssim'") from error
  terms = tuple(_term(node, text) for node in _summands(tree))
  networks = dict.fromkeys(str(term.settings['network']) for term in terms
                           if term.needs_features)
  if len(networks) > 1:
    raise UserError(f'loss={text}: looks through {" and ".join(networks)}; '
                    'all terms take the same network')
  return Formula(terms)


def settings_of(name: str) -> dict[str, Any]:
  """The settings that a loss takes, with their defaults.

  A setting without a default has `inspect.Parameter.empty`.

  Args:
    name: a key of `regression.LOSSES`.
  """
  return {
      key: parameter.default for key, parameter in inspect.signature(
          regression.LOSSES[name]).parameters.items() if key not in _INPUTS}


def _with_settings(name: str) -> str:
  """A loss and the names of its settings, 'huber(delta)'."""
  settings = ', '.join(settings_of(name))
  return f'{name}({settings})' if settings else name


def _summands(node: ast.expr) -> list[ast.expr]:
  """a + b + c as [a, b, c]."""
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return [*_summands(node.left), *_summands(node.right)]
  return [node]


def _term(node: ast.expr, text: str) -> Term:
  source = ast.unparse(node)
  refusal = f'loss={text}: ' + (
      '' if source == text else f'the term {source}: ')
  weight = 1.0
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
    weight, node = _weight(node.left, refusal), node.right
  keywords: list[ast.keyword] = []
  if isinstance(node, ast.Call) and not node.args:
    keywords, node = node.keywords, node.func
  if not isinstance(node, ast.Name):
    raise UserError(f'{refusal}is not NAME, NAME(setting=value) or '
                    'WEIGHT*NAME(...)')
  if node.id not in regression.LOSSES:
    raise UserError(
        f'{refusal}no loss {node.id}: choose one of '
        f'{", ".join(map(_with_settings, regression.LOSSES))}')
  settings = settings_of(node.id)
  for keyword in keywords:
    if keyword.arg not in settings:
      raise UserError(
          f'{refusal}{node.id} has no setting {keyword.arg}: '
          + (f'it takes {", ".join(settings)}' if settings
             else 'it takes none'))
    settings[keyword.arg] = _setting(
        keyword, settings[keyword.arg], refusal)
  for name, value in settings.items():
    if value is inspect.Parameter.empty:
      raise UserError(f'{refusal}{node.id} needs a value for {name}')
  term = Term(weight, node.id, settings)
  _check_values(term, refusal)
  return term


def _weight(node: ast.expr, refusal: str) -> float:
  value = _literal(node, refusal)
  if (isinstance(value, bool) or not isinstance(value, int | float)
      or not 0 < value < math.inf):
    raise UserError(f'{refusal}the weight before a loss is a number above 0')
  return float(value)


def _setting(keyword: ast.keyword, default: Any, refusal: str) -> Any:
  """The value given to a setting, of the kind that its default has."""
  value = _literal(keyword.value, refusal)
  if default is None or default is inspect.Parameter.empty:
    return value
  if isinstance(default, float):
    if (isinstance(value, bool) or not isinstance(value, int | float)
        or not math.isfinite(value)):
      raise UserError(f'{refusal}{keyword.arg} is a number')
    return float(value)
  if isinstance(default, tuple) and isinstance(value, list | tuple):
    value = tuple(value)
    if all(isinstance(x, type(default[0])) for x in value):
      return value
  elif type(value) is type(default):
    return value
  kind = {str: "text in quotes such as 'a'", bool: 'True or False',
          int: 'a whole number', tuple: "a list such as ['a', 'b']"}
  raise UserError(f'{refusal}{keyword.arg} is {kind[type(default)]}')


def _literal(node: ast.expr, refusal: str) -> Any:
  try:
    return ast.literal_eval(node)
  except (ValueError, TypeError, MemoryError, RecursionError) as error:
    raise UserError(f'{refusal}{ast.unparse(node)} is not a number, quoted '
                    'text or a list of them') from error


def _check_values(term: Term, refusal: str) -> None:
  """Lets the loss itself refuse a value, on shapes alone."""
  def zeros(channels: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)

  def run(ab: jax.Array, lightness: jax.Array) -> jax.Array:
    options = dict(term.settings)
    if term.needs_features:
      stages = term.settings['stages']
      options[FEATURES] = lambda rgb: dict.fromkeys(stages, rgb)
    return regression.LOSSES[term.name](ab, ab, lightness=lightness, **options)

  try:
    jax.eval_shape(run, zeros(2), zeros(1))
  except ValueError as error:
    raise UserError(f'{refusal}{error}') from error


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
  """`name`, or the first of name/2, name/3, ... that is not taken."""
  number = 2
  free = name
  while free in taken:
    free, number = f'{name}/{number}', number + 1
  return free
