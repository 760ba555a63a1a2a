"""The pure steps of training and evaluation, made from a loss.

A batch may be shared by devices and cut into microbatches. Each part's loss is
the mean over its own photographs; it enters with the share of the batch's
photographs that it holds, so value and gradient are exactly those of the mean
over the whole batch, for unequal parts too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from colorjax import parallel
from colorjax.colorizer import FROZEN, Aux, Batch, LossFn, Variables
from colorjax.errors import UserError
from colorjax.training.state import TrainState

Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""Figures by name, each a pair (sum, count) of scalars."""

NON_FINITE = 'non_finite'
"""The metric that says whether `TrainState.failed` is set: (0 or 1, 1)."""


def make_train_step(
    losses: LossFn | Mapping[str, LossFn],
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
    losses: `(params, model_state, batch, key, *, train) -> (scalar, Aux)`, or
      several by the entry of params that each one trains
      (`Colorizer.players`); the state is then made with these `players`.
      A loss divides by max(count, 1): a device's or microbatch's part may be
      all padding, and its 0/0 would reach the rest.
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
    `(state, batch) -> (state, metrics)`. The metrics are those of the losses
    summed over devices, `grad_norm` before clipping (of all players together,
    and of each), `learning_rate`, and NON_FINITE.
  """
  players = losses if isinstance(losses, Mapping) else {None: losses}

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    key = jax.random.fold_in(key, parallel.device_index(axis_name))
    frozen, old = _without_frozen(state)
    new, finite, norms = old, [], {}
    metrics: Metrics = {}
    for turn, (name, loss_fn) in enumerate(players.items()):
      new, figures, sound, norms[name] = _update(
          _thawed(loss_fn, frozen), optimizer, new, name, batch,
          jax.random.fold_in(key, turn) if turn else key, accumulate,
          axis_name)
      if twice := metrics.keys() & figures.keys():
        raise ValueError(f'two players have a metric named {min(twice)!r}')
      metrics |= figures
      finite.append(sound)
    new = new.replace(step=old.step + 1,
                      ema=_moving_average(old, new.params, ema_decay))
    new = _accept(old, new, jnp.stack(finite).all())
    one = jnp.ones(())
    metrics['grad_norm'] = (optax.tree.norm(norms), one)
    if len(norms) > 1:
      metrics |= {f'grad_norm/{name}': (norm, one)
                  for name, norm in norms.items()}
    if schedule is not None:
      metrics['learning_rate'] = (schedule(state.step) * one, one)
    metrics[NON_FINITE] = (new.failed.astype(jnp.float32), one)
    return new.replace(model_state=new.model_state | frozen), metrics

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


def _without_frozen(state: TrainState) -> tuple[dict[str, Any], TrainState]:
  """The frozen collection, {} if there is none, and the state without it."""
  frozen = {name: tree for name, tree in state.model_state.items()
            if name == FROZEN}
  rest = {name: tree for name, tree in state.model_state.items()
          if name != FROZEN}
  return frozen, state.replace(model_state=rest)


def _thawed(loss_fn: LossFn, frozen: Mapping[str, Any]) -> LossFn:
  """The loss as a function of the model state without its frozen part."""
  def loss(params, model_state, batch, key, *, train):
    value, aux = loss_fn(
        params, {**model_state, **frozen}, batch, key, train=train)
    return value, aux.replace(model_state={
        name: tree for name, tree in aux.model_state.items()
        if name != FROZEN})

  return loss


def _update(loss_fn, optimizer, state, name, batch, key, accumulate, axis_name):
  """One player's turn.

  Returns:
    The new state; the loss's metrics; whether all of it is finite; and the
    norm of the gradient.
  """
  loss, grads, model_state, metrics = _mean_gradient(
      loss_fn, state, name, batch, key, accumulate, axis_name)
  part = _part(state.params, name)
  updates, opt_state = optimizer.update(
      grads, _part(state.opt_state, name), part)
  new = state.replace(
      params=_with_part(
          state.params, name, optax.apply_updates(part, updates)),
      opt_state=_with_part(state.opt_state, name, opt_state),
      model_state=model_state)
  return (new, metrics, _all_finite((loss, grads, model_state)),
          optax.tree.norm(grads))


def _part(tree: Any, name: str | None) -> Any:
  """A player's entry; everything for the only player, None."""
  return tree if name is None else tree[name]


def _with_part(tree: Any, name: str | None, part: Any) -> Any:
  """The tree with a player's entry replaced."""
  return part if name is None else {**tree, name: part}


def _mean_gradient(loss_fn, state, name, batch, key, accumulate, axis_name):
  """Loss, gradient, model state and metrics of the whole batch."""
  total = parallel.sum_over_devices(batch['mask'].sum(), axis_name)

  def part_gradient(model_state, part, key):
    weight = part['mask'].sum() / jnp.maximum(total, 1)

    def weighted(trained):
      params = _with_part(state.params, name, trained)
      value, aux = loss_fn(params, model_state, part, key, train=True)
      return value.astype(jnp.float32) * weight, aux

    (loss, aux), grads = jax.value_and_grad(weighted, has_aux=True)(
        _part(state.params, name))
    # Not zeroed where the weight is 0: through shared batch statistics the
    # photographs of this device act on the losses of the others.
    return loss, grads, aux

  if accumulate == 1:
    loss, grads, aux = part_gradient(state.model_state, batch, key)
  else:
    loss, grads, aux = _scan_parts(
        part_gradient, state.model_state, _part(state.params, name),
        _split(batch, accumulate), key)
  loss, grads, metrics = parallel.sum_over_devices(
      (loss, grads, aux.metrics), axis_name)
  model_state = parallel.mean_over_devices(aux.model_state, axis_name)
  return loss, grads, model_state, metrics


def _scan_parts(part_gradient, model_state, trained, parts, key):
  """Sums loss, gradient and metrics over microbatches [accumulate, b, ...]."""
  def body(carry, xs):
    model_state, total = carry
    index, part = xs
    loss, grads, aux = part_gradient(
        model_state, part, jax.random.fold_in(key, index))
    carry = aux.model_state, jax.tree.map(jnp.add, total, grads)
    return carry, (loss, aux.metrics)

  zeros = jax.tree.map(jnp.zeros_like, trained)
  indices = jnp.arange(len(parts['mask']))
  (model_state, grads), (loss, metrics) = jax.lax.scan(
      body, (model_state, zeros), (indices, parts))
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
