"""The residual autoencoder against the same layers in Keras."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import residual_autoencoder


class Stages(nn.Module):
  """Stages with the shapes of VGG's, without its 20 million parameters."""

  @nn.compact
  def __call__(self, x):
    def stage(stride, channels):
      pooled = nn.avg_pool(x, (stride, stride), (stride, stride))
      return jnp.tile(pooled, channels // 64)

    return {'pool3': stage(8, 256), 'pool4': stage(16, 512),
            'relu5_4': stage(16, 512)}


def _net(dtype='float32', backbone=None):
  return residual_autoencoder.ResidualAutoencoder(
      backbone=backbone or residual_autoencoder.encoder(dtype),
      dtype=jnp.dtype(dtype))


@pytest.fixture(scope='module')
def params():
  """Random values, also for parameters that are initialized to 0."""
  shapes = jax.eval_shape(
      lambda: _net().init(jax.random.key(0), jnp.zeros((1, 32, 32, 1))))
  rng = np.random.default_rng(0)

  def draw(leaf):
    fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 10
    return np.float32(rng.normal(0, (2 / fan_in)**0.5, leaf.shape))

  return jax.tree.map(draw, shapes['params'])


def _keras_network(params):
  """A Keras model from lightness to ab [h/4, w/4] with the given weights."""
  import keras
  layers = keras.layers
  vgg = keras.applications.VGG19(
      weights=None, include_top=False, input_shape=(None, None, 3))
  x = lightness = keras.Input((None, None, 1))
  stem = layers.Conv2D(64, 3, padding='same', activation='relu')
  x, stages = stem(x), {}
  for layer in vgg.layers[2:]:  # without the input and block1_conv1
    x = stages[layer.name] = layer(x)
  ups = [layers.Conv2DTranspose(channels, 3, strides, padding='same')
         for channels, strides in ((512, 1), (256, 2), (2, 2))]
  x = ups[0](stages['block5_conv4']) + stages['block4_pool']
  x = ups[1](x) + stages['block3_pool']
  x = ups[2](x)
  stem.set_weights([params['stem']['kernel'], params['stem']['bias']])
  for name, weights in params['backbone'].items():
    block, number = name.removeprefix('conv').split('_')
    vgg.get_layer(f'block{block}_conv{number}').set_weights(
        [weights['kernel'], weights['bias']])
  for up, name in zip(ups, ('up_to_pool4', 'up_to_pool3', 'ab'), strict=True):
    # Keras stores the kernel of the transposed convolution.
    kernel = params[name]['kernel'][::-1, ::-1].swapaxes(2, 3)
    up.set_weights([kernel, params[name]['bias']])
  return keras.Model(lightness, x)


def test_output_equals_keras(params):
  lightness = np.float32(
      np.random.default_rng(1).uniform(-1, 1, (2, 48, 32, 1)))
  expected = np.asarray(_keras_network(params)(lightness))
  found = jax.jit(_net().apply)({'params': params}, lightness)
  assert found.shape == (2, 12, 8, 2)
  assert expected.std() > 0.1
  np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_vgg_has_all_layers_but_conv1_1(params):
  blocks = enumerate((2, 2, 4, 4, 4), 1)
  names = {f'conv{block}_{i + 1}' for block, n in blocks for i in range(n)}
  assert set(params['backbone']) == names - {'conv1_1'}
  assert params['stem']['kernel'].shape == (3, 3, 1, 64)


def test_the_initial_output_is_grey():
  x = jax.random.uniform(jax.random.key(1), (1, 16, 32, 1))
  ab, variables = jax.jit(lambda: _net(backbone=Stages()).init_with_output(
      jax.random.key(0), x))()
  np.testing.assert_array_equal(ab, np.zeros((1, 4, 8, 2)))
  assert variables['params']['up_to_pool3']['kernel'].std() > 0


def test_bfloat16_computes_low_and_returns_float32(params):
  x = jax.random.uniform(jax.random.key(1), (1, 32, 32, 1), minval=-1.)
  full, low = (jax.jit(_net(dtype, Stages()).apply)({'params': params}, x)
               for dtype in ('float32', 'bfloat16'))
  assert low.dtype == jnp.float32
  gap = jnp.abs(full - low).max() / jnp.abs(full).max()
  assert 1e-4 < gap < 0.1
