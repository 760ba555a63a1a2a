"""Weights files that can be loaded, and errors for those that cannot.

The files have the layers, names and shapes of Keras's files but no values: HDF5
allocates no space for values that were never written.
"""

import importlib
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import h5py
import keras
import numpy as np
import pooch
import pytest
import safetensors.numpy

from colorjax import backbones
from colorjax.errors import UserError

# Keras raises this when it reads a variable of TensorFlow.
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning')


def _build(name, **options):
  return {'vgg16': keras.applications.VGG16, 'vgg19': keras.applications.VGG19,
          'xception': keras.applications.Xception,
          'inception_resnet_v2': keras.applications.InceptionResNetV2,
          }[name](**options)


@pytest.fixture(scope='module')
def networks():
  """Keras networks, built once, for their names and shapes."""
  return {name: _build(name, weights=None, include_top=name != 'vgg16')
          for name in ('vgg16', 'xception', 'inception_resnet_v2')}


def _legacy(path, model, root=None):
  """Writes a file in Keras's legacy layout, without values."""
  with h5py.File(path, 'w') as file:
    group = file.create_group(root) if root else file
    group.attrs['layer_names'] = [x.name.encode() for x in model.layers]
    for layer in model.layers:
      below = group.create_group(layer.name)
      below.attrs['weight_names'] = [
          f'{w.path}:0'.encode() for w in layer.weights]
      for w in layer.weights:
        below.create_dataset(f'{w.path}:0', tuple(w.shape), 'float32')
  return path


def _keras3(path, model):
  """Writes a file in the layout of Keras 3, without values."""
  names = {keras.layers.Conv2D: 'conv2d', keras.layers.Dense: 'dense',
           keras.layers.SeparableConv2D: 'separable_conv2d',
           keras.layers.BatchNormalization: 'batch_normalization'}
  counts = dict.fromkeys(names, 0)
  with h5py.File(path, 'w') as file:
    for layer in model.layers:
      if type(layer) in names:
        number = counts[type(layer)]
        counts[type(layer)] += 1
        name = names[type(layer)] + (f'_{number}' if number else '')
        for i, w in enumerate(layer.weights):
          file.create_dataset(f'layers/{name}/vars/{i}', tuple(w.shape))
  return path


def _fails(name, path, *parts, **options):
  """Checks that loading fails with one line that contains the parts."""
  with pytest.raises(UserError) as caught:
    backbones.load(name, path, **options)
  message = str(caught.value)
  assert '\n' not in message
  for part in (str(path), *parts):
    assert part in message, message
  return message


def _rename(group, old, new):
  """Renames a layer in a file of the legacy layout."""
  group.attrs['layer_names'] = [
      new if name == old else name for name in group.attrs['layer_names']]
  group.move(old, new)


def test_the_written_files_equal_those_of_keras(networks, tmp_path):
  model = networks['vgg16']
  model.save_weights(tmp_path / 'true.weights.h5')

  def listing(path):
    found = {}
    with h5py.File(path) as file:
      file.visititems(lambda name, item: found.update(
          {name: item.shape} if isinstance(item, h5py.Dataset) else {}))
    return found

  assert listing(_keras3(tmp_path / 'ours.weights.h5', model)) == listing(
      tmp_path / 'true.weights.h5')


def test_weights_of_a_whole_model_are_loaded(networks, tmp_path):
  path = _legacy(tmp_path / 'model.h5', networks['xception'], 'model_weights')
  with h5py.File(path, 'a') as file:
    file.create_dataset('optimizer_weights/step', ())
  loaded = backbones.load('xception', path)
  assert set(loaded) == {'params', 'batch_stats'}
  assert loaded['params']['predictions']['kernel'].shape == (2048, 1000)


def test_numbers_in_automatic_names_are_ignored(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['xception'])
  with h5py.File(path, 'a') as file:
    shortcuts = [n for n in file.attrs['layer_names']
                 if n.startswith('conv2d')]
    for i, old in enumerate(shortcuts):
      _rename(file, old, f'convolution2d_{99 - i}')
      weights = file[f'convolution2d_{99 - i}']
      weights[f'{old}/kernel:0'][:] = i + 1.
  params = backbones.load('xception', path)['params']
  for i, block in enumerate((2, 3, 4, 13), 1):
    assert np.all(params[f'block{block}_shortcut']['kernel'] == i)


def test_named_layers_are_matched_by_name(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['vgg16'])
  with h5py.File(path, 'a') as file:
    file.attrs['layer_names'] = file.attrs['layer_names'][::-1]
    file['block3_conv2']['block3_conv2/bias:0'][:] = 5.
    file['block3_conv3']['block3_conv3/bias:0'][:] = 6.
  params = backbones.load('vgg16', path, top=False)['params']
  assert np.all(params['conv3_2']['bias'] == 5.)
  assert np.all(params['conv3_3']['bias'] == 6.)


