"""Inception features compared with Keras's network with modified pooling."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import h5py
import jax
import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from colorjax.backbones import inception_v3
from colorjax.errors import UserError
from colorjax.metrics import inception_features

# Raised inside Keras when it reads a variable of TensorFlow.
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning')

VARIANTS = ('pytorch_fid', 'torchvision', 'ddcolor')
CLASSES = {'pytorch_fid': 1008, 'torchvision': 1000, 'ddcolor': 1000}
# torchvision's convolutions in the order in which Keras makes its own.
FIVES = ('1x1', '5x5_1', '5x5_2', '3x3dbl_1', '3x3dbl_2', '3x3dbl_3', '_pool')
SEVENS = ('1x1', *(f'7x7_{i}' for i in (1, 2, 3)),
          *(f'7x7dbl_{i}' for i in (1, 2, 3, 4, 5)), '_pool')
FORKS = ('1x1', '3x3_1', '3x3_2a', '3x3_2b', '3x3dbl_1', '3x3dbl_2',
         '3x3dbl_3a', '3x3dbl_3b', '_pool')
BRANCHES = {
    '5b': FIVES, '5c': FIVES, '5d': FIVES,
    '6a': ('3x3', '3x3dbl_1', '3x3dbl_2', '3x3dbl_3'),
    '6b': SEVENS, '6c': SEVENS, '6d': SEVENS, '6e': SEVENS,
    '7a': ('3x3_1', '3x3_2', *(f'7x7x3_{i}' for i in (1, 2, 3, 4))),
    '7b': FORKS, '7c': FORKS}
NAMES = ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1',
         'Conv2d_4a_3x3', *(f'Mixed_{block}.branch{branch}' for block, branches
                            in BRANCHES.items() for branch in branches))


@keras.saving.register_keras_serializable()
class CountingPool(keras.layers.Layer):
  """Average over 3x3 pixels that counts zero padding."""

  def call(self, x):
    """[B, h, w, C] to the same shape."""
    x = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return tf.nn.avg_pool2d(x, 3, 1, 'VALID')


def _numbered(model, kind):
  """Layers of a kind in the order of their creation."""
  layers = [layer for layer in model.layers if isinstance(layer, kind)]
  return sorted(layers, key=lambda layer: int(
      (layer.name.rsplit('_', 1)[-1] + ' 0').split()[0])
                if layer.name[-1].isdigit() else 0)


@pytest.fixture(scope='module')
def network():
  """Keras's network with random weights and statistics."""
  keras.backend.clear_session()
  model = keras.applications.InceptionV3(
      weights=None, include_top=False, pooling='avg')
  rng = np.random.default_rng(0)
  for w in model.weights:
    shape = tuple(w.shape)
    if len(shape) == 4:
      deviation = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
      w.assign(rng.standard_normal(shape, np.float32) * deviation)
    elif w.path.endswith('variance'):
      w.assign(rng.uniform(0.5, 1.5, shape))
    else:
      w.assign(rng.normal(0, 0.3, shape))
  return model


@pytest.fixture(scope='module')
def files(network, tmp_path_factory):
  """The weights as torchvision and pytorch-fid name them."""
  convs = _numbered(network, keras.layers.Conv2D)
  norms = _numbered(network, keras.layers.BatchNormalization)
  state = {}
  for name, conv, norm in zip(NAMES, convs, norms, strict=True):
    kernel, (beta, mean, variance) = conv.get_weights()[0], norm.get_weights()
    state |= {
        f'{name}.conv.weight': kernel.transpose(3, 2, 0, 1).copy(),
        # Of a scale Keras's batch norm has none: it is in the deviation.
        f'{name}.bn.weight': np.full_like(mean, 2),
        f'{name}.bn.bias': beta, f'{name}.bn.running_mean': mean,
        f'{name}.bn.running_var': 4 * (variance + 1e-3) - 1e-3,
        f'{name}.bn.num_batches_tracked': np.array(5)}
  folder = tmp_path_factory.mktemp('inception')
  found = {}
  for variant in ('pytorch_fid', 'torchvision'):
    classes = CLASSES[variant]
    head = {'fc.weight': np.zeros((classes, 2048), np.float32),
            'fc.bias': np.zeros(classes, np.float32)}
    if variant == 'torchvision':
      head['AuxLogits.conv0.conv.weight'] = np.zeros(3, np.float32)
    found[variant] = folder / f'{variant}.safetensors'
    safetensors.numpy.save_file(state | head, found[variant])
  return found | {'ddcolor': found['torchvision']}


def _pooled(network, variant):
  """Keras's network with the pooling of a variant."""
  last = _numbered(network, keras.layers.AveragePooling2D)[-1].name

  def clone(layer):
    if not isinstance(layer, keras.layers.AveragePooling2D):
      return layer.__class__.from_config(layer.get_config())
    if variant != 'pytorch_fid':
      return CountingPool(name=layer.name)
    if layer.name == last:
      return keras.layers.MaxPooling2D(3, 1, 'same', name=layer.name)
    return layer.__class__.from_config(layer.get_config())

  model = keras.models.clone_model(network, clone_function=clone)
  model.set_weights(network.get_weights())
  return model


