"""Schedules and optimizers against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax.errors import UserError
from colorjax.training import optimizers


def _rates(schedule, steps):
  return [float(schedule(jnp.asarray(step))) for step in steps]


def test_constant_with_warmup():
  schedule = optimizers.make_schedule(
      'constant', learning_rate=0.8, warmup_steps=4)
  np.testing.assert_allclose(
      _rates(schedule, range(6)), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)


def test_warmup_of_one_step_is_no_warmup():
  schedule = optimizers.make_schedule(
      'constant', learning_rate=0.8, warmup_steps=1)
  np.testing.assert_allclose(_rates(schedule, range(3)), [0.8] * 3, rtol=1e-6)


def test_cosine_falls_from_the_peak_to_zero():
  schedule = optimizers.make_schedule(
      'cosine', learning_rate=2.0, num_steps=12, warmup_steps=4)
  # Half a cosine over the 8 steps after warm-up: 1 + cos(pi t / 8).
  np.testing.assert_allclose(
      _rates(schedule, [0, 3, 4, 6, 8, 12, 20]),
      [0.5, 2.0, 2.0, 1 + np.cos(np.pi / 4), 1.0, 0.0, 0.0], atol=1e-6)


def test_halving_every_n_steps():
  schedule = optimizers.make_schedule(
      'halving', learning_rate=1.0, halve_every=3)
  np.testing.assert_allclose(
      _rates(schedule, range(8)), [1, 1, 1, .5, .5, .5, .25, .25], rtol=1e-6)


@pytest.mark.parametrize(('settings', 'named'), [
    ({'name': 'cosine', 'num_steps': 5, 'warmup_steps': 5}, 'num_steps=5'),
    ({'name': 'halving'}, 'halve_every=0'),
    ({'name': 'linear'}, 'schedule=linear'),
])
def test_impossible_schedule_is_refused(settings, named):
  with pytest.raises(UserError, match=named):
    optimizers.make_schedule(learning_rate=1.0, **settings)


def _updates(optimizer, params, grads):
  update, _ = optimizer.update(grads, optimizer.init(params), params)
  return optax.apply_updates(params, update)


def test_clipping_keeps_the_direction():
  optimizer = optimizers.make_optimizer(
      'sgd', learning_rate=1.0, clip_norm=1.0)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  new = _updates(
      optimizer, params, {'a': jnp.full(1, 3.0), 'b': jnp.full(1, 4.0)})
  np.testing.assert_allclose([new['a'][0], new['b'][0]], [-.6, -.8], rtol=1e-6)


def test_momentum_adds_up():
  optimizer = optimizers.make_optimizer(
      'sgd', learning_rate=0.1, momentum=0.5)
  params, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
  for _ in range(3):
    update, state = optimizer.update(jnp.ones(()), state)
    params = params + update
  # Velocities 1, 1.5, 1.75.
  np.testing.assert_allclose(params, -0.425, rtol=1e-6)


def test_adam_by_hand():
  optimizer = optimizers.make_optimizer(
      'adam', learning_rate=0.1, b1=0.5, b2=0.75, eps=0.0)
  params, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
  for grad in (2.0, -1.0):
    update, state = optimizer.update(jnp.asarray(grad), state)
    params = params + update
  # m: 1, then 0; v: 1, then 1. First step m/(1-b1) = 2, v/(1-b2) = 4.
  np.testing.assert_allclose(params, -0.1, rtol=1e-6)


def test_weight_decay_spares_vectors_biases_and_scales():
  optimizer = optimizers.make_optimizer(
      'adamw', learning_rate=0.1, weight_decay=0.5)
  # Attention heads and stacked layers have biases of several axes.
  params = {'kernel': jnp.ones((2, 2)), 'vector': jnp.ones(2),
            'layers': {'bias': jnp.ones((3, 2)), 'scale': jnp.ones((3, 2))}}
  new = _updates(optimizer, params, jax.tree.map(jnp.zeros_like, params))
  np.testing.assert_allclose(new.pop('kernel'), 0.95, rtol=1e-6)
  for spared in jax.tree.leaves(new):
    np.testing.assert_array_equal(spared, 1.0)


def test_unknown_optimizer_is_refused():
  with pytest.raises(UserError, match='optimizer=lion'):
    optimizers.make_optimizer('lion', learning_rate=1.0)


@pytest.mark.parametrize(('name', 'others'), [
    ('adamw', {'weight_decay': 0.1}), ('adam', {}), ('sgd', {'momentum': 0.9})])
def test_a_pretrained_encoder_has_its_own_learning_rate(name, others):
  """Two steps equal those of two optimizers, each on its own parameters."""
  def tree(scale):
    return {'head': jnp.full((2, 2), scale), 'trunk': {
        'pretrained_encoder': {'stem': {'kernel': jnp.full((2, 2), -scale)}},
        'decoder': jnp.full((3,), 2 * scale)}}

  def after_two_steps(optimizer):
    params = tree(1.0)
    state = optimizer.init(params)
    for scale in (0.3, -0.1):
      updates, state = optimizer.update(tree(scale), state, params)
      params = optax.apply_updates(params, updates)
    return params

  def made(rate):
    return optimizers.make_optimizer(name, learning_rate=rate, **others)

  found = after_two_steps(optimizers.with_encoder_rate(made(0.1), 0.05))
  rest, encoder = after_two_steps(made(0.1)), after_two_steps(made(0.005))
  np.testing.assert_array_equal(found['head'], rest['head'])
  np.testing.assert_array_equal(
      found['trunk']['decoder'], rest['trunk']['decoder'])
  place = 'trunk', 'pretrained_encoder', 'stem', 'kernel'
  for part in place:
    found, encoder, rest = found[part], encoder[part], rest[part]
  np.testing.assert_allclose(found, encoder, rtol=1e-6)
  assert np.abs(found - rest).max() > 1e-3
