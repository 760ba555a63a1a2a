"""Backbones as modules: options, preprocessing, training mode and errors."""

import json
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from colorjax import backbones, parallel
from colorjax.errors import UserError

KEY = jax.random.key(0)


def _shapes(backbone, shape):
  """Shapes of the variables and outputs, without computing them."""
  x = jax.ShapeDtypeStruct(shape, 'float32')
  variables = jax.eval_shape(backbone.module.init, KEY, x)
  return variables, jax.eval_shape(backbone.module.apply, variables, x)


@pytest.mark.parametrize(('name', 'count'), [
    ('vgg16', 138_357_544), ('vgg19', 143_667_240),
    ('xception', 22_910_480), ('inception_resnet_v2', 55_873_736),
    ('efficientnet_lite0', 4_694_024)])
def test_numbers_of_parameters_are_as_published(name, count):
  backbone = backbones.build(name)
  side = backbone.image_size
  variables, out = _shapes(backbone, (2, side, side, 3))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count
  assert set(out) == {*backbone.intermediates, 'logits'}
  assert out['logits'].shape == (2, backbone.num_classes)
  features = backbone.intermediates[-1]
  assert out[features].shape == (2, backbone.num_features)
  assert ('batch_stats' in variables) == (not name.startswith('vgg'))


@pytest.mark.parametrize('name', backbones.KERAS_NAMES)
def test_preprocessing_equals_keras(name):
  module = getattr(keras.applications, name)
  rgb = np.random.default_rng(0).uniform(size=(2, 5, 4, 3)).astype(np.float32)
  np.testing.assert_allclose(
      backbones.build(name).preprocess(rgb),
      module.preprocess_input(rgb * 255.), rtol=0, atol=2e-5)


def test_preprocessing_of_torchvision():
  rgb = np.full((1, 1, 1, 3), 0.5, np.float32)
  ours = backbones.build('vgg19', variant='torch').preprocess(rgb)
  np.testing.assert_allclose(
      ours[0, 0, 0],
      [0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225], rtol=1e-5)


@pytest.mark.parametrize(('name', 'upto'), [
    ('vgg19', 'pool3'), ('xception', 'block4'),
    ('inception_resnet_v2', 'mixed_6a')])
def test_stages_after_upto_have_no_parameters(name, upto):
  full, short = backbones.build(name), backbones.build(name, upto=upto)
  assert short.intermediates[-1] == upto
  shape = (1, full.image_size, full.image_size, 3)
  (all_variables, everything), (variables, out) = (
      _shapes(full, shape), _shapes(short, shape))
  assert set(out) == set(short.intermediates)
  assert {k: out[k].shape for k in out} == {
      k: everything[k].shape for k in out}
  assert set(variables['params']) < set(all_variables['params'])


def test_vgg_can_start_at_its_second_convolution():
  whole = backbones.build('vgg19', upto='pool1')
  tail = backbones.build('vgg19', upto='pool1', first='conv1_2')
  assert tail.intermediates == ('relu1_2', 'pool1')
  x = jax.random.normal(KEY, (2, 8, 6, 3))
  variables = whole.module.init(KEY, x)
  out = whole.module.apply(variables, x)
  tail_variables = backbones.restrict(
      variables, tail.module.init(KEY, out['relu1_1']))
  assert list(tail_variables['params']) == ['conv1_2']
  np.testing.assert_array_equal(
      tail.module.apply(tail_variables, out['relu1_1'])['pool1'],
      out['pool1'])


def test_random_weights_of_vgg_keep_the_scale_of_activations():
  """Sixteen layers without batch norm neither vanish nor explode."""
  backbone = backbones.build('vgg19', upto='relu5_4')
  x = jax.random.normal(KEY, (1, 32, 32, 3))

  @jax.jit
  def deviations(x):
    variables = backbone.module.init(KEY, x)
    return {k: v.std() for k, v in backbone.module.apply(variables, x).items()}

  out = deviations(x)
  ratio = out['relu5_4'] / out['relu1_1']
  assert 0.1 < ratio < 10.


