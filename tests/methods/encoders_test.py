"""Methods with a pretrained encoder: its weights and its learning rate."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import grey
from PIL import Image

from colorjax import saved
from colorjax.backbones import efficientnet_lite, tensor_names
from colorjax.colorizer import FROZEN, PRETRAINED_ENCODER
from colorjax.errors import UserError
from colorjax.methods import (
    autoregressive,
    classification,
    color_queries,
    flow_matching,
    latent,
    mbm,
    regression,
)
from colorjax.runs import train
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.training import checkpoint

pytestmark = pytest.mark.usefixtures('compiles_quickly')

NAME = 'efficientnet_lite0'
METHODS = {regression: {}, classification: {}, flow_matching: {'width': 8},
           mbm: {'num_components': 2, 'prior_width': 8},
           latent: {'width': 16, 'latent_strides': (8,)},
           autoregressive: {'width': 8, 'depth': 1, 'num_heads': 2,
                            'upsampler_width': 16},
           color_queries: {
               'num_queries': 2, 'num_blocks': 1, 'width': 8, 'num_heads': 2,
               'mlp_width': 8, 'perceptual_weight': 0.,
               'adversarial_weight': 0., 'colorfulness_weight': 0.}}
STATES = {'params', 'batch_stats'}


@pytest.fixture(autouse=True, scope='module')
def _five_blocks():
  """Reduces the encoder to one block per stride, which compiles quickly."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(efficientnet_lite, 'BLOCKS', tuple(
        efficientnet_lite.Block(3, min(i, 2), 2, 4 * i) for i in range(1, 6)))
    patch.setattr(efficientnet_lite, 'STAGES', {
        2**i: f'block{i}' for i in range(1, 6)})
    tensor_names.layers.cache_clear()
    yield
  tensor_names.layers.cache_clear()


def _build(method, **settings):
  return method.build(network='encoder', filters=(16,),
                      trunk_settings=settings, **METHODS[method])


def _trunk(tree, method):
  """The variables of the trunk in a tree of params or of a collection."""
  return (tree['generator'] if method is color_queries else tree)['trunk']


def _weights(path):
  """A state dict of the small encoder; each tensor has one constant value."""
  from safetensors.numpy import save_file

  names = [tensor for layer in tensor_names.layers(NAME)
           for tensor in layer.tensors]
  numbers = {}
  for i, tensor in enumerate(names):
    shape = tensor.shape
    if len(shape) > 1:
      shape = (*shape[:-3:-1], *shape[:-2])
    numbers[tensor.torch] = np.full(shape, (i + 1) / 64, np.float32)
  save_file(numbers, path)
  return path, {tensor.path: (i + 1) / 64 for i, tensor in enumerate(names)}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('frozen', [True, False])
def test_the_file_fills_the_encoder_and_nothing_else(
    method, frozen, tmp_path):
  colorizer = _build(method, frozen=frozen)
  assert set(colorizer.backbones) == {NAME}
  # Any values do; to draw them takes long to compile.
  variables = jax.tree.map(
      lambda x: jnp.full(x.shape, 0.5, x.dtype),
      jax.eval_shape(lambda key: colorizer.init(key, (32, 32)),
                     jax.random.key(0)))
  path, numbers = _weights(tmp_path / 'x.safetensors')
  loaded = colorizer.backbones[NAME].load(variables, path)
  jax.tree.map(lambda x, y: np.testing.assert_equal(x.shape, y.shape),
               loaded, variables)
  kept = _trunk(loaded['model_state'][FROZEN], method)[PRETRAINED_ENCODER]
  encoder = dict(kept)
  if not frozen:
    encoder['params'] = _trunk(loaded['params'], method)[
        PRETRAINED_ENCODER]
  assert set(encoder) == STATES
  for collection, *place, leaf in numbers:
    if place[0] in ('head', 'head_bn', 'predictions'):
      continue
    found = encoder[collection]
    for name in (*place, leaf):
      found = found[name]
    assert np.unique(found) == numbers[collection, *place, leaf]
  others = dict(_trunk(loaded['params'], method))
  others.pop(PRETRAINED_ENCODER, None)
  for name, value in others.items():
    jax.tree.map(np.testing.assert_array_equal, value,
                 _trunk(variables['params'], method)[name])


