"""The network of color queries, against a NumPy implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_variables

from colorjax.models import color_queries, unet

pytestmark = pytest.mark.usefixtures('compiles_quickly')

HEADS, WIDTH, QUERIES = 2, 8, 5


@functools.cache
def _decoder(num_blocks, num_scales=3, dtype=jnp.float32):
  """A decoder as a function, random variables and features of scales."""
  net = color_queries.ColorDecoder(QUERIES, num_blocks, WIDTH, HEADS, 12, dtype)
  scales = [jax.random.normal(jax.random.key(i), (2, 1 + i, 2 + i, 3 + i))
            for i in range(num_scales)]
  return (jax.jit(net.apply),
          random_variables.of(net.init, jax.random.key(9), scales), scales)


def _norm(x, p):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6
                     ) * p['scale'] + p['bias']


def _dense(x, p):
  return x @ p['kernel'] + p['bias']


def _attend(asking, keys, values, p):
  """Attention with a loop over photographs, heads and queries."""
  q, k, v = (np.einsum('bnc,chd->bnhd', x, p[name]['kernel'])
             + p[name]['bias'] for name, x in (
                 ('query', asking), ('key', keys), ('value', values)))
  out = np.zeros(q.shape)
  for b, n, h in np.ndindex(*q.shape[:3]):
    logits = k[b, :, h] @ q[b, n, h] / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max())
    out[b, n, h] = (weights / weights.sum()) @ v[b, :, h]
  return np.einsum('bnhd,hdc->bnc', out, p['out']['kernel']) + p['out']['bias']


def _block(x, identity, features, positions, p):
  x = _norm(x + _attend(x + identity, features + positions, features,
                        p['cross']), p['cross_norm'])
  x = _norm(x + _attend(x + identity, x + identity, x, p['self']),
            p['self_norm'])
  inner = np.maximum(_dense(x, p['mlp_1']), 0)
  return _norm(x + _dense(inner, p['mlp_2']), p['mlp_norm'])


def _positions(height, width):
  """By the definition, entry by entry; two frequencies."""
  rows = []
  for y, x in np.ndindex(height, width):
    place = [(y + 0.5) / height, (x + 0.5) / width]
    rows.append([wave(2 * np.pi * at * frequency) for at in place
                 for wave in (np.sin, np.cos) for frequency in (1, 1e-2)])
  return np.array(rows)


def _queries(params, scales, num_blocks):
  """The whole decoder in NumPy."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x = np.broadcast_to(p['queries'], (2, QUERIES, WIDTH))
  memory = []
  for i, scale in enumerate(scales):
    scale = np.asarray(scale, np.float64)
    flat = scale.reshape(2, -1, scale.shape[-1])
    memory.append((
        _norm(_dense(flat, p[f'scale_{i}']), p[f'scale_norm_{i}'])
        + p[f'level_{i}'], _positions(*scale.shape[1:3])))
  num_groups = num_blocks // len(scales)
  for i in range(num_blocks):
    group, scale = divmod(i, len(scales))
    own = (jax.tree.map(lambda x, g=group: x[g],
                        p['groups'][f'block_{scale}'])
           if group < num_groups else p[f'last_{scale}'])
    x = _block(x, p['identity'], *memory[scale], own)
  x = _norm(x, p['norm'])
  for i in range(2):
    x = np.maximum(_dense(x, p[f'embedding_{i}']), 0)
  return _dense(x, p['embedding_2'])


