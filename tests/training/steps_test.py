"""The pure steps against updates worked out with NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_problem as problem

from colorjax.colorizer import Aux
from colorjax.errors import UserError
from colorjax.training import steps, totals
from colorjax.training.state import create_state


def _quadratic(params, model_state, batch, key, *, train):
  """Mean over valid photographs of (w - x)^2, x the first pixel / 255."""
  del key, train
  x = batch['image'][:, 0, 0, 0].astype(jnp.float32) / 255
  error, mask = jnp.square(params['w'] - x), batch['mask']
  metrics = {'loss': ((error * mask).sum(), mask.sum())}
  return (error * mask).sum() / jnp.maximum(mask.sum(), 1), Aux(
      model_state=model_state, metrics=metrics)


def _batch(values, mask=None):
  values = np.asarray(values, np.uint8)
  return {
      'image': np.broadcast_to(
          values[:, None, None, None], (len(values), 2, 2, 3)),
      'mask': np.ones(len(values), np.float32) if mask is None
              else np.asarray(mask, np.float32),
      'index': np.arange(len(values), dtype=np.int32),
  }


def _state(optimizer, w=2.0, **settings):
  return create_state(
      {'params': {'w': jnp.asarray(w)}, 'model_state': {}}, optimizer,
      **settings)


def _means(metrics):
  return {name: float(a) / float(b) for name, (a, b) in metrics.items()}


def test_one_sgd_step_by_hand():
  optimizer = optax.sgd(0.25)
  step = jax.jit(steps.make_train_step(
      _quadratic, optimizer, seed=0, schedule=optax.constant_schedule(0.25)))
  state, metrics = step(_state(optimizer), _batch([0, 255, 255, 0]))
  # w = 2, mean x = 1/2: gradient 2 (w - 1/2) = 3.
  assert float(state.params['w']) == pytest.approx(2 - 0.25 * 3)
  assert int(state.step) == 1
  means = _means(metrics)
  assert means['loss'] == pytest.approx((4 + 1 + 1 + 4) / 4)
  assert means['grad_norm'] == pytest.approx(3)
  assert means['learning_rate'] == pytest.approx(0.25)
  assert means[steps.NON_FINITE] == 0


@pytest.mark.parametrize('accumulate', [2, 3, 6])
def test_microbatches_of_unequal_counts_give_the_whole_gradient(accumulate):
  optimizer = optax.sgd(1.0)
  values = [10, 250, 30, 90, 170, 70, 200, 5, 40, 60, 80, 100]
  # Dealt out by 6, the last microbatch holds padding only.
  mask = [1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0]
  step = jax.jit(steps.make_train_step(
      _quadratic, optimizer, seed=0, accumulate=accumulate))
  state, metrics = step(_state(optimizer), _batch(values, mask))
  x = np.asarray(values)[np.asarray(mask) > 0] / 255
  np.testing.assert_allclose(
      state.params['w'], 2 - 2 * (2 - x.mean()), rtol=1e-6)
  np.testing.assert_allclose(
      _means(metrics)['loss'], np.square(2 - x).mean(), rtol=1e-6)
  assert float(metrics['loss'][1]) == 8


def test_indivisible_microbatches_are_refused():
  step = steps.make_train_step(
      _quadratic, optax.sgd(1.0), seed=0, accumulate=3)
  with pytest.raises(UserError, match='--accumulate=3'):
    step(_state(optax.sgd(1.0)), _batch([1, 2, 3, 4]))


def test_model_state_runs_through_the_microbatches():
  optimizer = optax.sgd(0.0)
  step = jax.jit(steps.make_train_step(
      problem.loss, optimizer, seed=0, accumulate=4))
  state, _ = step(create_state(problem.variables(), optimizer),
                  problem.batch(0))
  assert float(state.model_state['seen']) == 4


def _noise_loss(params, model_state, batch, key, *, train):
  del train
  noise = jax.random.normal(key) + 0 * params['w']
  return noise, Aux(model_state=model_state, metrics={
      'loss': (noise * batch['mask'].sum(), batch['mask'].sum())})


def test_key_is_a_function_of_seed_and_step():
  optimizer = optax.sgd(0.1)
  batch = _batch([1, 2])

  def draw(seed, at):
    step = jax.jit(steps.make_train_step(_noise_loss, optimizer, seed=seed))
    state = _state(optimizer).replace(step=jnp.asarray(at, jnp.int32))
    return _means(step(state, batch)[1])['loss']

  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 7), 0)
  assert draw(3, 7) == float(jax.random.normal(key))
  assert len({draw(3, 7), draw(3, 8), draw(4, 7)}) == 3


def test_microbatches_draw_different_noise():
  optimizer = optax.sgd(0.1)
  step = jax.jit(steps.make_train_step(
      _noise_loss, optimizer, seed=3, accumulate=2))
  _, metrics = step(_state(optimizer), _batch([1, 2, 3, 4]))
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), 0)
  drawn = [float(jax.random.normal(jax.random.fold_in(key, i)))
           for i in range(2)]
  assert _means(metrics)['loss'] == pytest.approx(np.mean(drawn))


def test_moving_average_by_hand():
  optimizer = optax.sgd(0.5)  # w becomes the mean of x at once
  step = jax.jit(steps.make_train_step(
      _quadratic, optimizer, seed=0, ema_decay=0.15))
  state = _state(optimizer, ema=True)
  average = 2.0
  for t, value in enumerate([255, 0, 255]):
    state, _ = step(state, _batch([value]))
    decay = min(0.15, (1 + t) / (10 + t))  # 0.1, then 0.15
    average = decay * average + (1 - decay) * value / 255
    assert float(state.ema['w']) == pytest.approx(average)
  assert float(state.variables['params']['w']) == pytest.approx(average)
  assert float(state.params['w']) == pytest.approx(1.0)


def test_evaluation_uses_the_parameters_where_no_average_is_kept():
  state = _state(optax.sgd(0.1), w=3.0)
  assert state.ema is None
  assert float(state.variables['params']['w']) == 3.0


def _poisoned(params, model_state, batch, key, *, train):
  """A NaN loss where a pixel is 13; where it is 14 a gradient that is NaN."""
  loss, aux = _quadratic(params, model_state, batch, key, train=train)
  first = batch['image'][0, 0, 0, 0]
  # The root has a finite value at 0 and an infinite slope.
  root = jnp.sqrt(jnp.where(first == 14, 0.0, 1.0) * params['w'])
  return jnp.where(first == 13, jnp.nan, loss) + root, aux


@pytest.mark.parametrize('poison', [13, 14])
def test_bad_step_changes_nothing_and_stops_all_later_ones(poison):
  optimizer = optax.adam(0.1)
  step = jax.jit(steps.make_train_step(
      _poisoned, optimizer, seed=0, ema_decay=0.9))
  sound, metrics = step(_state(optimizer, ema=True), _batch([1]))
  assert not bool(sound.failed)
  assert float(metrics[steps.NON_FINITE][0]) == 0
  bad, _ = step(sound, _batch([poison]))
  after, metrics = step(bad, _batch([1]))
  assert float(metrics[steps.NON_FINITE][0]) == 1
  for state in (bad, after):
    assert bool(state.failed)
    jax.tree.map(np.testing.assert_array_equal,
                 state.replace(failed=sound.failed), sound)


def test_evaluation_counts_each_photograph_once():
  step = jax.jit(steps.make_eval_step(_quadratic))
  # Unequal batches, padding, and one batch of nothing but padding.
  batches = [_batch([255, 0, 255]), _batch([255, 9, 9], [1, 0, 0]),
             _batch([9, 9, 9], [0, 0, 0])]
  variables = {'params': {'w': jnp.asarray(2.0)}, 'model_state': {}}
  means = totals.evaluate(step, variables, batches)
  assert means == {'loss': pytest.approx((1 + 4 + 1 + 1) / 4)}


def test_totals_survive_json_to_the_last_bit():
  window = totals.Totals()
  for value in np.random.default_rng(0).normal(size=50).astype(np.float32):
    window.add({'loss': (value, np.float32(3))})
  again = totals.Totals(json.loads(json.dumps(window.pairs())))
  assert again.means() == window.means()
