"""FID and KID against scipy, hand values, loops and known truths."""

import numpy as np
import pytest
import scipy.linalg

from colorjax.errors import UserError
from colorjax.metrics import frechet


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
  # The same sets in a plane of 64 dimensions: distances do not know it.
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


def test_extrapolation_takes_the_bias_away():
  rng = np.random.default_rng(8)
  a, b = rng.normal(size=(1500, 24)), rng.normal(size=(60000, 24)) + 0.1
  truth = 24 * 0.1**2
  plain = frechet.frechet_distance(a, b)
  assert plain > truth + 0.05
  for seed in range(3):
    far = frechet.frechet_infinity(a, b, seed=seed, smallest=300)
    assert abs(far - truth) < 0.5 * abs(plain - truth)


def test_extrapolation_of_pairs():
  a = _features(9, 2000, 6)
  assert abs(frechet.frechet_infinity(a, a, paired=True)) < 1e-9
  # A part is not the whole: the line that ends in 0 at N goes on below it.
  assert frechet.frechet_infinity(a, a) < -1e-3
  # A shift of every picture is no matter of chance.
  far = frechet.frechet_infinity(a, a + 0.5, paired=True)
  np.testing.assert_allclose(far, 6 * 0.5**2)


def test_extrapolation_is_seeded():
  a, b = _features(10, 80, 6), _features(11, 80, 6)
  first, again, other = (
      frechet.frechet_infinity(a, b, seed=seed) for seed in (0, 0, 1))
  assert first == again != other


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


def test_kid_of_subsets():
  a, b = _features(17, 40, 5), _features(18, 50, 5, shift=0.4)
  values = frechet.kernel_distances(a, b, num_subsets=300, subset_size=20)
  assert values.shape == (300,)
  assert len(set(values)) == 300
  error = values.mean() - frechet.kernel_distance(a, b)
  assert abs(error) < 4 * values.std() / np.sqrt(300)
  all_of_them = frechet.kernel_distances(a, b[:40], subset_size=40)
  np.testing.assert_allclose(
      all_of_them, frechet.kernel_distance(a, b[:40]), rtol=1e-9)


def test_subsets_are_seeded():
  a, b = _features(19, 30, 4), _features(20, 30, 4)
  first, again, other = (
      frechet.kernel_distances(a, b, num_subsets=3, subset_size=9, seed=seed)
      for seed in (0, 0, 1))
  assert np.all(first == again)
  assert np.all(first != other)


GOOD = np.random.default_rng(21).normal(size=(6, 3))


@pytest.mark.parametrize('function', [
    frechet.frechet_distance, frechet.frechet_infinity,
    frechet.kernel_distance, frechet.kernel_distances])
@pytest.mark.parametrize(('bad', 'message'), [
    (GOOD[:1], 'two pictures'), (GOOD[:0], 'two pictures'),
    (GOOD[0], r'\[N, D\], got \[3\]'), (GOOD[:, :2], 'different networks'),
    (np.where(GOOD[2, 1] == GOOD, np.nan, GOOD), '1 of 6 pictures are not'),
    (np.where(GOOD[2, 1] == GOOD, np.inf, GOOD), '1 of 6 pictures are not')])
def test_sets_that_have_no_distance(function, bad, message):
  for sets in ((GOOD, bad), (bad, GOOD)):
    with pytest.raises(UserError, match=message):
      function(*sets)


def test_sizes_that_cannot_be_had():
  with pytest.raises(UserError, match='7 cannot be drawn'):
    frechet.kernel_distances(GOOD, GOOD, subset_size=7)
  with pytest.raises(UserError, match='pairs need sets of one size'):
    frechet.frechet_infinity(GOOD, GOOD[:5], paired=True)
  for options in ({'num_points': 1}, {'smallest': 6}, {'smallest': 1}):
    with pytest.raises(UserError, match='an extrapolation needs'):
      frechet.frechet_infinity(GOOD, GOOD, **options)
