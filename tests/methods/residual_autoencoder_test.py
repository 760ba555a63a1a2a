"""The residual autoencoder method: the contract, upsampling and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.transform
from asking import grey

from colorjax.colorizer import FROZEN
from colorjax.errors import UserError
from colorjax.methods import residual_autoencoder as method
from colorjax.models import residual_autoencoder as model

pytestmark = pytest.mark.usefixtures('compiles_quickly')

KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.fixture(scope='module')
def variables():
  """Random kernels, and biases of 0.1."""
  shapes = jax.eval_shape(lambda: method.build().init(
      jax.random.key(0), (32, 32)))
  rng = np.random.default_rng(0)

  def draw(leaf):
    if leaf.ndim == 1:
      return np.full(leaf.shape, 0.1, np.float32)
    return np.float32(rng.normal(0, np.prod(leaf.shape[:-1])**-0.5,
                                 leaf.shape))

  return jax.tree.map(draw, shapes)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
  return {'image': jnp.asarray(coarse.repeat(8, 1).repeat(8, 2)),
          'padding_mask': jnp.ones(2)}


@pytest.fixture(scope='module')
def lab(batch):
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.float32(lab[..., :1]), lab[..., 1:]


@pytest.fixture(scope='module')
def predicted(variables, lab):
  return np.asarray(jax.jit(method.build().predict)(
      variables, grey(lab[0])))


def test_the_prediction_is_the_upsampled_field(variables, lab, predicted):
  """Half-pixel centers and repeated borders, as in skimage."""
  net = model.ResidualAutoencoder(backbone=model.encoder())
  field = np.asarray(jax.jit(net.apply)(
      {'params': variables['params']}, lab[0] / 50 - 1))
  assert field.shape == (2, 8, 12, 2)
  assert field.std() > 1e-3
  for one, found in zip(110 * field, predicted, strict=True):
    expected = skimage.transform.resize(
        one, (32, 48, 2), order=1, mode='edge', anti_aliasing=False)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_contract(variables, lab, predicted):
  colorizer = method.build()
  assert (list(colorizer.backbones), colorizer.max_proposals) == (['vgg19'], 1)
  assert colorizer.log_prob is None
  proposals, weights = jax.jit(colorizer.propose, static_argnums=2)(
      variables, grey(lab[0]), 2)
  for proposal in proposals:
    np.testing.assert_allclose(proposal, predicted, atol=1e-3)
  assert weights is None


PENALTIES = {
    'mse': np.square,
    'l1': np.abs,
    'huber': lambda e: np.where(
        np.abs(e) <= 1 / 110, e**2 / 2, (np.abs(e) - 1 / 220) / 110),
    'smooth': lambda e: np.sqrt(e**2 + 1e-6) - 1e-3,
}


@pytest.fixture(scope='module')
def fixed_field():
  """Replaces the network's output, to avoid compiling it for each loss."""
  return jnp.linspace(-0.5, 0.5, 2 * 8 * 12 * 2).reshape(2, 8, 12, 2)


@pytest.mark.parametrize('loss', PENALTIES)
@pytest.mark.parametrize('enlargement', method.ENLARGEMENTS)
def test_losses_at_the_size_of_the_photograph(
    loss, enlargement, batch, lab, fixed_field, monkeypatch):
  monkeypatch.setattr(model.ResidualAutoencoder, 'apply',
                      lambda self, variables, x: variables['params'])
  colorizer = method.build(loss=loss, enlargement=enlargement)
  error = np.asarray(colorizer.predict(
      {'params': fixed_field}, grey(lab[0])), np.float64) - lab[1]
  each = PENALTIES[loss](error / 110).mean((1, 2, 3))
  for train in (True, False):
    scalar, aux = colorizer.loss(
        fixed_field, {}, batch, KEYS, step=0, train=train)
    np.testing.assert_allclose(scalar, each.mean(), rtol=1e-3)
    assert aux.metrics['loss'][1] == 2
  first = {**batch, 'padding_mask': jnp.array([1., 0.])}
  scalar, _ = colorizer.loss(
      fixed_field, {}, first, KEYS, step=0, train=True)
  np.testing.assert_allclose(scalar, each[0], rtol=1e-3)


def test_edges_separate_colors_that_bilinear_mixes(monkeypatch):
  """An ab field and a photograph of two halves each."""
  field = jnp.where(jnp.arange(8) < 4, -0.4, 0.5)
  field = jnp.broadcast_to(field[:, None], (1, 8, 8, 2))
  lightness = jnp.broadcast_to(
      jnp.where(jnp.arange(32) < 16, 20., 80.)[:, None], (1, 32, 32, 1))
  monkeypatch.setattr(model.ResidualAutoencoder, 'apply',
                      lambda self, variables, x: field)
  truth = jnp.where(jnp.arange(32) < 16, -44., 55.)
  gaps = {}
  for enlargement in method.ENLARGEMENTS:
    ab = method.build(enlargement=enlargement).predict(
        {'params': {}}, grey(lightness))
    gaps[enlargement] = float(jnp.abs(ab[0, 8, :, 0] - truth).mean())
  assert gaps['edges'] < 0.5 * gaps['bilinear']


