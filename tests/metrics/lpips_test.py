"""LPIPS compared with its formula in NumPy and networks of TensorFlow."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from colorjax.backbones import alexnet, vgg
from colorjax.errors import UserError
from colorjax.metrics import lpips

# Raised inside Keras when it reads a variable of TensorFlow.
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning')

NETS = ('alex', 'vgg')
# torchvision's numbers of the convolutions and their shapes.
ALEX = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3),
        8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
VGG = dict(zip(
    (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    [(o, i, 3, 3) for i, o in (
        (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256),
        (256, 256), (256, 512), *[(512, 512)] * 5)], strict=True))
WIDTHS = {'alex': (64, 192, 384, 256, 256), 'vgg': (64, 128, 256, 512, 512)}


def _network(net):
  """A state dict of torchvision, with the start of a classifier."""
  rng = np.random.default_rng(len(net))
  state = {}
  for number, shape in (ALEX if net == 'alex' else VGG).items():
    deviation = np.sqrt(2 / np.prod(shape[1:])).astype(np.float32)
    state[f'features.{number}.weight'] = deviation * rng.standard_normal(
        shape, np.float32)
    state[f'features.{number}.bias'] = rng.normal(0, 0.2, shape[0]).astype('f')
  number = 1 if net == 'alex' else 0
  return state | {f'classifier.{number}.bias': np.zeros(4096, np.float32)}


def _heads(net):
  rng = np.random.default_rng(7)
  return {f'lin{i}.model.1.weight': rng.uniform(
      0, 1, (1, width, 1, 1)).astype('f') for i, width in
      enumerate(WIDTHS[net])}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('lpips')
  for net in NETS:
    safetensors.numpy.save_file(_network(net), folder / f'{net}.safetensors')
    safetensors.numpy.save_file(
        _heads(net) | {'scaling_layer.shift': np.zeros((1, 3, 1, 1))},
        folder / f'{net}_heads.safetensors')
  return folder


@pytest.fixture(scope='module', params=NETS)
def case(request, files):
  """The net's name, our distance of 48 x 65 pixels and variables of files."""
  net = request.param
  metric = lpips.build(net)
  variables = metric.load(files / f'{net}.safetensors',
                          files / f'{net}_heads.safetensors')
  return net, jax.jit(metric.distance), variables


def _pictures(seed, batch=2):
  """Smooth pictures with grain."""
  rng = np.random.default_rng(seed)
  smooth = tf.image.resize(rng.uniform(0, 255, (batch, 5, 6, 3)), (48, 65))
  grain = rng.normal(0, 8, (batch, 48, 65, 3))
  return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def _alex_layers(x):
  state = _network('alex')
  for number, stride, margin in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1),
                                 (10, 1, 1)):
    x = tf.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    kernel = state[f'features.{number}.weight'].transpose(2, 3, 1, 0)
    x = tf.nn.relu(tf.nn.conv2d(x, kernel, stride, 'VALID')
                   + state[f'features.{number}.bias'])
    yield x.numpy()
    if number in (0, 3):
      x = tf.nn.max_pool2d(x, 3, 2, 'VALID')


def _vgg_layers(x):
  model = keras.applications.VGG16(weights=None, include_top=False)
  convs = [layer for layer in model.layers if 'conv' in layer.name]
  state = _network('vgg')
  for number, layer in zip(VGG, convs, strict=True):
    layer.set_weights([state[f'features.{number}.weight'].transpose(2, 3, 1, 0),
                       state[f'features.{number}.bias']])
  last = ('block1_conv2', 'block2_conv2', 'block3_conv3', 'block4_conv3',
          'block5_conv3')
  outputs = [model.get_layer(name).output for name in last]
  return [y.numpy() for y in keras.Model(model.inputs[0], outputs)(x)]


def _reference(net, a, b):
  """The formula of the paper in float64."""
  layers = []
  for pictures in (a, b):
    x = pictures / 255 * 2 - 1
    x = (x - [-.030, -.088, -.188]) / [.458, .448, .450]
    x = tf.constant(x, tf.float32)
    layers.append(list(_alex_layers(x) if net == 'alex' else _vgg_layers(x)))
  total = np.zeros(len(a))
  for f, g, head in zip(*layers, _heads(net).values(), strict=True):
    f, g = (np.float64(y) for y in (f, g))
    f, g = (y / (np.sqrt((y ** 2).sum(-1, keepdims=True)) + 1e-10)
            for y in (f, g))
    total += ((f - g) ** 2 * head.ravel()).sum(-1).mean((1, 2))
  return total


def test_formula(case):
  net, distance, variables = case
  a, b = _pictures(0), _pictures(1)
  np.testing.assert_allclose(
      distance(variables, a, b), _reference(net, a, b), rtol=1e-4)


def test_equal_pictures_have_distance_zero(case):
  _, distance, variables = case
  a = _pictures(0)
  assert np.all(distance(variables, a, a) < 1e-12)
  # Where no feature is active nothing may divide by zero.
  black = np.zeros_like(a)
  dead = jax.tree.map(jnp.zeros_like, variables['backbone'])
  assert np.all(distance({**variables, 'backbone': dead}, a, black) == 0)