def test_missing_tensors_are_listed(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['xception'])
  with h5py.File(path, 'a') as file:
    del file['block5_sepconv1']['block5_sepconv1/pointwise_kernel:0']
  _fails('xception', path, '1 missing', 'block5_sepconv1/pointwise_kernel')
  with h5py.File(path, 'a') as file:
    for i in range(6, 13):
      del file[f'block{i}_sepconv2_bn']
  _fails('xception', path, '29 missing', 'and 26 more')

  path = _keras3(tmp_path / 'x.weights.h5', networks['inception_resnet_v2'])
  with h5py.File(path, 'a') as file:
    del file['layers/conv2d_100']
    del file['layers/batch_normalization_7/vars/1']
  _fails('inception_resnet_v2', path, '3 missing', 'conv2d_100/vars/0',
         'batch_normalization_7/vars/1')


def test_a_missing_layer_does_not_shift_the_others(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['inception_resnet_v2'])
  with h5py.File(path, 'a') as file:
    layers = list(file.attrs['layer_names'])
    lost = [n for n in layers if n.startswith('conv2d')][8]
    file.attrs['layer_names'] = [n for n in layers if n != lost]
    del file[lost]
  message = _fails('inception_resnet_v2', path, '1 missing', '/kernel')
  assert 'shape' not in message


def test_extra_tensors_are_listed(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['xception'])
  with h5py.File(path, 'a') as file:
    file['block5_sepconv1'].create_dataset('block5_sepconv1/bias:0', (728,))
  _fails('xception', path, '1 unexpected', 'block5_sepconv1/bias')

  path = _keras3(tmp_path / 'x.weights.h5', networks['xception'])
  with h5py.File(path, 'a') as file:
    file.create_dataset('layers/conv2d_6/vars/0', (1, 1, 3, 3))
  _fails('xception', path, '1 unexpected', 'conv2d_6/vars/0')


def test_misshapen_tensors_are_listed(networks, tmp_path):
  path = _legacy(tmp_path / 'x.h5', networks['xception'])
  with h5py.File(path, 'a') as file:
    head = file['predictions']
    for name, shape in (('kernel', (2048, 10)), ('bias', (10,))):
      del head[f'predictions/{name}:0']
      head.create_dataset(f'predictions/{name}:0', shape)
  _fails('xception', path, '2 of the wrong shape', '[2048, 10]', '[2048, 1000]')
  assert 'predictions' not in backbones.load(
      'xception', path, top=False)['params']


@pytest.mark.parametrize('write', [_legacy, _keras3])
def test_a_file_of_another_network_is_recognized(networks, tmp_path, write):
  path = write(tmp_path / 'x.weights.h5', networks['vgg16'])
  _fails('vgg19', path, 'weights of vgg16, not of vgg19', top=False)
  _fails('xception', path, 'weights of vgg16')
  path = write(tmp_path / 'y.weights.h5', networks['inception_resnet_v2'])
  _fails('xception', path, 'weights of inception_resnet_v2')
  small = keras.Sequential([
      keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
      keras.layers.Flatten(), keras.layers.Dense(2)])
  _fails('vgg16', write(tmp_path / 'z.weights.h5', small), 'another network')


@pytest.mark.parametrize('write', [_legacy, _keras3])
def test_a_missing_classifier_is_an_error_only_with_top(
    networks, tmp_path, write):
  path = write(tmp_path / 'x.weights.h5', networks['vgg16'])
  _fails('vgg16', path, 'without its classifier')
  params = backbones.load('vgg16', path, top=False)['params']
  assert len(params) == 13


