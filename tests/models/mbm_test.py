"""The networks of the MBM: published layers, shapes and dependencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import mbm, unet

pytestmark = pytest.mark.usefixtures('compiles_quickly')


def _init(net, x):
  # Compiled, since running the initializers one by one takes seconds.
  return jax.jit(net.init, static_argnames='train')(
      jax.random.key(0), x, train=False)


def _apply(net, variables, x, *, train=False, key=0):
  return jax.jit(net.apply, static_argnames='train')(
      variables, x, train=train,
      keys=jax.random.split(jax.random.key(key), len(x)))


def _shapes(net, x):
  """Shapes of the outputs and variables, without computing them."""
  return jax.eval_shape(
      lambda: net.init_with_output(jax.random.key(0), x, train=False))


def _unet_mbm(k, dtype=jnp.float32, **settings):
  return mbm.TrunkMBM(num_components=k, trunk=unet.build((16, 32), dtype),
                      dtype=dtype, **settings)


def _count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def _conv(inputs, outputs, size=3):
  return size * size * inputs * outputs + outputs


@pytest.mark.parametrize(('size', 'k', 'width'), [(32, 4, 128), (64, 10, 1024)])
def test_published_network_has_the_published_parameters(size, k, width):
  net = mbm.PublishedMBM(num_components=k, prior_width=width)
  _, variables = _shapes(net, jnp.zeros((1, size, size, 1)))
  expected, channels = 0, 1
  for filters in (16, 32, 64, 128):  # two stride-1 and one stride-2 each
    expected += _conv(channels, filters) + 2 * _conv(filters, filters)
    channels = filters
  bottleneck = (size // 16)**2
  expected += _conv(128, 1) + (bottleneck + 1) * width + (width + 1) * k
  for filters in (128, 64, 32, 16):
    expected += _conv(channels, filters) + 2 * _conv(filters, filters)
    channels = filters
  expected += _conv(16, 2 * k)
  assert _count(variables['params']) == expected
  assert set(variables) == {'params'}


@pytest.mark.parametrize('batch_norm', [False, True])
def test_published_network_shapes(batch_norm):
  net = mbm.PublishedMBM(num_components=3, num_params=2, filters=(4, 8),
                         prior_width=5, batch_norm=batch_norm)
  out, variables = _shapes(net, jnp.zeros((2, 16, 24, 1)))
  assert [c.shape for c in out.components] == [(2, 3, 16, 24, 2)] * 2
  assert out.mixing_logits.shape == (2, 3)
  assert ('batch_stats' in variables) == batch_norm


def test_unet_shapes_and_any_size():
  net = _unet_mbm(3)
  _, square = _shapes(net, jnp.zeros((1, 16, 16, 1)))
  out, oblong = _shapes(net, jnp.zeros((2, 24, 8, 1)))
  assert jax.tree.map(jnp.shape, square) == jax.tree.map(jnp.shape, oblong)
  assert out.components[0].shape == (2, 3, 12, 4, 2)
  assert out.mixing_logits.shape == (2, 3)


def test_split_components_by_hand():
  # The order of channels is [parameter, component, (a, b)].
  head = jnp.arange(2 * 3 * 2.).reshape(1, 1, 1, 12)
  loc, scale = mbm.split_components(head, num_components=3, num_params=2)
  np.testing.assert_array_equal(loc[0, :, 0, 0], [[0, 1], [2, 3], [4, 5]])
  np.testing.assert_array_equal(scale[0, :, 0, 0], [[6, 7], [8, 9], [10, 11]])


@pytest.mark.parametrize('net', [
    mbm.PublishedMBM(num_components=2, filters=(16, 16), prior_width=8),
    _unet_mbm(2)],
    ids=['published', 'unet'])
def test_every_parameter_is_used_and_photographs_do_not_mix(net):
  x = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
  params = _init(net, x)['params']

  def total(params, x):
    out = net.apply({'params': params}, x, train=False)
    return (jnp.square(out.components[0]).sum()
            + (out.mixing_logits**3).sum())

  gradients = jax.jit(jax.grad(total))(params, x)
  for path, gradient in jax.tree.leaves_with_path(gradients):
    assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)
  logits = jax.jit(jax.jacrev(lambda x: net.apply(
      {'params': params}, x, train=False).mixing_logits))(x)
  assert jnp.abs(logits[0, :, 0]).max() > 0
  assert jnp.abs(logits[0, :, 1]).max() == 0


def test_unet_uses_dropout_only_in_training():
  net = _unet_mbm(2, dropout=0.5)
  x = jax.random.normal(jax.random.key(1), (1, 16, 16, 1))
  variables = _init(net, x)

  def logits(key, train):
    return _apply(net, variables, x, train=train, key=key).mixing_logits

  assert (logits(1, True) != logits(2, True)).any()
  np.testing.assert_array_equal(logits(1, False), logits(2, False))


def test_bfloat16_computes_low_and_returns_float32():
  net = _unet_mbm(2, jnp.bfloat16)
  x = jax.random.normal(jax.random.key(1), (1, 16, 16, 1))
  variables = _init(net, x)
  out = _apply(net, variables, x)
  assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert out.components[0].dtype == jnp.float32
  full = _apply(_unet_mbm(2), variables, x)
  gap = jnp.abs(full.components[0] - out.components[0]).max()
  assert 0 < gap < 0.1
