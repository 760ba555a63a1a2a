"""Everything that one step of training changes, as one pytree."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import optax

from colorjax.colorizer import FROZEN, Variables
from colorjax.errors import UserError

Optimizers: TypeAlias = (
    optax.GradientTransformation | Mapping[str, optax.GradientTransformation])
"""One optimizer for everything that is trained, or one for each player."""


class TrainState(flax.struct.PyTreeNode):
  """State of a training run.

  Attributes:
    step: int32 scalar, number of updates made.
    params: the trained parameters, float32.
    model_state: the network's other state (batch statistics), {} without.
    opt_state: the optimizer's state; by player where there are several.
    ema: exponential moving average of `params` and of `model_state` without
      its frozen part, as {'params', 'model_state'}, or None when it is off.
    failed: bool scalar. A step with a number that is not finite, be it in its
      loss, its gradient or what it makes of the state, sets it and changes
      nothing else; while it is set, steps change nothing. The host can look a
      step late and still finds the state before the bad step.
  """
  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any
  failed: jax.Array

  @property
  def variables(self) -> Variables:
    """What evaluation and inference use: the average when there is one.

    Averaged parameters go with averaged batch statistics: the live ones are
    those of other activations.
    """
    if self.ema is None:
      return {'params': self.params, 'model_state': self.model_state}
    frozen, _ = without_frozen(self.model_state)
    return {'params': self.ema['params'],
            'model_state': {**self.ema['model_state'], **frozen}}


def create_state(
    variables: Variables,
    optimizer: Optimizers,
    *,
    ema: bool = False,
    players: Iterable[str] = (),
) -> TrainState:
  """The state before the first step.

  Args:
    variables: what `Colorizer.init` returns.
    optimizer: whose state is initialized; one for all, or one for each player
      by name.
    ema: keep a moving average; set it where the step has a decay.
    players: names of `Colorizer.players`, each with an optimizer state of its
      own; none: one optimizer state for all parameters.

  Raises:
    UserError: the optimizers are not those of the players.
  """
  params, model_state = variables['params'], variables['model_state']
  names = tuple(players)
  optimizers = by_player(optimizer, names or (None,))
  average = {'params': params, 'model_state': without_frozen(model_state)[1]}
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state=(
          {name: optimizers[name].init(params[name]) for name in names}
          if names else optimizers[None].init(params)),
      ema=average if ema else None,
      failed=jnp.zeros((), bool))


def by_player(optimizer: Optimizers, players: Iterable[str | None]
              ) -> dict[str | None, optax.GradientTransformation]:
  """The optimizer of each player.

  Args:
    optimizer: one for all, or one for each player by name.
    players: names; None alone where a method has no players.

  Raises:
    UserError: the names of the optimizers are not those of the players.
  """
  names = list(players)
  if not isinstance(optimizer, Mapping):
    return dict.fromkeys(names, optimizer)
  if set(optimizer) != set(names):
    wanted = ', '.join(name for name in names if name is not None)
    raise UserError(
        f'optimizers for {", ".join(sorted(optimizer)) or "nobody"}: give one '
        f'for each of {wanted}' if wanted else
        f'optimizers for {", ".join(sorted(optimizer))}: this method has no '
        'players, give one optimizer')
  return {name: optimizer[name] for name in names if name is not None}


def without_frozen(model_state: Mapping[str, Any]
                   ) -> tuple[dict[str, Any], dict[str, Any]]:
  """The frozen collection, {} if there is none, and all other collections."""
  frozen = {name: tree for name, tree in model_state.items() if name == FROZEN}
  rest = {name: tree for name, tree in model_state.items() if name != FROZEN}
  return frozen, rest
