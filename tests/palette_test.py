"""The palette of a reference: moments, and the map of the paper with scipy."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from colorjax import palette

RNG = np.random.default_rng(0)


def _colors(matrix, mean, shape=(40, 50)):
  return (RNG.normal(size=(*shape, 2)) @ np.asarray(matrix) + mean).astype(
      np.float32)


def _moments(ab):
  flat = np.asarray(ab, np.float64).reshape(-1, 2)
  return flat.mean(0), np.cov(flat.T, bias=True)


COLORING = _colors([[20, 5], [0, 8]], [10, -4])
REFERENCE = _colors([[6, -9], [3, 14]], [-20, 30], (30, 30))


def test_a_coloring_gets_the_mean_and_covariance_of_the_reference():
  # With a spread so large that the smallest one does not matter.
  mean, covariance = _moments(palette.transfer(20 * COLORING, REFERENCE))
  expected_mean, expected = _moments(REFERENCE)
  np.testing.assert_allclose(mean, expected_mean, atol=1e-3)
  np.testing.assert_allclose(covariance, expected, rtol=2e-3)


def test_the_map_is_that_of_the_paper():
  mean, a = _moments(COLORING)
  reference_mean, b = _moments(REFERENCE)
  a = a + palette._MIN_DEVIATION**2 * np.eye(2)
  root = scipy.linalg.sqrtm(a)
  inverse = np.linalg.inv(root)
  matrix = inverse @ scipy.linalg.sqrtm(root @ b @ root) @ inverse
  expected = (COLORING - mean) @ matrix.T + reference_mean
  np.testing.assert_allclose(
      palette.transfer(COLORING, REFERENCE), expected, atol=0.02)


def test_its_own_palette_changes_little():
  found = palette.transfer(COLORING, COLORING)
  assert np.abs(found - COLORING).max() < 3


def test_a_grey_coloring_gets_the_mean_color_without_noise():
  grey = 0.01 * RNG.normal(size=(8, 8, 2)).astype(np.float32)
  found = np.asarray(palette.transfer(grey, REFERENCE))
  assert np.isfinite(found).all()
  assert np.ptp(found, axis=(0, 1)).max() < 0.5
  np.testing.assert_allclose(found.mean((0, 1)), _moments(REFERENCE)[0],
                             atol=1e-2)


def test_a_grey_reference_makes_grey():
  found = palette.transfer(COLORING, np.zeros((4, 4, 2), np.float32))
  assert np.abs(found).max() < 1e-3


def test_batches_do_not_mix():
  stack = jnp.stack([COLORING, COLORING[:, ::-1] * 0.5])
  references = jnp.stack([REFERENCE, REFERENCE * 0.2])
  found = palette.transfer(stack[None], references)
  assert found.shape == (1, 2, 40, 50, 2)
  np.testing.assert_allclose(
      found[0, 1], palette.transfer(stack[1], references[1]), atol=1e-3)
