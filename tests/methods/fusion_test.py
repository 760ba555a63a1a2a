"""The fusion method: the backbone's input, the embedding and the loss.

All tests but one replace the backbone by a small network.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import skimage.color
import skimage.transform
from asking import grey

from colorjax import backbones, quantize
from colorjax.colorizer import FROZEN
from colorjax.errors import UserError
from colorjax.methods import fusion

pytestmark = pytest.mark.usefixtures('compiles_quickly')

KEYS = jax.random.split(jax.random.key(0), 2)

SIZE = 80  # side of the backbone's input
BATCH = 3


class SmallClassifier(nn.Module):
  """A classifier with few parameters, and with batch statistics."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(4, (3, 3), (8, 8), name='conv')(x)
    x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    pooled = x.mean((1, 2))
    return {'avg_pool': pooled, 'logits': nn.Dense(6, name='top')(pooled)}


SMALL_BACKBONE = backbones.Backbone(
    name='xception', module=SmallClassifier(), image_size=SIZE, num_features=4,
    num_classes=6, preprocess=lambda rgb: rgb * 2 - 1,
    intermediates=('avg_pool',))


def build(**settings):
  """The method with the small backbone and few channels."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fusion.backbones, 'build', lambda name, **_: SMALL_BACKBONE)
    return fusion.build(**{
        'backbone': 'xception', 'width': 1 / 16} | settings)


def photographs():
  rng = np.random.default_rng(0)
  # Smooth, so that resizing keeps their content.
  coarse = rng.uniform(0, 255, (BATCH, 4, 4, 3))
  coarse *= np.array([0.2, 1, 0.6])[:, None, None, None]
  images = np.stack([skimage.transform.resize(x, (16, 24)) for x in coarse])
  return {'image': images.astype(np.uint8),
          'padding_mask': np.array([1, 1, 0], np.float32)}


def lightness_of(images):
  return skimage.color.rgb2lab(images)[..., :1].astype(np.float32)


def ab_of(images):
  return skimage.color.rgb2lab(images)[..., 1:].astype(np.float32)


@dataclasses.dataclass
class Problem:
  """A method, its variables and its compiled functions."""
  method: object
  variables: dict
  loss: object
  embed: object
  predict: object

  def run(self, batch, variables=None):
    variables = variables or self.variables
    return self.loss(variables['params'], variables['model_state'], batch,
                     KEYS)


def problem(**settings):
  method = build(**settings)
  shapes = jax.eval_shape(
      lambda key: method.init(key, (16, 24)), jax.random.key(0))
  rng = np.random.default_rng(1)
  variables = jax.tree.map(lambda x: np.float32(rng.normal(
      size=x.shape, scale=max(1, np.prod(x.shape[:-1]))**-0.5)), shapes)
  frozen = variables['model_state'][FROZEN]['backbone']
  frozen['batch_stats']['norm']['var'] = np.ones(4, np.float32)
  return Problem(method, variables,
                 jax.jit(lambda *args: method.loss(*args, step=0, train=True)),
                 jax.jit(method.embed), jax.jit(method.predict))


@pytest.fixture(name='plain', scope='module')
def _plain():
  return problem()


def test_variables(plain):
  assert set(plain.variables) == {'params', 'model_state'}
  assert set(plain.variables['model_state']) == {FROZEN}
  assert set(plain.variables['model_state'][FROZEN]) == {'backbone'}
  frozen = plain.variables['model_state'][FROZEN]['backbone']
  assert set(frozen) == {'params', 'batch_stats'}
  assert set(frozen['params']) == {'conv', 'norm', 'top'}
  assert set(plain.method.backbones) == {'xception'}
  assert plain.method.max_proposals == 1


def test_the_backbone_sees_a_grey_photograph_at_its_own_size(plain):
  images = photographs()['image']
  lab = skimage.color.rgb2lab(images)
  lab[..., 1:] = 0
  grey = skimage.color.lab2rgb(lab)
  resized = np.stack([skimage.transform.resize(
      x, (SIZE, SIZE), order=1, mode='edge', anti_aliasing=False)
      for x in grey])
  expected = SmallClassifier().apply(
      plain.variables['model_state'][FROZEN]['backbone'],
      jnp.float32(resized * 2 - 1))
  embedding = plain.embed(plain.variables, lightness_of(images))
  assert embedding.shape == (BATCH, 6)
  np.testing.assert_allclose(embedding, expected['logits'], atol=1e-4)
  # The photographs differ by more than the tolerance.
  assert np.abs(embedding[0] - embedding[1]).max() > 0.1


@pytest.mark.parametrize(
    'what', ['probabilities', 'features', 'standardized'])
def test_other_embeddings(plain, what):
  lightness = lightness_of(photographs()['image'])
  method = build(embedding=what)
  embedding = method.embed(plain.variables, lightness)
  if what == 'probabilities':
    logits = np.asarray(plain.embed(plain.variables, lightness), np.float64)
    odds = np.exp(logits)
    np.testing.assert_allclose(
        embedding, odds / odds.sum(-1, keepdims=True), rtol=1e-4)
  elif what == 'standardized':
    logits = np.asarray(plain.embed(plain.variables, lightness), np.float64)
    logits -= logits.mean(-1, keepdims=True)
    np.testing.assert_allclose(
        embedding, logits / logits.std(-1, keepdims=True), rtol=1e-3)
  else:
    frozen = plain.variables['model_state'][FROZEN]['backbone']
    top = frozen['params']['top']
    np.testing.assert_allclose(
        np.asarray(embedding) @ top['kernel'] + top['bias'],
        plain.embed(plain.variables, lightness), atol=1e-5)
  shapes = jax.eval_shape(
      lambda key: method.init(key, (16, 24)), jax.random.key(0))
  # 256 / 16 channels of the encoder's grid, and the embedding.
  assert shapes['params']['fusion_kernel'].shape == (
      16 + embedding.shape[1], 16)


def test_loss_equals_the_error_of_the_prediction(plain):
  batch = photographs()
  value, aux = plain.run(batch)
  predicted = plain.predict(plain.variables, grey(lightness_of(batch['image'])))
  error = (np.asarray(predicted) - ab_of(batch['image'])) / 110
  each = np.square(error).mean((1, 2, 3))
  np.testing.assert_allclose(value, each[:2].mean(), rtol=1e-3)
  assert set(aux.metrics) == {'loss'}
  np.testing.assert_allclose(
      aux.metrics['loss'], (each[:2].sum(), 2), rtol=1e-3)


def test_ab_is_bounded_by_110(plain):
  variables = jax.tree.map(np.copy, plain.variables)
  variables['params']['ab']['bias'] = np.array([30, -30], np.float32)
  lightness = lightness_of(photographs()['image'])
  ab = plain.predict(variables, grey(lightness))
  np.testing.assert_allclose(ab[..., 0], 110)
  np.testing.assert_allclose(ab[..., 1], -110)


def test_an_embedding_in_the_batch_replaces_the_backbone(plain):
  batch = photographs()
  embedding = plain.embed(plain.variables, lightness_of(batch['image']))
  given = {**batch, 'embedding': embedding}
  computed = plain.run(batch)[0]
  np.testing.assert_allclose(plain.run(given)[0], computed, rtol=1e-4)
  # With it, the backbone's variables do not matter.
  state = jax.tree.map(np.zeros_like, plain.variables['model_state'])
  without = {**plain.variables, 'model_state': state}
  np.testing.assert_allclose(
      plain.run(given, without)[0], computed, rtol=1e-4)
  assert abs(plain.run(batch, without)[0] - computed) > 1e-4
  other = {**batch, 'embedding': -10 * embedding}
  assert abs(plain.run(other)[0] - computed) > 1e-4


def test_a_few_steps_lower_the_loss_and_keep_the_backbone(plain):
  batch = photographs()
  state = plain.variables['model_state']
  optimizer = optax.adam(3e-3)

  @jax.jit
  def step(params, opt_state):
    (value, aux), grads = jax.value_and_grad(
        plain.method.loss, has_aux=True)(
            params, state, batch, KEYS, step=0, train=True)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, value, aux

  params = plain.variables['params']
  opt_state = optimizer.init(params)
  values = []
  for _ in range(60):
    params, opt_state, value, aux = step(params, opt_state)
    values.append(float(value))
  assert values[-1] < 0.3 * values[0]
  jax.tree.map(np.testing.assert_array_equal, aux.model_state, state)


def test_rare_colors_count_more(plain):
  bins = quantize.published_bins()
  rng = np.random.default_rng(2)
  prior = rng.dirichlet(np.full(len(bins), 0.3))
  weighted = problem(
      loss='l1', prior=[float(p) for p in prior], rebalance=0.25)
  batch = photographs()
  value, aux = weighted.run(batch, plain.variables)
  ab = ab_of(batch['image'])
  nearest = np.square(ab[..., None, :] - bins).sum(-1).argmin(-1)
  weights = 1 / (0.75 * prior + 0.25 / 313)
  weights /= (prior * weights).sum()
  error = np.abs(np.asarray(plain.predict(
      plain.variables, grey(lightness_of(batch['image'])))) - ab) / 110
  expected = (error * weights[nearest][..., None]).mean((1, 2, 3))
  np.testing.assert_allclose(value, expected[:2].mean(), rtol=1e-2)
  assert set(aux.metrics) == {'loss', 'loss_unweighted'}
  np.testing.assert_allclose(
      aux.metrics['loss_unweighted'], (error[:2].mean() * 2, 2), rtol=1e-3)
  assert abs(value / error[:2].mean() - 1) > 0.1


def test_loading_the_backbone_replaces_its_frozen_variables(plain, monkeypatch):
  loaded = jax.tree.map(
      lambda x: x + 1, plain.variables['model_state'][FROZEN]['backbone'])
  calls = []

  def load(name, path, *, variant):
    calls.append((name, path, variant))
    return loaded

  method = build(backbone_variant='torch')
  monkeypatch.setattr(fusion.backbones, 'load', load)
  variables = method.backbones['xception'].load(
      plain.variables, 'some.safetensors')
  assert calls == [('xception', 'some.safetensors', 'torch')]
  assert variables['model_state'] == {FROZEN: {'backbone': loaded}}
  assert variables['params'] is plain.variables['params']


def test_a_perceptual_loss_adds_a_second_pretrained_network(plain):
  """Its variables are kept beside the backbone's; terms are also metrics."""
  bins = quantize.published_bins()
  prior = np.random.default_rng(2).dirichlet(np.full(len(bins), 0.3))
  stage = "perceptual(stages=['relu1_1'])"
  with pytest.MonkeyPatch.context() as patch:
    whole = backbones.build
    patch.setattr(
        fusion.backbones, 'build', lambda name, **options: SMALL_BACKBONE
        if name == 'xception' else whole(name, **options))
    method = fusion.build(backbone='xception', width=1 / 16,
                          loss=f'l1+0.2*{stage}',
                          prior=prior.tolist(), rebalance=0.25)
  assert set(method.backbones) == {'xception', 'vgg16'}
  shapes = jax.eval_shape(
      lambda key: method.init(key, (16, 24)), jax.random.key(0))
  assert set(shapes['model_state'][FROZEN]) == {'backbone', 'perceptual'}
  state = {FROZEN: {
      **plain.variables['model_state'][FROZEN],
      'perceptual': {'params': {'conv1_1': {
          'kernel': np.random.default_rng(3).normal(size=(3, 3, 3, 64)),
          'bias': np.zeros(64)}}}}}
  value, aux = jax.jit(lambda state: method.loss(
      plain.variables['params'], state, photographs(), KEYS, step=None,
      train=False))(state)
  assert set(aux.metrics) == {
      'loss', 'loss/l1', 'loss/perceptual', 'loss_unweighted'}
  first, second = (float(aux.metrics[f'loss/{name}'][0]) / 2
                   for name in ('l1', 'perceptual'))
  assert second > 1e-4
  np.testing.assert_allclose(value, first + 0.2 * second, rtol=1e-5)


