"""The training state: everything that a step changes, as one pytree."""

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
"""One optimizer for all parameters, or one for each player by name."""


class TrainState(flax.struct.PyTreeNode):
  """State of a training run.

  If a run has replicas, all arrays but `step` and the frozen weights have an
  axis of replicas before their others, see `training.replicas`.

  Attributes:
    step: int32 scalar, number of updates made.
    params: the trained parameters, float32.
    model_state: other state of the network, such as batch statistics and
      frozen weights; {} if there is none.
    opt_state: state of the optimizer; by player where there are several.
    ema: exponential moving average of `params` and of `model_state` without
      its frozen part, as {'params', 'model_state'}; None if it is off.
    failed: bool scalar. A step whose loss, gradient or new state is not finite
      sets it and changes nothing else. While it is set, steps change nothing.
      The host may therefore check one step late and still find the state
      before the failed step.
  """
  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any
  failed: jax.Array

  @property
  def variables(self) -> Variables:
    """Variables for evaluation and inference: the average if there is one.

    Averaged parameters are combined with averaged batch statistics, because
    the current statistics belong to the activations of other parameters.
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
  """Makes the state before the first step.

  Args:
    variables: what `Colorizer.init` returns.
    optimizer: one optimizer, or one for each player by name.
    ema: whether to keep a moving average; needed if the step has an
      `ema_decay`.
    players: names of `Colorizer.players`, each of which gets its own optimizer
      state; if empty, one optimizer state is made for all parameters.

  Raises:
    UserError: the names of the optimizers are not those of the players.
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
  """Returns the optimizer of each player.

  Args:
    optimizer: one optimizer for all, or one for each player by name.
    players: names of the players; `[None]` for a method without players.

  Raises:
    UserError: the names of the optimizers are not those of the players.
  """
  names = list(players)
  if not isinstance(optimizer, Mapping):
    return dict.fromkeys(names, optimizer)
  if set(optimizer) != set(names):
    wanted = ', '.join(name for name in names if name is not None)
    raise UserError(
        f'optimizers for {", ".join(sorted(optimizer)) or "no player"}: give '
        f'one for each of {wanted}' if wanted else
        f'optimizers for {", ".join(sorted(optimizer))}: this method has no '
        'players; give one optimizer')
  return {name: optimizer[name] for name in names if name is not None}


def without_frozen(model_state: Mapping[str, Any]
                   ) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits a model state into its frozen collection and all others.

  Returns:
    ({FROZEN: ...} or {}, the other collections).
  """
  frozen = {name: tree for name, tree in model_state.items() if name == FROZEN}
  rest = {name: tree for name, tree in model_state.items() if name != FROZEN}
  return frozen, rest
