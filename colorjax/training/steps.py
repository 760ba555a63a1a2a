"""The pure steps of training and evaluation, made from a loss.

A batch may be shared by devices and cut into microbatches. Each part's loss is
the mean over its own photographs; it enters with the share of the batch's
photographs that it holds, so value and gradient are exactly those of the mean
over the whole batch, for unequal parts too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from colorjax.colorizer import Aux, Batch, LossFn, Variables
from colorjax.errors import UserError
from colorjax.training import parallel
from colorjax.training.state import TrainState

Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""Figures by name, each a pair (sum, count) of scalars."""

NON_FINITE = 'non_finite'
"""The metric that says whether `TrainState.failed` is set: (0 or 1, 1)."""


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    schedule: optax.Schedule | None = None,
    ema_decay: float | None = None,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """A pure training step.

  Randomness is a function of (seed, step, device, microbatch), so a resumed
  run draws the same numbers as an uninterrupted one.

  Args:
    loss_fn: `(params, model_state, batch, key, *, train) -> (scalar, Aux)`.
      It divides by max(count, 1): a device's or microbatch's part may be all
      padding, and its 0/0 would reach the rest.
    optimizer: what `make_optimizer` returns.
    seed: of the random keys.
    schedule: the optimizer's schedule, only to show it as `learning_rate`.
    ema_decay: decay of the average of parameters, None for no average. Step t
      (from 0) uses min(ema_decay, (1 + t) / (10 + t)), so that the average
      forgets the initial parameters soon.
    accumulate: number of microbatches, run one after the other, that each
      device's part of the batch is cut into; batch statistics are those of a
      microbatch. Microbatch i holds every photograph whose place in the batch
      is i modulo `accumulate`, hence the same ones on any number of devices.
    axis_name: `parallel.AXIS` under `parallel.pmap_step`, None alone.

  Returns:
    `(state, batch) -> (state, metrics)`. The metrics are those of the loss
    summed over devices, `grad_norm` before clipping, `learning_rate`, and
    NON_FINITE.
  """
  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    key = jax.random.fold_in(key, parallel.device_index(axis_name))
    loss, grads, model_state, metrics = _mean_gradient(
        loss_fn, state, batch, key, accumulate, axis_name)
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    candidate = state.replace(
        step=state.step + 1, params=params, model_state=model_state,
        opt_state=opt_state,
        ema=_moving_average(state, params, ema_decay))
    new = _accept(state, candidate, _all_finite((loss, grads, model_state)))
    one = jnp.ones(())
    metrics['grad_norm'] = (optax.tree.norm(grads), one)
    if schedule is not None:
      metrics['learning_rate'] = (schedule(state.step) * one, one)
    metrics[NON_FINITE] = (new.failed.astype(jnp.float32), one)
    return new, metrics

  return step


def make_eval_step(
    loss_fn: LossFn, *, axis_name: str | None = None
) -> Callable[[Variables, Batch], Metrics]:
  """A pure evaluation step: `(variables, batch) -> metrics`.

  The metrics are the loss's own with train=False, summed over devices;
  padding (mask 0) counts nothing.
  """
  def step(variables: Variables, batch: Batch) -> Metrics:
    # train=False is deterministic by contract: the key is never drawn from.
    _, aux = loss_fn(
        variables['params'], variables['model_state'], batch,
        jax.random.key(0), train=False)
    return parallel.sum_over_devices(aux.metrics, axis_name)

  return step


def _mean_gradient(loss_fn, state, batch, key, accumulate, axis_name):
  """Loss, gradient, model state and metrics of the whole batch."""
  total = parallel.sum_over_devices(batch['mask'].sum(), axis_name)

  def part_gradient(model_state, part, key):
    weight = part['mask'].sum() / jnp.maximum(total, 1)

    def weighted(params):
      value, aux = loss_fn(params, model_state, part, key, train=True)
      return value.astype(jnp.float32) * weight, aux

    (loss, aux), grads = jax.value_and_grad(weighted, has_aux=True)(
        state.params)
    # Not zeroed where the weight is 0: through shared batch statistics the
    # photographs of this device act on the losses of the others.
    return loss, grads, aux

  if accumulate == 1:
    loss, grads, aux = part_gradient(state.model_state, batch, key)
  else:
    loss, grads, aux = _scan_parts(
        part_gradient, state, _split(batch, accumulate), key)
  loss, grads, metrics = parallel.sum_over_devices(
      (loss, grads, aux.metrics), axis_name)
  model_state = parallel.mean_over_devices(aux.model_state, axis_name)
  return loss, grads, model_state, metrics


def _scan_parts(part_gradient, state, parts, key):
  """Sums loss, gradient and metrics over microbatches [accumulate, b, ...]."""
  def body(carry, xs):
    model_state, total = carry
    index, part = xs
    loss, grads, aux = part_gradient(
        model_state, part, jax.random.fold_in(key, index))
    carry = aux.model_state, jax.tree.map(jnp.add, total, grads)
    return carry, (loss, aux.metrics)

  zeros = jax.tree.map(jnp.zeros_like, state.params)
  indices = jnp.arange(len(parts['mask']))
  (model_state, grads), (loss, metrics) = jax.lax.scan(
      body, (state.model_state, zeros), (indices, parts))
  metrics = jax.tree.map(lambda x: x.sum(0), metrics)
  return loss.sum(), grads, Aux(model_state=model_state, metrics=metrics)


def _split(batch: Batch, accumulate: int) -> Batch:
  """[B, ...] to [accumulate, B / accumulate, ...], dealt out in turn.

  Dealt like cards and not cut into blocks: a device holds a block of the
  global batch, so only this way are microbatches those of a single device.
  """
  size = len(batch['mask'])
  if size % accumulate:
    raise UserError(
        f'--accumulate={accumulate} does not divide the {size} photographs '
        'of a device: choose a --batch_size divisible by both')
  return {
      name: jnp.swapaxes(
          x.reshape(size // accumulate, accumulate, *x.shape[1:]), 0, 1)
      for name, x in batch.items()}


def _moving_average(state: TrainState, params: Any, decay: float | None):
  if decay is None:
    return state.ema
  if state.ema is None:
    raise ValueError('ema_decay needs a state made with ema=True')
  t = state.step.astype(jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(lambda e, p: e + rate * (p - e), state.ema, params)


def _all_finite(tree: Any) -> jax.Array:
  return jnp.stack(
      [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _accept(
    old: TrainState, new: TrainState, finite: jax.Array) -> TrainState:
  """The new state if it is sound and nothing failed before, else the old."""
  take = finite & ~old.failed
  chosen = jax.tree.map(lambda n, o: jnp.where(take, n, o), new, old)
  return chosen.replace(failed=old.failed | ~finite)