PRIOR = [1 / 313] * 313


@pytest.mark.parametrize(('settings', 'message'), [
    ({'backbone': 'vgg19'}, 'backbone=vgg19: choose one of efficien'),
    ({'embedding': 'pool'}, 'embedding=pool: choose one of logits'),
    ({'loss': 'l2'}, 'loss=l2: there is no loss l2: choose one of mse'),
    ({'backbone': 'xception', 'embedding_size': 70},
     'xception needs at least 71'),
    ({'embedding_size': 31}, 'efficientnet_lite0 needs at least 32'),
    ({'backbone': 'inception_resnet_v2', 'embedding_size': 74},
     'needs at least 75'),
    ({'rebalance': 0.5}, 'rebalance=0.5: also give the prior'),
    ({'rebalance': 0.5, 'prior': PRIOR[1:]}, 'has 312 bins instead of 313'),
    ({'rebalance': 2.0, 'prior': PRIOR}, 'rebalance=2'),
    ({'bins': [[0.0, 1.0]]}, 'bins: '),
])
def test_invalid_settings_are_refused(settings, message):
  with pytest.raises(UserError, match=message) as raised:
    fusion.build(**settings)
  assert '\n' not in str(raised.value)


def test_sides_must_be_divisible_by_eight(plain):
  with pytest.raises(UserError, match=r'image_size=16 x 20: .* divisible by 8'):
    plain.method.init(jax.random.key(0), (16, 20))
  with pytest.raises(UserError, match=r'image_size=16 x 20: .* divisible by 8'):
    plain.method.predict(plain.variables, grey(jnp.zeros((1, 16, 20, 1))))


@pytest.mark.parametrize(
    ('name', 'features'), [('xception', 2048), ('inception_resnet_v2', 1536),
                           ('efficientnet_lite0', 1280)])
def test_real_backbones_have_a_thousand_classes(name, features):
  method = fusion.build(backbone=name, embedding_size=75, width=1 / 16)

  def run(key):
    variables = method.init(key, (16, 16))
    lightness = jnp.zeros((2, 16, 16, 1))
    return variables, method.embed(variables, lightness), method.predict(
        variables, grey(lightness))

  variables, embedding, ab = jax.eval_shape(run, jax.random.key(0))
  assert embedding.shape == (2, 1000)
  assert ab.shape == (2, 16, 16, 2)
  frozen = variables['model_state'][FROZEN]['backbone']
  top = frozen['params']['predictions']
  assert top['kernel'].shape == (features, 1000)
