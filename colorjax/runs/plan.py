"""What a run starts from, and how each step changes it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax

from colorjax import keys
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.runs import pretrained
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.training import loop, optimizers
from colorjax.training.checkpoint import DIRECTORY, steps
from colorjax.training.state import Optimizers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What a run starts from, and how each step changes it.

  Attributes:
    variables: initial variables of the method.
    optimizer: one optimizer, or one for each player by name.
    cadence: how often to log, evaluate and save.
    schedule: learning rate of the optimizer, or of each player by name; only
      for the logs.
    ema_decay: decay rate of the moving average; None keeps no average.
    accumulate: number of microbatches of each step.
    remat: whether parts of the network are computed twice, to save memory.
  """
  variables: Variables
  optimizer: Optimizers
  cadence: loop.Cadence
  schedule: optax.Schedule | Mapping[str, optax.Schedule] | None = None
  ema_decay: float | None = None
  accumulate: int = 1
  remat: bool = False


def of_training(colorizer: Colorizer, options: TrainOptions) -> Plan:
  """The plan of a training run, with pretrained weights in its backbones.

  Raises:
    UserError: a file of weights cannot be read, or an option is wrong.
  """
  # A run that is resumed has the weights in its checkpoints.
  has_checkpoint = bool(steps(options.directory / DIRECTORY))
  weights = {} if has_checkpoint else pretrained.find(
      colorizer, options.backbone_weights)
  variables = pretrained.load(
      colorizer, initial_variables(colorizer, options), weights)
  optimizer, schedule = optimizers_of(colorizer, options)
  cadence = loop.Cadence(
      num_steps=options.num_steps, log_every=options.log_every,
      eval_every=options.eval_every, checkpoint_every=options.checkpoint_every,
      keep=options.keep_checkpoints, patience=options.patience or None)
  return Plan(
      variables=variables, optimizer=optimizer, cadence=cadence,
      schedule=schedule, ema_decay=options.ema_decay or None,
      accumulate=options.accumulate, remat=options.remat)


def initial_variables(colorizer: Colorizer, options: TrainOptions
                      ) -> Variables:
  """Randomly initialized variables of a method, a function of the seed."""
  return jax.jit(colorizer.init, static_argnums=1)(
      keys.of_run(options.seed, 'init'),
      (options.image_size, options.image_size))


def optimizers_of(colorizer: Colorizer, options: TrainOptions
                  ) -> tuple[Any, Any]:
  """Optimizer and schedule; mappings by player if a player has its own.

  Raises:
    UserError: an option is wrong, or names a player that the method lacks.
  """
  own = options.player_optimizing
  if not own:
    return _optimizer(options.optimizing, options.num_steps)
  if unknown := own.keys() - colorizer.players.keys():
    raise UserError(f'player_optimizing: the method has no player '
                    f'{min(unknown)!r}; it has '
                    f'{", ".join(colorizer.players) or "none"}')
  made = {name: _optimizer(own.get(name, options.optimizing),
                           options.num_steps) for name in colorizer.players}
  return ({name: optimizer for name, (optimizer, _) in made.items()},
          {name: schedule for name, (_, schedule) in made.items()})


def _optimizer(given: Optimizing, num_steps: int
               ) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """An optimizer and its learning rate over `num_steps` steps."""
  schedule = optimizers.make_schedule(
      given.schedule, learning_rate=given.learning_rate, num_steps=num_steps,
      warmup_steps=given.warmup_steps, halve_every=given.halve_every)
  optimizer = optimizers.make_optimizer(
      given.optimizer, learning_rate=schedule,
      clip_norm=given.clip_norm or None, weight_decay=given.weight_decay,
      momentum=given.momentum, b1=given.adam_b1)
  if given.encoder_learning_rate:
    if not given.learning_rate:
      raise UserError(
          f'encoder_learning_rate={given.encoder_learning_rate}: needs a '
          'learning_rate above 0')
    optimizer = optimizers.with_encoder_rate(
        optimizer, given.encoder_learning_rate / given.learning_rate)
  return optimizer, schedule
