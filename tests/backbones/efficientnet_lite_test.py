"""EfficientNet-Lite0 against a forward pass in NumPy, and on two photographs.

The forward pass follows the names of the file's tensors, which are in the order
of the network, and the paper's table of blocks.
"""

import functools
import importlib
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
import skimage.data

from colorjax import backbones, color
from colorjax.backbones import efficientnet_lite
from colorjax.errors import UserError

NAME = 'efficientnet_lite0'
# Stage, kernel, stride of the first of its blocks, channels, blocks.
TABLE = ((3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3),
         (5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1))


def _blocks():
  """(kernel, stride, input channels, inner channels, output channels)."""
  channels = 32
  for kernel, stride, width, repeats in TABLE:
    for i in range(repeats):
      inner = channels * (1 if channels == 32 else 6)
      yield kernel, stride if i == 0 else 1, channels, inner, width
      channels = width


def _state(rng):
  """A state dict with the names and shapes of the package's file."""
  state = {}

  def conv(name, out, into, kernel):
    fan_in = into * kernel * kernel
    state[f'{name}.weight'] = rng.normal(
        0, np.sqrt(2 / fan_in), (out, into, kernel, kernel))

  def norm(name, width):
    state[f'{name}.weight'] = rng.uniform(0.7, 1.3, width)
    state[f'{name}.bias'] = rng.normal(0.5, 0.5, width)
    state[f'{name}.running_mean'] = rng.normal(0, 0.5, width)
    # Small enough for a wrong epsilon to make a difference.
    state[f'{name}.running_var'] = rng.uniform(0.02, 2, width)
    state[f'{name}.num_batches_tracked'] = np.array(7)

  conv('_conv_stem', 32, 3, 3)
  norm('_bn0', 32)
  for i, (kernel, _, into, inner, out) in enumerate(_blocks()):
    block = f'_blocks.{i}.'
    if i:
      conv(f'{block}_expand_conv', inner, into, 1)
      norm(f'{block}_bn0', inner)
    conv(f'{block}_depthwise_conv', inner, 1, kernel)
    norm(f'{block}_bn1', inner)
    conv(f'{block}_project_conv', out, inner, 1)
    norm(f'{block}_bn2', out)
  conv('_conv_head', 1280, 320, 1)
  norm('_bn1', 1280)
  state['_fc.weight'] = rng.normal(0, 0.05, (1000, 1280))
  state['_fc.bias'] = rng.normal(0, 1, 1000)
  return {name: np.asarray(
      x, np.int64 if name.endswith('tracked') else np.float32)
      for name, x in state.items()}


