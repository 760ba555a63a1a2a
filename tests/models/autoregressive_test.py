"""The network of the autoregressive method: causal, and the same in steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.models import autoregressive as model
from colorjax.models import unet

pytestmark = pytest.mark.usefixtures('compiles_quickly')

BINS = ((0., 0.), (1., 2.), (-1., 0.), (0.5, -3.), (2., 2.))
ROWS, COLUMNS, RATIO, BATCH = 3, 4, 2, 2


@pytest.fixture(name='net', scope='module')
def _net():
  return model.SymbolsAndColors(
      unet.build((16,)), BINS, RATIO, width=12, depth=2, num_heads=3,
      upsampler_width=16)


def _shapes(net):
  return jax.eval_shape(lambda: net.init(
      jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 4, 4, 4)),
      jnp.zeros((1, 2, 2), jnp.int32), train=False))


@pytest.fixture(name='variables', scope='module')
def _variables(net):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(x.dtype),
                      _shapes(net))


@pytest.fixture(name='places', scope='module')
def _places():
  return jax.random.normal(jax.random.key(1), (BATCH, ROWS, COLUMNS, 12))


@pytest.fixture(name='symbols', scope='module')
def _symbols():
  return jax.random.randint(
      jax.random.key(2), (BATCH, ROWS, COLUMNS), 0, len(BINS))


@pytest.fixture(name='predict', scope='module')
def _predict(net, variables):
  return jax.jit(lambda places, symbols: net.apply(
      variables, places, symbols, method='predict_symbols'))


def test_a_symbol_changes_the_logits_of_later_places_alone(
    predict, places, symbols):
  before = np.asarray(predict(places, symbols)).reshape(
      BATCH, ROWS * COLUMNS, -1)
  for place in range(ROWS * COLUMNS):
    row, column = divmod(place, COLUMNS)
    changed = symbols.at[:, row, column].add(1) % len(BINS)
    after = np.asarray(predict(places, changed)).reshape(before.shape)
    np.testing.assert_array_equal(after[:, :place + 1], before[:, :place + 1])
    moved = np.abs(after - before)[:, place + 1:].max((0, 2))
    assert (moved > 1e-4).all(), place


def test_features_of_later_places_change_nothing(predict, places, symbols):
  before = predict(places, symbols)
  after = predict(places.at[:, 1, 2].mul(2), symbols)
  flat = np.abs(np.asarray(after - before)).max((0, 3)).ravel()
  assert not flat[:COLUMNS + 2].any()
  assert (flat[COLUMNS + 2:] > 1e-5).all()


def test_steps_with_the_cache_give_the_same_logits(
    net, variables, predict, places, symbols):
  expected = predict(places, symbols)

  @jax.jit
  def step(cache, inputs, near, place):
    return net.apply(variables, inputs, near, cache, place, method='step')

  def symbol(row, column):
    inside = row >= 0 and 0 <= column < COLUMNS
    return symbols[:, row, column] if inside else jnp.full(BATCH, len(BINS))

  flat = symbols.reshape(BATCH, -1)
  cache = net.empty_cache(BATCH, ROWS * COLUMNS)
  for place in range(ROWS * COLUMNS):
    row, column = divmod(place, COLUMNS)
    near = [symbol(row - 1, column + x) for x in (-1, 0, 1)]
    found, cache = step(
        cache, places[:, row, column],
        jnp.stack([*near, flat[:, place - 1] if place else symbol(-1, 0)], -1),
        place)
    np.testing.assert_allclose(found, expected[:, row, column], atol=1e-5)


def test_each_place_sees_its_position_and_its_block_of_features(
    net, variables):
  features = jnp.zeros((1, ROWS * RATIO, COLUMNS * RATIO, 16 + 4))
  at_places = jax.jit(lambda x: net.apply(variables, x, method='at_places'))
  before = at_places(features)[0]
  assert before.shape == (ROWS, COLUMNS, 12)
  rows = np.asarray(before).reshape(-1, 12)
  apart = np.abs(rows[:, None] - rows).max(-1) + np.eye(len(rows))
  assert apart.min() > 1e-2
  after = at_places(features.at[:, 3, 5].add(1))[0]
  changed = np.abs(np.asarray(after - before)).max(-1) > 1e-5
  assert np.argwhere(changed).tolist() == [[1, 2]]


def test_the_upsampler_starts_by_interpolating_the_symbols(net, variables):
  """Its last layer is initialized to 0."""
  variables = {'params': {**variables['params'], 'color': jax.tree.map(
      np.zeros_like, variables['params']['color'])}}
  symbols = jnp.asarray([[[1, 1], [3, 3]]])
  features = jax.random.normal(jax.random.key(1), (1, 4, 4, 16 + 4))
  colors = jax.jit(functools.partial(net.apply, method='upsample'))(
      variables, features, symbols)
  # Centers of rows at 1/4, 3/4, 5/4 and 7/4 of blocks, of blocks at 1/2, 3/2.
  share = np.array([0, 0.25, 0.75, 1])[:, None]
  expected = (1 - share) * np.array(BINS[1]) + share * np.array(BINS[3])
  for column in range(4):
    np.testing.assert_allclose(colors[0, :, column, :, 0], expected, atol=1e-6)
  assert not np.asarray(colors[..., 1]).any()


def test_the_width_of_the_features_is_that_of_any_trunk():
  class Trunk(nn.Module):
    stride = divisor = 4

    def setup(self):
      self.layer = nn.Conv(5, (4, 4), (4, 4))

    def encode(self, inputs, conditioning=None, *, train):
      return [self.layer(inputs)]

    def decode(self, scales, conditioning=None, *, train):
      return scales[0]

  net = model.SymbolsAndColors(Trunk(), BINS, 1, width=12, num_heads=3,
                               upsampler_width=16)
  (logits, colors), _ = jax.eval_shape(lambda: net.init_with_output(
      jax.random.key(0), jnp.zeros((2, 8, 12, 1)), jnp.zeros((2, 2, 3, 4)),
      jnp.zeros((2, 2, 3), jnp.int32), train=True))
  assert logits.shape == (2, 2, 3, len(BINS))
  assert colors.shape == (2, 2, 3, 2, 2)
