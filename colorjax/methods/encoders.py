"""The pretrained encoder of a trunk, where a method's network has one."""

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

_TRUNK = 'trunk'  # the attribute of the networks that holds it


def pretrained(body: Trunk) -> dict[str, Pretrained]:
  """The record for `Colorizer.backbones`; {} for a trunk without an encoder.

  Args:
    body: the trunk of a network that has it as its attribute `trunk`.
  """
  if not isinstance(body, EncoderTrunk):
    return {}
  name = body.backbone.name
  return {name: Pretrained(functools.partial(_load, name),
                           functools.partial(backbones.download, name))}


def _load(name: str, variables: Variables, path: pathlib.Path) -> Variables:
  """Puts the weights of a file where the trunk has them."""
  loaded = backbones.load(name, path, top=False)
  params, state = dict(variables['params']), dict(variables['model_state'])

  def put(tree: dict, like_of: dict) -> dict:
    inside = dict(tree[_TRUNK])
    inside[PRETRAINED_ENCODER] = like_of
    return {**tree, _TRUNK: inside}

  kept = state[FROZEN][_TRUNK][PRETRAINED_ENCODER]
  state[FROZEN] = put(state[FROZEN], backbones.restrict(loaded, kept))
  if PRETRAINED_ENCODER in params[_TRUNK]:
    like = {'params': params[_TRUNK][PRETRAINED_ENCODER]}
    params = put(params, backbones.restrict(loaded, like)['params'])
  return {**variables, 'params': params, 'model_state': state}
