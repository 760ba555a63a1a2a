"""The state and the compiled steps of a run, of one model or of replicas."""

import dataclasses
from collections.abc import Callable, Iterable

from colorjax import parallel
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.runs import plan as plans
from colorjax.runs import replica_options
from colorjax.runs.options import TrainOptions
from colorjax.runs.plan import Plan
from colorjax.training import replicas, totals
from colorjax.training.replicas import Step
from colorjax.training.state import TrainState, create_state
from colorjax.training.steps import make_eval_step, make_train_step


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
  losses = colorizer.players or colorizer.loss
  eval_step = make_eval_step(colorizer.loss)

  def state_of(variables: Variables, optimizer: plans.Optimizers) -> TrainState:
    return create_state(
        variables, optimizer, ema=plan.ema_decay is not None,
        players=colorizer.players)

  if not plan.replicas:
    state = state_of(plan.variables, plan.optimizer)
    step = make_train_step(
        losses, plan.optimizer, seed=options.seed, schedule=plan.schedule,
        ema_decay=plan.ema_decay, accumulate=plan.accumulate)
    of_state = shown = _variables
  else:
    values = replica_options.arrays(
        replica_options.differences(options))

    def own(values) -> TrainOptions:
      return replica_options.with_values(options, values)

    def make_step(values) -> Step:
      optimizer, schedule = plans.optimizers_of(colorizer, own(values))
      return make_train_step(
          losses, optimizer, seed=own(values).seed, schedule=schedule,
          ema_decay=plan.ema_decay, accumulate=plan.accumulate)

    state = replicas.stack([
        state_of(start, plans.optimizers_of(colorizer, own(
            {name: x[i] for name, x in values.items()}))[0])
        for i, start in enumerate(plan.replicas)])
    step = replicas.make_train_step(make_step, values)
    eval_step = replicas.make_eval_step(eval_step)
    of_state = replicas.variables_of

    def shown(state: TrainState) -> Variables:
      return replicas.pick(state.variables, 0)

  mapped_eval_step = parallel.pmap_step(eval_step, donate=False)
  return Program(
      state=state, step=parallel.pmap_step(step), shown=shown,
      evaluate=lambda state, batches: totals.evaluate(
          mapped_eval_step, of_state(state), batches))


def _variables(state: TrainState) -> Variables:
  return state.variables