def test_training_uses_and_updates_the_statistics_of_the_batch():
  backbone = backbones.build('xception', upto='block1_conv1_act')
  x = jax.random.normal(KEY, (4, 9, 9, 3))
  variables = backbone.module.init(KEY, x)
  out, state = backbone.module.apply(
      variables, x, train=True, mutable=['batch_stats'])
  kernel = variables['params']['block1_conv1']['kernel']
  y = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
  np.testing.assert_allclose(
      out['block1_conv1_act'],
      np.maximum((y - mean) / np.sqrt(variance + 1e-3), 0), atol=1e-4)
  statistics = state['batch_stats']['block1_conv1_bn']
  np.testing.assert_allclose(statistics['mean'], 0.01 * mean, atol=1e-6)
  np.testing.assert_allclose(
      statistics['var'], 0.99 + 0.01 * variance, atol=1e-5)
  still = backbone.module.apply(variables, x)['block1_conv1_act']
  assert not np.allclose(still, out['block1_conv1_act'])


def test_statistics_are_averaged_over_a_mapped_axis():
  backbone = backbones.build('inception_resnet_v2', upto='stem')
  x = jax.random.normal(KEY, (2, 1, 33, 33, 3))
  variables = backbone.module.init(KEY, x[0])

  @jax.jit
  def means(x):
    _, state = jax.vmap(lambda x: backbone.module.apply(
        variables, x, train=True, mutable=['batch_stats']),
        axis_name=parallel.AXIS)(x)
    return state['batch_stats']['stem_1a']['bn']['mean']

  first, second = means(x)
  np.testing.assert_allclose(first, second, rtol=1e-6)
  assert np.abs(first).max() > 0


def test_half_precision_keeps_float32_parameters_and_logits():
  backbone = backbones.build('vgg16', dtype='bfloat16')
  variables, out = _shapes(backbone, (1, 224, 224, 3))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
      jnp.dtype('float32')}
  assert out['relu1_1'].dtype == jnp.bfloat16
  assert out['logits'].dtype == jnp.float32


@pytest.mark.parametrize(('options', 'part'), [
    ({'name': 'vgg11'}, 'vgg16, vgg19, xception'),
    ({'name': 'vgg16', 'upto': 'relu5_4'}, 'relu5_3'),
    ({'name': 'vgg16', 'upto': 'fc7', 'top': False}, 'pool5'),
    ({'name': 'vgg16', 'first': 'conv2_1'}, 'conv1_2'),
    ({'name': 'xception', 'first': 'conv1_2'}, 'only VGG'),
    ({'name': 'xception', 'variant': 'caffe'}, "'keras' or 'torch'")])
def test_invalid_options_are_refused(options, part):
  with pytest.raises(UserError, match=part):
    backbones.build(**options)


@pytest.mark.parametrize(('name', 'shape', 'part'), [
    ('vgg19', (1, 256, 256, 3), '224 x 224'),
    ('vgg19', (1, 224, 224, 1), r'\[B, H, W, 3\]'),
    ('vgg19', (1, 8, 8, 3), 'too small'),
    ('inception_resnet_v2', (1, 40, 40, 3), 'too small'),
    ('xception', (1, 299, 299, 4), r'\[B, H, W, 3\]')])
def test_photographs_of_wrong_shapes_are_refused(name, shape, part):
  with pytest.raises(UserError, match=part):
    _shapes(backbones.build(name), shape)


def test_class_names_are_read_from_the_keras_table(tmp_path):
  path = tmp_path / 'imagenet_class_index.json'
  table = {str(i): [f'n{i:08d}', f'class {i}'] for i in range(1000)}
  path.write_text(json.dumps(table))
  names = backbones.read_class_names(path)
  assert len(names) == 1000
  assert names[7] == 'class 7'
  del table['999']
  path.write_text(json.dumps(table))
  for wrong in (path, tmp_path / 'none.json'):
    with pytest.raises(UserError, match=str(wrong)):
      backbones.read_class_names(wrong)
