"""The pretrained network that a loss formula looks through.

A method whose loss may hold `perceptual` keeps that network's variables in
model_state[FROZEN][PERCEPTUAL], where no step changes them.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import backbones
from colorjax.colorizer import FROZEN, Pretrained, Variables
from colorjax.errors import UserError
from colorjax.losses import formula, regression

PERCEPTUAL = 'perceptual'
"""Where model_state[FROZEN] holds the variables of the network."""


class Perception:
  """What a formula needs of a pretrained network; nothing if it needs none.

  Attributes:
    pretrained: the record for `Colorizer.backbones`, by the network's name; {}
      if the formula looks through no network.
  """

  def __init__(self, loss: formula.Formula, *, dtype: str = 'float32') -> None:
    """Builds the network that the formula names, without weights.

    Args:
      loss: the formula.
      dtype: compute type of the network.

    Raises:
      UserError: the network or one of the stages does not exist.
    """
    self.pretrained: Mapping[str, Pretrained] = {}
    if loss.perceptual_term is None:
      return
    name = loss.perceptual_term.settings['network']
    stages = [stage for term in loss.terms if term.needs_features
              for stage in term.settings['stages']]
    whole = backbones.build(name, top=False)
    for stage in stages:
      if stage not in whole.intermediates:
        raise UserError(f'loss: {name} has no stage {stage!r}: choose among '
                        f'{", ".join(whole.intermediates)}')
    last = max(stages, key=whole.intermediates.index)
    self._name = name
    self._backbone = backbones.build(name, top=False, upto=last, dtype=dtype)
    self.pretrained = {name: Pretrained(self._load, self._download)}

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Random variables, {PERCEPTUAL: ...}; {} if there is no network."""
    if not self.pretrained:
      return {}
    size = self._backbone.image_size
    return {PERCEPTUAL: self._module.init(
        key, jnp.zeros((1, size, size, 3)), train=False)}

  def features(self, model_state: Mapping[str, Any]
               ) -> regression.Features | None:
    """The network with its weights; None if the formula needs none."""
    if not self.pretrained:
      return None
    variables = model_state[FROZEN][PERCEPTUAL]

    def features(rgb: jax.Array) -> Mapping[str, jax.Array]:
      stages = self._module.apply(
          variables, self._backbone.preprocess(rgb), train=False)
      assert isinstance(stages, dict)
      return stages

    return features

  @property
  def _module(self) -> nn.Module:
    return self._backbone.module

  def _load(self, variables: Variables, path: pathlib.Path) -> Variables:
    state = variables['model_state']
    kept = backbones.restrict(
        backbones.load(self._name, path, top=False), state[FROZEN][PERCEPTUAL])
    return {**variables, 'model_state': {
        **state, FROZEN: {**state[FROZEN], PERCEPTUAL: kept}}}

  def _download(self) -> pathlib.Path:
    return backbones.download(self._name, top=False)


def joined(own: Mapping[str, Pretrained], of_loss: Mapping[str, Pretrained]
           ) -> dict[str, Pretrained]:
  """The pretrained networks of a method and those of its loss.

  Where both have the same network, one file fills both places.

  Args:
    own: of the method; its download serves both.
    of_loss: `Perception.pretrained`.

  Returns:
    All of them by name.
  """
  both = {**own, **of_loss}
  for name in own.keys() & of_loss.keys():
    both[name] = _in_both_places(own[name], of_loss[name])
  return both


def _in_both_places(first: Pretrained, second: Pretrained) -> Pretrained:
  def load(variables: Variables, path: pathlib.Path) -> Variables:
    return second.load(first.load(variables, path), path)

  return Pretrained(load, first.download)