class TestColorDecoder:

  @pytest.mark.parametrize(('num_blocks', 'num_scales'), [(5, 3), (2, 3)])
  def test_equals_the_numpy_implementation(self, num_blocks, num_scales):
    apply, variables, scales = _decoder(num_blocks, num_scales)
    found = apply(variables, scales)
    expected = _queries(variables['params'], scales, num_blocks)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)

  def test_blocks_of_all_groups_start_differently(self):
    net = color_queries.ColorDecoder(QUERIES, 2, WIDTH, HEADS, 12)
    # Keys of this kind compile quickly.
    params = jax.jit(net.init)(jax.random.key(0, impl='rbg'),
                               [jnp.zeros((1, 2, 2, 3))])['params']
    kernels = params['groups']['block_0']['cross']['query']['kernel']
    assert kernels.shape == (2, WIDTH, HEADS, WIDTH // HEADS)
    assert jnp.abs(kernels[0] - kernels[1]).max() > 0.1

  def test_permuted_queries_are_permuted_results(self):
    apply, variables, scales = _decoder(5)
    order = np.array([3, 0, 4, 2, 1])
    params = dict(variables['params'])
    for name in ('queries', 'identity'):
      params[name] = params[name][order]
    np.testing.assert_allclose(
        apply({'params': params}, scales),
        apply(variables, scales)[:, order], atol=1e-5)

  def test_each_photograph_has_its_own_queries(self):
    apply, variables, scales = _decoder(5)
    found = apply(variables, scales)
    assert jnp.abs(found[0] - found[1]).max() > 0.1
    moved = apply(variables, [x.at[0].add(1) for x in scales])
    assert jnp.abs(moved[0] - found[0]).max() > 1e-3
    np.testing.assert_allclose(moved[1], found[1], atol=1e-6)

  @pytest.mark.parametrize('num_blocks', [2, 3])
  def test_computes_in_bfloat16(self, num_blocks):
    apply, variables, scales = _decoder(num_blocks, dtype=jnp.bfloat16)
    assert jax.eval_shape(apply, variables, scales).dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {
        np.dtype('float32')}


@functools.cache
def _network(num_scales=3, further=0):
  """A network, its function, random variables, lightness and channels."""
  body = unet.build((16, 16, 32))
  net = color_queries.ColorQueries(
      body, color_queries.ColorDecoder(QUERIES, 4, WIDTH, HEADS, 12),
      num_scales)
  lightness = jax.random.uniform(jax.random.key(0), (2, 16, 24, 1))
  more = (jax.random.normal(jax.random.key(1), (2, 8, 12, further))
          if further else None)
  variables = random_variables.of(
      functools.partial(net.init, train=False), jax.random.key(2), lightness,
      more)
  apply = jax.jit(functools.partial(net.apply, train=False))
  return net, apply, variables, lightness, more


class TestColorQueries:

  def test_ab_is_a_linear_function_of_products(self):
    """The products are those of the decoder's queries and pixels' features."""
    net, apply, variables, lightness, _ = _network()
    params = variables['params']
    body = net.trunk

    def features(body, lightness):
      scales = body.encode(lightness, train=False)
      return scales, body.decode(scales, train=False)

    scales, pixels = jax.jit(lambda p: body.apply(
        {'params': p}, lightness, method=features))(params['trunk'])
    queries = _queries(params['decoder'], scales[::-1], 4)
    pixels = _dense(np.asarray(pixels, np.float64), params['pixels'])
    expected = np.zeros((2, 8, 12, 2))
    kernel = np.asarray(params['ab']['kernel'])[0, 0]
    for b, y, x, q in np.ndindex(2, 8, 12, QUERIES):
      product = queries[b, q] @ pixels[b, y, x] / np.sqrt(WIDTH)
      expected[b, y, x] += product * kernel[q]
    expected += params['ab']['bias']
    found = apply(variables, lightness, None)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)

  def test_the_order_of_queries_does_not_matter(self):
    _, apply, variables, lightness, _ = _network()
    params = variables['params']
    order = np.array([3, 0, 4, 2, 1])
    decoder, ab = params['decoder'], params['ab']
    permuted = {
        **params,
        'decoder': {**decoder, 'queries': decoder['queries'][order],
                    'identity': decoder['identity'][order]},
        'ab': {**ab, 'kernel': ab['kernel'][:, :, order]}}
    found, expected, wrong = (
        apply({'params': p}, lightness, None)
        for p in (permuted, params, {**permuted, 'ab': ab}))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert jnp.abs(wrong - expected).max() > 0.1

  def test_queries_see_the_coarsest_scales(self):
    """The coarsest scale has 32 channels, the others have 16."""
    for num_scales, channels in ((1, [32]), (2, [32, 16]), (4, [32, 16, 16])):
      net, *_ = _network()
      net = net.clone(num_scales=num_scales)
      params = jax.eval_shape(lambda key, net=net: net.init(
          key, jnp.zeros((1, 8, 8, 1)), train=False),
                              jax.random.key(0))['params']['decoder']
      assert [params[f'scale_{i}']['kernel'].shape[0] for i in range(4)
              if f'scale_{i}' in params] == channels

  def test_further_channels_change_the_colors(self):
    _, apply, variables, lightness, more = _network(further=3)
    found, moved = (apply(variables, lightness, x)
                    for x in (more, more.at[0, 2, 3].add(1)))
    assert jnp.abs(moved - found)[0].max() > 1e-2
    np.testing.assert_allclose(moved[1], found[1], atol=1e-5)


def test_positions():
  found = color_queries.positions(3, 4, WIDTH)
  np.testing.assert_allclose(found, _positions(3, 4), atol=1e-6)
