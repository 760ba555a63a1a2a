"""Regression losses against optax, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax.losses import regression

ORACLES = {
    'mse': optax.squared_error,
    'l1': lambda e: np.abs(e),
    'huber': lambda e: optax.huber_loss(e, delta=1 / 110),
    'smooth': lambda e: np.sqrt(np.float64(e)**2 + 1e-6) - 1e-3,
}
every_loss = pytest.mark.parametrize('name', ORACLES)


@pytest.fixture(name='error', scope='module')
def _error():
  rng = np.random.default_rng(0)
  # Both sides of both corners (1/110 and 1e-3), signs mixed.
  size = 10 ** rng.uniform(-4, 0, (3, 4, 5, 2))
  return (size * rng.choice([-1, 1], size.shape)).astype(np.float32)


def test_every_loss_has_an_oracle():
  assert set(regression.LOSSES) == set(ORACLES)


@every_loss
def test_mean_over_pixels_for_each_photograph(name, error):
  value = jax.jit(regression.LOSSES[name])(error)
  expected = np.asarray(ORACLES[name](error), np.float64).mean((1, 2, 3))
  assert value.shape == (3,)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@every_loss
def test_weights_multiply_pixels_and_are_not_normalized(name, error):
  weights = np.random.default_rng(1).uniform(0, 3, (3, 4, 5)).astype('f')
  value = regression.LOSSES[name](error, weights)
  penalty = np.asarray(ORACLES[name](error), np.float64)
  by_hand = [sum(weights[n, i, j] * (penalty[n, i, j, 0] + penalty[n, i, j, 1])
                 for i in range(4) for j in range(5)) / 40 for n in range(3)]
  np.testing.assert_allclose(value, by_hand, rtol=1e-5)


@every_loss
def test_a_perfect_answer_costs_nothing_and_pulls_nowhere(name):
  zero = jnp.zeros((1, 2, 2, 2))
  value, gradient = jax.value_and_grad(
      lambda e: regression.LOSSES[name](e).sum())(zero)
  assert value == 0
  np.testing.assert_array_equal(gradient, zero)


@every_loss
def test_gradient_against_differences(name, error):
  loss = regression.LOSSES[name]
  photo = error[0]
  gradient = jax.grad(loss)(jnp.asarray(photo))
  for index in [(0, 0, 0), (1, 2, 1), (3, 4, 0)]:
    step = 1e-2 * abs(photo[index])
    ends = np.float64(ORACLES[name](np.float64(
        [photo[index] - step, photo[index] + step])))
    slope = (ends[1] - ends[0]) / (2 * step) / photo.size
    np.testing.assert_allclose(gradient[index], slope, rtol=1e-2)


def test_hand_values():
  error = jnp.array([[[3.0, -4.0]]])  # one pixel
  assert regression.mse(error) == 12.5
  assert regression.l1(error) == 3.5
  assert regression.huber(error, delta=2) == (4.0 + 6.0) / 2
  np.testing.assert_allclose(
      regression.smooth(error, epsilon=4.0), (1 + 4 * 2**0.5 - 4) / 2,
      rtol=1e-6)


def test_small_errors_keep_their_digits():
  # sqrt(e^2 + epsilon^2) - epsilon in float32 would be 0 here.
  error = jnp.full((1, 1, 2), 1e-7)
  np.testing.assert_allclose(
      regression.smooth(error), 1e-14 / 2e-3, rtol=1e-5)


@every_loss
def test_half_precision_is_widened(name):
  error = jnp.full((1, 64, 64, 2), 0.1, jnp.bfloat16)
  value = regression.LOSSES[name](error)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(
      value, np.asarray(ORACLES[name](np.float32(error))).mean(), rtol=1e-4)


@pytest.mark.parametrize(('shape', 'weights', 'message'), [
    ((2, 2), None, r'\[\.\.\., H, W, 2\], got \[2, 2\]'),
    ((1, 2, 2, 3), None, r'got \[1, 2, 2, 3\]'),
    ((1, 2, 2, 2), (1, 2, 2, 1), r'\[1, 2, 2\], got \[1, 2, 2, 1\]'),
    ((2, 2, 2, 2), (2, 2), r'\[2, 2, 2\], got \[2, 2\]'),
])
def test_wrong_shapes_are_refused(shape, weights, message):
  with pytest.raises(ValueError, match=message):
    regression.mse(
        jnp.zeros(shape), None if weights is None else jnp.ones(weights))


def test_corners_at_zero_are_refused():
  error = jnp.zeros((1, 2, 2, 2))
  with pytest.raises(ValueError, match='delta'):
    regression.huber(error, delta=0)
  with pytest.raises(ValueError, match='epsilon'):
    regression.smooth(error, epsilon=-1.0)
