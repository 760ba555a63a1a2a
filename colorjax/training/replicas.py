"""Replicas: several copies of a model that are trained at once in one program.

`jax.vmap` maps the training step over replicas, inside the step that `parallel`
maps over devices. The axis of replicas is the first axis of every array of a
`TrainState` but two: all replicas share `step` and the frozen networks. They
also share the batches, so photographs are read once, and what does not depend
on a replica (the Lab colors, the features of a frozen network) is computed
once.

A metric of a step is a pair (sum, count) of arrays [R] and not of scalars.
`totals` turns it into the metric of all replicas and a column for each.

A replica with a loss, gradient or state that is not finite keeps the state
before that step, and the others go on. Its metrics then have the count 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colorjax.colorizer import Batch, Variables
from colorjax.training.state import TrainState, without_frozen
from colorjax.training.steps import NON_FINITE, Metrics

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""A pure training step, see `steps.make_train_step`."""

FAILED = 'failed'
"""Name of `TrainState.failed` among the variables of `variables_of`."""


def stack(states: Sequence[TrainState]) -> TrainState:
  """Makes the state of all replicas from that of each.

  Args:
    states: R states of the same step with equal frozen networks.

  Returns:
    The state with an axis of R replicas.
  """
  frozen, _ = without_frozen(states[0].model_state)
  own = [state.replace(step=None,
                       model_state=without_frozen(state.model_state)[1])
         for state in states]
  both = jax.tree.map(lambda *x: jnp.stack(x), *own)
  return both.replace(step=states[0].step,
                      model_state=both.model_state | frozen)


def variables_of(state: TrainState) -> Variables:
  """The variables that `make_eval_step` evaluates, of all replicas."""
  return {**state.variables, FAILED: state.failed}


def pick(variables: Variables, replica: int) -> Variables:
  """Returns the variables of one replica.

  Args:
    variables: {'params', 'model_state'} of all replicas.
    replica: its number, from 0.
  """
  frozen, rest = without_frozen(variables['model_state'])
  own = jax.tree.map(
      lambda x: x[replica],
      {'params': variables['params'], 'model_state': rest})
  return {**own, 'model_state': own['model_state'] | frozen}


def shapes(variables: Variables, count: int) -> Variables:
  """Adds the axis of replicas to the shapes of one model's variables.

  Args:
    variables: {'params', 'model_state'}, as `jax.ShapeDtypeStruct`s.
    count: number R of replicas.

  Returns:
    The shapes of all replicas.
  """
  frozen, rest = without_frozen(variables['model_state'])
  both = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype),
      {'params': variables['params'], 'model_state': rest})
  return {**both, 'model_state': both['model_state'] | frozen}


def make_train_step(
    make_step: Callable[[Mapping[str, jax.Array]], Step],
    values: Mapping[str, Any]) -> Step:
  """Makes a pure training step of all replicas.

  Args:
    make_step: `values of one replica -> its step`; the values are traced
      scalars.
    values: what replicas differ in, arrays [R] by name.

  Returns:
    `(state of all replicas, batch) -> (state, metrics [R])`. NON_FINITE says
    which replicas have failed.
  """
  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    frozen, rest = without_frozen(state.model_state)

    def one(own: TrainState, values: Mapping[str, jax.Array]
            ) -> tuple[TrainState, Metrics]:
      new, metrics = make_step(values)(own.replace(
          step=state.step, model_state=own.model_state | frozen), batch)
      return new.replace(
          model_state=without_frozen(new.model_state)[1]), metrics

    new, metrics = jax.vmap(one)(
        state.replace(step=None, model_state=rest), dict(values))
    failed = metrics.pop(NON_FINITE)
    # The step of a replica that has failed does not advance.
    new = new.replace(step=new.step.max(),
                      model_state=new.model_state | frozen)
    return new, _counted(metrics, new.failed) | {NON_FINITE: failed}

  return step


def make_eval_step(eval_step: Callable[[Variables, Batch], Metrics]
                   ) -> Callable[[Variables, Batch], Metrics]:
  """Makes a pure evaluation step of all replicas.

  Args:
    eval_step: the step of one model, from `steps.make_eval_step`.

  Returns:
    `(what variables_of returned, batch) -> metrics [R]`.
  """
  def step(variables: Variables, batch: Batch) -> Metrics:
    frozen, rest = without_frozen(variables['model_state'])

    def one(own: Variables) -> Metrics:
      return eval_step(
          {**own, 'model_state': own['model_state'] | frozen}, batch)

    metrics = jax.vmap(one)(
        {'params': variables['params'], 'model_state': rest})
    return _counted(metrics, variables[FAILED])

  return step


def _counted(metrics: Metrics, failed: jax.Array) -> Metrics:
  """Sets sum and count of failed replicas to 0, unless all have failed."""
  counts = ~failed | failed.all()
  return jax.tree.map(lambda x: jnp.where(counts, x, 0), metrics)
