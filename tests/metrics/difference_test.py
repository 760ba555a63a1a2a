"""CIEDE2000 compared with scikit-image and the published test data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax.metrics import difference

# Sharma, Wu and Dalal (2005), table 1: two Lab colors and their difference.
PUBLISHED = np.array([
    [50, 2.6772, -79.7751, 50, 0, -82.7485, 2.0425],
    [50, -1.3802, -84.2814, 50, 0, -82.7485, 1.0000],
    [50, 0, 0, 50, -1, 2, 2.3669],
    [50, 2.49, -0.001, 50, -2.49, 0.0009, 7.1792],
    [50, 2.49, -0.001, 50, -2.49, 0.0010, 7.1792],
    [50, 2.49, -0.001, 50, -2.49, 0.0011, 7.2195],
    [50, -0.001, 2.49, 50, 0.0009, -2.49, 4.8045],
    [50, -0.001, 2.49, 50, 0.0010, -2.49, 4.8045],
    [50, -0.001, 2.49, 50, 0.0011, -2.49, 4.7461],
    [50, 2.5, 0, 50, 0, -2.5, 4.3065],
    [50, 2.5, 0, 73, 25, -18, 27.1492],
    [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
    [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
    [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
    [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
], np.float32)


def test_published_values():
  found = difference.ciede2000(PUBLISHED[:, :3], PUBLISHED[:, 3:6])
  np.testing.assert_allclose(found, PUBLISHED[:, 6], atol=1.5e-4)
  swapped = difference.ciede2000(PUBLISHED[:, 3:6], PUBLISHED[:, :3])
  np.testing.assert_allclose(swapped, found, atol=1e-4)


@pytest.mark.parametrize('width', [2, 20, 120])
def test_ciede2000_agrees_with_scikit_image(width):
  rng = np.random.default_rng(width)
  a = rng.uniform([0, -100, -100], [100, 100, 100], (4, 500, 3))
  b = a + rng.uniform(-width, width, a.shape)
  b[0, :9] = a[0, :9]
  a, b = a.astype(np.float32), b.astype(np.float32)
  expected = skimage.color.deltaE_ciede2000(
      a.astype(np.float64), b.astype(np.float64))
  found = np.asarray(difference.ciede2000(a, b))
  np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-4)
  np.testing.assert_array_equal(found[0, :9], 0)


@pytest.mark.parametrize('degrees', [-90, -45, 0, 30, 90, 135, 180])
def test_opposite_hues(degrees):
  """The formula is discontinuous there; the published mean hue is used."""
  turn = np.radians(degrees)
  ab = np.round([30 * np.cos(turn), 30 * np.sin(turn)])
  a, b = np.array([[50, *ab], [40, *-ab]], np.float32)
  np.testing.assert_allclose(
      difference.ciede2000(a, b),
      skimage.color.deltaE_ciede2000(a.astype(float), b.astype(float)),
      rtol=1e-5)


def test_mean_over_the_pixels_of_8_bit_pictures():
  rng = np.random.default_rng(1)
  pictures = rng.integers(0, 256, (2, 3, 7, 6, 3), np.uint8)
  pictures[1, 2] = pictures[0, 2]
  lab = skimage.color.rgb2lab(pictures)
  expected = skimage.color.deltaE_ciede2000(lab[0], lab[1]).mean((1, 2))
  found = jax.jit(difference.mean_ciede2000)(*jnp.asarray(pictures))
  np.testing.assert_allclose(found, expected, atol=1e-3)
  assert found[2] == 0


def test_float_pictures_are_rejected():
  with pytest.raises(TypeError, match='uint8'):
    difference.mean_ciede2000(np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3)))
