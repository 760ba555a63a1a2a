"""Loads the weights of a method's pretrained encoder."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def pretrained(body: Trunk, within: Sequence[str] = ()
               ) -> dict[str, Pretrained]:
  """Returns the entry of the encoder for `Colorizer.backbones`.

  Args:
    body: the trunk of a network, which has it as its attribute `trunk`.
    within: keys under which `params` and collections hold the variables of the
      network, if the method has several networks.

  Returns:
    The entry by the encoder's name; {} if the trunk has no pretrained encoder.
  """
  if not isinstance(body, EncoderTrunk):
    return {}
  name = body.backbone.name
  place = (*within, _TRUNK, PRETRAINED_ENCODER)
  return {name: Pretrained(functools.partial(_load, name, place),
                           functools.partial(backbones.download, name))}


def _load(name: str, place: Sequence[str], variables: Variables,
          path: pathlib.Path) -> Variables:
  """Replaces the encoder's variables, at `place`, by the weights of a file."""
  loaded = backbones.load(name, path, top=False)
  params, state = variables['params'], dict(variables['model_state'])
  state[FROZEN] = _replaced(state[FROZEN], place, lambda frozen:
                            backbones.restrict(loaded, frozen))
  if PRETRAINED_ENCODER in functools.reduce(
      lambda tree, key: tree[key], place[:-1], params):
    params = _replaced(params, place, lambda trained: backbones.restrict(
        loaded, {'params': trained})['params'])
  return {**variables, 'params': params, 'model_state': state}


def _replaced(tree: Mapping[str, Any], place: Sequence[str],
              change: Callable[[Any], Any]) -> dict[str, Any]:
  """A tree whose entry at `place` is replaced by `change(entry)`."""
  key, *rest = place
  return {**tree, key: _replaced(tree[key], rest, change) if rest
          else change(tree[key])}
