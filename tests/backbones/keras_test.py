"""Backbones and their weights files against the networks of Keras.

Each Keras network gets random weights and random batch statistics, is saved in
both layouts, and must agree with ours on every intermediate. State dicts of
torchvision and timm are built from the same weights.
"""

import os
import pathlib
import shutil
from typing import NamedTuple

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import h5py
import jax
import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from colorjax import backbones

# Keras raises this when it reads a variable of TensorFlow.
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning')

TOLERANCE = 1e-4  # of the largest value of an intermediate
OTHER_SIZE = {'vgg16': (64, 96), 'vgg19': (96, 67),
              'xception': (118, 99), 'inception_resnet_v2': (107, 139)}
TORCHVISION = {
    'vgg16': (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    'vgg19': (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)}


class Case(NamedTuple):
  name: str
  top: bool
  model: keras.Model
  folder: pathlib.Path
  variables: dict  # of the .weights.h5 file


def _keras_network(name):
  if name == 'vgg16':
    # Without the classifier, like many weights files. VGG-19 tests it.
    return keras.applications.VGG16(weights=None, include_top=False)
  if name == 'vgg19':
    return keras.applications.VGG19(weights=None, classifier_activation=None)
  network = {'xception': keras.applications.Xception,
             'inception_resnet_v2': keras.applications.InceptionResNetV2}[name]
  return network(weights=None, classifier_activation=None,
                 input_tensor=keras.Input((None, None, 3)))


def _randomize(model, rng):
  """Random weights that keep activations in range, and batch statistics."""
  for w in model.weights:
    name, shape = w.path.split('/')[-1], tuple(w.shape)
    if name in ('gamma', 'moving_variance'):
      value = rng.uniform(0.5, 1.5, shape)
    elif 'kernel' in name:
      fan_in = 9 if name == 'depthwise_kernel' else np.prod(shape[:-1])
      gain = 1 if name in ('depthwise_kernel', 'pointwise_kernel') else 2
      deviation = np.float32(np.sqrt(gain / fan_in))
      value = rng.standard_normal(shape, np.float32) * deviation
    else:
      value = rng.normal(0, 0.3, shape)
    w.assign(value)


@pytest.fixture(scope='module', params=backbones.KERAS_NAMES)
def case(request, tmp_path_factory):
  model = _keras_network(request.param)
  _randomize(model, np.random.default_rng(len(request.param)))
  folder = tmp_path_factory.mktemp(request.param)
  model.save_weights(folder / 'keras.weights.h5')
  top = request.param != 'vgg16'
  yield Case(request.param, top, model, folder, backbones.load(
      request.param, folder / 'keras.weights.h5', top=top))
  shutil.rmtree(folder)  # half a gigabyte


def _keras_intermediates(case, x):
  """All intermediates of the Keras network, by our names."""
  model, name = case.model, case.name
  if name.startswith('vgg'):
    outputs = {}
    native = x.shape[1:3] == (224, 224)  # only then there is a classifier
    for layer in model.layers[1:]:
      if layer.name == 'flatten' and not native:
        break
      x = layer(x)
      outputs[layer.name] = x
    names = {'fc1': 'fc6', 'fc2': 'fc7', 'predictions': 'logits'}
    names |= {f'block{b}_{ours}{i}': f'{theirs}{b}{i and "_"}{i}'
              for b in range(1, 6) for ours, theirs, numbers in (
                  ('conv', 'relu', '1234'), ('pool', 'pool', ('',)))
              for i in numbers}
    return {names[k]: v for k, v in outputs.items() if k != 'flatten'}
  wanted = dict.fromkeys(backbones.build(name).intermediates)
  for layer in model.layers:
    if layer.name in wanted:
      wanted[layer.name] = layer.output
  wanted['logits'] = model.get_layer('predictions').output
  if name == 'xception':
    sums = [layer.output for layer in model.layers
            if isinstance(layer, keras.layers.Add)]
    wanted |= {f'block{i}': s for i, s in enumerate(sums, 2)}
  else:
    pools = [layer.output for layer in model.layers
             if isinstance(layer, keras.layers.MaxPooling2D)]
    wanted['stem'] = pools[1]
    wanted['block8_10'] = model.get_layer('conv_7b').input
  assert None not in wanted.values()
  return keras.Model(model.inputs[0], wanted)(x)


def _assert_close(ours, theirs):
  assert set(ours) == set(theirs)
  for name, theirs_here in theirs.items():
    expected = np.asarray(theirs_here)
    assert np.isfinite(expected).all()
    assert expected.std() > 1e-3 * np.abs(expected).max(), name
    np.testing.assert_allclose(
        ours[name], expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(),
        err_msg=name)


def _photo(backbone, size, seed):
  rgb = np.random.default_rng(seed).uniform(size=(1, *size, 3))
  return np.asarray(backbone.preprocess(rgb.astype(np.float32)))


def test_every_intermediate_at_the_native_size(case):
  backbone = backbones.build(case.name, top=case.top)
  x = _photo(backbone, (backbone.image_size,) * 2, 0)
  ours = jax.jit(backbone.module.apply)(case.variables, x)
  assert set(ours) == {
      *backbone.intermediates, *(('logits',) if case.top else ())}
  _assert_close(ours, _keras_intermediates(case, x))


def test_every_intermediate_at_another_size(case):
  top = not case.name.startswith('vgg')
  backbone = backbones.build(case.name, top=top)
  x = _photo(backbone, OTHER_SIZE[case.name], 1)
  ours = jax.jit(backbone.module.apply)(case.variables, x)
  assert set(ours) == {*backbone.intermediates, *(('logits',) if top else ())}
  _assert_close(ours, _keras_intermediates(case, x))


def test_the_legacy_layout_gives_the_same_variables(case):
  path = case.folder / 'legacy.h5'
  with h5py.File(path, 'w') as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, case.model)
  jax.tree.map(np.testing.assert_array_equal,
               backbones.load(case.name, path, top=case.top),
               case.variables)


