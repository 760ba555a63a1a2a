"""Regression losses against optax and scikit-image, and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import skimage.color
import skimage.metrics

from colorjax.errors import UserError
from colorjax.losses import regression

ORACLES = {
    'mse': optax.squared_error,
    'l1': lambda e: np.abs(e),
    'huber': lambda e: optax.huber_loss(e, delta=1 / 110),
    'smooth': lambda e: np.sqrt(np.float64(e)**2 + 1e-6) - 1e-3,
}
every_penalty = pytest.mark.parametrize('name', ORACLES)


def _of_error(name, error, weights=None, **settings):
  """A loss whose target and lightness are 0."""
  error = jnp.asarray(error)
  return regression.LOSSES[name](
      error, jnp.zeros_like(error), lightness=jnp.zeros_like(error[..., :1]),
      weights=weights, **settings)


@pytest.fixture(name='error', scope='module')
def _error():
  rng = np.random.default_rng(0)
  # Below and above both delta (1/110) and epsilon (1e-3), with mixed signs.
  size = 10 ** rng.uniform(-4, 0, (3, 4, 5, 2))
  return (size * rng.choice([-1, 1], size.shape)).astype(np.float32)


@every_penalty
def test_mean_over_pixels_for_each_photograph(name, error):
  value = jax.jit(lambda e: _of_error(name, e))(error)
  expected = np.asarray(ORACLES[name](error), np.float64).mean((1, 2, 3))
  assert value.shape == (3,)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@every_penalty
def test_weights_multiply_pixels_and_are_not_normalized(name, error):
  weights = np.random.default_rng(1).uniform(0, 3, (3, 4, 5)).astype('f')
  value = _of_error(name, error, weights)
  penalty = np.asarray(ORACLES[name](error), np.float64)
  by_hand = [sum(weights[n, i, j] * (penalty[n, i, j, 0] + penalty[n, i, j, 1])
                 for i in range(4) for j in range(5)) / 40 for n in range(3)]
  np.testing.assert_allclose(value, by_hand, rtol=1e-5)


@every_penalty
def test_an_exact_prediction_has_loss_and_gradient_zero(name):
  zero = jnp.zeros((1, 2, 2, 2))
  value, gradient = jax.value_and_grad(
      lambda e: _of_error(name, e).sum())(zero)
  assert value == 0
  np.testing.assert_array_equal(gradient, zero)


@every_penalty
def test_gradient_equals_finite_differences(name, error):
  photo = error[0]
  gradient = jax.grad(lambda e: _of_error(name, e))(jnp.asarray(photo))
  for index in [(0, 0, 0), (1, 2, 1), (3, 4, 0)]:
    step = 1e-2 * abs(photo[index])
    ends = np.float64(ORACLES[name](np.float64(
        [photo[index] - step, photo[index] + step])))
    slope = (ends[1] - ends[0]) / (2 * step) / photo.size
    np.testing.assert_allclose(gradient[index], slope, rtol=1e-2)


def test_hand_values():
  error = jnp.array([[[3.0, -4.0]]])  # one pixel
  assert _of_error('mse', error) == 12.5
  assert _of_error('l1', error) == 3.5
  assert _of_error('huber', error, delta=2) == (4.0 + 6.0) / 2
  np.testing.assert_allclose(
      _of_error('smooth', error, epsilon=4.0), (1 + 4 * 2**0.5 - 4) / 2,
      rtol=1e-6)


def test_small_errors_keep_their_digits():
  # sqrt(e^2 + epsilon^2) - epsilon in float32 would be 0 here.
  error = jnp.full((1, 1, 2), 1e-7)
  np.testing.assert_allclose(
      _of_error('smooth', error), 1e-14 / 2e-3, rtol=1e-5)


@every_penalty
def test_half_precision_is_widened(name):
  error = jnp.full((1, 64, 64, 2), 0.1, jnp.bfloat16)
  value = _of_error(name, error)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(
      value, np.asarray(ORACLES[name](np.float32(error))).mean(), rtol=1e-4)


@pytest.mark.parametrize(('shape', 'weights', 'message'), [
    ((2, 2), None, r'\[\.\.\., H, W, 2\], got \[2, 2\]'),
    ((1, 2, 2, 3), None, r'got \[1, 2, 2, 3\]'),
    ((1, 2, 2, 2), (1, 2, 2, 1), r'\[1, 2, 2\], got \[1, 2, 2, 1\]'),
    ((2, 2, 2, 2), (2, 2), r'\[2, 2, 2\], got \[2, 2\]'),
])
def test_wrong_shapes_are_refused(shape, weights, message):
  with pytest.raises(ValueError, match=message):
    _of_error('mse', jnp.zeros(shape),
              None if weights is None else jnp.ones(weights))


def test_fields_of_different_shapes_are_refused():
  ab = jnp.zeros((1, 2, 2, 2))
  for target, lightness in [((1, 1, 2, 2), (1, 2, 2, 1)),
                            ((1, 2, 2, 2), (1, 2, 2))]:
    with pytest.raises(ValueError, match='does not match'):
      regression.l1(ab, jnp.zeros(target), lightness=jnp.zeros(lightness))


def test_delta_and_epsilon_must_be_above_zero():
  error = jnp.zeros((1, 2, 2, 2))
  with pytest.raises(ValueError, match='delta'):
    _of_error('huber', error, delta=0)
  with pytest.raises(ValueError, match='epsilon'):
    _of_error('smooth', error, epsilon=-1.0)


# Losses of whole pictures.


@pytest.fixture(name='photos', scope='module')
def _photos():
  """Network ab of a prediction and a target, and L, inside the sRGB gamut."""
  rng = np.random.default_rng(2)
  smooth = rng.uniform(0.3, 0.7, (2, 5, 6, 3)).repeat(4, 1).repeat(4, 2)
  lab = skimage.color.rgb2lab(smooth + rng.uniform(-0.1, 0.1, smooth.shape))
  other = 0.8 * lab[..., 1:] + rng.normal(0, 2, (*lab.shape[:-1], 2))
  return tuple(np.float32(x) for x in (
      other / 110, lab[..., 1:] / 110, lab[..., :1]))


def _srgb(ab, lightness):
  """Network ab and L to sRGB in [0, 1], by scikit-image."""
  return skimage.color.lab2rgb(
      np.concatenate([lightness, 110 * ab], -1).astype(np.float64))


def _features(rgb):
  """Stands in for a pretrained network: two stages, one at half resolution."""
  first = jnp.einsum('bhwc,cd->bhwd', rgb, jnp.array(
      [[1., 0, 2, 1], [0, 1, 1, -1], [1, 1, 0, 3]]))
  return {'one': jax.nn.relu(first), 'two': first[:, ::2, ::2]**2}


PICTURE_LOSSES = {
    'edges': {}, 'ssim': {}, 'colorfulness': {},
    'perceptual': {'features': _features, 'stages': ('one', 'two')}}
every_picture_loss = pytest.mark.parametrize('name', PICTURE_LOSSES)


def _loss(name):
  return functools.partial(regression.LOSSES[name], **PICTURE_LOSSES[name])


def test_every_loss_has_an_oracle():
  assert set(regression.LOSSES) == {*ORACLES, *PICTURE_LOSSES}


def test_ssim_equals_scikit_image(photos):
  prediction, target, lightness = photos
  found = regression.ssim(prediction, target, lightness=lightness)
  expected = [(1 - skimage.metrics.structural_similarity(
      a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
      channel_axis=-1, data_range=1)) / 2 for a, b in zip(
          _srgb(prediction, lightness), _srgb(target, lightness),
          strict=True)]
  assert min(expected) > 1e-3
  np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_ssim_weights_a_window_by_its_center(photos):
  prediction, target, lightness = photos
  weights = np.zeros(lightness.shape[:-1], np.float32)
  weights[:, 5:-5, 5] = 1  # the first column that is the center of a window
  found = regression.ssim(
      prediction, target, lightness=lightness, weights=weights)
  narrow = (x[:, :, :11] for x in (prediction, target, lightness))
  a, b, c = narrow
  expected = regression.ssim(a, b, lightness=c) / (lightness.shape[2] - 10)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  with pytest.raises(UserError, match=r'20 x 10 .* too small; .* 11 x 11'):
    regression.ssim(*(x[:, :, :10] for x in (prediction, target)),
                    lightness=lightness[:, :, :10])


def test_colorfulness_of_hasler_and_suesstrunk(photos):
  prediction, target, lightness = photos
  red, green, blue = np.moveaxis(
      255 * _srgb(prediction, lightness), -1, 0)
  rg, yb = red - green, (red + green) / 2 - blue
  expected = [
      1 - (np.hypot(x.std(), y.std()) + 0.3 * np.hypot(x.mean(), y.mean())
           ) / 100 for x, y in zip(rg, yb, strict=True)]
  assert 0.1 < min(expected) < 0.9
  found = regression.colorfulness(prediction, target, lightness=lightness)
  np.testing.assert_allclose(found, expected, rtol=1e-3)
  grey = regression.colorfulness(0 * target, target, lightness=lightness)
  np.testing.assert_allclose(grey, 1, atol=1e-3)


def test_edges_weights_by_the_gradient_of_lightness():
  # A step from black to white in the middle of a row of four pixels: the
  # gradient is 1/2 in the two middle pixels and 0 in the others.
  lightness = jnp.array([0., 0, 100, 100]).repeat(2).reshape(4, 2).T[..., None]
  prediction = jnp.stack([jnp.arange(8.).reshape(2, 4), jnp.zeros((2, 4))], -1)
  found = regression.edges(prediction, 0 * prediction, lightness=lightness,
                           strength=3.0)
  by_hand = (0 + 1 * 2.5 + 2 * 2.5 + 3 + 4 + 5 * 2.5 + 6 * 2.5 + 7) / 16
  np.testing.assert_allclose(found, by_hand, rtol=1e-6)
  weights = jnp.zeros((2, 4)).at[0, 1].set(2)
  found = regression.edges(prediction, 0 * prediction, lightness=lightness,
                           strength=3.0, weights=weights)
  np.testing.assert_allclose(found, 2 * 2.5 / 16, rtol=1e-6)


def test_perceptual_compares_directions_of_features(photos):
  prediction, target, lightness = photos
  found = _loss('perceptual')(prediction, target, lightness=lightness)
  expected = np.zeros(2)
  stages = [_features(np.float32(_srgb(ab, lightness)))
            for ab in (prediction, target)]
  for name in ('one', 'two'):
    a, b = (np.asarray(stage[name], np.float64) for stage in stages)
    cosine = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    expected += (2 - 2 * cosine).mean((1, 2)) / 2
  assert expected.min() > 1e-3
  np.testing.assert_allclose(found, expected, rtol=5e-3)
  weights = np.zeros(lightness.shape[:-1], np.float32)
  weights[:, :, :12] = 1  # half of the picture at the resolution of each stage
  half = _loss('perceptual')(
      prediction, target, lightness=lightness, weights=weights)
  assert (0.3 * found < half).all()
  assert (half < 0.7 * found).all()


@every_picture_loss
def test_gradients_of_picture_losses_equal_finite_differences(name, photos):
  prediction, target, lightness = (jnp.asarray(x[:1]) for x in photos)
  with jax.enable_x64(True):
    prediction, target, lightness = (
        x.astype(jnp.float64) for x in (prediction, target, lightness))

    def loss(ab):
      return _loss(name)(ab, target, lightness=lightness)[0]

    gradient = jax.grad(loss)(prediction)
    direction = jnp.cos(jnp.arange(prediction.size)).reshape(prediction.shape)
    slope = (loss(prediction + 1e-6 * direction)
             - loss(prediction - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3)


@every_picture_loss
def test_gradients_are_finite_at_exact_predictions_and_grey(name, photos):
  _, target, lightness = photos
  for ab in (jnp.asarray(target), jnp.zeros_like(target)):
    for light in (lightness, 0 * lightness):
      value, gradient = jax.value_and_grad(lambda x, light=light: _loss(name)(
          x, ab, lightness=light).sum())(ab)  # noqa: B023
      assert np.isfinite(value)
      assert np.isfinite(gradient).all()
      if name != 'colorfulness':
        np.testing.assert_allclose(value, 0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