@pytest.mark.parametrize('method', METHODS)
def test_predictions_at_multiples_of_32(method):
  colorizer = _build(method, stride=2)
  variables = jax.eval_shape(
      lambda key: colorizer.init(key, (32, 32)), jax.random.key(0))
  ab = jax.eval_shape(
      colorizer.predict, variables, grey(jnp.full((2, 32, 96, 1), 40.)))
  assert ab.shape == (2, 32, 96, 2)
  with pytest.raises(UserError, match='sides divisible by 32'):
    jax.eval_shape(
        colorizer.predict, variables, grey(jnp.zeros((1, 48, 32, 1))))
  if method not in (regression, color_queries):
    assert colorizer.event_shape((32, 96)) == (16, 48)


def test_a_perceptual_loss_adds_a_second_network():
  colorizer = regression.build(
      network='encoder', filters=(16,),
      loss="mse+perceptual(stages=['relu1_1'])")
  assert set(colorizer.backbones) == {NAME, 'vgg16'}
  batch = {'image': np.random.default_rng(0).integers(
      0, 256, (2, 32, 32, 3), np.uint8), 'padding_mask': jnp.ones(2)}

  def run(key):
    variables = colorizer.init(key, (32, 32))
    return variables, colorizer.loss(
        variables['params'], variables['model_state'], batch, None, step=0,
        train=True)

  variables, (_, aux) = jax.eval_shape(run, jax.random.key(0))
  assert set(variables['model_state'][FROZEN]) == {'trunk', 'perceptual'}
  assert set(aux.metrics) == {'loss', 'loss/mse', 'loss/perceptual'}
  assert jax.tree.structure(aux.model_state) == jax.tree.structure(
      variables['model_state'])


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('photos')
  for i in range(4):
    pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path / f'{i}.png')
  return path


def _options(folder, workdir, **optimizing):
  return TrainOptions(
      workdir=workdir, data=f'folder:{folder}', eval_data=f'folder:{folder}',
      image_size=32, batch_size=2, num_steps=4, eval_every=4, log_every=1,
      checkpoint_every=2, report=False,
      backbone_weights='random',
      optimizing=Optimizing(warmup_steps=1, **optimizing))


def _encoder(workdir, which):
  variables = checkpoint.restore_variables(workdir, which=which)
  params = variables['params']['trunk'].get(PRETRAINED_ENCODER)
  return params, variables['model_state'][FROZEN]['trunk'][PRETRAINED_ENCODER]


@pytest.mark.parametrize('rate', [0.0, 1e-4])
def test_a_run_is_trained_measured_and_loaded(folder, tmp_path, rate):
  """A resumed run is bitwise the same."""
  settings = {'network': 'encoder', 'filters': [16],
              'trunk_settings': {'stride': 4, 'frozen': not rate}}
  method = 'colorjax.methods.regression'
  workdir = tmp_path / 'run'
  options = _options(folder, workdir, encoder_learning_rate=rate)
  outcome = train.train(method, settings, options)
  assert (outcome.step, outcome.exit_code) == (4, 0)
  params, kept = _encoder(workdir, 'latest')
  assert set(kept) == {'batch_stats'} | (set() if rate else {'params'})
  assert (params is None) == (not rate)
  colorizer, variables, size = saved.load(workdir)
  ab = colorizer.predict(variables, grey(jnp.full((1, size, size, 1), 50.)))
  assert ab.shape == (1, 32, 32, 2)

  again = tmp_path / 'again'
  shutil.copytree(workdir, again)
  shutil.rmtree(again / checkpoint.DIRECTORY / '4')
  outcome = train.train(method, settings, _options(
      folder, again, encoder_learning_rate=rate))
  assert outcome.status == 'finished'
  jax.tree.map(np.testing.assert_array_equal,
               checkpoint.restore_variables(again, which='latest'),
               checkpoint.restore_variables(workdir, which='latest'))
