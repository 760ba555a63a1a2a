"""Baselines: the contract, and their results against scipy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
from asking import grey as grey_inputs
from asking import keys
from scipy import ndimage

from colorjax.errors import UserError
from colorjax.methods.baselines import (
  grey,
  levin,
  marginal,
  mean_color,
  reinhard,
  welsh,
)

KEYS = jax.random.split(jax.random.key(0), 3)

METHODS = [grey, mean_color, marginal, reinhard, welsh, levin]


def _image(height=20, width=24, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
  return coarse.repeat(4, 0).repeat(4, 1)


def _batch(n=3):
  return {'image': jnp.stack([_image(seed=seed) for seed in range(n)]),
          'padding_mask': jnp.ones(n)}


def _lab(image):
  lab = skimage.color.rgb2lab(np.asarray(image))
  return np.float32(lab[..., :1]), lab[..., 1:]


def _numbers(method):
  """Measured params of a method."""
  return {
      mean_color: lambda: {'mean_ab': jnp.array([3., -4.])},
      marginal: lambda: {'shares': marginal.histogram(
          jnp.asarray(_lab(_image(seed=5)[None])[1])).mean(0)},
      reinhard: lambda: reinhard.statistics(_image(seed=5)),
      welsh: lambda: welsh.candidates(
          jax.random.key(1), _image(60, 56, seed=5)),
  }.get(method, dict)()


def _name(method):
  return method.__name__.split('.')[-1]


@pytest.mark.parametrize('method', METHODS, ids=_name)
def test_contract(method):
  colorizer = method.build()
  lightness, ab = _lab(_batch()['image'])
  variables = colorizer.init(jax.random.key(0), (20, 24))
  measured = {'params': _numbers(method), 'model_state': {}}
  assert jax.tree.map(jnp.shape, measured) == jax.tree.map(
      jnp.shape, dict(variables)), 'a checkpoint restores into what init gives'
  predicted = jax.jit(colorizer.predict)(measured, grey_inputs(lightness))
  assert predicted.shape == ab.shape
  assert predicted.dtype == jnp.float32
  assert colorizer.max_proposals == 1
  proposals, probability = colorizer.propose(
      measured, grey_inputs(lightness), 2)
  np.testing.assert_allclose(
      proposals, np.broadcast_to(predicted, (2, *ab.shape)), atol=1e-4)
  assert probability is None
  samples = colorizer.sample(
      measured, grey_inputs(lightness), keys(len(lightness)), 3)
  assert samples.shape == (3, *ab.shape)
  assert ('hint_ab' in colorizer.accepts) == (method is levin)
  scalar, aux = colorizer.loss(measured['params'], {}, _batch(),
                               KEYS, step=None, train=False)
  np.testing.assert_allclose(
      scalar, (((predicted - ab) / 110)**2).mean(), rtol=1e-4)
  assert aux.metrics['loss'][1] == 3
  gradients = jax.grad(lambda params: colorizer.loss(
      params, {}, _batch(), KEYS, step=0, train=True)[0])(
          measured['params'])
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize('method', [grey, levin], ids=_name)
def test_grey_is_grey(method):
  lightness, _ = _lab(_batch()['image'])
  assert not method.build().predict(
      {'params': {}, 'model_state': {}}, grey_inputs(lightness)).any()


def test_mean_color_is_the_same_at_every_pixel():
  lightness, _ = _lab(_batch()['image'])
  predicted = mean_color.build().predict(
      {'params': {'mean_ab': jnp.array([3., -4.])}},
      grey_inputs(lightness))
  np.testing.assert_array_equal(
      predicted, np.broadcast_to([3., -4.], predicted.shape))


def test_marginal_is_the_histogram_of_colors():
  """Its log density is that of a histogram with squares of 100 ab units."""
  ab = np.zeros((1, 8, 8, 2), np.float32)
  ab[:, :, 4:] = 41, -38
  ab[:, :2] = -21, 12
  shares = np.asarray(marginal.histogram(jnp.asarray(ab)))[0]
  assert sorted(shares[shares > 0]) == [0.25, 0.375, 0.375]
  colorizer = marginal.build()
  variables = {'params': {'shares': jnp.asarray(shares)}}
  lightness = jnp.full((1, 8, 8, 1), 50.)
  np.testing.assert_allclose(
      colorizer.predict(variables, grey_inputs(lightness))[0, 0, 0],
      0.25 * np.array([-20, 10]) + 0.375 * np.array([40, -40]), rtol=1e-4)
  nats = colorizer.log_prob(
      variables, grey_inputs(lightness), jnp.asarray(ab), None)
  expected = 4 * np.log(0.25 / 100) + 12 * np.log(0.375 / 100)
  np.testing.assert_allclose(nats, expected, rtol=1e-3)
  draws = colorizer.draw(
      variables, grey_inputs(lightness), keys(len(lightness)), 400)
  assert draws.shape == (400, 1, 4, 4, 2)
  np.testing.assert_allclose((draws[..., 0] < -10).mean(), 0.25, atol=0.03)


def test_reinhard_shifts_and_scales_chroma():
  """Colored photographs get the statistics of the reference."""
  reference = _image(seed=5)
  _, ab = _lab(reference)
  _, own = _lab(_batch()['image'])
  numbers = reinhard.statistics(reference)
  found = np.asarray(reinhard.transfer(jnp.float32(own), numbers))
  for photo, before in zip(found, own, strict=True):
    np.testing.assert_allclose(photo.mean((0, 1)), ab.mean((0, 1)), atol=0.02)
    np.testing.assert_allclose(photo.std((0, 1)), ab.std((0, 1)), rtol=1e-3)
    for c in range(2):
      correlation = np.corrcoef(photo[..., c].ravel(), before[..., c].ravel())
      np.testing.assert_allclose(correlation[0, 1], 1, rtol=1e-5)


def test_reinhard_gives_a_grey_photograph_the_mean_color_of_the_reference():
  reference = _image(seed=5)
  _, ab = _lab(reference)
  lightness, _ = _lab(_batch()['image'])
  predicted = reinhard.build().predict(
      {'params': reinhard.statistics(reference)}, grey_inputs(lightness))
  np.testing.assert_allclose(
      predicted, np.broadcast_to(ab.mean((0, 1)), predicted.shape), atol=0.02)


def test_texture_is_the_deviation_in_the_window():
  lightness, _ = _lab(_image())
  lightness = lightness[..., 0]
  expected = np.empty_like(lightness)
  for y, x in np.ndindex(lightness.shape):
    expected[y, x] = lightness[
        max(y - 2, 0):y + 3, max(x - 2, 0):x + 3].std()
  np.testing.assert_allclose(welsh.texture(lightness), expected, atol=0.02)
  inner = ndimage.generic_filter(lightness, np.std, 5)[2:-2, 2:-2]
  np.testing.assert_allclose(
      welsh.texture(lightness)[2:-2, 2:-2], inner, atol=0.02)


def test_candidates_are_pixels_one_in_each_cell():
  reference = _image(60, 56, seed=5)
  _, ab = _lab(reference)
  numbers = welsh.candidates(jax.random.key(2), reference, grid=5)
  for number, found in enumerate(np.asarray(numbers['ab'])):
    row, column = divmod(number, 5)
    cell = ab[row * 12:row * 12 + 12, int(column * 11.2):int(
        column * 11.2 + 11.2) + 1].reshape(-1, 2)
    assert np.abs(cell - found).max(-1).min() < 0.02
  other = welsh.candidates(jax.random.key(3), reference, grid=5)
  assert (other['ab'] != numbers['ab']).any()


def test_welsh_takes_the_color_of_the_nearest_candidate():
  """Brute force in NumPy over all pixels and candidates."""
  numbers = _numbers(welsh)
  # Distinct colors, so that a color identifies its candidate.
  numbers['ab'] = jnp.arange(196.)[:, None] * jnp.array([1, -1])
  lightness, _ = _lab(_batch()['image'])
  found = np.asarray(welsh.build().predict(
      {'params': numbers}, grey_inputs(lightness)))
  numbers = {name: np.asarray(x, np.float64) for name, x in numbers.items()}
  for photo, coloring in zip(lightness[..., 0], found, strict=True):
    scale = photo.std() / numbers['deviation']
    offered = (numbers['lightness'] - numbers['mean']) * scale + photo.mean()
    texture = np.asarray(welsh.texture(photo))
    cost = (np.abs(photo[..., None] - offered) / 2
            + np.abs(texture[..., None] - numbers['texture'] * scale) / 2)
    chosen = np.take_along_axis(
        cost, coloring[..., :1].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, cost.min(-1), atol=1e-3)


def test_welsh_gives_a_photograph_its_own_colors_back():
  """Four stripes of different lightness, away from their borders."""
  colors = np.uint8([[20, 30, 90], [150, 40, 30], [60, 170, 60],
                      [240, 220, 150]])
  image = np.broadcast_to(
      colors.repeat(14, 0)[:, None], (56, 56, 3))
  lightness, ab = _lab(image[None])
  numbers = welsh.candidates(jax.random.key(0), image)
  found = welsh.build().predict({'params': numbers}, grey_inputs(lightness))
  inside = np.flatnonzero(np.arange(56) % 14 // 2 % 6)
  np.testing.assert_allclose(found[:, inside], ab[:, inside], atol=0.02)


def test_welsh_with_a_reference_of_one_color_gives_that_color():
  flat = np.full((20, 20, 3), [200, 90, 40], np.uint8)
  _, ab = _lab(flat)
  lightness, _ = _lab(_batch()['image'])
  numbers = welsh.candidates(jax.random.key(0), flat)
  for deviation in (numbers['deviation'], 0.):  # one of them by rounding
    found = welsh.build().predict(
        {'params': {**numbers, 'deviation': deviation}},
        grey_inputs(lightness))
    np.testing.assert_allclose(
        found, np.broadcast_to(ab[0, 0], found.shape), atol=0.02)


def test_welsh_with_a_photograph_of_one_lightness_takes_one_candidate():
  numbers = welsh.candidates(jax.random.key(0), _image())
  found = welsh.build().predict(
      {'params': numbers}, grey_inputs(jnp.full((1, 20, 24, 1), 50.)))
  assert (found == found[0, 0, 0]).all()
  assert (np.asarray(numbers['ab']) == found[0, 0, 0]).all(-1).any()


def test_a_small_reference_is_refused():
  with pytest.raises(UserError, match=r'grid=14: .* 20 x 12 pixels .* 14 x 14'):
    welsh.candidates(jax.random.key(0), _image(20, 12))


@pytest.mark.parametrize('method', [reinhard, welsh], ids=_name)
def test_a_reference_in_the_inputs_replaces_that_of_the_run(method):
  colorizer = method.build()
  lightness, _ = _lab(_batch()['image'])
  references = jnp.stack([_image(seed=seed) for seed in range(3)])
  numbers = (reinhard.statistics if method is reinhard else
             lambda image: welsh.candidates(jax.random.key(0), image))
  predicted = colorizer.predict(
      {'params': _numbers(method)},
      {**grey_inputs(lightness), 'reference': references})
  for i, reference in enumerate(references):
    np.testing.assert_allclose(predicted[i], colorizer.predict(
        {'params': numbers(reference)}, grey_inputs(lightness[i:i + 1]))[0],
        atol=1e-3)
