"""Pure steps of training and evaluation, made from a loss function.

Every photograph of a batch has its own random key. In training it is a function
of (seed, step, player, position in the global batch); in evaluation it is a
function of the photograph alone. Random numbers therefore do not depend on how
a batch is divided.

A batch may be divided among devices and into microbatches. The loss of each
part is the mean over its photographs, weighted by the part's share of all
photographs in the batch. Value and gradient are then exactly those of the mean
over the whole batch, even if the parts are unequal.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from colorjax import keys as key_lib
from colorjax import parallel
from colorjax.colorizer import Aux, Batch, LossFn, Variables
from colorjax.errors import UserError
from colorjax.training.state import (
    Optimizers,
    TrainState,
    by_player,
    without_frozen,
)

Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""Metrics by name, each a pair (sum, count) of scalars."""

LightnessOf = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(images, step, positions in the global batch) -> L [B, H, W, 1]`."""

EXPENSIVE = frozenset({'conv_general_dilated', 'dot_general', 'psum'})
"""Operations whose results `remat` keeps: convolutions, products of matrices,
and sums over devices. All others (norms, activations, likelihoods) read their
inputs once, and computing them twice takes less time than a convolution."""

NON_FINITE = 'non_finite'
"""Name of the metric that shows `TrainState.failed`: (0 or 1, 1)."""


def make_train_step(
    losses: LossFn | Mapping[str, LossFn],
    optimizer: Optimizers,
    *,
    seed: int,
    schedule: optax.Schedule | Mapping[str, optax.Schedule] | None = None,
    ema_decay: float | None = None,
    accumulate: int = 1,
    remat: bool = False,
    lightness_of: LightnessOf | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Makes a pure training step.

  It can run under `parallel.pmap_step` or alone.

  Rows of padding are replaced by copies of the batch's first photograph before
  a loss sees them. Their padding mask stays 0, so they do not count, but their
  gradient is finite: a mask of 0 would stop a NaN in the forward pass only.

  Args:
    losses: `(params, model_state, batch, keys, *, step, train) -> (scalar,
      Aux)`; or several, by the entry of params that each one trains
      (`Colorizer.players`), and then the state is made with the same `players`.
      A loss must divide by max(count, 1): the part of a device or microbatch
      may be all padding, and 0/0 would spread to the other parts.
    optimizer: one optimizer from `make_optimizer`, or one for each player by
      name.
    seed: seed of the random keys.
    schedule: schedule of the optimizer, used only to report `learning_rate`;
      or schedules by player, reported as `learning_rate/<player>`.
    ema_decay: decay rate of the moving average of parameters and batch
      statistics; None keeps no average. Step t (from 0) uses min(ema_decay,
      (1 + t) / (10 + t)), so that the initial values are forgotten soon.
    accumulate: number of microbatches into which each device's part of the
      batch is divided; they run one after the other. Batch statistics are those
      of a microbatch. Microbatch i holds the photographs whose position in the
      batch is i modulo `accumulate`, so it is the same on any number of
      devices.
    remat: whether the backward pass computes cheap intermediate results again,
      to save memory. Only the results of EXPENSIVE operations are kept for it.
      It changes no result beyond rounding.
    lightness_of: computes batch['lightness'], what the network sees in place of
      the photographs' own lightness; None for their own.

  Returns:
    `(state, batch) -> (state, metrics)`. The metrics are those of the losses
    summed over devices, `grad_norm` before clipping (of all players together
    and of each), `learning_rate`, and NON_FINITE.

  Raises:
    UserError: the names of the optimizers are not those of the players.
  """
  players: dict[str | None, LossFn] = (
      dict(losses.items()) if isinstance(losses, Mapping) else {None: losses})
  optimizers = by_player(optimizer, players)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    batch = _with_padding_filled(batch)
    places = parallel.positions(len(batch['padding_mask']))
    if lightness_of is not None:
      batch['lightness'] = lightness_of(batch['image'], state.step, places)
    frozen, rest = without_frozen(state.model_state)
    old = state.replace(model_state=rest)
    new, norms = old, {}
    finite: list[jax.Array] = []
    metrics: Metrics = {}
    for name, loss_fn in players.items():
      key = key_lib.of_step(seed, state.step, name or 'loss')
      new, player_metrics, parts, norms[name] = _update(
          _thawed(loss_fn, frozen, state.step), optimizers[name], new, name,
          batch, key_lib.of_examples(key, places), accumulate, remat)
      if twice := metrics.keys() & player_metrics.keys():
        raise ValueError(f'two players have a metric named {min(twice)!r}')
      metrics |= player_metrics
      finite += parts
    new = new.replace(step=old.step + 1,
                      ema=_moving_average(old, new, ema_decay))
    new = _accept(old, new, _all(finite + _are_finite(new.ema)))
    one = jnp.ones(())
    metrics['grad_norm'] = (optax.tree.norm(norms), one)
    if len(norms) > 1:
      metrics |= {f'grad_norm/{name}': (norm, one)
                  for name, norm in norms.items()}
    if isinstance(schedule, Mapping):
      metrics |= {f'learning_rate/{name}': (rate(state.step) * one, one)
                  for name, rate in schedule.items()}
    elif schedule is not None:
      metrics['learning_rate'] = (schedule(state.step) * one, one)
    metrics[NON_FINITE] = (new.failed.astype(jnp.float32), one)
    return new.replace(model_state=new.model_state | frozen), metrics

  return step


def make_eval_step(loss_fn: LossFn) -> Callable[[Variables, Batch], Metrics]:
  """Makes a pure evaluation step, `(variables, batch) -> metrics`.

  The metrics are those of the loss with train=False, summed over devices;
  padding does not count. The random key of a photograph is a function of its
  batch['index'] alone: a loss that draws random numbers has the same value for
  it in any batch, on any device and at any step.

  The step raises UserError if the batch has no 'index'.
  """
  def step(variables: Variables, batch: Batch) -> Metrics:
    if 'index' not in batch:
      raise UserError(
          f'the evaluation batch has only {", ".join(sorted(batch))}: add '
          "'index' (int32 [B], the number of each photograph in its source), "
          'which random numbers depend on')
    batch = _with_padding_filled(batch)
    keys = key_lib.of_photographs(0, 'held-out loss', batch['index'])
    _, aux = loss_fn(
        variables['params'], variables['model_state'], batch, keys, step=None,
        train=False)
    return parallel.sum_over_devices(aux.metrics)

  return step


def _with_padding_filled(batch: Batch) -> dict[str, Any]:
  """Replaces each row of padding by the first photograph of the global batch.

  The padding mask stays 0. It has to be the first photograph of the global
  batch because batch statistics include padding, and they must be the same on
  any number of devices.
  """
  is_photo = batch['padding_mask'] > 0
  rows = {name: jnp.asarray(x) for name, x in batch.items()
          if name != 'padding_mask'}
  first = parallel.first_row(rows, jnp.asarray(is_photo))

  def filled(x: jax.Array, row: jax.Array) -> jax.Array:
    return jnp.where(is_photo.reshape(-1, *[1] * row.ndim), x, row)

  return {'padding_mask': batch['padding_mask']} | {
      name: filled(x, first[name]) for name, x in rows.items()}


def _thawed(loss_fn: LossFn, frozen: Mapping[str, Any], step: jax.Array
            ) -> LossFn:
  """The training loss of a step; its model state has no frozen part."""
  def loss(params, model_state, batch, keys):
    value, aux = loss_fn(params, {**model_state, **frozen}, batch, keys,
                         step=step, train=True)
    return value, aux.replace(
        model_state=without_frozen(aux.model_state)[1])

  return loss


def _update(loss_fn, optimizer, state, name, batch, keys, accumulate, remat):
  """Updates the parameters of one player.

  Returns:
    The new state, the metrics of the loss, which numbers are finite (see
    `_are_finite`), and the norm of the gradient.
  """
  loss, grads, model_state, metrics = _mean_gradient(
      loss_fn, state, name, batch, keys, accumulate, remat)
  part, old_opt_state = _part(state.params, name), _part(state.opt_state, name)
  updates, opt_state = optimizer.update(grads, old_opt_state, part)
  params = optax.apply_updates(part, updates)
  new = state.replace(
      params=_with_part(state.params, name, params),
      opt_state=_with_part(state.opt_state, name, opt_state),
      model_state=model_state)
  finite = (_are_finite((loss, grads, model_state, params))
            + _are_finite(opt_state, unless_as=old_opt_state))
  return new, metrics, finite, optax.tree.norm(grads)


def _part(tree: Any, name: str | None) -> Any:
  """The entry of a player; the whole tree if there are no players (None)."""
  return tree if name is None else tree[name]


def _with_part(tree: Any, name: str | None, part: Any) -> Any:
  """The tree with the entry of a player replaced."""
  return part if name is None else {**tree, name: part}


def _mean_gradient(loss_fn, state, name, batch, keys, accumulate, remat):
  """Returns loss, gradient, model state and metrics of the whole batch."""
  total = parallel.sum_over_devices(batch['padding_mask'].sum())

  def part_gradient(model_state, part, keys):
    weight = part['padding_mask'].sum() / jnp.maximum(total, 1)

    def weighted(trained):
      params = _with_part(state.params, name, trained)
      value, aux = loss_fn(params, model_state, part, keys)
      return value.astype(jnp.float32) * weight, aux

    if remat:
      weighted = jax.checkpoint(weighted, policy=_is_expensive)
    (loss, aux), grads = jax.value_and_grad(weighted, has_aux=True)(
        _part(state.params, name))
    # Not set to zero where the weight is 0: through shared batch statistics the
    # photographs of this device affect the losses of the other devices.
    return loss, grads, aux

  if accumulate == 1:
    loss, grads, aux = part_gradient(state.model_state, batch, keys)
  else:
    loss, grads, aux = _scan_parts(
        part_gradient, state.model_state, _part(state.params, name),
        _split(batch, keys, accumulate))
  loss, grads, metrics = parallel.sum_over_devices((loss, grads, aux.metrics))
  model_state = parallel.mean_over_devices(aux.model_state)
  return loss, grads, model_state, metrics


def _is_expensive(operation, *_, **__) -> bool:
  """Policy of `jax.checkpoint`: whether to keep the results of an operation."""
  return operation.name in EXPENSIVE


def _scan_parts(part_gradient, model_state, trained, parts):
  """Sums loss, gradient and metrics over microbatches [accumulate, b, ...]."""
  def body(carry, xs):
    model_state, total = carry
    loss, grads, aux = part_gradient(model_state, *xs)
    carry = aux.model_state, jax.tree.map(jnp.add, total, grads)
    return carry, (loss, aux.metrics)

  zeros = jax.tree.map(jnp.zeros_like, trained)
  (model_state, grads), (loss, metrics) = jax.lax.scan(
      body, (model_state, zeros), parts)
  metrics = jax.tree.map(lambda x: x.sum(0), metrics)
  return loss.sum(), grads, Aux(model_state=model_state, metrics=metrics)


def _split(batch: Batch, keys: jax.Array, accumulate: int
           ) -> tuple[Batch, jax.Array]:
  """Reshapes batch and keys, [B, ...] to [accumulate, B / accumulate, ...].

  Photographs are dealt out in turn and not cut into blocks. Each device holds a
  block of the global batch, so this gives the same microbatches as on a single
  device.
  """
  size = len(batch['padding_mask'])
  if size % accumulate:
    raise UserError(
        f'accumulate={accumulate} does not divide the {size} photographs of '
        'each device: choose a batch_size that is a multiple of accumulate '
        'times the number of devices')

  def deal(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(
        x.reshape(size // accumulate, accumulate, *x.shape[1:]), 0, 1)

  return {name: deal(x) for name, x in batch.items()}, deal(keys)


def _moving_average(old: TrainState, new: TrainState, decay: float | None
                    ) -> Variables | None:
  """The average after a step; integers are copied from the new state."""
  if decay is None:
    return old.ema
  if old.ema is None:
    raise ValueError('ema_decay needs a state that is made with ema=True')
  t = old.step.astype(jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))

  def average(mean: jax.Array, x: jax.Array) -> jax.Array:
    is_real = jnp.issubdtype(x.dtype, jnp.inexact)
    return mean + rate * (x - mean) if is_real else x

  return jax.tree.map(average, old.ema, {
      'params': new.params, 'model_state': new.model_state})


def _are_finite(tree: Any, unless_as: Any = None) -> list[jax.Array]:
  """Which floating-point numbers of a tree are finite, for `_all`.

  Args:
    tree: arrays of any type.
    unless_as: a tree of the same structure. A number that is equal to the one
      there is accepted: some optimizers start from an infinite lowest loss.
  """
  kept = jax.tree.leaves(tree if unless_as is None else unless_as)
  parts = []
  for x, old in zip(jax.tree.leaves(tree), kept, strict=True):
    if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
      fine = jnp.isfinite(x)
      parts.append(fine if unless_as is None else fine | (x == old))
  return parts


def _all(parts: Sequence[jax.Array]) -> jax.Array:
  """Whether all Booleans of all arrays are true.

  Arrays of the same shape are combined first. XLA takes about half a second to
  compile each reduction, and there are four or more arrays for each parameter.
  """
  by_shape: dict[tuple[int, ...], jax.Array] = {}
  for part in parts:
    shape = jnp.shape(part)
    by_shape[shape] = by_shape.get(shape, True) & part
  return jnp.stack([x.all() for x in by_shape.values()]).all()


def _accept(
    old: TrainState, new: TrainState, finite: jax.Array) -> TrainState:
  """The new state if it is finite and no step failed before, else the old."""
  take = finite & ~old.failed
  chosen = jax.tree.map(lambda n, o: jnp.where(take, n, o), new, old)
  return chosen.replace(failed=old.failed | ~finite)
