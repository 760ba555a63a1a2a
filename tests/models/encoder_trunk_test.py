"""The trunk with a pretrained encoder.

The encoder is reduced to one block per stride, which compiles quickly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax.backbones import efficientnet_lite
from colorjax.colorizer import FROZEN, PRETRAINED_ENCODER
from colorjax.errors import UserError
from colorjax.models import encoder_trunk, trunk

pytestmark = pytest.mark.usefixtures('compiles_quickly')

FILTERS = (16, 32)


@pytest.fixture(autouse=True)
def _five_blocks(monkeypatch):
  monkeypatch.setattr(efficientnet_lite, 'BLOCKS', tuple(
      efficientnet_lite.Block(3, min(i, 2), 2, 4 * i) for i in range(1, 6)))
  monkeypatch.setattr(efficientnet_lite, 'STAGES', {
      2**i: f'block{i}' for i in range(1, 6)})


class _Both(nn.Module):
  """Encodes and decodes, like a head."""
  trunk: nn.Module

  @nn.compact
  def __call__(self, inputs, conditioning=None, train=False):
    scales = self.trunk.encode(inputs, conditioning, train=train)
    return scales, self.trunk.decode(scales, conditioning, train=train)


def _problem(inputs, conditioning=None, **settings):
  net = _Both(encoder_trunk.build(FILTERS, **settings))
  variables = jax.jit(net.init)(jax.random.key(0), inputs, conditioning)
  return net, variables


@pytest.mark.parametrize(('stride', 'channels'), [
    (2, [4, 8, 12, 16, 20]), (4, [8, 12, 16, 20])])
def test_scales_and_features(stride, channels):
  net, variables = _problem(jnp.zeros((2, 32, 64, 1)), stride=stride)
  scales, features = jax.eval_shape(
      net.apply, variables, jnp.zeros((2, 32, 64, 1)))
  assert [x.shape for x in scales] == [
      (2, 32 // s, 64 // s, c) for s, c in zip(
          (2, 4, 8, 16, 32)[-len(channels):], channels, strict=True)]
  assert features.shape == (2, 32 // stride, 64 // stride, 16)
  widths = [variables['params']['trunk'][f'lateral_{i}']['kernel'].shape[-1]
            for i in range(len(channels))]
  assert widths == [16] + [32] * (len(channels) - 1)


def test_the_encoder_sees_a_grey_image_in_its_own_range():
  lightness = np.random.default_rng(0).uniform(
      0, 100, (2, 32, 32, 1)).astype(np.float32)
  inputs = lightness / 50 - 1
  net, variables = _problem(inputs)
  scales, _ = jax.jit(net.apply)(variables, inputs)
  lab = np.concatenate([lightness, np.zeros((2, 32, 32, 2))], -1)
  rgb = skimage.color.lab2rgb(lab)
  encoder = net.trunk.backbone.module
  wanted = encoder.apply(
      variables[FROZEN]['trunk'][PRETRAINED_ENCODER],
      ((255 * rgb - 127) / 128).astype(np.float32))
  for x, name in zip(scales, ('block2', 'block3', 'block4', 'block5'),
                     strict=True):
    np.testing.assert_allclose(x, wanted[name], atol=2e-3)


@pytest.mark.parametrize('frozen', [True, False])
def test_collections_and_gradients_of_the_encoder(frozen):
  inputs = jax.random.normal(jax.random.key(1), (4, 32, 32, 1))
  net, variables = _problem(inputs, frozen=frozen)
  kept = variables[FROZEN]['trunk'][PRETRAINED_ENCODER]
  assert set(variables) == {'params', FROZEN}
  assert set(kept) == {'batch_stats'} | ({'params'} if frozen else set())
  trained = variables['params']['trunk']
  assert (PRETRAINED_ENCODER in trained) == (not frozen)

  @jax.jit
  def run(params, train=True):
    (_, features), after = net.apply(
        {**variables, 'params': params}, inputs, train=train,
        mutable=[FROZEN])
    return jnp.square(features).mean(), (features, after)

  gradient, (features, after) = jax.grad(run, has_aux=True)(
      variables['params'])
  # No batch changes the statistics, and no photograph depends on the others.
  jax.tree.map(np.testing.assert_array_equal, after[FROZEN],
               variables[FROZEN])
  _, alone = jax.jit(net.apply)(variables, inputs[:1])
  np.testing.assert_allclose(features[:1], alone, atol=1e-4)
  if not frozen:
    reached = gradient['trunk'][PRETRAINED_ENCODER]
    assert all(jnp.abs(x['kernel']).max() > 0 for x in (
        reached['stem'], reached['block1']['depthwise'],
        reached['block5']['project']))


def test_further_channels_and_conditioning_reach_the_features():
  inputs = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  said = jax.random.normal(jax.random.key(2), (2, 5))
  net, variables = _problem(inputs, said)
  params = variables['params']['trunk']
  for block in (params[f'blocks_{i}'] for i in range(4)):
    block['film']['kernel'] = 0.1 * jnp.ones_like(block['film']['kernel'])
  run = jax.jit(net.apply)
  scales, features = run(variables, inputs, said)
  other_scales, other = run(variables, inputs.at[..., 1:].add(1.0), said)
  for x, y in zip(scales, other_scales, strict=True):
    np.testing.assert_allclose(y[..., -2:], x[..., -2:] + 1, atol=1e-4)
    np.testing.assert_array_equal(y[..., :-2], x[..., :-2])
  assert jnp.abs(other - features).max() > 1e-3
  assert jnp.abs(run(variables, inputs, said + 1)[1] - features).max() > 1e-3


@pytest.mark.parametrize(('filters', 'settings', 'message'), [
    ((16,), {'stride': 8}, 'decoder_stride=8: choose 2 or 4'),
    ((24,), {}, 'filters=24: .* multiples of 16'),
    ((), {}, r'filters=\[\]: .* 1 to 4'),
    ((16,) * 5, {'stride': 4}, '1 to 4'), ((16,) * 6, {'stride': 2}, '1 to 5'),
    ((16,), {'depth': 3}, "no setting 'depth'; it has frozen, stride")])
def test_invalid_settings_are_refused(filters, settings, message):
  with pytest.raises(UserError, match=message):
    trunk.build('encoder', filters, jnp.float32, settings)


def test_a_trunk_without_settings_says_so():
  with pytest.raises(UserError, match=r'unet has no setting .* it has none'):
    trunk.build('unet', (16,), jnp.float32, {'stride': 2})