def _pictures():
  rng = np.random.default_rng(1)
  coarse = rng.uniform(0, 255, (2, 9, 7, 3))
  return np.clip(tf.image.resize(coarse, (60, 410), 'bicubic')
                 + rng.normal(0, 20, (2, 60, 410, 3)), 0, 255).astype(np.uint8)


def _input(variant, pictures):
  """The network input of the published code of a variant."""
  x = tf.image.resize(pictures / np.float32(255), (299, 299)).numpy()
  if variant == 'pytorch_fid':
    return x * 2 - 1
  if variant == 'ddcolor':
    x = x * 0.5 + 0.5
  return np.stack([x[..., 0] * (0.229 / 0.5) + (0.485 - 0.5) / 0.5,
                   x[..., 1] * (0.224 / 0.5) + (0.456 - 0.5) / 0.5,
                   x[..., 2] * (0.225 / 0.5) + (0.406 - 0.5) / 0.5], -1)


@pytest.mark.parametrize('variant', VARIANTS)
def test_features(variant, network, files):
  record = inception_features.build(variant)
  variables = record.load(files[variant])
  pictures = _pictures()
  expected = _pooled(network, variant)(_input(variant, pictures)).numpy()
  found = jax.jit(record.features)(variables, pictures)
  assert found.shape == (2, 2048)
  assert found.dtype == np.float32
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
  # The pictures are told apart by far more than that.
  assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale


@pytest.mark.parametrize('variant', VARIANTS)
def test_preprocessing(variant):
  pictures = _pictures()
  np.testing.assert_allclose(
      inception_features.build(variant).preprocess(pictures),
      _input(variant, pictures), atol=1e-5)


def test_smallest_input_of_the_network():
  network = inception_v3.InceptionV3()

  def shapes(side):
    return jax.eval_shape(network.init_with_output, jax.random.key(0),
                          jax.ShapeDtypeStruct((1, side, 99, 3), 'float32'))[0]

  side = inception_v3.MIN_SIDE
  assert shapes(side)['logits'].shape == (1, 1000)
  with pytest.raises(UserError, match='too small'):
    shapes(side - 1)


def test_init_and_load_agree(files):
  for variant in VARIANTS:
    record = inception_features.build(variant)
    shapes = jax.eval_shape(record.init, jax.random.key(0))
    loaded = jax.eval_shape(lambda x: x, dict(record.load(files[variant])))
    assert shapes == loaded


@pytest.mark.parametrize('pictures', [
    np.zeros((1, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8),
    np.zeros((1, 64, 64, 1), np.uint8)])
def test_other_pictures_are_rejected(pictures):
  with pytest.raises(ValueError, match=r'uint8 pictures \[B, H, W, 3\], got'):
    inception_features.build('torchvision').features({}, pictures)


def _fails(variant, path, *parts):
  with pytest.raises(UserError) as caught:
    inception_features.build(variant).load(path)
  message = str(caught.value)
  assert '\n' not in message
  for part in (str(path), *parts):
    assert part in message, message


def test_files_of_the_other_variant(files):
  for variant in ('torchvision', 'ddcolor'):
    _fails(variant, files['pytorch_fid'], 'inception_v3_google-1a9a5a14.pth',
           '2 of the wrong shape', 'fc.weight is [1008, 2048] instead of')
  _fails('pytorch_fid', files['torchvision'],
         'pt_inception-2015-12-05-6726825d.pth', '[1000, 2048] instead of')


def test_wrong_files_are_rejected(files, tmp_path):
  path = tmp_path / 'x.safetensors'
  state = safetensors.numpy.load_file(files['torchvision'])
  lost = state.pop('Mixed_6c.branch7x7dbl_4.bn.running_var')
  extra = {'Mixed_8a.conv.weight': np.zeros(3, np.float32)}
  safetensors.numpy.save_file(state | extra, path)
  _fails('torchvision', path,
         '1 missing: Mixed_6c.branch7x7dbl_4.bn.running_var',
         '1 unexpected: Mixed_8a.conv.weight')
  name = 'Mixed_6c.branch7x7dbl_4.bn.running_var'
  safetensors.numpy.save_file(state | {name: lost[:-1]}, path)
  _fails('torchvision', path, f'{name} is [159] instead of [160]')
  safetensors.numpy.save_file({'features.0.weight': lost}, path)
  _fails('torchvision', path, '472 missing', '1 unexpected: features.0.weight')
  _fails('torchvision', tmp_path / 'none.pth', 'no such weights file')
  with h5py.File(tmp_path / 'k.h5', 'w') as file:
    file.attrs['layer_names'] = []
  _fails('torchvision', tmp_path / 'k.h5', 'is a Keras file: give torch')


def test_other_variants_are_rejected():
  with pytest.raises(UserError, match=r"'clean_fid'.*pytorch_fid"):
    inception_features.build('clean_fid')
