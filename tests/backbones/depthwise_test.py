"""Depthwise convolutions against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from colorjax.backbones import depthwise

SETTINGS = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'),
            'feature_group_count': 6}


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((2, 1), (0, 3))])
@pytest.mark.parametrize('strides', [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize('sides', [(1, 1), (3, 3), (5, 5), (2, 3)])
def test_values_and_gradients_equal_those_of_xla(sides, strides, padding):
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(size=(2, 11, 8, 6)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(*sides, 1, 6)), jnp.float32)

  def weighted(convolve, inputs, kernel):
    y = convolve(inputs, kernel, strides, padding, **SETTINGS)
    return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

  def run(convolve):
    return jax.grad(functools.partial(weighted, convolve), argnums=(0, 1),
                    has_aux=True)(inputs, kernel)

  found, expected = run(depthwise.convolve), run(lax.conv_general_dilated)
  assert found[1].shape == expected[1].shape
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=1e-5, atol=1e-5), found, expected)


def test_keeps_the_type():
  y = depthwise.convolve(jnp.ones((1, 4, 4, 6), jnp.bfloat16),
                         jnp.ones((3, 3, 1, 6), jnp.bfloat16), (1, 1), 'SAME')
  assert y.dtype == jnp.bfloat16


def test_the_gradient_of_the_kernel_is_summed_in_float32():
  """In bfloat16, the sum of each of the first rows would be 256, not 257."""
  inputs = jnp.ones((1, 9, 257, 3), jnp.bfloat16)
  inputs = inputs.at[:, 8].set(0).at[:, 8, 0].set(-8)
  gradient = jax.grad(lambda kernel: depthwise.convolve(
      inputs, kernel, (1, 1), 'VALID').sum().astype(jnp.float32))(
          jnp.ones((1, 1, 1, 3), jnp.bfloat16))
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_array_equal(gradient, 8 * 257 - 8)


def test_is_the_fast_form_on_cpus_and_that_of_xla_elsewhere():
  def lowered(platform):
    traced = jax.jit(lambda x, w: depthwise.convolve(
        x, w, (1, 1), 'SAME', **SETTINGS)).trace(
            jnp.ones((1, 8, 8, 6)), jnp.ones((3, 3, 1, 6)))
    return traced.lower(lowering_platforms=(platform,)).as_text()

  assert 'convolution' not in lowered('cpu')
  assert 'convolution' in lowered('cuda')


@pytest.mark.parametrize('settings', [
    {'rhs_dilation': (2, 2)}, {'lhs_dilation': (1, 2)}])
def test_refuses_dilation(settings):
  with pytest.raises(AssertionError, match='dilation is not supported'):
    depthwise.convolve(jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 1, 6)), (1, 1),
                       'SAME', **settings)