def test_other_files_are_refused(tmp_path):
  _fails('vgg16', tmp_path / 'none.h5', 'no such')
  _fails('vgg16', tmp_path, 'no such')
  for name, content, part in (
      ('empty.h5', b'', 'is empty'),
      ('text.h5', b'weights', 'not an HDF5 file'),
      ('photo.jpg', b'\xff\xd8', '.safetensors'),
      ('text.safetensors', b'weights of a kind', 'not a valid safetensors')):
    path = tmp_path / name
    path.write_bytes(content)
    _fails('vgg16', path, part)
  with h5py.File(tmp_path / 'other.h5', 'w') as file:
    file['x'] = np.zeros(3)
  _fails('vgg16', tmp_path / 'other.h5', 'lists no layers')
  whole = (tmp_path / 'other.h5').read_bytes()
  (tmp_path / 'cut.h5').write_bytes(whole[:len(whole) // 2])
  _fails('vgg16', tmp_path / 'cut.h5', 'damaged')
  with pytest.raises(UserError, match='choose one of vgg16'):
    backbones.load('vgg11', tmp_path / 'other.h5')


def _torchvision_vgg16(rng):
  """Convolutions of a state dict with torchvision's names, written by hand."""
  widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
  state = {}
  for number, i, o in zip(
      (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
      widths, widths[1:], strict=False):
    state[f'features.{number}.weight'] = np.zeros((o, i, 3, 3), np.float32)
    state[f'features.{number}.bias'] = np.zeros(o, np.float32)
  state['features.0.weight'] = rng.normal(size=(64, 3, 3, 3)).astype('f4')
  state['features.0.bias'] = rng.normal(size=64).astype('f4')
  return state


def test_torchvision_standardization_is_folded_for_keras(tmp_path):
  """Both variants give the same conv1_1, except at the padded border."""
  rng = np.random.default_rng(0)
  path = tmp_path / 'vgg16.safetensors'
  safetensors.numpy.save_file(_torchvision_vgg16(rng), path)
  rgb = rng.uniform(size=(1, 9, 11, 3)).astype(np.float32)
  out = {}
  for variant in ('keras', 'torch'):
    backbone = backbones.build('vgg16', upto='relu1_1', variant=variant)
    out[variant] = np.asarray(backbone.module.apply(
        backbones.load('vgg16', path, top=False, variant=variant),
        backbone.preprocess(rgb))['relu1_1'])
  inside = np.s_[:, 1:-1, 1:-1]
  scale = out['torch'].max()
  np.testing.assert_allclose(
      out['keras'][inside], out['torch'][inside], rtol=0, atol=1e-5 * scale)
  np.testing.assert_allclose(
      out['keras'], out['torch'], rtol=0, atol=0.02 * scale)


def test_a_variant_loads_only_its_own_files(networks, tmp_path):
  path = tmp_path / 'vgg16.safetensors'
  state = _torchvision_vgg16(np.random.default_rng(0))
  safetensors.numpy.save_file(state, path)
  _fails('vgg19', path, 'weights of vgg16', top=False)
  _fails('vgg16', path, 'without its classifier')
  legacy = _legacy(tmp_path / 'x.h5', networks['vgg16'])
  _fails('vgg16', legacy, "variant='keras'", top=False, variant='torch')
  assert backbones.variant_of(path) == 'torch'
  assert backbones.variant_of(legacy) == 'keras'
  del state['features.5.bias']
  safetensors.numpy.save_file(state | {'features.1.weight': np.ones(2)}, path)
  _fails('vgg16', path, '1 missing: features.5.bias',
         '1 unexpected: features.1.weight', top=False)


def test_weights_are_restricted_to_a_shorter_network(networks, tmp_path):
  loaded = backbones.load('vgg16', _legacy(
      tmp_path / 'x.h5', networks['vgg16']), top=False)
  like = {'params': {'conv1_2': {'bias': np.zeros(64)}}}
  restricted = backbones.restrict(loaded, like)
  assert list(restricted['params']) == ['conv1_2']
  assert list(restricted['params']['conv1_2']) == ['bias']
  for wrong in ({'conv1_2': {'bias': np.zeros(3)}}, {'fc6': {'bias': 0}}):
    with pytest.raises(UserError, match='/bias'):
      backbones.restrict(loaded, {'params': wrong})


@pytest.mark.parametrize('name', backbones.KERAS_NAMES)
@pytest.mark.parametrize('top', [True, False])
def test_urls_and_hashes_equal_those_of_keras(
    monkeypatch, tmp_path, name, top):
  ours = {}
  monkeypatch.setattr(pooch, 'retrieve', lambda url, **options: ours.update(
      options, url=url) or str(tmp_path / options['fname']))
  path = backbones.download(name, top=top)
  module = importlib.import_module(f'keras.src.applications.{name}')
  theirs = {}

  def get_file(file, url, *, file_hash, **_):
    theirs.update(file=file, url=url, hash=file_hash)
    raise InterruptedError

  monkeypatch.setattr(module.file_utils, 'get_file', get_file)
  with pytest.raises(InterruptedError):
    _build(name, include_top=top, weights='imagenet')
  assert path.name == theirs['file']
  assert ours['url'] == theirs['url']
  assert ours['known_hash'] == f"md5:{theirs['hash']}"


def test_a_failed_download_says_how_to_proceed(monkeypatch):
  for error in (ConnectionError('offline'), ValueError('another hash')):
    def fail(*_, error=error, **__):
      raise error
    monkeypatch.setattr(pooch, 'retrieve', fail)
    with pytest.raises(UserError, match='backbone_weights=random') as caught:
      backbones.download('vgg19')
    assert 'vgg19_weights_tf_dim_ordering_tf_kernels.h5' in str(caught.value)
    assert '\n' not in str(caught.value)
  with pytest.raises(UserError, match='vgg11'):
    backbones.download('vgg11')
