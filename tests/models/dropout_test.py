"""Dropout with a key for each photograph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models.dropout import dropout

KEYS = jax.random.split(jax.random.key(0), 6)


def test_dropout_of_a_photograph_does_not_depend_on_the_batch():
  x = jax.random.normal(jax.random.key(1), (6, 5, 3))
  whole = dropout(x, KEYS, 0.5)
  np.testing.assert_array_equal(dropout(x[2:4], KEYS[2:4], 0.5), whole[2:4])
  assert len({np.asarray(row != 0).tobytes() for row in whole}) == 6


def test_the_given_share_is_dropped_and_the_mean_is_kept():
  x = jnp.ones((6, 4000))
  y = dropout(x, KEYS, 0.25)
  np.testing.assert_allclose((y == 0).mean(1), 0.25, atol=0.03)
  np.testing.assert_allclose(y.max(), 1 / 0.75, rtol=1e-6)
  np.testing.assert_allclose(y.mean(), 1, atol=0.02)


@pytest.mark.parametrize('rate', [0.0, 1.0])
def test_rates_zero_and_one(rate):
  x = jnp.ones((6, 3))
  value, gradient = jax.value_and_grad(
      lambda x: dropout(x, KEYS, rate).sum())(x)
  assert float(value) == 18 * (1 - rate)
  np.testing.assert_array_equal(gradient, 1 - rate)
