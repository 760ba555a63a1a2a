"""The fusion network: shapes, number of parameters and the fusion layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import fusion

pytestmark = pytest.mark.usefixtures('compiles_quickly')

XCEPTION = ((256, 128), (64, 64), (32,))
INCEPTION = ((128,), (64, 64), (32,))
E = 1000


def _lightness(*shape):
  return np.random.default_rng(0).uniform(-1, 1, (*shape, 1)).astype('f')


def _parameters(decoder):
  """Counts the kernels and biases of the published layers."""
  def chain(widths, before):
    total = 0
    for width in widths:
      total += 9 * before * width + width
      before = width
    return total

  encoder = chain([64, 128, 128, 256, 256, 512, 512, 256], 1)
  mixed = (256 + 1000) * 256 + 256
  return encoder + mixed + chain([*decoder, 2], 256)


@pytest.mark.parametrize(('decoder', 'row'), [
    (XCEPTION, [256, 128, 64, 64, 32]), (INCEPTION, [128, 64, 64, 32])])
def test_published_parameters(decoder, row):
  shapes = jax.eval_shape(
      fusion.Fusion(decoder=decoder).init, jax.random.key(0),
      jnp.zeros((1, 224, 224, 1)), jnp.zeros((1, E)))
  count = sum(x.size for x in jax.tree.leaves(shapes))
  assert count == _parameters(row)


@pytest.fixture(name='net', scope='module')
def _net():
  """A narrow network, its variables, and its compiled apply."""
  net = fusion.Fusion(decoder=INCEPTION, width=1 / 16)
  shapes = jax.eval_shape(net.init, jax.random.key(0),
                          jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 5)))
  rng = np.random.default_rng(2)
  variables = jax.tree.map(lambda x: rng.normal(
      size=x.shape, scale=np.prod(x.shape[:-1])**-0.5).astype('f'), shapes)
  return net, variables, jax.jit(net.apply)


def test_all_sides_divisible_by_eight(net):
  _, variables, apply = net
  embedding = jnp.ones((2, 5))
  for height, width in [(8, 24), (16, 16)]:
    ab = apply(variables, _lightness(2, height, width), embedding)
    assert ab.shape == (2, height, width, 2)
    assert ab.dtype == jnp.float32
    assert np.abs(ab).max() <= 1
    # Upsampling repeats pixels: they are equal in blocks of 2 x 2.
    np.testing.assert_array_equal(ab[:, ::2, ::2], ab[:, 1::2, 1::2])
    assert np.unique(ab[0, ..., 0]).size > height * width / 8


def test_fusion_equals_concatenating_the_repeated_embedding(net):
  module, variables, apply = net
  lightness = _lightness(2, 8, 24)
  embedding = np.random.default_rng(1).normal(size=(2, 5)).astype('f')
  params = variables['params']

  def convolve(x, layer, stride=1):
    return jax.lax.conv_general_dilated(
        x, layer['kernel'], (stride, stride), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + layer['bias']

  def relu(x):
    return jnp.maximum(x, 0)

  def double(x):
    return np.kron(x, np.ones((1, 2, 2, 1), 'f'))

  x = lightness
  for i, stride in enumerate([2, 1, 2, 1, 2, 1, 1, 1]):
    x = relu(convolve(x, params[f'Conv_{i}'], stride))
  x = np.concatenate(
      [x, np.tile(embedding[:, None, None], (1, 1, 3, 1))], axis=-1)
  x = relu(convolve(x, {'kernel': params['fusion_kernel'][None, None],
                        'bias': params['fusion_bias']}))
  x = double(relu(convolve(x, params['Conv_8'])))
  x = relu(convolve(x, params['Conv_9']))
  x = double(relu(convolve(x, params['Conv_10'])))
  x = relu(convolve(x, params['Conv_11']))
  expected = double(np.tanh(convolve(x, params['ab'])))
  assert module.decoder == INCEPTION
  np.testing.assert_allclose(
      apply(variables, lightness, embedding), expected, atol=1e-5)


def test_an_embedding_affects_all_of_its_own_photograph_only(net):
  _, variables, apply = net
  lightness = _lightness(2, 16, 16)
  before = apply(variables, lightness, jnp.zeros((2, 5)))
  after = apply(variables, lightness, jnp.zeros((2, 5)).at[1].set(3.0))
  np.testing.assert_array_equal(before[0], after[0])
  # Every position changes.
  assert (np.abs(after[1] - before[1]).max(-1) > 0).all()


def test_bfloat16_computes_low_and_returns_float32(net):
  _, variables, apply = net
  narrow = fusion.Fusion(decoder=INCEPTION, width=1 / 16, dtype=jnp.bfloat16)
  inputs = _lightness(1, 8, 24), jnp.ones((1, 5))
  shapes = jax.eval_shape(narrow.init, jax.random.key(0), *inputs)
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
  ab = jax.jit(narrow.apply)(variables, *inputs)
  assert ab.dtype == jnp.float32
  exact = apply(variables, *inputs)
  np.testing.assert_allclose(ab, exact, atol=0.05)
  assert not np.array_equal(ab, exact)