def _conv(x, kernel, stride=1):
  """Convolves [B, H, W, C] with torch's kernel and TensorFlow's padding.

  A kernel with one input channel is depthwise.
  """
  size = kernel.shape[-1]
  padding = [(0, 0)]
  for side in x.shape[1:3]:
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    padding.append((total // 2, total - total // 2))
  x = np.pad(x, [*padding, (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(
      x, (size, size), (1, 2))[:, ::stride, ::stride]
  by_channel = kernel.shape[1] == 1
  return np.einsum('bhwcij,cij->bhwc' if by_channel else 'bhwcij,ocij->bhwo',
                   windows, kernel[:, 0] if by_channel else kernel,
                   optimize=True)


def _reference(state, x):
  """All intermediates by our names, float64."""
  state = {name: value.astype(np.float64) for name, value in state.items()}

  def norm(name, x):
    scale = state[f'{name}.weight'] / np.sqrt(
        state[f'{name}.running_var'] + 1e-3)
    return (x - state[f'{name}.running_mean']) * scale + state[f'{name}.bias']

  def conv(name, x, stride=1):
    return _conv(x, state[f'{name}.weight'], stride)

  def relu6(x):
    return np.clip(x, 0, 6)

  out = {}
  x = out['stem'] = relu6(norm('_bn0', conv('_conv_stem', x, 2)))
  for i, (_, stride, into, _, width) in enumerate(_blocks()):
    block, shortcut = f'_blocks.{i}.', x
    if i:
      x = relu6(norm(f'{block}_bn0', conv(f'{block}_expand_conv', x)))
    x = relu6(norm(f'{block}_bn1', conv(f'{block}_depthwise_conv', x, stride)))
    x = norm(f'{block}_bn2', conv(f'{block}_project_conv', x))
    if stride == 1 and into == width:
      x = x + shortcut
    out[f'block{i + 1}'] = x
  x = out['head'] = relu6(norm('_bn1', conv('_conv_head', x)))
  x = out['avg_pool'] = x.mean((1, 2))
  out['logits'] = x @ state['_fc.weight'].T + state['_fc.bias']
  return out


@pytest.fixture(name='state', scope='module')
def _random_state():
  return _state(np.random.default_rng(0))


@pytest.fixture(name='path', scope='module')
def _path(state, tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'x.safetensors'
  safetensors.numpy.save_file(state, path)
  return path


def test_every_intermediate_equals_numpy(state, path):
  backbone = backbones.build(NAME)
  weights = backbones.load(NAME, path)
  x = np.random.default_rng(1).uniform(
      -1, 1, (2, 41, 64, 3)).astype(np.float32)
  out = jax.jit(backbone.module.apply)(weights, x)
  wanted = _reference(state, x)
  assert list(wanted) == [*backbone.intermediates, 'logits']
  assert set(out) == set(wanted)
  for name, value in wanted.items():
    np.testing.assert_allclose(
        out[name], value, rtol=0, atol=1e-3 * np.abs(value).max(),
        err_msg=name)
  for stride, name in efficientnet_lite.STAGES.items():
    assert out[name].shape[1:3] == (-(-41 // stride), 64 // stride)


def test_files_with_other_tensors_are_refused(state, tmp_path):
  def fails(changed, *parts):
    path = tmp_path / 'x.safetensors'
    safetensors.numpy.save_file(changed, path)
    with pytest.raises(UserError) as caught:
      backbones.load(NAME, path)
    for part in (str(path), *parts):
      assert part in str(caught.value)
    assert '\n' not in str(caught.value)

  lacking = dict(state)
  del lacking['_blocks.7._bn1.running_var']
  fails(lacking, '1 missing', '_blocks.7._bn1.running_var')
  fails(state | {'_blocks.16._bn0.bias': np.zeros(3, np.float32)},
        '1 unexpected', '_blocks.16._bn0.bias')
  fails(state | {'_fc.bias': np.zeros(9, np.float32)}, 'of the wrong shape',
        '_fc.bias is [9] instead of [1000]')
  fails({'conv1.weight': np.zeros(1, np.float32)}, 'another network')


def test_without_the_classifier(state, path, tmp_path):
  headless = tmp_path / 'headless.safetensors'
  safetensors.numpy.save_file(
      {k: v for k, v in state.items() if not k.startswith('_fc')}, headless)
  with pytest.raises(UserError, match='without its classifier'):
    backbones.load(NAME, headless)
  whole, half = (backbones.load(NAME, x, top=False) for x in (path, headless))
  jax.tree.map(np.testing.assert_array_equal, whole, half)
  assert 'predictions' not in half['params']


def test_input_is_centered_at_127():
  preprocess = backbones.build(NAME).preprocess
  np.testing.assert_allclose(
      preprocess(np.float32([0, 127 / 255, 1])), [-127 / 128, 0, 1],
      atol=1e-6)


@functools.cache
def _classifier():
  backbone = backbones.build(NAME)
  weights = backbones.load(NAME, backbones.download(NAME))
  return jax.jit(lambda rgb: backbone.module.apply(
      weights, backbone.preprocess(rgb))['logits'])


@pytest.mark.parametrize(('photograph', 'classes'), [
    ('cat', range(281, 286)),  # tabby, tiger cat, ..., Egyptian cat
    ('coffee', {504, 967, 968})])  # coffee mug, espresso, cup
def test_the_installed_weights_recognize_a_cat_and_a_cup(photograph, classes):
  image = getattr(skimage.data, photograph)()
  side = min(image.shape[:2])
  top, left = ((n - side) // 2 for n in image.shape[:2])
  square = image[None, top:top + side, left:left + side] / np.float32(255)
  rgb = jax.image.resize(square, (1, 224, 224, 3), 'cubic').clip(0, 1)
  lightness = color.rgb_to_lab(rgb)[..., :1]
  for seen in (rgb, color.grey_rgb(lightness)):
    assert int(_classifier()(seen)[0].argmax()) in classes


def test_a_missing_package_or_changed_file_is_refused(monkeypatch, tmp_path):
  download = importlib.import_module('colorjax.backbones.download')
  with monkeypatch.context() as patch:
    patch.setattr(download, '_PACKAGE', 'no_such_package_is_installed')
    with pytest.raises(UserError, match='pip install') as caught:
      backbones.download(NAME)
    assert '\n' not in str(caught.value)
  content = bytearray(backbones.download(NAME).read_bytes())
  content[5000] ^= 1
  other = tmp_path / pathlib.Path(download._PACKAGE_FILE).name
  other.write_bytes(content)
  monkeypatch.setattr(download, '_PACKAGE_FILE', str(other))
  with pytest.raises(UserError, match='SHA-256') as caught:
    backbones.download(NAME)
  assert str(other) in str(caught.value)
  assert '\n' not in str(caught.value)
