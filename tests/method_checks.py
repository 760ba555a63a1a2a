"""Checks that several methods pass, most of them of hints and regions.

Their photographs have 16 x 16 pixels, and their fields blocks of 2 x 2 pixels.
"""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from asking import batch_of, compiled, grey, hinted, keys

from colorjax.methods import known

NAMES = {'hint_ab', 'hint_mask', 'region'}


def block_means(values, mask, side=2):
  """Means over the masked pixels of blocks and the masked shares, in NumPy."""
  def sums(x):
    x = np.asarray(x, np.float64)
    n, height, width, channels = x.shape
    return x.reshape(n, height // side, side, width // side, side,
                     channels).sum((2, 4))

  count = sums(mask)
  return sums(values * np.asarray(mask)) / np.maximum(count, 1), (
      count / side**2)


def known_of(inputs):
  """What is known of the fields, from the definitions, in NumPy."""
  region = np.asarray(inputs['region'])
  inside = (block_means(region, region)[1] > 0).astype(float)
  hint_ab, share = block_means(
      inputs['hint_ab'], np.asarray(inputs['hint_mask']) * region)
  return known.Known(hint_ab, np.maximum(share > 0, 1 - inside), inside)


def check_inputs(build):
  """The inputs that a method accepts are those that it has in training.

  Args:
    build: builds the method from settings.
  """
  assert build().accepts == NAMES
  assert build(hint_share=0.).accepts == {'region'}
  assert build(region_share=0.).accepts == {'hint_ab', 'hint_mask'}
  assert build(hint_share=0., region_share=0.).accepts == frozenset()


def check_known_values(inputs, colorings, fields):
  """Colorings and fields have the known values; other values differ.

  Args:
    inputs: from `hinted`.
    colorings: [n, B, 16, 16, 2].
    fields: at least two draws, [n, B, 8, 8, 2].
  """
  inside = (inputs['region'] > 0) & (inputs['hint_mask'] > 0)
  assert int(inside.sum()) == 19 * len(inside)
  np.testing.assert_array_equal(
      jnp.where(inside, colorings, 0),
      jnp.broadcast_to(jnp.where(inside, inputs['hint_ab'], 0),
                       colorings.shape))
  np.testing.assert_array_equal(colorings * (1 - inputs['region']), 0)
  expected = known_of(inputs)
  is_known = expected.mask[..., 0] > 0
  assert (is_known.sum((1, 2)) == 4 + 2 + 8).all()
  for field in fields:
    np.testing.assert_allclose(
        field[is_known], expected.ab[is_known], atol=1e-4)
  assert jnp.abs((fields[0] - fields[1])[~is_known]).min() > 0


def check_influence(draw, variables):
  """Known values change most of the others.

  Args:
    draw: `Colorizer.draw` or `Colorizer.sample`, of which n is given.
    variables: of the method.
  """
  inputs = hinted()
  other = {**inputs, 'hint_ab': -inputs['hint_ab']}
  change = jnp.abs(draw(variables, inputs, keys(3))
                   - draw(variables, other, keys(3)))[0].max(-1)
  assert (change > 1e-3).mean() > 0.5


def check_owners(draw, variables):
  """Samples belong to the photograph and its key, not to its batch.

  Args:
    draw: `Colorizer.draw` or `Colorizer.sample`, of which n is given.
    variables: of the method.
  """
  inputs = hinted()
  # The second photograph comes first, among others.
  moved = {name: x[jnp.asarray([1, 0, 0])] for name, x in inputs.items()}
  others = jnp.stack([keys(3)[1], *keys(2, 9)])
  np.testing.assert_allclose(
      draw(variables, moved, others)[:, 0],
      draw(variables, inputs, keys(3))[:, 1], atol=1e-3)


def check_padding(colorizer, variables):
  """The training loss is the mean over the rows that are not padding."""
  run = compiled(colorizer.loss, step=0, train=True)

  def loss(image, padding_mask):
    value, aux = run(
        variables['params'], variables['model_state'],
        {'image': image, 'padding_mask': jnp.asarray(padding_mask)}, keys(4))
    assert {int(count) for _, count in aux.metrics.values()} == {
        sum(padding_mask)}
    return float(value)

  image = batch_of(4)['image']
  first, last, full = (loss(image, mask) for mask in (
      [1., 1., 0., 0.], [0., 0., 1., 1.], [1., 1., 1., 1.]))
  np.testing.assert_allclose((first + last) / 2, full, rtol=1e-4)
  np.testing.assert_allclose(
      loss(image.at[2:].set(77), [1., 1., 0., 0.]), first, rtol=1e-5)


def check_export(predict, variables, size=16):
  """A program for batches of any size predicts as the method does."""
  function = jax.jit(lambda x: predict(variables, grey(x)))
  shape = jax.export.symbolic_shape(f'B, {size}, {size}, 1')
  exported = jax.export.export(function)(
      jax.ShapeDtypeStruct(shape, jnp.float32))
  lightness = jnp.asarray([40., 60.])[:, None, None, None] * jnp.ones(
      (2, size, size, 1))
  np.testing.assert_allclose(
      exported.call(lightness), function(lightness), atol=1e-2)


def check_gradients(colorizer, variables):
  """The training loss depends on every parameter."""
  gradient = jax.jit(jax.grad(lambda p: colorizer.loss(
      p, variables['model_state'], batch_of(), keys(3), step=0,
      train=True)[0]))(variables['params'])
  for path, x in jax.tree.leaves_with_path(gradient):
    assert jnp.abs(x).max() > 0, jax.tree_util.keystr(path)
