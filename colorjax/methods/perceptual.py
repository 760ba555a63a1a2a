"""The pretrained network of a perceptual loss.

A method whose loss formula contains `perceptual` keeps the network's variables
in model_state[FROZEN][PERCEPTUAL], where training does not change them.
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
"""Key of the network's variables in model_state[FROZEN]."""


class PerceptualNetwork:
  """The pretrained network of a loss formula; empty if it has none.

  Attributes:
    pretrained: entries for `Colorizer.backbones`, by the network's name; {} if
      the formula needs no network.
  """

  def __init__(self, loss: formula.Formula, *, dtype: str = 'float32') -> None:
    """Builds the network that the formula names, without variables.

    Args:
      loss: the formula.
      dtype: compute type of the network.

    Raises:
      UserError: the network or one of its stages does not exist.
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
        raise UserError(f'loss: {name} has no stage {stage!r}: choose one of '
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
    """Returns the network as a function, or None if the formula needs none.

    Args:
      model_state: holds the network's variables.

    Returns:
      A function from sRGB [B, H, W, 3] in [0, 1] to the stages by name.
    """
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


def merge_backbones(
    own: Mapping[str, Pretrained], of_loss: Mapping[str, Pretrained]
) -> dict[str, Pretrained]:
  """Merges the pretrained networks of a method and of its loss.

  If both use the same network, one weights file is loaded for both.

  Args:
    own: networks of the method. If the loss uses one of them too, the method's
      file is downloaded.
    of_loss: `PerceptualNetwork.pretrained`.

  Returns:
    All networks by name, for `Colorizer.backbones`.
  """
  merged = {**own, **of_loss}
  for name in own.keys() & of_loss.keys():
    merged[name] = _load_both(own[name], of_loss[name])
  return merged


def _load_both(first: Pretrained, second: Pretrained) -> Pretrained:
  """Loads one file for two networks."""
  def load(variables: Variables, path: pathlib.Path) -> Variables:
    return second.load(first.load(variables, path), path)

  return Pretrained(load, first.download)
