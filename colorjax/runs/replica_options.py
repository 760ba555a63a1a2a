"""What the replicas of a run differ in, and the run that each is equal to.

All replicas see the same batches, those of the run's seed. So replica i of a
run with `seed=5, replicas=8` is equal to the run of a single model with
`seed=5+i, data_seed=5`, and the replica with `learning_rate=1e-4` of a run with
`vmap` is equal to the run with that learning rate.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colorjax.errors import UserError
from colorjax.runs.options import TrainOptions

SEED = 'seed'
"""The option whose value decides initialization and dropout of a replica."""

_OPTIMIZING = ('learning_rate', 'weight_decay', 'clip_norm',
               'encoder_learning_rate')
SWEPT = (*_OPTIMIZING, SEED)
"""Options that `vmap` accepts: numbers that the compiled step receives."""


def differences(options: TrainOptions) -> list[dict[str, float | int]]:
  """Returns the options of each replica that differ from those of the run.

  Args:
    options: of the run.

  Returns:
    A mapping from option to value for each replica; [] for a run of one model.

  Raises:
    UserError: `replicas` or `vmap` is wrong, or they contradict other options.
  """
  number = options.replicas
  if number is not None and number < 1:
    raise UserError(f'replicas={number}: must be at least 1')
  if not options.vmap:
    return [{SEED: options.seed + i} for i in range(number or 0)]
  for name, values in options.vmap.items():
    _check(name, values, options)
  lengths = {name: len(values) for name, values in options.vmap.items()}
  if len(set(lengths.values())) > 1:
    found = ', '.join(f'{name} has {n}' for name, n in lengths.items())
    raise UserError(f'vmap: {found} values; replica i takes value i of each, '
                    'so give as many of each')
  count = min(lengths.values())
  if number not in (None, count):
    raise UserError(
        f'replicas={number}: vmap gives {count} values, one for each replica; '
        'leave replicas out, and list the seeds in vmap too (seed=0,1,0,1)')
  return [{name: values[i] for name, values in options.vmap.items()}
          for i in range(count)]


def arrays(differing: Sequence[Mapping[str, float | int]]
           ) -> dict[str, np.ndarray]:
  """Returns the values of all replicas, float32 or int32 [R] by option.

  Args:
    differing: what `differences` returned, not empty.
  """
  found = {}
  for name in differing[0]:
    values = [one[name] for one in differing]
    if name == SEED:  # JAX, too, keeps the lower 32 bits of a seed.
      found[name] = np.asarray(values, np.int64).astype(np.int32)
    else:
      found[name] = np.asarray(values, np.float32)
    if name == 'clip_norm':  # 0 does not clip, and neither does infinity.
      found[name][found[name] == 0] = np.inf
  return found


def with_values(options: TrainOptions, values: Mapping[str, Any]
                ) -> TrainOptions:
  """Returns the options of one replica.

  Args:
    options: of the run.
    values: of the replica, numbers or traced scalars by option.
  """
  own = {name: value for name, value in values.items() if name in _OPTIMIZING}
  return dataclasses.replace(
      options, seed=values.get(SEED, options.seed),
      optimizing=dataclasses.replace(options.optimizing, **own))


def describe(values: Mapping[str, Any]) -> str:
  """What a replica differs in, such as 'learning_rate=0.001'."""
  return ', '.join(f'{name}={value:g}' if name != SEED else f'{name}={value}'
                   for name, value in values.items())


def _check(name: str, values: Sequence[float | int], options: TrainOptions
           ) -> None:
  """Raises UserError unless replicas may have these values of an option."""
  text = f'vmap={name}={",".join(map(str, values))}'
  if name not in SWEPT:
    raise UserError(
        f'{text}: the replicas of one program cannot differ in {name}, only in '
        f'{", ".join(SWEPT)}; sweep it with launch.sweep')
  if not values:
    raise UserError(f'{text}: give a value for each replica')
  for value in values:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if name == SEED and not is_whole:
      raise UserError(f'{text}: {value} is not an integer')
    if name != SEED and not (
        isinstance(value, (int, float)) and 0 <= value < math.inf):
      raise UserError(f'{text}: {value} is not a number of at least 0')
  if name != SEED and options.player_optimizing:
    raise UserError(
        f'{text}: {", ".join(options.player_optimizing)} has an optimizer of '
        'its own, so replicas can differ in the seed only; sweep it with '
        'launch.sweep')
  if name == 'encoder_learning_rate' and not (
      options.optimizing.encoder_learning_rate and all(values)):
    raise UserError(
        f'{text}: 0 would freeze the encoder, which changes the program; give '
        'values above 0, and set encoder_learning_rate to one of them')
