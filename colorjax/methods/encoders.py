"""Loads the weights of a method's pretrained encoder."""

import functools
import pathlib

from colorjax import backbones
from colorjax.colorizer import (
    FROZEN,
    PRETRAINED_ENCODER,
    Pretrained,
    Variables,
)
from colorjax.models.encoder_trunk import EncoderTrunk
from colorjax.models.trunk import Trunk

_TRUNK = 'trunk'  # attribute of the networks that contains the trunk


def pretrained(body: Trunk) -> dict[str, Pretrained]:
  """Returns the entry of the encoder for `Colorizer.backbones`.

  Args:
    body: the trunk of a network, which has it as its attribute `trunk`.

  Returns:
    The entry by the encoder's name; {} if the trunk has no pretrained encoder.
  """
  if not isinstance(body, EncoderTrunk):
    return {}
  name = body.backbone.name
  return {name: Pretrained(functools.partial(_load, name),
                           functools.partial(backbones.download, name))}


def _load(name: str, variables: Variables, path: pathlib.Path) -> Variables:
  """Replaces the encoder's variables by the weights of a file."""
  loaded = backbones.load(name, path, top=False)
  params, state = dict(variables['params']), dict(variables['model_state'])

  def replace(tree: dict, encoder: dict) -> dict:
    return {**tree, _TRUNK: {**tree[_TRUNK], PRETRAINED_ENCODER: encoder}}

  frozen = state[FROZEN][_TRUNK][PRETRAINED_ENCODER]
  state[FROZEN] = replace(state[FROZEN], backbones.restrict(loaded, frozen))
  if PRETRAINED_ENCODER in params[_TRUNK]:
    trained = {'params': params[_TRUNK][PRETRAINED_ENCODER]}
    params = replace(params, backbones.restrict(loaded, trained)['params'])
  return {**variables, 'params': params, 'model_state': state}
