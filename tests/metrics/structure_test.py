"""Structural similarity compared with scikit-image."""

import jax
import numpy as np
import pytest
import skimage.data
import skimage.metrics

from colorjax.metrics import structure


@pytest.fixture(scope='module')
def ssim():
  return jax.jit(structure.ssim)


def _scikit_image(a, b):
  return [skimage.metrics.structural_similarity(
      x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
      channel_axis=-1, data_range=255) for x, y in zip(a, b, strict=True)]


def test_ssim_agrees_with_scikit_image(ssim):
  rng = np.random.default_rng(0)
  photo = skimage.data.astronaut()[100:140, 150:203]
  noisy = np.clip(photo + rng.normal(0, 20, photo.shape), 0, 255)
  grey = np.broadcast_to(photo.mean(-1, keepdims=True), photo.shape)
  original = np.stack([photo] * 4)
  others = np.stack(
      [noisy, grey, np.roll(photo, 3, 1), 255 - photo]).astype(np.uint8)
  np.testing.assert_allclose(
      ssim(others, original), _scikit_image(others, original), atol=1e-4)


def test_flat_pictures_and_the_smallest(ssim):
  """Without variance only the means matter; one window fits."""
  a = np.full((3, 11, 11, 3), 255, np.uint8)
  b = np.stack([np.full((11, 11, 3), level, np.uint8)
                for level in (255, 0, 128)])
  np.testing.assert_allclose(ssim(a, b), _scikit_image(a, b), atol=5e-5)
  np.testing.assert_allclose(ssim(a, b)[0], 1, rtol=1e-6)


@pytest.mark.parametrize('shape', [(1, 10, 20, 3), (1, 20, 10, 3), (20, 20, 3)])
def test_pictures_smaller_than_the_window_are_rejected(shape):
  picture = np.zeros(shape, np.uint8)
  with pytest.raises(ValueError, match='11 x 11'):
    structure.ssim(picture, picture)
