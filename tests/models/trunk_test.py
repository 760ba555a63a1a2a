"""Trunks: the interface, conditioning, and a new trunk in two methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import grey, keys

from colorjax.errors import UserError
from colorjax.methods import (
    autoregressive,
    classification,
    color_queries,
    flow_matching,
    latent,
    mbm,
)
from colorjax.models import trunk, unet

pytestmark = pytest.mark.usefixtures('compiles_quickly')


class _EncodeDecode(nn.Module):
  """Encodes and decodes, as a network with a head does."""
  body: nn.Module

  @nn.compact
  def __call__(self, inputs, conditioning=None):
    scales = self.body.encode(inputs, conditioning, train=False)
    return scales, self.body.decode(scales, conditioning, train=False)


class Tiny(nn.Module):
  """A trunk of two layers with a stride of 4 and 6 channels."""
  width: int
  dtype: object = jnp.float32
  stride = 4
  divisor = 8

  def setup(self):
    self.fine = nn.Conv(self.width, (4, 4), (4, 4), dtype=self.dtype)
    self.coarse = nn.Conv(2 * self.width, (2, 2), (2, 2), dtype=self.dtype)

  def encode(self, inputs, conditioning=None, *, train):
    fine = self.fine(inputs)
    return [fine, self.coarse(nn.relu(fine))]

  def decode(self, scales, conditioning=None, *, train):
    fine, coarse = scales
    coarse = coarse.repeat(2, 1).repeat(2, 2)
    return nn.relu(jnp.concatenate([fine, coarse], -1))


@pytest.mark.parametrize('name', trunk.TRUNKS)
def test_every_trunk_keeps_the_interface(name):
  body = trunk.TRUNKS[name]((16, 32), jnp.float32)
  sides = np.array([3, 2]) * body.divisor
  scales, features = jax.eval_shape(
      lambda: _EncodeDecode(body).init_with_output(
          jax.random.key(0), jnp.zeros((2, *sides, 4)), jnp.zeros((2, 5)))[0])
  assert len(scales) > 0
  assert features.shape[:3] == (2, *(sides // body.stride))


def test_conditioning_starts_as_the_identity_and_affects_the_features():
  net = _EncodeDecode(unet.build((16, 32)))
  inputs = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  vector = jax.random.normal(jax.random.key(1), (2, 5))
  variables = net.init(jax.random.key(2), inputs, vector)
  features = jax.jit(lambda v, *args: net.apply(v, *args)[1])
  before = features(variables, inputs, vector)
  np.testing.assert_array_equal(before, features(variables, inputs, 3 * vector))
  plain = net.init(jax.random.key(2), inputs)
  films = [path for path, _ in jax.tree.leaves_with_path(variables)
           if 'film' in jax.tree_util.keystr(path)]
  assert len(films) == 2 * 3  # kernel and bias of three blocks
  assert len(jax.tree.leaves(plain)) + 6 == len(jax.tree.leaves(variables))
  moved = jax.tree.map_with_path(
      lambda path, x: x + 0.1 if path in films else x, variables)
  after = features(moved, inputs, vector)
  assert jnp.abs(after - before).max() > 1e-3
  other = features(moved, inputs, vector.at[0].mul(3))
  assert jnp.abs(other - after)[0].max() > 1e-3
  np.testing.assert_allclose(other[1], after[1], atol=1e-5)


@pytest.mark.parametrize('filters', [(), (16, 24), (0,)])
def test_invalid_filters_of_the_unet_are_refused(filters):
  with pytest.raises(UserError, match='filters='):
    unet.build(filters)


@pytest.mark.parametrize('method', [
    mbm, classification, flow_matching, latent, autoregressive])
def test_methods_can_use_a_new_trunk_after_adding_it(method, monkeypatch):
  monkeypatch.setitem(trunk.TRUNKS, 'tiny',
                      lambda filters, dtype: Tiny(filters[0], dtype))
  colorizer = method.build(network='tiny', filters=[3])
  assert colorizer.event_shape((16, 24)) == (4, 6)
  rng = np.random.default_rng(0)
  batch = {'image': rng.integers(0, 256, (2, 16, 16, 3), np.uint8),
           'padding_mask': jnp.ones(2)}

  @jax.jit
  def run(key):
    variables = colorizer.init(key, (16, 16))
    value, _ = colorizer.loss(variables['params'], {}, batch, keys(2), step=0,
                              train=False)
    return variables, value

  variables, value = run(jax.random.key(0))
  assert set(variables['params']['trunk']) == {'fine', 'coarse'}
  assert np.isfinite(value)
  ab = jax.eval_shape(colorizer.predict, variables,
                      grey(jnp.full((2, 16, 16, 1), 50.)))
  assert ab.shape == (2, 16, 16, 2)
  with pytest.raises(UserError, match='divisible by 8'):
    colorizer.init(jax.random.key(0), (12, 16))
  with pytest.raises(UserError, match=r'choose one of .*tiny'):
    method.build(network='vit')


def test_color_queries_can_use_a_new_trunk(monkeypatch):
  """They attend to its scales, of which there are only two."""
  monkeypatch.setitem(trunk.TRUNKS, 'tiny',
                      lambda filters, dtype: Tiny(filters[0], dtype))
  colorizer = color_queries.build(
      network='tiny', filters=[3], num_blocks=3, perceptual_weight=0.,
      adversarial_weight=0.)

  def predict(key):
    variables = colorizer.init(key, (16, 24))
    return variables, colorizer.predict(
        variables, grey(jnp.full((2, 16, 24, 1), 50.)))

  variables, ab = jax.eval_shape(predict, jax.random.key(0))
  assert set(variables['params']['generator']['trunk']) == {'fine', 'coarse'}
  assert ab.shape == (2, 16, 24, 2)
  with pytest.raises(UserError, match='divisible by 8'):
    colorizer.init(jax.random.key(0), (12, 16))
