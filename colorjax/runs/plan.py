"""What a run starts from, and how each step changes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from colorjax import keys
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.runs import pretrained, replica_options
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.training import loop, optimizers
from colorjax.training.checkpoint import DIRECTORY, steps
from colorjax.training.state import Optimizers, without_frozen


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
    replicas: initial variables of each replica; () for a run of one model.
  """
  variables: Variables
  optimizer: Optimizers
  cadence: loop.Cadence
  schedule: optax.Schedule | Mapping[str, optax.Schedule] | None = None
  ema_decay: float | None = None
  accumulate: int = 1
  replicas: Sequence[Variables] = ()


def of_training(colorizer: Colorizer, options: TrainOptions) -> Plan:
  """The plan of a training run, with pretrained weights in its backbones.

  Raises:
    UserError: a file of weights cannot be read, or an option is wrong.
  """
  # A run that is resumed has the weights in its checkpoints.
  has_checkpoint = bool(steps(options.directory / DIRECTORY))
  weights = {} if has_checkpoint else pretrained.find(
      colorizer, options.backbone_weights)
  differing = replica_options.differences(options)
  starts = [pretrained.load(
      colorizer, initial_variables(colorizer, own), weights)
            for own in (replica_options.with_values(options, one)
                        for one in differing or [{}])]
  if not has_checkpoint:
    _check_frozen(starts)
  for one in differing:  # refuses wrong combinations before they are traced
    optimizers_of(colorizer, replica_options.with_values(options, one))
  optimizer, schedule = optimizers_of(colorizer, options)
  cadence = loop.Cadence(
      num_steps=options.num_steps, log_every=options.log_every,
      eval_every=options.eval_every, checkpoint_every=options.checkpoint_every,
      keep=options.keep_checkpoints, patience=options.patience or None)
  return Plan(
      variables=starts[0], optimizer=optimizer, cadence=cadence,
      schedule=schedule, ema_decay=options.ema_decay or None,
      accumulate=options.accumulate, replicas=starts if differing else ())


def initial_variables(colorizer: Colorizer, options: TrainOptions
                      ) -> Variables:
  """Randomly initialized variables of a method, a function of the seed."""
  return jax.jit(colorizer.init, static_argnums=1)(
      keys.of_run(options.seed, 'init'),
      (options.image_size, options.image_size))


def _check_frozen(starts: Sequence[Variables]) -> None:
  """Raises UserError if the frozen networks of the replicas differ."""
  frozen, *others = [without_frozen(start['model_state'])[0]
                     for start in starts]
  for other in others:
    if not all(jax.tree.leaves(jax.tree.map(np.array_equal, frozen, other))):
      raise UserError(
          f'backbone_weights={pretrained.RANDOM}: replicas share their frozen '
          'networks, but those of other seeds have other random weights; give '
          'files of weights, or replicas of one seed')


def optimizers_of(colorizer: Colorizer, options: TrainOptions
                  ) -> tuple[Any, Any]:
  """Returns optimizer and schedule; mappings by player if one has its own.

  Args:
    colorizer: the method.
    options: of the run, or what `replica_options.with_values` returned.

  Raises:
    UserError: an option is wrong, or the method has no such player.
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
      clip_norm=None if _is_zero(given.clip_norm) else given.clip_norm,
      weight_decay=given.weight_decay, momentum=given.momentum,
      b1=given.adam_b1)
  encoder = given.encoder_learning_rate
  if encoder is not None and not _is_zero(encoder):
    if _is_zero(given.learning_rate):
      raise UserError(
          f'encoder_learning_rate={encoder}: needs a learning_rate above 0')
    optimizer = optimizers.with_encoder_rate(
        optimizer, encoder / given.learning_rate)
  return optimizer, schedule


def _is_zero(value: float | jax.Array) -> bool:
  """Whether a number is 0; those of replicas, which are traced, are not."""
  return isinstance(value, (int, float)) and not value