def test_a_distance_is_symmetric_and_grows(case):
  _, distance, variables = case
  a, b = _pictures(0), _pictures(1)
  np.testing.assert_allclose(distance(variables, a, b),
                             distance(variables, b, a), rtol=1e-5)
  noise = np.random.default_rng(2).normal(size=a.shape)
  steps = np.array([distance(variables, a, np.clip(
      a + level * noise, 0, 255).astype(np.uint8)) for level in (4, 16, 64)])
  assert np.all(np.diff(steps, axis=0) > 0)
  assert np.all(steps[0] > 0)


def test_distance_does_not_depend_on_the_batch(case):
  _, distance, variables = case
  a, b, others = _pictures(0), _pictures(1), _pictures(3)
  whole = distance(variables, a, b)
  first = distance(variables, np.stack([a[0], others[0]]),
                   np.stack([b[0], others[1]]))
  np.testing.assert_allclose(first[0], whole[0], rtol=1e-5)
  assert abs(first[1] - whole[1]) > 1e-3 * whole[1]


@pytest.mark.parametrize('net', NETS)
def test_smallest_picture(net):
  metric = lpips.build(net)
  variables = jax.eval_shape(metric.init, jax.random.key(0))
  network = (alexnet.AlexNet() if net == 'alex' else
             vgg.VGG(vgg.VGG16, top=False, upto='relu5_3'))

  def picture(side, dtype='uint8'):
    return jax.ShapeDtypeStruct((1, side, 99, 3), dtype)

  side, small = picture(metric.min_side), picture(metric.min_side - 1)
  assert jax.eval_shape(metric.distance, variables, side, side).shape == (1,)
  with pytest.raises(UserError, match=f'x 99 .* {metric.min_side} pixels'):
    jax.eval_shape(metric.distance, variables, small, small)
  # Below that the network itself has no last layer.
  with pytest.raises(UserError, match='too small for this'):
    jax.eval_shape(network.apply, variables['backbone'],
                   picture(metric.min_side - 1, 'float32'))


@pytest.mark.parametrize(('a', 'b'), [
    (np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 64, 3), np.uint8)),
    (np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.uint8)),
    (np.zeros((1, 64, 64, 1), np.uint8), np.zeros((1, 64, 64, 1), np.uint8)),
    (np.zeros((1, 64, 64, 3), np.uint8), np.zeros((2, 64, 64, 3), np.uint8))])
def test_other_pictures_are_rejected(a, b):
  with pytest.raises(ValueError, match=r'LPIPS .* got .*\['):
    lpips.build('alex').distance({}, a, b)


def test_init_and_load_agree(case):
  net, _, variables = case
  shapes = jax.eval_shape(lpips.build(net).init, jax.random.key(0))
  assert shapes == jax.eval_shape(lambda x: x, dict(variables))


def _fails(net, network, heads, *parts):
  with pytest.raises(UserError) as caught:
    lpips.build(net).load(network, heads)
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert part in message, message


def _saved(path, state):
  safetensors.numpy.save_file(state, path)
  return path


@pytest.mark.parametrize('net', NETS)
def test_wrong_heads_are_rejected(net, files, tmp_path):
  network, path = files / f'{net}.safetensors', tmp_path / 'h.safetensors'
  other = files / ('vgg_heads' if net == 'alex' else 'alex_heads')
  other = other.with_suffix('.safetensors')
  _fails(net, network, other, str(other), f'{net}.pth', 'of the wrong shape',
         'lin1.model.1.weight')
  _fails(net, network, network, str(network), '5 missing: lin0')
  heads = _heads(net)
  less = {k: v for k, v in heads.items() if 'lin3' not in k}
  _fails(net, network, _saved(path, less), '1 missing: lin3.model.1.weight')
  more = heads | {'lin5.model.1.weight': np.ones(4, np.float32)}
  _fails(net, network, _saved(path, more), '1 unexpected: lin5')
  wrong = heads | {'lin2.model.1.weight': -heads['lin2.model.1.weight']}
  _fails(net, network, _saved(path, wrong), str(path), 'negative')


def test_wrong_networks_are_rejected(files, tmp_path):
  path = tmp_path / 'n.safetensors'
  alex, vgg16 = (files / f'{net}.safetensors' for net in NETS)
  heads = {net: files / f'{net}_heads.safetensors' for net in NETS}
  _fails('alex', vgg16, heads['alex'], str(vgg16), 'alexnet-owt', 'missing')
  _fails('vgg', alex, heads['vgg'], str(alex), 'another network')
  less = _network('alex')
  del less['features.8.bias']
  _fails('alex', _saved(path, less), heads['alex'],
         '1 missing: features.8.bias')
  more = _network('alex') | {'features.12.bias': np.zeros(9, np.float32)}
  _fails('alex', _saved(path, more), heads['alex'],
         '1 unexpected: features.12.bias')
  _fails('alex', tmp_path / 'none.pth', heads['alex'], 'no such')
  with h5py.File(tmp_path / 'k.h5', 'w') as file:
    file.attrs['layer_names'] = []
  _fails('alex', tmp_path / 'k.h5', heads['alex'],
         "k.h5 is a Keras file: give torchvision's AlexNet")
  _fails('vgg', tmp_path / 'k.h5', heads['vgg'],
         'k.h5: LPIPS needs torchvision')


def test_other_nets_are_rejected():
  with pytest.raises(UserError, match="'squeeze'"):
    lpips.build('squeeze')
