"""FID and KID compared with scipy, loops and values by hand."""

import tracemalloc

import numpy as np
import pytest
import scipy.linalg

from colorjax.errors import UserError
from colorjax.metrics import bootstrap, frechet


def _features(seed, n, d, shift=0.):
  """Correlated features of a skewed distribution."""
  rng = np.random.default_rng(seed)
  return rng.gamma(2, size=(n, d)) @ rng.normal(size=(d, d)) + shift


def _by_root_of_matrix(a, b):
  first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  root = scipy.linalg.sqrtm(first @ second)
  return (np.square(a.mean(0) - b.mean(0)).sum()
          + np.trace(first + second - 2 * root.real))


@pytest.mark.parametrize(('n', 'm'), [(60, 40), (60, 13), (13, 60), (13, 13)])
def test_frechet_by_the_root_of_a_matrix(n, m):
  a, b = _features(0, n, 12), _features(1, m, 12, shift=0.3)
  np.testing.assert_allclose(
      frechet.frechet_distance(a, b), _by_root_of_matrix(a, b), rtol=1e-8)


def test_frechet_of_one_feature_by_hand():
  # Means 2 and 5, deviations 1 and 2: 3^2 + 1^2.
  a, b = np.array([[1.], [2.], [3.]]), np.array([[3.], [5.], [7.]])
  np.testing.assert_allclose(frechet.frechet_distance(a, b), 10)


@pytest.mark.parametrize(('n', 'm'), [(20, 30), (20, 100), (100, 20)])
def test_frechet_with_fewer_pictures_than_features(n, m):
  a, b = _features(2, n, 5), _features(3, m, 5)
  # The same sets in a subspace of 64 dimensions have the same distance.
  basis = np.linalg.qr(np.random.default_rng(4).normal(size=(64, 64)))[0][:5]
  expected = _by_root_of_matrix(a, b)
  np.testing.assert_allclose(
      frechet.frechet_distance(a @ basis + 1, b @ basis + 1), expected,
      rtol=1e-8)


def test_frechet_of_equal_sets():
  for n in (8, 90):
    a = _features(5, n, 30)
    assert 0 <= frechet.frechet_distance(a, a[::-1]) < 1e-9


def test_frechet_scales_with_the_square():
  a, b = _features(6, 40, 9), _features(7, 50, 9)
  np.testing.assert_allclose(frechet.frechet_distance(3 * a, 3 * b),
                             9 * frechet.frechet_distance(b, a))


def _kid_by_loops(a, b):
  def kernel(x, y):
    return (np.dot(x, y) / len(x) + 1) ** 3

  n, m = len(a), len(b)
  within = [np.mean([kernel(x[i], x[j]) for i in range(len(x))
                     for j in range(len(x)) if i != j]) for x in (a, b)]
  between = np.mean([kernel(a[i], b[j]) for i in range(n) for j in range(m)])
  return sum(within) - 2 * between


def test_kid_by_loops():
  a, b = _features(12, 9, 4), _features(13, 7, 4, shift=0.2)
  np.testing.assert_allclose(
      frechet.kernel_distance(a, b), _kid_by_loops(a, b), rtol=1e-10)


def test_kid_of_many_rows():
  a, b = _features(14, 2100, 3), _features(15, 1100, 3)
  whole = [(x @ y.T / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
  expected = (
      sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in whole[:2])
      - 2 * whole[2].mean())
  np.testing.assert_allclose(frechet.kernel_distance(a, b), expected)


def test_kid_is_unbiased():
  rng = np.random.default_rng(16)
  values = [frechet.kernel_distance(*rng.normal(size=(2, 20, 8)))
            for _ in range(400)]
  assert abs(np.mean(values)) < 4 * np.std(values) / 20
  assert min(values) < 0


@pytest.mark.parametrize(('n', 'd'), [
    (60, 12), (60, 50), (13, 12), (9, 30)])
@pytest.mark.parametrize(('resampled', 'one'), [
    (frechet.resampled_frechet_distance, frechet.frechet_distance),
    (frechet.resampled_kernel_distance, frechet.kernel_distance)])
def test_resamples_agree_with_copied_features(resampled, one, n, d,
                                                monkeypatch):
  monkeypatch.setattr(frechet, '_ROWS', 7)
  monkeypatch.setattr(frechet, '_TILE', 8)
  a, b = _features(17, n, d), _features(18, n, d, shift=0.4)
  both = np.stack([a, b], 1).astype(np.float32)
  draws = np.concatenate([*bootstrap.draws(n, num_resamples=20, seed=3)])
  counts = bootstrap.counts(n, num_resamples=20, seed=3)
  expected = [one(both[draw, 0], both[draw, 1]) for draw in draws]
  values = resampled(both[:, 0], both[:, 1], counts)
  np.testing.assert_allclose(values, expected, rtol=1e-6)
  whole = resampled(a, b, np.ones((1, n), np.int32))
  np.testing.assert_allclose(whole, one(a, b), rtol=1e-9)


def test_resamples_copy_no_features():
  """Memory is bounded: far less than one copy of the features in float64."""
  rng = np.random.default_rng(19)
  features = rng.normal(size=(20_000, 2, 32)).astype(np.float32)
  counts = bootstrap.counts(len(features), num_resamples=4)
  tracemalloc.start()
  frechet.resampled_frechet_distance(features[:, 0], features[:, 1], counts)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < features.nbytes / 3


def test_a_constant_feature():
  a, b = _features(20, 50, 4), _features(21, 50, 4)
  a[:, 2] = b[:, 2] = 0.0
  kept = [0, 1, 3]
  np.testing.assert_allclose(
      frechet.frechet_distance(a, b),
      frechet.frechet_distance(a[:, kept], b[:, kept]), rtol=1e-9)


@pytest.mark.parametrize('counts', [
    np.ones((2, 5), int), np.ones(6, int), np.eye(6, dtype=int)])
def test_wrong_counts_are_rejected(counts):
  for function in (frechet.resampled_frechet_distance,
                   frechet.resampled_kernel_distance):
    with pytest.raises(ValueError, match=r'counts|resample'):
      function(GOOD, GOOD, counts)


GOOD = np.random.default_rng(21).normal(size=(6, 3))


@pytest.mark.parametrize('function', [
    frechet.frechet_distance, frechet.kernel_distance])
@pytest.mark.parametrize(('bad', 'message'), [
    (GOOD[:1], 'at least 2 pictures'), (GOOD[:0], 'at least 2 pictures'),
    (GOOD[0], r'\[N, D\], got \[3\]'), (GOOD[:, :2], 'the same network'),
    (np.where(GOOD[2, 1] == GOOD, np.nan, GOOD), '1 of 6 pictures are not'),
    (np.where(GOOD[2, 1] == GOOD, np.inf, GOOD), '1 of 6 pictures are not')])
def test_wrong_sets_are_rejected(function, bad, message):
  for sets in ((GOOD, bad), (bad, GOOD)):
    with pytest.raises(UserError, match=message):
      function(*sets)
