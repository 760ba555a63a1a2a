"""The regression method: its initialization, its loss and a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
from asking import grey

from colorjax.colorizer import FROZEN
from colorjax.errors import UserError
from colorjax.methods import regression

SMALL = {'filters': (16,)}


@pytest.fixture(name='batch', scope='module')
def _batch():
  coarse = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
  return {'image': coarse.repeat(4, 1).repeat(4, 2),
          'padding_mask': jnp.ones(2)}


def test_begins_at_grey_and_learns(batch):
  method = regression.build(loss='l1+0.5*mse', **SMALL)
  variables = method.init(jax.random.key(0), (16, 16))
  assert method.max_proposals == 1
  assert not method.backbones
  lab = skimage.color.rgb2lab(batch['image'])
  np.testing.assert_array_equal(
      method.predict(variables, grey(jnp.float32(lab[..., :1]))), 0)

  @jax.jit
  def step(params):
    (value, aux), gradient = jax.value_and_grad(method.loss, has_aux=True)(
        params, {}, batch, None, step=0, train=True)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value, aux

  params, first, aux = step(variables['params'])
  ab = lab[..., 1:] / 110
  np.testing.assert_allclose(
      first, np.abs(ab).mean() + 0.5 * np.square(ab).mean(), rtol=1e-3)
  assert set(aux.metrics) == {'loss', 'loss/l1', 'loss/mse'}
  for _ in range(20):
    params, last, _ = step(params)
  assert last < 0.9 * first


def test_a_perceptual_loss_adds_its_pretrained_network():
  method = regression.build(
      loss="mse+perceptual(stages=['relu1_1'])", **SMALL)
  assert set(method.backbones) == {'vgg16'}
  shapes = jax.eval_shape(
      lambda key: method.init(key, (16, 16)), jax.random.key(0))
  assert set(shapes['model_state'][FROZEN]['perceptual']['params']) == {
      'conv1_1'}


@pytest.mark.parametrize(('settings', 'message'), [
    ({'loss': 'l2'}, 'no loss l2'), ({'network': 'vit'}, 'network=vit'),
    ({'filters': (10,)}, 'filters=10')])
def test_invalid_settings_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    regression.build(**settings)
