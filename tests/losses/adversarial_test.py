"""Adversarial losses against optax and values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax.losses import adversarial

LOSSES = {'bce': adversarial.bce(), 'hinge': adversarial.hinge(),
          'least_squares': adversarial.least_squares()}
LOGITS = jnp.array([[-3.0, -0.5], [0.25, 4.0]])


def test_bce_is_the_cross_entropy_of_optax():
  loss = LOSSES['bce']
  for found, label in ((loss.real, 1), (loss.fake, 0), (loss.generator, 1)):
    np.testing.assert_allclose(
        found(LOGITS), optax.sigmoid_binary_cross_entropy(
            LOGITS, jnp.full_like(LOGITS, label)), rtol=1e-6)


def test_least_squares_is_the_squared_error_of_optax():
  loss = LOSSES['least_squares']
  for found, label in ((loss.real, 1), (loss.fake, 0), (loss.generator, 1)):
    np.testing.assert_allclose(found(LOGITS), optax.squared_error(
        LOGITS, jnp.full_like(LOGITS, label)), rtol=1e-6)


def test_hinge_equals_optax_and_has_no_margin_for_the_generator():
  loss = LOSSES['hinge']
  for found, label in ((loss.real, 1), (loss.fake, -1)):
    np.testing.assert_allclose(found(LOGITS), optax.hinge_loss(
        LOGITS, jnp.full_like(LOGITS, label)), rtol=1e-6)
  np.testing.assert_array_equal(loss.generator(LOGITS), -LOGITS)


@pytest.mark.parametrize('name', LOSSES)
def test_gradients_have_the_right_sign_and_are_finite(name):
  loss = LOSSES[name]
  # Logits inside all margins and between the targets.
  logits = loss.boundary + jnp.array([-0.4, 0.0, 0.4])
  for function, sign in ((loss.real, -1), (loss.fake, 1),
                         (loss.generator, -1)):
    slope = jax.vmap(jax.grad(function))(logits)
    assert (jnp.sign(slope) == sign).all()
    extreme = jnp.array([-1e4, 1e4])
    assert jnp.isfinite(function(extreme)).all()
    assert jnp.isfinite(jax.vmap(jax.grad(function))(extreme)).all()


@pytest.mark.parametrize('name', LOSSES)
def test_boundary_balances_the_terms_of_the_discriminator(name):
  loss = LOSSES[name]
  total = jax.grad(lambda x: loss.real(x) + loss.fake(x))
  assert total(loss.boundary) == pytest.approx(0, abs=1e-6)
  assert total(loss.boundary + 2.0) > 0 > total(loss.boundary - 2.0)


def test_generator_of_bce_does_not_saturate():
  """If the discriminator is confident, the minimax loss has no gradient."""
  confident = -30.0
  assert jax.grad(LOSSES['bce'].generator)(confident) == pytest.approx(-1)
  assert jax.grad(lambda x: -LOSSES['bce'].fake(x))(
      confident) == pytest.approx(0, abs=1e-9)


def test_masked_squared_error_by_hand():
  output = jnp.array([[[[0.5, -0.5]], [[0.5, 0.0]]]])
  target = jnp.array([[[[0.75, 0.0]], [[1.0, 1.0]]]])
  region = jnp.array([[[[1.0]], [[0.0]]]])
  np.testing.assert_array_equal(
      adversarial.masked_squared_error(output, target, region),
      [[[[0.0625, 0.25]], [[0.25, 0.0]]]])


@pytest.mark.parametrize('shapes', [
    [(1, 4, 4, 2), (1, 4, 4, 2), (1, 4, 4)],
    [(1, 4, 4, 2), (1, 4, 4, 2), (1, 4, 4, 2)],
    [(1, 4, 4, 2), (4, 4, 2), (1, 4, 4, 1)]])
def test_masked_squared_error_refuses_to_broadcast(shapes):
  with pytest.raises(ValueError, match='must have the same shape'):
    adversarial.masked_squared_error(*(jnp.zeros(s) for s in shapes))
