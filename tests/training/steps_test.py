"""The pure steps against updates worked out with NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_problem as problem

from colorjax import keys
from colorjax.colorizer import FROZEN, Aux, masked_mean
from colorjax.errors import UserError
from colorjax.training import steps, totals
from colorjax.training.state import create_state


def _quadratic(params, model_state, batch, keys, *, step, train):
  """Mean over valid photographs of (w - x)^2, x the first pixel / 255."""
  del keys, step, train
  x = batch['image'][:, 0, 0, 0].astype(jnp.float32) / 255
  error, mask = jnp.square(params['w'] - x), batch['padding_mask']
  metrics = {'loss': ((error * mask).sum(), mask.sum())}
  return (error * mask).sum() / jnp.maximum(mask.sum(), 1), Aux(
      model_state=model_state, metrics=metrics)


def _batch(values, mask=None):
  values = np.asarray(values, np.uint8)
  return {
      'image': np.broadcast_to(
          values[:, None, None, None], (len(values), 2, 2, 3)),
      'padding_mask': np.ones(len(values), np.float32) if mask is None
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
  with pytest.raises(UserError, match='accumulate=3 does not divide the 4'):
    step(_state(optax.sgd(1.0)), _batch([1, 2, 3, 4]))


def test_model_state_runs_through_the_microbatches():
  optimizer = optax.sgd(0.0)
  step = jax.jit(steps.make_train_step(
      problem.loss, optimizer, seed=0, accumulate=4))
  state, _ = step(create_state(problem.variables(), optimizer),
                  problem.batch(0))
  assert float(state.model_state['seen']) == 4


def _noise_loss(params, model_state, batch, keys, *, step, train):
  """The photographs' noise; its mean is the gradient too."""
  del step, train
  noise = jax.vmap(jax.random.normal)(keys)
  figures = {'loss': noise * (1 + params['w'])}
  figures |= {f'row/{i}': x * jnp.ones_like(noise)
              for i, x in enumerate(noise[:2])}
  return masked_mean(figures, batch['padding_mask'], model_state)


def _noise(seed=0, step=0, places=(0, 1, 2, 3), purpose='loss'):
  key = keys.of_step(seed, step, purpose)
  return jax.vmap(jax.random.normal)(
      keys.of_examples(key, jnp.asarray(places)))


def test_a_photographs_key_is_a_function_of_seed_step_and_place():
  optimizer = optax.sgd(0.1)
  batch = _batch([1, 2])

  def draw(seed, at):
    step = jax.jit(steps.make_train_step(_noise_loss, optimizer, seed=seed))
    state = _state(optimizer, w=0.0).replace(step=jnp.asarray(at, jnp.int32))
    return _means(step(state, batch)[1])

  drawn = draw(3, 7)
  for i in range(2):
    assert drawn[f'row/{i}'] == pytest.approx(
        float(_noise(3, 7, (0, 1))[i]), rel=1e-6)
  values = {draw(*at)[f'row/{i}']
            for at in ((3, 7), (3, 8), (4, 7)) for i in range(2)}
  assert len(values) == 6


def test_microbatches_keep_their_photographs_keys():
  optimizer = optax.sgd(0.1)
  step = jax.jit(steps.make_train_step(
      _noise_loss, optimizer, seed=3, accumulate=2))
  _, metrics = step(_state(optimizer, w=0.0), _batch([1, 2, 3, 4]))
  drawn = _noise(3)
  assert _means(metrics)['loss'] == pytest.approx(float(drawn.mean()))
  # Microbatch 0 holds photographs 0 and 2, microbatch 1 holds 1 and 3.
  assert _means(metrics)['row/0'] == pytest.approx(float(drawn[:2].mean()))
  assert _means(metrics)['row/1'] == pytest.approx(float(drawn[2:].mean()))


def test_each_player_has_keys_of_its_own():
  def player(name):
    def loss(params, model_state, batch, keys, *, step, train):
      del step, train
      noise = jax.vmap(jax.random.normal)(keys)
      scalar, aux = masked_mean(
          {'loss': noise + 0 * params[name]}, batch['padding_mask'],
          model_state)
      return scalar, aux.replace(metrics={name: aux.metrics['loss']})
    return loss

  names = ('painter', 'critic')
  optimizer = optax.sgd(0.1)
  state = create_state(
      {'params': dict.fromkeys(names, jnp.ones(())), 'model_state': {}},
      optimizer, players=names)
  for accumulate in (1, 2):
    step = steps.make_train_step(
        {name: player(name) for name in names}, optimizer, seed=3,
        accumulate=accumulate)
    _, metrics = jax.jit(step)(state, _batch([1, 2, 3, 4]))
    for name in names:
      assert _means(metrics)[name] == pytest.approx(
          float(_noise(3, purpose=name).mean()))


