"""Classification losses against scipy, in float64 with dense targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from colorjax.losses import classification

Q = 9


def _problem(shape=(2, 3, 4), k=3, seed=0):
  """Logits, a sparse target, and the same target as [..., Q]."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(*shape, Q)) * 3
  indices = rng.permuted(np.broadcast_to(np.arange(Q), (*shape, Q)),
                         axis=-1)[..., :k]
  weights = rng.dirichlet(np.ones(k), shape)
  dense = np.zeros((*shape, Q))
  np.put_along_axis(dense, indices, weights, -1)
  return logits, (jnp.asarray(indices), jnp.asarray(weights)), dense


def _oracle(logits, dense):
  return -(dense * scipy.special.log_softmax(logits, -1)).sum(-1)


def test_cross_entropy_with_soft_targets():
  logits, code, dense = _problem()
  found = classification.cross_entropy(jnp.asarray(logits), *code)
  assert found.shape == (2, 3, 4)
  np.testing.assert_allclose(found, _oracle(logits, dense), rtol=1e-5)


def test_rebalanced_by_the_weight_of_the_most_probable_bin():
  logits, code, dense = _problem()
  class_weights = np.random.default_rng(1).random(Q) + 0.1
  found = classification.rebalanced_cross_entropy(
      jnp.asarray(logits), *code, jnp.asarray(class_weights))
  expected = class_weights[dense.argmax(-1)] * _oracle(logits, dense)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradient_is_softmax_minus_target_times_weight():
  logits, code, dense = _problem()
  class_weights = jnp.arange(1., Q + 1)
  found = jax.grad(lambda x: classification.rebalanced_cross_entropy(
      x, *code, class_weights).sum())(jnp.asarray(logits))
  weight = np.arange(1, Q + 1)[dense.argmax(-1)][..., None]
  np.testing.assert_allclose(
      found, weight * (scipy.special.softmax(logits, -1) - dense), atol=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(64, 313)), jnp.bfloat16)
  indices = jnp.asarray(rng.integers(0, 313, (64, 1)))
  found = classification.cross_entropy(logits, indices, jnp.ones((64, 1)))
  assert found.dtype == jnp.float32
  exact = np.asarray(logits, np.float64)
  expected = -np.take_along_axis(
      scipy.special.log_softmax(exact, -1), np.asarray(indices), -1)[:, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_extreme_logits_are_finite(dtype):
  logits = jnp.asarray([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]], dtype)
  indices, weights = jnp.asarray([[0, 1]] * 2), jnp.asarray([[0.25, 0.75]] * 2)
  nats, gradient = jax.vjp(
      lambda x: classification.cross_entropy(x, indices, weights), logits)
  np.testing.assert_allclose(nats, [15000, 5000], rtol=5e-3)
  (gradient,) = gradient(jnp.ones(2))
  assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_shapes_are_not_broadcast():
  _, (indices, weights), _ = _problem()
  logits = jnp.zeros((2, 3, 4, Q))
  with pytest.raises(ValueError, match=r'got \[3, 4, 9\], \[2, 3, 4, 3\]'):
    classification.cross_entropy(logits[0], indices, weights)
  with pytest.raises(ValueError, match=r'got \[2, 3, 1, 9\], \[2, 3, 4, 3\]'):
    classification.cross_entropy(logits[:, :, :1], indices, weights)
  with pytest.raises(ValueError, match=r'and \[2, 3, 4, 2\]'):
    classification.cross_entropy(logits, indices, weights[..., :2])
  with pytest.raises(ValueError, match=r'must be \[9\].* got \[1\]'):
    classification.rebalanced_cross_entropy(
        logits, indices, weights, jnp.ones(1))
  with pytest.raises(TypeError):
    classification.cross_entropy(logits, weights, weights)
