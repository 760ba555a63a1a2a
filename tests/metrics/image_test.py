"""Image metrics compared with scikit-image and values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics
import skimage.util

from colorjax.metrics import bootstrap, image


def test_ab_distance_by_hand():
  target = jnp.zeros((2, 1, 2, 2))
  predicted = jnp.asarray([[[[3., 4.], [0., 0.]]], [[[6., 8.], [5., 12.]]]])
  np.testing.assert_allclose(
      image.ab_distance(predicted, target), [2.5, 11.5], rtol=1e-6)


def test_ab_distance_has_a_finite_gradient_at_zero():
  x = jnp.zeros((1, 2, 2, 2))
  gradient = jax.grad(lambda p: image.ab_distance(p, x).sum())(x)
  np.testing.assert_array_equal(gradient, 0)


def test_best_of_k_chooses_whole_photographs():
  # Each proposal is right on one half: the pixel-wise oracle would say 0.
  target = jnp.zeros((1, 1, 2, 2))
  left = jnp.asarray([[[[0., 0.], [10., 0.]]]])
  right = jnp.asarray([[[[6., 0.], [0., 0.]]]])
  np.testing.assert_allclose(
      image.best_of_k(jnp.stack([left, right]), target), [3.], rtol=1e-6)


def test_best_of_k_psnr_chooses_whole_pictures():
  original = np.full((2, 4, 4, 3), 100, np.uint8)
  # Mean squared errors: 100 and 4 for one photograph, 9 and 400 for the other.
  offsets = np.asarray([[10, 3], [2, 20]])[..., None, None, None]
  pictures = (original + offsets).astype(np.uint8)
  np.testing.assert_allclose(
      image.best_of_k_psnr(pictures, original),
      10 * np.log10(255**2 / np.asarray([4, 9])), rtol=1e-6)


@pytest.fixture
def pictures():
  return np.random.default_rng(0).integers(0, 256, (2, 3, 8, 9, 3), np.uint8)


def test_psnr_agrees_with_scikit_image(pictures):
  expected = [skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255)
              for x, y in zip(*pictures, strict=True)]
  np.testing.assert_allclose(image.psnr(*pictures), expected, rtol=1e-5)


def test_rgb_rmse_by_hand(pictures):
  a, b = pictures / 255
  expected = np.sqrt(((a - b)**2).reshape(3, -1).mean(1))
  np.testing.assert_allclose(image.rgb_rmse(*pictures), expected, rtol=1e-5)
  # One level everywhere.
  one = jnp.full((1, 2, 2, 3), 7, jnp.uint8)
  np.testing.assert_allclose(
      image.rgb_rmse(one, one + 1), [1 / 255], rtol=1e-5)


def test_ab_rmse_and_psnr_by_hand():
  target = jnp.zeros((2, 1, 2, 2))
  predicted = jnp.asarray([[[[3., 4.], [0., 0.]]], [[[6., 8.], [5., 12.]]]])
  rmse = np.sqrt([25 / 4, (36 + 64 + 25 + 144) / 4])
  np.testing.assert_allclose(
      image.ab_rmse(predicted, target), rmse, rtol=1e-6)
  np.testing.assert_allclose(
      image.ab_psnr(predicted, target),
      10 * np.log10(220**2 / rmse**2), rtol=1e-6)


@pytest.mark.parametrize(('a', 'b', 'error', 'match'), [
    (np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3)), TypeError, 'uint8'),
    (np.zeros((1, 2, 2, 3), np.uint8), np.zeros((2, 2, 2, 3), np.uint8),
     ValueError, r'\[1, 2, 2, 3\] and \[2, 2, 2, 3\]'),
    (np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 2, 2, 1), np.uint8),
     ValueError, r'\[1, 2, 2, 1\]')])
def test_wrong_pictures_are_rejected(a, b, error, match):
  with pytest.raises(error, match=match):
    image.psnr(a, b)


def test_interval_has_its_nominal_coverage():
  rng = np.random.default_rng(1)
  hits = 0
  for trial in range(200):
    found = bootstrap.mean_interval(rng.normal(3, 2, 60), seed=trial,
                                    num_resamples=400)
    hits += found.low <= 3 <= found.high
  assert 180 <= hits <= 199


def test_interval_is_reproducible_and_narrow_for_equal_values():
  values = np.random.default_rng(2).normal(size=400)
  first = bootstrap.mean_interval(values)
  assert first == bootstrap.mean_interval(values)
  # 1.96 standard errors on each side.
  half = 1.96 * values.std() / 20
  np.testing.assert_allclose(
      [first.low, first.high], [values.mean() - half, values.mean() + half],
      atol=0.02)
  assert bootstrap.mean_interval(np.asarray([7.])) == bootstrap.Interval(
      7., 7., 7., 1)


def test_interval_needs_one_value_for_each_photograph():
  with pytest.raises(ValueError, match=r'\[2, 3\]'):
    bootstrap.mean_interval(np.zeros((2, 3)))
