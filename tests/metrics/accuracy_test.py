"""AuC compared with curves computed threshold by threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax import color, quantize
from colorjax.metrics import accuracy

BINS = quantize.published_bins()


@pytest.fixture(scope='module')
def fields():
  """True ab of random pictures, and predictions from exact to far away."""
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (3, 12, 10, 3), np.uint8)
  pictures[:, :4] = 128  # grey is common
  _, ab = color.split_lightness(pictures)
  width = np.array([1, 30, 200]).reshape(3, 1, 1, 1)
  off = rng.uniform(-1, 1, ab.shape) * width
  off[:, 0] = 0
  off[:, 1] = [3, 4]  # a distance that is a threshold itself
  ab = np.array(ab)
  # Grey exactly, so that the distance of 5 is exact in float32.
  ab[:, :2] = 0
  return (ab + off).astype(np.float32), ab.astype(np.float32)


def _curve_area(predicted, ab, weight):
  """AuC as the papers describe it: all thresholds, then trapezoids."""
  distance = np.linalg.norm(
      predicted.astype(np.float64) - ab.astype(np.float64), axis=-1)
  weight = weight / weight.sum()
  curve = [(weight * (distance <= t)).sum() for t in range(151)]
  return 100 * np.trapezoid(curve) / 150


def test_auc_is_the_area_under_the_curve(fields):
  predicted, ab = fields
  found = accuracy.auc(predicted, ab)
  expected = [_curve_area(p, t, np.ones(t.shape[:2]))
              for p, t in zip(predicted, ab, strict=True)]
  np.testing.assert_allclose(found, expected, atol=1e-4)
  assert found[0] > 99
  assert found[2] < 60


@pytest.mark.parametrize(('distance', 'percent'), [
    (0, 100), (0.5, 149.5 / 1.5), (1, 149.5 / 1.5), (149.5, 0.5 / 1.5),
    (150, 0.5 / 1.5), (150.1, 0)])
def test_auc_of_one_distance(distance, percent):
  ab = jnp.zeros((1, 2, 2, 2))
  np.testing.assert_allclose(
      accuracy.auc(ab.at[..., 0].add(distance), ab), [percent], atol=1e-4)


@pytest.mark.parametrize('own', [True, False])
def test_rebalanced_auc_weights_pixels_by_the_rarity_of_their_bin(fields, own):
  predicted, ab = fields
  found = np.square(ab[..., None, :] - BINS).sum(-1).argmin(-1)
  count = np.bincount(found.ravel(), minlength=len(BINS))
  prior = (count / count.sum() if own else
           np.random.default_rng(1).dirichlet(np.ones(len(BINS))))
  expected = _curve_area(predicted, ab, 1 / prior[found])
  statistics = np.asarray(
      jax.jit(accuracy.rebalanced_auc_statistics)(predicted, ab))
  np.testing.assert_array_equal(statistics[:, 1].sum(0), count)
  np.testing.assert_allclose(
      accuracy.rebalanced_auc(statistics, None if own else prior), expected,
      atol=1e-3)


def test_a_rare_color_counts_as_much_as_grey():
  """9 exact grey pixels and one pixel of color that is left grey."""
  ab = jnp.zeros((1, 2, 5, 2)).at[0, 0, 0].set(jnp.asarray([30., 40.]))
  grey = jnp.zeros_like(ab)
  of_color = 100.5 / 1.5
  np.testing.assert_allclose(
      accuracy.auc(grey, ab), [90 + of_color / 10], rtol=1e-5)
  np.testing.assert_allclose(
      accuracy.rebalanced_auc(accuracy.rebalanced_auc_statistics(grey, ab)),
      (100 + of_color) / 2, rtol=1e-6)


def test_every_square_has_the_bin_nearest_to_its_center():
  """Also outside of the bins, up to the corners of the ab square."""
  axis = np.arange(-110, 111, 10)
  ab = np.stack(np.meshgrid(axis, axis), -1)[None].astype(np.float32)
  found = np.asarray(accuracy.rebalanced_auc_statistics(ab, ab))[0]
  nearest = quantize.nearest_bin(ab, BINS)
  squared = np.square(ab[..., None, :] - BINS).sum(-1)
  unique = (squared == squared.min(-1, keepdims=True)).sum(-1) == 1
  assert found[1].sum() == 529
  np.testing.assert_array_equal(found[0], 150 * found[1])
  # Where two bins are equally near, either may be taken.
  at_least = np.bincount(np.asarray(nearest)[unique], minlength=313)
  assert (found[1] >= at_least).all()


@pytest.mark.parametrize(('statistics', 'prior', 'match'), [
    (np.zeros((2, 313)), None, r'\[2, 313\]'),
    (np.zeros((1, 2, 313)), None, 'no pixels'),
    (np.ones((1, 2, 313)), np.zeros(313), 'be positive')])
def test_rebalanced_auc_rejects_wrong_arguments(statistics, prior, match):
  with pytest.raises(ValueError, match=match):
    accuracy.rebalanced_auc(statistics, prior)