def test_every_parameter_is_trained(variables, batch):
  """Including those of VGG, which is fine-tuned."""
  colorizer = method.build()
  gradients = jax.jit(jax.grad(lambda params: colorizer.loss(
      params, {}, batch, KEYS, step=0, train=True)[0]))(
          variables['params'])
  for path, gradient in jax.tree.leaves_with_path(gradients):
    assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_loading_a_file_replaces_the_backbone(variables, monkeypatch):
  backbone = variables['params']['backbone']
  loaded = jax.tree.map(lambda x: np.full_like(x, 7), backbone)
  whole = {**loaded, 'conv1_1': {'kernel': np.zeros((3, 3, 3, 64))}}
  calls = []

  def load(name, path, *, top):
    calls.append((name, path, top))
    return {'params': whole}

  monkeypatch.setattr(method.backbones, 'load', load)
  found = method.build().backbones['vgg19'].load(variables, 'vgg.h5')
  assert calls == [('vgg19', 'vgg.h5', False)]
  jax.tree.map(np.testing.assert_array_equal,
               found['params']['backbone'], loaded)
  for name in ('stem', 'up_to_pool4', 'up_to_pool3', 'ab'):
    assert found['params'][name] is variables['params'][name]
  del whole['conv3_2']
  with pytest.raises(UserError, match='conv3_2'):
    method.build().backbones['vgg19'].load(variables, 'vgg.h5')


@pytest.mark.parametrize(('settings', 'message'), [
    ({'loss': 'l2'}, 'loss=l2: there is no loss l2: choose one of mse, l1'),
    ({'loss': "mse+perceptual(network='vgg')"}, "no backbone 'vgg'"),
    ({'loss': "perceptual(stages=['conv1'])"}, "vgg16 has no stage 'conv1'"),
    ({'enlargement': 'cubic'}, 'enlargement=cubic: choose one of bilinear')])
def test_unknown_settings_name_the_flag(settings, message):
  with pytest.raises(UserError, match=message):
    method.build(**settings)


def test_wrong_sizes_are_refused(variables):
  colorizer = method.build()
  message = 'image_size=40 x 32: .* divisible by 16'
  with pytest.raises(UserError, match=message):
    colorizer.init(jax.random.key(0), (40, 32))
  with pytest.raises(UserError, match=message):
    colorizer.predict(variables, grey(jnp.zeros((1, 40, 32, 1))))


def test_the_download_omits_the_classifier(monkeypatch):
  calls = []
  monkeypatch.setattr(method.backbones, 'download',
                      lambda *args, **options: calls.append((args, options)))
  method.build().backbones['vgg19'].download()
  assert calls == [(('vgg19',), {'top': False})]


SUM = "huber(delta=0.5)+0.5*perceptual(network='{}', stages=['relu1_1'])"


@pytest.mark.parametrize('network', ['vgg16', 'vgg19'])
def test_a_perceptual_loss_adds_its_pretrained_network(
    network, batch, fixed_field, monkeypatch):
  """Two networks have two files; if both are VGG-19, one file serves both."""
  monkeypatch.setattr(model.ResidualAutoencoder, 'init', lambda self, key, x: {
      'params': {'backbone': {'conv1_2': {'kernel': jnp.zeros(1)}}}})
  monkeypatch.setattr(model.ResidualAutoencoder, 'apply',
                      lambda self, variables, x: variables['params'])
  colorizer = method.build(loss=SUM.format(network))
  assert set(colorizer.backbones) == {'vgg19', network}
  variables = colorizer.init(jax.random.key(0), (32, 32))
  kernel = jnp.full((3, 3, 3, 64), 0.1).at[..., :32].set(-0.2)
  loaded = {'params': {'conv1_1': {'kernel': kernel, 'bias': jnp.ones(64)},
                       'conv1_2': {'kernel': jnp.ones(1)}}}
  monkeypatch.setattr(method.backbones, 'load',
                      lambda name, path, *, top: loaded)
  variables = colorizer.backbones[network].load(variables, 'weights.h5')
  state = variables['model_state']
  np.testing.assert_array_equal(
      state[FROZEN]['perceptual']['params']['conv1_1']['kernel'], kernel)
  own = variables['params']['backbone']['conv1_2']['kernel']
  assert own == (1 if network == 'vgg19' else 0)

  (value, aux), gradient = jax.value_and_grad(
      lambda field: colorizer.loss(field, state, batch, KEYS, step=0,
                                   train=True), has_aux=True)(fixed_field)
  assert set(aux.metrics) == {'loss', 'loss/huber', 'loss/perceptual'}
  first, second = (float(aux.metrics[f'loss/{name}'][0]) / 2
                   for name in ('huber', 'perceptual'))
  assert min(first, second) > 1e-4
  np.testing.assert_allclose(value, first + 0.5 * second, rtol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, aux.model_state, state)
  alone = jax.grad(lambda field: method.build(loss='huber(delta=0.5)').loss(
      field, {}, batch, KEYS, step=0, train=True)[0])(fixed_field)
  assert np.isfinite(gradient).all()
  assert jnp.abs(gradient - alone).max() > 1e-6
