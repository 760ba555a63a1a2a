"""Rematerialization changes the memory of a step and not its result."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from colorjax import parallel
from colorjax.colorizer import init_variables, masked_mean
from colorjax.errors import UserError
from colorjax.methods import (
  classification,
  fusion,
  mask_gan,
  mbm,
  residual_autoencoder,
)
from colorjax.remat import Segmented, rematerialized
from colorjax.training import steps
from colorjax.training.state import create_state

BATCH_SIZE = 2

METHODS = {
    'mbm': (lambda: mbm.build(num_components=2, filters=(16, 16),
                              prior_width=8), 8),
    'published mbm': (lambda: mbm.build(
        network='published', batch_norm=True, num_components=2, filters=(4, 4),
        prior_width=8), 8),
    'classification': (lambda: classification.build(
        network='published', filters=(4, 4, 4, 4)), 16),
    'mask_gan': (lambda: mask_gan.build(widths=(4, 8), noise=2), 8),
}


def _losses(colorizer):
  return colorizer.players or colorizer.loss


def _optimizers(colorizer):
  return {name: optax.sgd(0.1) for name in colorizer.players} or optax.sgd(0.1)


def _batch(side):
  rng = np.random.default_rng(0)
  return {'image': rng.integers(0, 256, (BATCH_SIZE, side, side, 3), np.uint8),
          'padding_mask': np.ones(BATCH_SIZE, np.float32),
          'index': np.arange(BATCH_SIZE, dtype=np.int32)}


@pytest.mark.usefixtures('compiles_quickly')
@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('accumulate', [1, 2])
def test_parameters_are_those_of_a_step_without_it(name, accumulate):
  build, side = METHODS[name]
  if accumulate > 1 and name != 'mbm':
    pytest.skip('one method with dropout shows it')
  colorizer = build()
  variables = jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(0), (side, side))
  start = create_state(variables, _optimizers(colorizer),
                       players=colorizer.players)
  found = []
  for remat in (False, True):
    step = parallel.pmap_step(steps.make_train_step(
        _losses(colorizer), _optimizers(colorizer), seed=0, remat=remat,
        accumulate=accumulate))
    state, _ = step(parallel.replicate(start), _batch(side))
    assert not state.failed
    found.append(jax.tree.leaves((state.params, state.model_state)))
  for before, x, y in zip(jax.tree.leaves(
      (start.params, start.model_state)), *found, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    assert x.shape == before.shape


@pytest.mark.parametrize('build', [
    lambda: mbm.build(network='encoder', filters=(16,)),
    lambda: fusion.build(backbone='efficientnet_lite0', width=0.05),
    lambda: residual_autoencoder.build()])
def test_other_networks_have_parts(build):
  colorizer = build()
  side = 32
  variables = jax.eval_shape(
      lambda key: colorizer.init(key, (side, side)), jax.random.key(0))

  def gradient(params, model_state, batch):
    keys = jax.random.split(jax.random.key(0), BATCH_SIZE)
    loss = rematerialized(colorizer.loss)
    return jax.grad(lambda params: loss(
        params, model_state, batch, keys, step=0, train=True)[0])(params)

  traced = jax.make_jaxpr(gradient)(
      variables['params'], variables['model_state'], _batch(side))
  assert str(traced).count('checkpoint[') + str(traced).count('remat') > 2


def test_a_network_without_parts_is_refused():
  net = nn.Dense(2)

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    y = net.apply({'params': params}, batch['image'].mean((1, 2)) / 255)
    return masked_mean({'loss': y.sum(-1)}, batch['padding_mask'], model_state)

  variables = init_variables(net, jax.random.key(0), np.zeros((1, 3)))
  optimizer = optax.sgd(0.1)
  step = steps.make_train_step(loss, optimizer, seed=0, remat=True)
  with pytest.raises(UserError, match='remat=True: the networks'):
    step(create_state(variables, optimizer), _batch(4))


def test_layers_keep_their_names_and_inputs_alone_are_kept():
  class Net(Segmented):

    @nn.compact
    def __call__(self, x):
      for _ in range(2):
        x = self.segment(lambda net, x: nn.tanh(nn.Dense(4)(x)), x)
      return nn.Dense(1, name='last')(x)

  net, x = Net(), np.ones((3, 5), np.float32)
  params = net.init(jax.random.key(0), x)
  assert set(params['params']) == {'Dense_0', 'Dense_1', 'last'}
  traced = jax.make_jaxpr(jax.grad(rematerialized(
      lambda params: net.apply(params, x).sum())))(params)
  # A tanh of each part in the forward pass and again in the backward pass.
  assert str(traced).count('tanh') == 4
  assert str(jax.make_jaxpr(jax.grad(
      lambda params: net.apply(params, x).sum()))(params)).count('tanh') == 2
