"""Everything that one step of training changes, as one pytree."""

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from colorjax.colorizer import Variables


class TrainState(flax.struct.PyTreeNode):
  """State of a training run.

  Attributes:
    step: int32 scalar, number of updates made.
    params: the trained parameters, float32.
    model_state: the network's other state (batch statistics), {} without.
    opt_state: the optimizer's state; by player where there are several.
    ema: exponential moving average of `params`, or None when it is off.
    failed: bool scalar. A step whose loss or gradient is not finite sets it
      and changes nothing else; while it is set, steps change nothing. The
      host can look a step late and still finds the state before the bad step.
  """
  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any
  failed: jax.Array

  @property
  def variables(self) -> Variables:
    """What evaluation and inference use: the average when there is one."""
    params = self.params if self.ema is None else self.ema
    return {'params': params, 'model_state': self.model_state}


def create_state(
    variables: Variables,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool = False,
    players: Iterable[str] = (),
) -> TrainState:
  """The state before the first step.

  Args:
    variables: what `Colorizer.init` returns.
    optimizer: whose state is initialized.
    ema: keep an average of the parameters; set it where the step has a decay.
    players: names of `Colorizer.players`, each with an optimizer state of its
      own; none: one optimizer state for all parameters.
  """
  params = variables['params']
  by_player = {name: optimizer.init(params[name]) for name in players}
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=variables['model_state'],
      opt_state=by_player or optimizer.init(params),
      ema=params if ema else None,
      failed=jnp.zeros((), bool))