def test_held_out_keys_are_a_function_of_the_photograph():
  step = jax.jit(steps.make_eval_step(_noise_loss))
  variables = {'params': {'w': jnp.zeros(())}, 'model_state': {}}
  order = np.random.default_rng(0).permutation(8)
  expected = jax.vmap(jax.random.normal)(keys.of_photographs(
      0, 'held-out loss', jnp.arange(8))).mean()
  for size in (8, 4, 2):
    batches = [_batch(range(8)) for _ in range(8 // size)]
    for i, batch in enumerate(batches):
      some = order[i * size:(i + 1) * size]
      batches[i] = {name: x[:size] for name, x in batch.items()} | {
          'index': some.astype(np.int32)}
    assert totals.evaluate(step, variables, batches)['loss'] == pytest.approx(
        float(expected), rel=1e-6)


def test_an_evaluation_batch_needs_an_index():
  batch = _batch([1])
  del batch['index']
  with pytest.raises(UserError, match="padding_mask: add 'index'"):
    steps.make_eval_step(_noise_loss)({'params': {}, 'model_state': {}}, batch)


def test_a_loss_knows_the_step():
  def loss(params, model_state, batch, keys, *, step, train):
    del keys
    weight = jnp.float32(step) if train else jnp.float32(-1)
    assert (step is None) == (not train)
    return masked_mean({'loss': (weight + 0 * params['w'])
                        * jnp.ones_like(batch['padding_mask'])},
                       batch['padding_mask'], model_state)

  state = _state(optax.sgd(0.1))
  step = jax.jit(steps.make_train_step(loss, optax.sgd(0.1), seed=0))
  for expected in (0, 1):
    state, metrics = step(state, _batch([1, 2]))
    assert _means(metrics)['loss'] == expected
  metrics = steps.make_eval_step(loss)(state.variables, _batch([1, 2]))
  assert _means(metrics)['loss'] == -1


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
    assert float(state.ema['params']['w']) == pytest.approx(average)
  assert float(state.variables['params']['w']) == pytest.approx(average)
  assert float(state.params['w']) == pytest.approx(1.0)


def test_evaluation_uses_the_parameters_where_no_average_is_kept():
  state = _state(optax.sgd(0.1), w=3.0)
  assert state.ema is None
  assert float(state.variables['params']['w']) == 3.0


def _poisoned(params, model_state, batch, keys, *, step, train):
  """A NaN loss where a pixel is 13; where it is 14 a gradient that is NaN."""
  loss, aux = _quadratic(
      params, model_state, batch, keys, step=step, train=train)
  first = batch['image'][0, 0, 0, 0]
  # The root has a finite value at 0 and an infinite slope.
  root = jnp.sqrt(jnp.where(first == 14, 0.0, 1.0) * params['w'])
  return jnp.where(first == 13, jnp.nan, loss) + root, aux


@pytest.mark.parametrize('poison', [13, 14])
def test_a_failed_step_changes_nothing_and_stops_all_later_ones(poison):
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


@pytest.mark.parametrize('where', ['params', 'opt_state', 'ema'])
def test_an_update_that_is_not_finite_is_not_accepted(where):
  """Loss and gradient are finite; what the optimizer makes of them is not."""
  def update(grads, state, params=None):
    del params
    bad = jnp.inf if where == 'params' else 0.0
    kept = jnp.inf if where == 'opt_state' else 0.0
    return jax.tree.map(lambda g: g * 0 + bad, grads), (
        state[0], jnp.asarray(kept), state[2] + 1)

  # An infinite number that was there from the start is accepted.
  optimizer = optax.GradientTransformation(
      lambda params: (jnp.asarray(jnp.inf), jnp.zeros(()),
                      jnp.zeros((), jnp.int32)), update)
  start = _state(optimizer, w=1e10, ema=True)
  if where == 'ema':  # Its distance to the parameters overflows.
    start = start.replace(params={'w': jnp.float32(3e38)}, ema={
        'params': {'w': jnp.float32(-3e38)}, 'model_state': {}})

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    return masked_mean({'loss': 0 * params['w'] + batch['padding_mask']},
                       batch['padding_mask'], model_state)

  step = jax.jit(steps.make_train_step(
      loss, optimizer, seed=0, ema_decay=0.5))
  after, metrics = step(start, _batch([1]))
  assert np.isfinite(_means(metrics)['loss'])
  assert bool(after.failed)
  jax.tree.map(np.testing.assert_array_equal, after.replace(failed=False),
               start.replace(failed=False))


def test_an_optimizer_may_hold_an_infinite_number_from_the_start():
  optimizer = optax.chain(
      optax.sgd(0.1), optax.GradientTransformation(
          lambda params: jnp.asarray(jnp.inf), lambda g, s, p=None: (g, s)))
  after, _ = jax.jit(steps.make_train_step(_quadratic, optimizer, seed=0))(
      _state(optimizer), _batch([1]))
  assert not bool(after.failed)


def test_parameters_and_statistics_are_averaged():
  """Evaluation uses averaged statistics with averaged parameters."""
  def loss(params, model_state, batch, keys, *, step, train):
    scalar, aux = _quadratic(
        params, model_state, batch, keys, step=step, train=train)
    return scalar, aux.replace(model_state=model_state | {'batch_stats': {
        'mean': params['w'], 'count': model_state['batch_stats']['count'] + 1}})

  frozen = {'v': jnp.float32(7)}
  optimizer = optax.sgd(0.5)
  state = create_state({'params': {'w': jnp.float32(2)}, 'model_state': {
      'batch_stats': {'mean': jnp.float32(2), 'count': jnp.int32(0)},
      FROZEN: frozen}}, optimizer, ema=True)
  step = jax.jit(steps.make_train_step(
      loss, optimizer, seed=0, ema_decay=0.15))
  average, before = 2.0, 2.0
  for t, value in enumerate([255, 0, 255]):
    state, _ = step(state, _batch([value]))
    decay = min(0.15, (1 + t) / (10 + t))
    average = decay * average + (1 - decay) * before
    before = value / 255
  assert FROZEN not in state.ema['model_state']
  stats = state.variables['model_state']['batch_stats']
  assert float(stats['mean']) == pytest.approx(average)
  assert int(stats['count']) == 3
  assert state.variables['model_state'][FROZEN] == frozen
  assert float(state.model_state['batch_stats']['mean']) == 0


def _infinite_in_padding(params, model_state, batch, keys, *, step, train):
  """log(w x): an infinite slope where x is 0, as padding is."""
  del keys, step, train
  x = batch['image'][:, 0, 0, 0].astype(jnp.float32) / 255
  return masked_mean(
      {'loss': jnp.log(params['w'] * x)}, batch['padding_mask'], model_state)


@pytest.mark.parametrize('accumulate', [1, 2])
def test_padding_cannot_make_a_gradient_infinite(accumulate):
  optimizer = optax.sgd(1.0)
  step = jax.jit(steps.make_train_step(
      _infinite_in_padding, optimizer, seed=0, accumulate=accumulate))
  state, metrics = step(_state(optimizer), _batch([0, 51, 0, 255],
                                                  [0, 1, 0, 1]))
  assert not bool(state.failed)
  np.testing.assert_allclose(state.params['w'], 2 - 1 / 2, rtol=1e-6)
  np.testing.assert_allclose(
      _means(metrics)['loss'], np.log([0.4, 2]).mean(), rtol=1e-5)


def test_the_lightness_of_scans_is_a_function_of_step_and_place():
  """Losses find it in the batch, also in microbatches."""
  def lightness_of(images, step, places):
    assert images.shape == (4, 2, 2, 3)
    value = 10.0 * step + places
    return jnp.broadcast_to(value[:, None, None, None], (4, 2, 2, 1))

  def loss(params, model_state, batch, keys, *, step, train):
    del params, keys, step, train
    return masked_mean({'loss': batch['lightness'].mean((1, 2, 3))},
                       batch['padding_mask'], model_state)

  for accumulate in (1, 2):
    step = jax.jit(steps.make_train_step(
        loss, optax.sgd(0.1), seed=0, accumulate=accumulate,
        lightness_of=lightness_of))
    state, metrics = step(_state(optax.sgd(0.1)), _batch([1, 2, 3, 4]))
    assert _means(metrics)['loss'] == pytest.approx(1.5)
    _, metrics = step(state, _batch([1, 2, 3, 4], mask=[0, 1, 1, 0]))
    assert _means(metrics)['loss'] == pytest.approx(11.5)
