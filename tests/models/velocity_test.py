"""The velocity network: its inputs, its conditioning and its first output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import trunk, velocity

pytestmark = pytest.mark.usefixtures('compiles_quickly')


@pytest.fixture(scope='module')
def problem():
  """A network with random parameters, compiled, and its inputs."""
  net = velocity.TrunkVelocity(trunk.build('unet', (16, 16), jnp.float32), 8)
  numbers = iter(jax.random.split(jax.random.key(0), 9))
  inputs = {'field': jax.random.normal(next(numbers), (3, 4, 4, 4)),
            'lightness': jax.random.normal(next(numbers), (3, 8, 8, 1)),
            'is_given': jnp.asarray([1.0, 0.0, 1.0]),
            'times': jax.random.uniform(next(numbers), (3, 2))}
  initial = jax.jit(lambda key: net.init(key, **inputs, train=False))(
      next(numbers))
  # The output layer and the conditioning are initialized to 0.
  moved = jax.tree.map(
      lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape),
      initial)
  apply = jax.jit(lambda v, inputs: net.apply(v, **inputs, train=False))
  return apply, initial, moved, inputs


def test_the_first_velocity_is_zero_and_float32(problem):
  apply, initial, moved, inputs = problem
  first = apply(initial, inputs)
  assert first.shape == (3, 4, 4, 2)
  assert first.dtype == jnp.float32
  np.testing.assert_array_equal(first, 0)
  assert jnp.abs(apply(moved, inputs)).min(axis=(1, 2, 3)).max() > 0


@pytest.mark.parametrize('name', ['field', 'lightness', 'is_given', 'times'])
def test_every_input_matters_to_its_own_photograph(problem, name):
  apply, _, moved, inputs = problem
  other = {**inputs, name: inputs[name].at[0].set(0.25)}
  change = jnp.abs(apply(moved, other) - apply(moved, inputs)).max((1, 2, 3))
  assert change[0] > 1e-3
  np.testing.assert_allclose(change[1:], 0, atol=1e-5)


def test_lightness_that_is_not_given_is_not_seen(problem):
  apply, _, moved, inputs = problem
  other = {**inputs, 'lightness': -inputs['lightness']}
  change = jnp.abs(apply(moved, other) - apply(moved, inputs)).max((1, 2, 3))
  assert change[1] == 0
  assert (change[jnp.asarray([0, 2])] > 1e-3).all()


def test_each_of_the_times_matters(problem):
  apply, _, moved, inputs = problem
  for i in range(2):
    other = {**inputs, 'times': inputs['times'].at[:, i].add(0.05)}
    assert jnp.abs(apply(moved, other) - apply(moved, inputs)).max() > 1e-3


def test_the_field_stays_in_its_place(problem):
  """Repeated to the photograph's resolution, each value in its block."""
  _, _, _, inputs = problem

  class Looks:
    stride, divisor = 2, 2

    def encode(self, x, conditioning, *, train):
      assert x.shape == (3, 8, 8, 5)
      for i in range(8):
        for j in range(8):
          np.testing.assert_array_equal(
              x[:, i, j, 1:], inputs['field'][:, i // 2, j // 2])
      return [x]

    def decode(self, scales, conditioning, *, train):
      assert conditioning.shape == (3, 8)
      return scales[0][:, ::2, ::2]

  net = velocity.TrunkVelocity(Looks(), 8)
  net.init(jax.random.key(0), **inputs, train=False)