def _numbered(model, kind):
  """Weights of the layers of a class with automatic names, as created."""
  def created(layer):
    number = layer.name.rpartition('_')[2]
    return int(number) if number.isdigit() else 0
  return [layer.get_weights() for layer in sorted(model.layers, key=created)
          if isinstance(layer, kind)
          and layer.name.startswith(('conv2d', 'batch_normalization'))]


def _torchvision(case, _):
  state = {}
  convolutions = [layer for layer in case.model.layers
                  if isinstance(layer, keras.layers.Conv2D)]
  for layer, index in zip(convolutions, TORCHVISION[case.name], strict=True):
    kernel, state[f'features.{index}.bias'] = layer.get_weights()
    state[f'features.{index}.weight'] = np.transpose(kernel, (3, 2, 0, 1))
  for name, index in (
      (('fc1', 0), ('fc2', 3), ('predictions', 6)) if case.top else ()):
    kernel, bias = case.model.get_layer(name).get_weights()
    if name == 'fc1':
      rows = kernel.reshape(7, 7, 512, 4096)
      kernel = np.moveaxis(rows, 2, 0).reshape(25088, 4096)
    state[f'classifier.{index}.weight'] = kernel.T
    state[f'classifier.{index}.bias'] = bias
  return state


def _norm(state, key, statistics, scale=None):
  if scale is None:
    scale, *statistics = statistics
  for name, value in zip(('weight', 'bias', 'running_mean', 'running_var'),
                         (scale, *statistics), strict=True):
    state[f'{key}.{name}'] = value
  state[f'{key}.num_batches_tracked'] = np.array(7)


def _timm_xception(case, _):
  state = {}
  named = {}
  for layer in case.model.layers:
    named[layer.name] = layer.get_weights()

  def separable(key, name):
    depthwise, pointwise = named[name]
    state[f'{key}.conv1.weight'] = np.moveaxis(depthwise, (2, 3), (0, 1))
    state[f'{key}.pointwise.weight'] = pointwise[0, 0].T[:, :, None, None]

  for i in (1, 2):
    state[f'conv{i}.weight'] = np.transpose(
        named[f'block1_conv{i}'][0], (3, 2, 0, 1))
    _norm(state, f'bn{i}', named[f'block1_conv{i}_bn'])
    separable(f'conv{i + 2}', f'block14_sepconv{i}')
    _norm(state, f'bn{i + 2}', named[f'block14_sepconv{i}_bn'])
  for block in range(1, 13):
    places = (0, 3) if block == 1 else (1, 4) if block in (2, 3, 12) else (
        1, 4, 7)
    for i, place in enumerate(places, 1):
      name = f'block{block + 1}_sepconv{i}'
      separable(f'block{block}.rep.{place}', name)
      _norm(state, f'block{block}.rep.{place + 1}', named[f'{name}_bn'])
  shortcuts = _numbered(case.model, keras.layers.Conv2D)
  norms = _numbered(case.model, keras.layers.BatchNormalization)
  for block, (kernel,), statistics in zip(
      (1, 2, 3, 12), shortcuts, norms, strict=True):
    state[f'block{block}.skip.weight'] = np.transpose(kernel, (3, 2, 0, 1))
    _norm(state, f'block{block}.skipbn', statistics)
  kernel, bias = named['predictions']
  return state | {'fc.weight': kernel.T, 'fc.bias': bias}


