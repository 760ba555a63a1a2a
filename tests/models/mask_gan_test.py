"""The networks of the mask GAN: published layers, sizes and dependencies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from colorjax.models import mask_gan

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SMALL = (4, 6, 8)

# These networks are so small that compilation dominates: compile without
# optimization.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def _shapes(net, *inputs):
  """Shapes of the output and the variables, without computing them."""
  return jax.eval_shape(lambda: net.init_with_output(
      jax.random.key(0), *inputs, train=False))


def _count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def _init(net, *inputs):
  return _jit(net.init, static_argnames='train')(
      jax.random.key(0), *inputs, train=False)


def _inputs(size=16, batch=2, channels=1):
  keys = jax.random.split(jax.random.key(1), 2)
  return (jax.random.normal(keys[0], (batch, size, size, channels)),
          jax.random.bernoulli(keys[1], 0.5, (batch, size, size, 1)) * 1.0)


def test_generator_has_the_published_parameters():
  out, variables = _shapes(mask_gan.Generator(), *_inputs(224, 1))
  assert out.shape == (1, 224, 224, 2)
  expected = 2 * (9 * 16 + 2 * 16)  # stems: kernel, scale and bias
  for inputs, outputs in ((32, 64), (64, 128), (128, 256), (256, 512),
                          (512, 512), (512, 512), (512, 256), (256, 128),
                          (128, 64)):
    expected += 9 * inputs * outputs + 2 * outputs
  expected += 9 * 64 * 2
  assert _count(variables['params']) == expected


def test_image_discriminator_has_the_published_parameters():
  out, variables = _shapes(
      mask_gan.ImageDiscriminator(), *_inputs(224, 1, 3))
  assert out.shape == (1, 1, 1)
  expected = 49 * 512 * 512 + 2 * 512 + 512 + 1
  for inputs, outputs in ((4, 64), (64, 128), (128, 256), (256, 512),
                          (512, 512)):
    expected += 9 * inputs * outputs + 2 * outputs
  assert _count(variables['params']) == expected


def test_patch_discriminator_has_the_parameters_of_pix2pix():
  out, variables = _shapes(mask_gan.PatchDiscriminator(), *_inputs(256, 1, 3))
  assert out.shape == (1, 30, 30)
  expected = 16 * 4 * 64 + 64 + 16 * 512 + 1
  for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
    expected += 16 * inputs * outputs + 2 * outputs
  assert _count(variables['params']) == expected


@pytest.mark.parametrize(('depth', 'pixels'), [(4, 70), (3, 34), (2, 16)])
def test_patches_have_the_stated_size(depth, pixels):
  net = mask_gan.PatchDiscriminator(widths=(2,) * depth)
  inputs = _inputs(112, 1, 3)
  variables = _init(net, *inputs)

  @_jit
  def influence(picture):
    return jax.grad(lambda p: net.apply(
        variables, p, inputs[1], train=False)[0, 5, 5])(picture)

  touched = np.abs(influence(inputs[0])[0]).sum(-1) > 0
  assert touched.any(1).sum() <= pixels
  rows = np.flatnonzero(touched.any(1))
  # ReLUs may remove the influence of a few of the outermost pixels.
  assert pixels - 4 <= rows[-1] - rows[0] + 1 <= pixels


@pytest.mark.parametrize('net', [
    mask_gan.Generator(SMALL, stem_width=4), mask_gan.ImageDiscriminator(SMALL),
    mask_gan.PatchDiscriminator(SMALL)],
    ids=['generator', 'image', 'patch'])
class TestAll:

  def inputs(self, net):
    return _inputs(channels=1 if isinstance(net, mask_gan.Generator) else 3)

  def test_every_parameter_is_used_and_photographs_do_not_mix(self, net):
    first, region = self.inputs(net)
    variables = _init(net, first, region)

    @_jit
    def gradients(params, first, region):
      return jax.grad(lambda *args: (net.apply(
          {**variables, 'params': args[0]}, *args[1:], train=False
      )[0]**3).sum(), argnums=(0, 1, 2))(params, first, region)

    by_params, by_first, by_region = gradients(
        variables['params'], first, region)
    for path, gradient in jax.tree.leaves_with_path(by_params):
      assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)
    for gradient in by_first, by_region:
      assert jnp.abs(gradient[0]).max() > 0
      assert jnp.abs(gradient[1]).max() == 0

  def test_batch_statistics_move_only_in_training(self, net):
    inputs = self.inputs(net)
    variables = _init(net, *inputs)
    for train in (True, False):
      _, new = _jit(lambda v, t=train: net.apply(
          v, *inputs, train=t, mutable=['batch_stats']))(variables)
      moved = [bool((a != b).any()) for a, b in zip(
          jax.tree.leaves(new['batch_stats']),
          jax.tree.leaves(variables['batch_stats']), strict=True)]
      assert all(moved) if train else not any(moved)

  def test_bfloat16_computes_low_and_returns_float32(self, net):
    inputs = self.inputs(net)
    variables = _init(net, *inputs)
    low, full = (_jit(lambda v, d=dtype: net.copy(dtype=d).apply(
        v, *inputs, train=False))(variables)
                 for dtype in (jnp.bfloat16, jnp.float32))
    assert low.dtype == full.dtype == jnp.float32
    assert 0 < jnp.abs(low - full).max() < 0.1


def test_transposed_convolutions_are_aligned_with_strided_ones():
  """A stride-2 convolution with border 1 reads pixels 2i - 1 to 2i + 1.

  Its transpose must write the same pixels. Checked for one pixel, against
  scipy.
  """
  kernel = np.arange(1.0, 10).reshape(3, 3, 1, 1).astype(np.float32)
  x = np.zeros((1, 4, 4, 1), np.float32)
  x[0, 1, 2, 0] = 1
  up = jax.lax.conv_transpose(
      jnp.asarray(x), jnp.asarray(kernel), (2, 2),
      mask_gan._TRANSPOSED_BORDER, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  stuffed = np.zeros((8, 8))
  stuffed[::2, ::2] = x[0, ..., 0]
  expected = scipy.signal.correlate2d(stuffed, kernel[..., 0, 0], 'same')
  np.testing.assert_array_equal(up[0, ..., 0], expected)
  assert np.flatnonzero(expected.any(1)).tolist() == [1, 2, 3]


def test_skip_connections_exist_at_the_inner_scales():
  """With up_0 set to zero, gradients reach down_0 only, through its skip."""
  net = mask_gan.Generator(SMALL, stem_width=4)
  inputs = _inputs()
  variables = _init(net, *inputs)
  params = dict(variables['params'])
  params['up_0'] = jax.tree.map(jnp.zeros_like, params['up_0'])

  @_jit
  def by_scale(params):
    gradient = jax.grad(lambda p: jnp.square(net.apply(
        {**variables, 'params': p}, *inputs, train=False)).sum())(params)
    return {name: jnp.abs(g['Conv_0']['kernel']).max()
            for name, g in gradient.items() if name.startswith('down')}

  found = by_scale(params)
  assert found['down_0'] > 0
  assert found['down_1'] == found['down_2'] == 0
  full = by_scale(variables['params'])
  assert min(full.values()) > 0


def test_noise_reaches_every_layer_of_the_encoder():
  net = mask_gan.Generator(SMALL, stem_width=4)
  lightness, region = _inputs()
  noise = jax.random.normal(jax.random.key(2), (2, 3))
  variables = _init(net, lightness, region, noise)
  apply = _jit(lambda v, z: net.apply(v, lightness, region, z, train=False))
  for name, inputs in (('down_0', 8), ('down_1', 4), ('down_2', 6)):
    kernel = variables['params'][name]['Conv_0']['kernel']
    assert kernel.shape[2] == inputs + 3
    # The last input channels are the noise. Remove it from the other layers.
    changed = jax.tree.map(lambda x: x, variables)
    for other in ('down_0', 'down_1', 'down_2'):
      if other != name:
        weights = changed['params'][other]['Conv_0']
        weights['kernel'] = weights['kernel'].at[:, :, -3:].set(0)
    first, second = apply(changed, noise), apply(changed, -noise)
    assert jnp.abs(first - second).max() > 0
