"""The state and the compiled steps of a run, of one model or of replicas."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import keys as key_lib
from colorjax import parallel
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.errors import UserError
from colorjax.film import family
from colorjax.runs import plan as plans
from colorjax.runs import replica_options
from colorjax.runs.options import TrainOptions
from colorjax.runs.plan import Plan
from colorjax.training import replicas, totals
from colorjax.training.replicas import Step
from colorjax.training.state import TrainState, create_state
from colorjax.training.steps import (
    LightnessOf,
    make_eval_step,
    make_train_step,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """The state and the compiled steps of a run.

  Attributes:
    state: the state before the first step.
    step: `(state, host batch) -> (state, metrics)`, for `loop.train`.
    evaluate: `(state, host batches) -> means of the metrics by name`.
    shown: `state -> variables` of the model that pictures show: the only one,
      or replica 0.
  """
  state: TrainState
  step: Step
  evaluate: Callable[[TrainState, Iterable[Batch]], dict[str, float]]
  shown: Callable[[TrainState], Variables]


def of_plan(colorizer: Colorizer, options: TrainOptions, plan: Plan) -> Program:
  """Makes the program of a run.

  Args:
    colorizer: the method.
    options: of the run.
    plan: what the run starts from.
  """
  eval_step = make_eval_step(colorizer.loss)
  of_state = shown = _variables
  if plan.replicas:
    eval_step = replicas.make_eval_step(eval_step)
    of_state = replicas.variables_of

    def shown(state: TrainState) -> Variables:
      return replicas.pick(state.variables, 0)

  mapped_eval_step = parallel.pmap_step(eval_step, donate=False)
  return Program(
      state=initial_state(colorizer, options, plan),
      step=parallel.pmap_step(train_step(colorizer, options, plan)),
      shown=shown,
      evaluate=lambda state, batches: totals.evaluate(
          mapped_eval_step, of_state(state), batches))


def initial_state(colorizer: Colorizer, options: TrainOptions, plan: Plan
                  ) -> TrainState:
  """The state before the first step, of one model or of replicas.

  Args:
    colorizer: the method.
    options: of the run.
    plan: what the run starts from.
  """
  def state_of(variables: Variables, optimizer: plans.Optimizers) -> TrainState:
    return create_state(
        variables, optimizer, ema=plan.ema_decay is not None,
        players=colorizer.players)

  if not plan.replicas:
    return state_of(plan.variables, plan.optimizer)
  values = _values(options)
  return replicas.stack([
      state_of(start, plans.optimizers_of(
          colorizer, replica_options.with_values(
              options, {name: x[i] for name, x in values.items()}))[0])
      for i, start in enumerate(plan.replicas)])


def train_step(colorizer: Colorizer, options: TrainOptions, plan: Plan) -> Step:
  """The pure training step, of one model or of replicas.

  Args:
    colorizer: the method.
    options: of the run.
    plan: how a step changes the state; its variables are not used.
  """
  imitated = _imitated(options)

  def make_step(own: TrainOptions, optimizer: plans.Optimizers, schedule: Any
                ) -> Step:
    return make_train_step(
        colorizer.players or colorizer.loss, optimizer, seed=own.seed,
        schedule=schedule, ema_decay=plan.ema_decay,
        accumulate=plan.accumulate, remat=plan.remat,
        lightness_of=imitated)

  if not plan.replicas:
    return make_step(options, plan.optimizer, plan.schedule)

  def of_replica(values: Mapping[str, Any]) -> Step:
    own = replica_options.with_values(options, values)
    return make_step(own, *plans.optimizers_of(colorizer, own))

  return replicas.make_train_step(of_replica, _values(options))


def check_film(colorizer: Colorizer, options: TrainOptions, *,
               has_embeddings: bool) -> None:
  """Checks that a method can be trained with imitated scans.

  Args:
    colorizer: the method.
    options: of the run.
    has_embeddings: whether embeddings are computed before training.

  Raises:
    UserError: `options.film` is not a share, the embeddings would be those of
      the photographs, or the losses of the method do not read the lightness of
      scans.
  """
  if not 0 <= options.film <= 1:
    raise UserError(f'film={options.film}: give a share from 0 to 1')
  if not options.film:
    return
  if has_embeddings:
    raise UserError(
        f'film={options.film}: cached embeddings are those of the photographs '
        'and not of their scans; set embeddings=computed')
  read: set[str] = set()

  def trace(key: jax.Array) -> None:
    size = options.image_size
    variables = colorizer.init(key, (size, size))
    batch = _Watched({
        'image': jnp.zeros((1, size, size, 3), jnp.uint8),
        'lightness': jnp.zeros((1, size, size, 1)),
        'padding_mask': jnp.ones(1), 'index': jnp.zeros(1, jnp.int32)}, read)
    for loss in (colorizer.players or {'': colorizer.loss}).values():
      loss(variables['params'], variables['model_state'], batch, key[None],
           step=jnp.int32(0), train=True)

  jax.eval_shape(trace, jax.random.key(0))
  if 'lightness' not in read:
    raise UserError(
        f'film={options.film}: the loss of this method does not read '
        "batch['lightness'], so it would not see the scans; let it call "
        'methods.examples.of_batch')


class _Watched(Mapping[str, Any]):
  """A batch that notes which of its entries are read."""

  def __init__(self, batch: Batch, read: set[str]):
    self._batch, self._read = batch, read

  def __getitem__(self, name: str) -> Any:
    value = self._batch[name]
    self._read.add(name)
    return value

  def __iter__(self) -> Iterator[str]:
    return iter(self._batch)

  def __len__(self) -> int:
    return len(self._batch)


def _imitated(options: TrainOptions) -> LightnessOf | None:
  """The lightness of imitated scans; None if there are none.

  As for crops, the seed is that of the data: replicas share the scans.
  """
  if not options.film:
    return None
  seed = options.seed if options.data_seed is None else options.data_seed

  def lightness(images: jax.Array, step: jax.Array, places: jax.Array
                ) -> jax.Array:
    keys = key_lib.of_examples(key_lib.of_step(seed, step, 'film'), places)
    return family.imitate(images, keys, rate=options.film)

  return lightness


def _values(options: TrainOptions) -> dict[str, Any]:
  """What the replicas differ in, arrays by option."""
  return replica_options.arrays(replica_options.differences(options))


def _variables(state: TrainState) -> Variables:
  return state.variables
