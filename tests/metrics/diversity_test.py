"""Diversity compared with loops over pairs, pixels and colorings."""

import itertools

import jax
import numpy as np
import pytest

from colorjax.metrics import diversity, image


@pytest.fixture(params=[2, 5, 8])
def colorings(request):
  """ab of K colorings of 3 photographs, and the true ab."""
  rng = np.random.default_rng(request.param)
  return (rng.normal(0, 30, (request.param, 3, 5, 4, 2)).astype(np.float32),
          rng.normal(0, 30, (3, 5, 4, 2)).astype(np.float32))


@pytest.fixture
def pictures():
  rng = np.random.default_rng(1)
  return (rng.integers(0, 256, (4, 3, 6, 5, 3), np.uint8),
          rng.integers(0, 256, (3, 6, 5, 3), np.uint8))


def test_pairs_are_all_pairs_once(colorings):
  given, _ = colorings
  pairs = [np.linalg.norm(a - b, axis=-1).mean((1, 2))
           for a, b in itertools.combinations(given, 2)]
  found = jax.jit(diversity.pairwise_ab_distance)(given)
  np.testing.assert_allclose(found, np.mean(pairs, 0), rtol=1e-5)
  np.testing.assert_allclose(
      found, diversity.pairwise_ab_distance(given[::-1]), rtol=1e-5)


def test_one_coloring_has_no_pair():
  with pytest.raises(ValueError, match='got 1'):
    diversity.pairwise_ab_distance(np.zeros((1, 2, 3, 3, 2)))


def test_pixel_oracle_chooses_for_each_pixel(colorings):
  given, truth = colorings
  distance = np.linalg.norm(given - truth, axis=-1)
  found = diversity.pixel_oracle_k_ab(given, truth)
  np.testing.assert_allclose(found, distance.min(0).mean((1, 2)), rtol=1e-5)
  assert (found <= image.best_of_k(given, truth) * (1 + 1e-6)).all()


def test_oracle_and_best_are_different_metrics(pictures):
  given, original = pictures
  squared = (given / 255 - original / 255)**2
  oracle = np.sqrt(squared.min(0).reshape(3, -1).mean(1))
  best = np.sqrt(squared.reshape(4, 3, -1).mean(-1)).min(0)
  np.testing.assert_allclose(
      diversity.pixel_oracle_k(given, original), oracle, rtol=1e-5)
  np.testing.assert_allclose(
      diversity.best_of_k_rmse(given, original), best, rtol=1e-5)
  assert (oracle < 0.6 * best).all()
  for one in (diversity.pixel_oracle_k, diversity.best_of_k_rmse):
    np.testing.assert_allclose(
        one(given[:1], original), image.rgb_rmse(given[0], original),
        rtol=1e-5)


def test_other_shapes_are_rejected(pictures):
  given, original = pictures
  with pytest.raises(ValueError, match='must be'):
    diversity.pixel_oracle_k(given, original[:2])


def test_variances(pictures, colorings):
  given, _ = pictures
  np.testing.assert_allclose(
      diversity.variance(given),
      np.var(given / 255, axis=0).reshape(3, -1).mean(1), rtol=1e-5)
  ab, _ = colorings
  from_mean = np.square(ab - ab.mean(0)).sum(-1)
  expected = np.sqrt(from_mean.mean(0))
  np.testing.assert_allclose(
      diversity.ab_std_map(ab), expected, rtol=1e-4)
  np.testing.assert_allclose(
      diversity.ab_std(ab), expected.mean((1, 2)), rtol=1e-5)


def test_copies_have_no_diversity(colorings, pictures):
  ab = np.repeat(colorings[0][:1], 4, 0)
  same = np.repeat(pictures[0][:1], 4, 0)
  for value in (diversity.pairwise_ab_distance(ab), diversity.ab_std(ab),
                diversity.variance(same)):
    np.testing.assert_allclose(value, 0, atol=1e-5)