def _timm_branches(key, lengths):
  for b, length in enumerate(lengths):
    yield from ([f'{key}.branch{b}'] if length == 1 else
                [f'{key}.branch{b}.{i}' for i in range(length)])


def _timm_inception_resnet(case, rng):
  keys = [f'conv2d_{stage}' for stage in ('1a', '2a', '2b', '3b', '4a')]
  keys += [*_timm_branches('mixed_5b', (1, 2, 3)), 'mixed_5b.branch3.1']
  for i in range(10):
    keys += _timm_branches(f'repeat.{i}', (1, 2, 3))
  keys += _timm_branches('mixed_6a', (1, 3))
  for i in range(20):
    keys += _timm_branches(f'repeat_1.{i}', (1, 3))
  keys += _timm_branches('mixed_7a', (2, 2, 3))
  for block in (*(f'repeat_2.{i}' for i in range(9)), 'block8'):
    keys += _timm_branches(block, (1, 3))
  kernels = _numbered(case.model, keras.layers.Conv2D)
  statistics = _numbered(case.model, keras.layers.BatchNormalization)
  keys.append('conv2d_7b')
  kernels.append(case.model.get_layer('conv_7b').get_weights())
  statistics.append(case.model.get_layer('conv_7b_bn').get_weights())

  state = {}
  for key, (kernel,), (beta, mean, variance) in zip(
      keys, kernels, statistics, strict=True):
    # Keras has no scale here, so kernel and mean are divided by it.
    scale = rng.uniform(0.5, 2., beta.shape).astype(np.float32)
    state[f'{key}.conv.weight'] = np.transpose(kernel / scale, (3, 2, 0, 1))
    _norm(state, f'{key}.bn', (beta, mean / scale, variance), scale)
  for block, repeat, count in (('block35', 'repeat', 10),
                               ('block17', 'repeat_1', 20),
                               ('block8', 'repeat_2', 9)):
    for i in range(count):
      kernel, bias = case.model.get_layer(f'{block}_{i + 1}_conv').get_weights()
      state[f'{repeat}.{i}.conv2d.weight'] = kernel[0, 0].T[:, :, None, None]
      state[f'{repeat}.{i}.conv2d.bias'] = bias
  kernel, bias = case.model.get_layer('block8_10_conv').get_weights()
  state |= {'block8.conv2d.weight': kernel[0, 0].T[:, :, None, None],
            'block8.conv2d.bias': bias}
  kernel, bias = case.model.get_layer('predictions').get_weights()
  # Class 0 of TF-slim is the background.
  return state | {
      'classif.weight': np.concatenate([np.full((1, 1536), 9.), kernel.T]),
      'classif.bias': np.concatenate([[9.], bias])}


def test_state_dicts_of_torch_give_the_same_variables(case):
  make = {'xception': _timm_xception,
          'inception_resnet_v2': _timm_inception_resnet}.get(
              case.name, _torchvision)
  path = case.folder / 'torch.safetensors'
  safetensors.numpy.save_file(
      {key: np.ascontiguousarray(x, np.float32) for key, x
       in make(case, np.random.default_rng(1)).items()}, path)
  loaded = backbones.load(case.name, path, top=case.top, variant='torch')
  path.unlink()
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
      loaded, case.variables)


@pytest.mark.parametrize('case', ['xception'], indirect=True)
def test_timm_xception_pads_both_sides(case):
  """Against Keras's network with torch's epsilon and padding of pooling."""
  for layer in case.model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
      layer.epsilon = 1e-5
    if isinstance(layer, keras.layers.MaxPooling2D):
      layer.call = lambda x: tf.nn.max_pool2d(
          x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])
  backbone = backbones.build('xception', variant='torch')
  x = _photo(backbone, OTHER_SIZE['xception'], 2)
  _assert_close(jax.jit(backbone.module.apply)(case.variables, x),
                _keras_intermediates(case, x))
