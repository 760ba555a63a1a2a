"""The residual block against the layers of Flax that it stands for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import residual

pytestmark = pytest.mark.usefixtures('compiles_quickly')


class _Reference(nn.Module):
  """The block as Flax computes it; its parameters have the same names."""
  width: int
  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, x, conditioning=None):
    def norm(x):
      return nn.GroupNorm(num_groups=None, group_size=16, dtype=self.dtype)(x)

    shortcut = x
    if x.shape[-1] != self.width:
      shortcut = nn.Conv(self.width, (1, 1), use_bias=False,
                         dtype=self.dtype)(x)
    x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(norm(x)))
    x = norm(x)
    if conditioning is not None:
      film = nn.Dense(2 * self.width, dtype=self.dtype, name='film')(
          nn.silu(conditioning))[:, None, None]
      scale, shift = jnp.split(film, 2, axis=-1)
      x = x * (1 + scale) + shift
    return shortcut + nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(x))


def _arrays(seed, *shapes):
  generator = np.random.default_rng(seed)
  return [jnp.asarray(generator.normal(0.3, 1, shape), jnp.float32)
          for shape in shapes]


def _random(variables):
  """Variables in which no scale is 1 and no bias 0."""
  leaves, structure = jax.tree.flatten(variables)
  shifts = _arrays(1, *(leaf.shape for leaf in leaves))
  return structure.unflatten(
      [leaf + 0.1 * shift for leaf, shift in zip(leaves, shifts, strict=True)])


@pytest.mark.parametrize('width', [32, 48])
@pytest.mark.parametrize('conditioned', [False, True])
def test_block_equals_that_of_flax(width, conditioned):
  x, conditioning, tangent = _arrays(0, (2, 5, 3, 32), (2, 7), (2, 5, 3, width))
  inputs = (x, conditioning) if conditioned else (x,)
  block, reference = residual.ResidualBlock(width), _Reference(width)
  initial = reference.init(jax.random.key(0), x)
  for a, b in zip(jax.tree.leaves(initial), jax.tree.leaves(
      block.init(jax.random.key(0), x)), strict=True):
    np.testing.assert_array_equal(a, b)
  variables = _random(reference.init(jax.random.key(0), *inputs))

  def both(function):
    return [jax.jit(lambda v, *i, m=module: function(m, v, *i))(
        variables, *inputs) for module in (block, reference)]

  def value_and_gradients(module, *primals):
    value, pull = jax.vjp(module.apply, *primals)
    return value, pull(tangent)

  def derivative(module, *primals):
    return jax.jvp(module.apply, primals, jax.tree.map(jnp.cos, primals))

  for function in (value_and_gradients, derivative):
    found, expected = both(function)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected),
                    strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4)


def test_block_computes_in_bfloat16_as_flax_does():
  x, = _arrays(0, (2, 5, 3, 32))
  exact = residual.ResidualBlock(32)
  block, reference = (module(32, jnp.bfloat16)
                      for module in (residual.ResidualBlock, _Reference))
  variables = _random(exact.init(jax.random.key(0), x))
  x = x.astype(jnp.bfloat16)
  assert block.apply(variables, x).dtype == jnp.bfloat16

  def gradients(module):
    return jax.grad(lambda v: jnp.sin(
        module.apply(v, x).astype(jnp.float32)).sum())(variables)

  wanted, found, flax_found = (
      jnp.concatenate([g.ravel() for g in jax.tree.leaves(gradients(module))])
      for module in (exact, block, reference))
  size = jnp.linalg.norm(wanted)
  assert jnp.linalg.norm(found - wanted) < 0.02 * size
  assert jnp.linalg.norm(found - wanted) < 1.2 * jnp.linalg.norm(
      flax_found - wanted)


@pytest.mark.parametrize(('channels', 'group_size'), [(24, 8), (6, 2), (5, 1)])
def test_norm_takes_the_largest_groups_that_fit(channels, group_size):
  x, scale, bias = _arrays(0, (2, 4, 3, channels), (channels,), (channels,))
  variables = {'params': {'scale': scale, 'bias': bias}}
  factor, summand = residual.GroupNorm().apply(variables, x)
  np.testing.assert_allclose(
      x * factor[:, None, None] + summand[:, None, None],
      nn.GroupNorm(num_groups=None, group_size=group_size).apply(variables, x),
      rtol=1e-5, atol=1e-5)


def test_norm_of_a_constant_is_finite():
  x = jnp.full((1, 8, 8, 16), 1e3)
  def value(x):
    norm = residual.GroupNorm()
    return residual.scaled_silu(x, *norm.init_with_output(
        jax.random.key(0), x)[0]).sum()

  assert np.isfinite(value(x))
  assert np.isfinite(jax.grad(value)(x)).all()
