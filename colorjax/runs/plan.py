"""What a run starts from, and how each step changes it."""

import dataclasses
import pathlib
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
    remat: as in `steps.make_train_step`.
    replicas: initial variables of each replica; () for a run of one model.
  """
  variables: Variables
  optimizer: Optimizers
  cadence: loop.Cadence
  schedule: optax.Schedule | Mapping[str, optax.Schedule] | None = None
  ema_decay: float | None = None
  accumulate: int = 1
  remat: bool = False
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
  starts = [initial_variables(
      colorizer, replica_options.with_values(options, one), weights)
            for one in differing or [{}]]
  if not has_checkpoint:
    _check_frozen(starts)
  for one in differing:  # refuses wrong combinations before they are traced
    optimizers_of(colorizer, replica_options.with_values(options, one))
  return of_variables(colorizer, options, starts)


def of_variables(colorizer: Colorizer, options: TrainOptions,
                 starts: Sequence[Variables]) -> Plan:
  """The plan of a training run that starts from these variables.

  Args:
    colorizer: the method.
    options: of the run.
    starts: the variables of each replica; of one model, if there are none.

  Raises:
    UserError: an option is wrong.
  """
  optimizer, schedule = optimizers_of(colorizer, options)
  cadence = loop.Cadence(
      num_steps=options.num_steps, log_every=options.log_every,
      eval_every=options.eval_every, checkpoint_every=options.checkpoint_every,
      keep=options.keep_checkpoints, patience=options.patience or None)
  return Plan(
      variables=starts[0], optimizer=optimizer, cadence=cadence,
      schedule=schedule, ema_decay=options.ema_decay or None,
      accumulate=options.accumulate, remat=options.remat,
      replicas=starts if replica_options.differences(options) else ())


def initial_variables(colorizer: Colorizer, options: TrainOptions,
                      weights: Mapping[str, pathlib.Path] | None = None
                      ) -> Variables:
  """The variables of a method: random ones, except for pretrained networks.

  Args:
    colorizer: the method.
    options: seed and size.
    weights: files of the pretrained networks, see `pretrained.find`.

  Returns:
    The variables, a function of the seed and the files.

  Raises:
    UserError: a file cannot be read or holds another network.
  """
  side = (options.image_size, options.image_size)
  shapes = jax.eval_shape(lambda key: colorizer.init(key, side),
                          jax.random.key(0))
  leaves, structure = jax.tree.flatten(
      pretrained.load(colorizer, shapes, weights or {}))
  missing = [i for i, leaf in enumerate(leaves)
             if isinstance(leaf, jax.ShapeDtypeStruct)]

  @jax.jit
  def draw(key):
    # XLA removes the random weights that files replace: for a large backbone,
    # they would take longer to compile than all others.
    drawn = jax.tree.leaves(colorizer.init(key, side))
    return [drawn[i] for i in missing]

  for i, leaf in zip(missing, draw(keys.of_run(options.seed, 'init')),
                     strict=True):
    leaves[i] = leaf
  return jax.tree.unflatten(structure, leaves)


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
