"""Classifiers: the published layers against Keras, and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import classifier, unet

FILTERS = (4, 5, 6, 7)


def _variables(net, x, seed=0):
  """Random weights and batch statistics, so that no layer is the identity."""
  shapes = jax.eval_shape(
      lambda: net.init(jax.random.key(0), x, train=False))
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'var':
      return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
    # Large enough for the input to affect the output after 23 layers.
    scale = 2 / np.sqrt(np.prod(leaf.shape[:-1])) if name == 'kernel' else 0.1
    return rng.normal(0, scale, leaf.shape).astype(np.float32)

  return jax.tree.map_with_path(draw, shapes)


def _keras_network(variables, x):
  """The paper's table of layers, in Keras, applied to x."""
  keras = pytest.importorskip('keras')
  layers = keras.layers
  params, statistics = variables['params'], variables['batch_stats']

  def apply(layer, weights, x):
    layer.build(x.shape)
    layer.set_weights(weights)
    return layer(x)

  def conv(x, name, width, *, stride=1, dilation=1, size=3):
    if size == 3:
      x = layers.ZeroPadding2D(dilation)(x)
    return apply(layers.Conv2D(width, size, stride, dilation_rate=dilation),
                 [params[name]['kernel'], params[name]['bias']], x)

  def norm(x, name):
    return apply(
        layers.BatchNormalization(scale=False, center=False, epsilon=1e-5),
        [statistics[name]['mean'], statistics[name]['var']], x)

  relu = keras.activations.relu
  for block, (depth, stride, dilation, width) in enumerate([
      (2, 2, 1, 4), (2, 2, 1, 5), (3, 2, 1, 6), (3, 1, 1, 7), (3, 1, 2, 7),
      (3, 1, 2, 7), (3, 1, 1, 7)], start=1):
    for i in range(1, depth + 1):
      x = relu(conv(x, f'conv{block}_{i}', width, dilation=dilation,
                    stride=stride if i == depth else 1))
    x = norm(x, f'conv{block}_norm')
  # Keras stores the kernel of the transposed convolution.
  kernel = np.swapaxes(params['conv8_1']['kernel'][::-1, ::-1], 2, 3)
  x = relu(apply(layers.Conv2DTranspose(6, 4, 2, 'same'),
                 [kernel, params['conv8_1']['bias']], x))
  for name in ('conv8_2', 'conv8_3'):
    x = relu(conv(x, name, 6))
  return np.asarray(conv(x, 'bins', 9, size=1))


def test_published_network_equals_that_of_the_paper():
  net = classifier.PublishedClassifier(9, filters=FILTERS)
  x = np.random.default_rng(1).uniform(-1, 1, (2, 32, 40, 1)).astype(np.float32)
  variables = _variables(net, x)
  found = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, x)
  expected = _keras_network(variables, x)
  assert expected.shape == (2, 8, 10, 9)
  size = np.abs(expected[0] - expected[1]).mean()
  assert size > 0.1  # the output depends on the photograph
  np.testing.assert_allclose(found, expected, atol=1e-4 * size)


def test_published_size():
  """32.2 million parameters in published tables, including batch norms."""
  net = classifier.PublishedClassifier(313)
  shapes = jax.eval_shape(lambda: net.init_with_output(
      jax.random.key(0), jnp.zeros((1, 256, 256, 1)), train=False))
  assert shapes[0].shape == (1, 64, 64, 313)
  count = sum(x.size for x in jax.tree.leaves(shapes[1]['params']))
  assert 32.1e6 < count < 32.3e6


@pytest.mark.parametrize(('net', 'stride'), [
    (classifier.PublishedClassifier(3, filters=FILTERS), 4),
    (classifier.TrunkClassifier(3, unet.build((16, 32))), 2)],
    ids=['published', 'unet'])
def test_every_parameter_is_used_and_photographs_do_not_mix(net, stride):
  x = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
  variables = _variables(net, x)

  def logits(params, x):
    return net.apply({**variables, 'params': params}, x, train=False)

  @jax.jit
  def probe(params, x):
    return jax.grad(lambda p, x: jnp.square(logits(p, x)[0]).sum(),
                    argnums=(0, 1))(params, x)

  gradients, to_photo = probe(variables['params'], x)
  for path, gradient in jax.tree.leaves_with_path(gradients):
    assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)
  assert jnp.abs(to_photo[0]).max() > 0
  assert jnp.abs(to_photo[1]).max() == 0
  low = net.copy(dtype=jnp.bfloat16)
  out, shapes = jax.eval_shape(
      lambda: low.init_with_output(jax.random.key(0), x, train=False))
  assert out.shape == (2, 16 // stride, 16 // stride, 3)
  assert out.dtype == jnp.bfloat16
  assert {s.dtype for s in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
