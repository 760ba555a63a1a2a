"""Calibration of correct and of deliberately wrong distributions."""

import collections

import jax
import numpy as np
import pytest
import scipy.stats

from colorjax.metrics import calibration

N = 19


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope='module')
def simulate():
  """Draws and truth of pixels whose means and widths all differ."""
  def make(*, width=1.0, shift=0.0, coarse=0.0, n=N):
    rng = np.random.default_rng(5)
    shape = (60, 12, 12, 2)
    mean = rng.normal(0, 20, shape)
    scale = rng.uniform(2, 15, shape)
    truth = mean + scale * rng.normal(size=shape)
    draws = (mean + shift * scale
             + width * scale * rng.normal(size=(n, *shape)))
    if coarse:
      truth, draws = (np.round(x / coarse) * coarse for x in (truth, draws))
    return draws.astype(np.float32), truth.astype(np.float32)
  return make


@pytest.fixture(scope='module')
def counts():
  function = jax.jit(calibration.pit_counts)
  return lambda draws, truth: np.asarray(
      function(draws, truth, _keys(len(truth))))


@pytest.mark.parametrize('coarse', [0, 20])
def test_ranks_of_a_calibrated_method_are_uniform(simulate, counts, coarse):
  """Most coarse values are ties."""
  statistics = counts(*simulate(coarse=coarse))
  np.testing.assert_array_equal(statistics.sum(-1), 144)
  for channel in statistics.sum(0):
    assert scipy.stats.chisquare(channel).pvalue > 1e-3
  assert calibration.pit_error(statistics) < 0.01
  for level in (0.5, 0.9):
    np.testing.assert_allclose(
        calibration.coverage(statistics, level),
        calibration.expected_coverage(N, level), atol=0.015)


@pytest.mark.parametrize(('wrong', 'sign'), [
    ({'width': 0.5}, -1), ({'width': 2.0}, 1), ({'shift': 1.0}, -1)])
def test_a_wrong_distribution_is_detected(simulate, counts, wrong, sign):
  statistics = counts(*simulate(**wrong))
  assert calibration.pit_error(statistics) > 0.05
  off = (calibration.coverage(statistics, 0.8)
         - calibration.expected_coverage(N, 0.8))
  assert sign * off > 0.08


def test_ranks_by_hand():
  draws = np.array([1, 5, 3]).reshape(3, 1, 1, 1, 1) * np.ones((1, 1, 2, 2))
  truth = np.array([[[[0, 6], [4, 2]]]])
  found = calibration.pit_counts(draws, truth, _keys(1))
  np.testing.assert_array_equal(found, [[[1, 0, 1, 0], [0, 1, 0, 1]]])


def test_ranks_do_not_depend_on_the_batch(simulate, counts):
  draws, truth = simulate(coarse=20)
  whole = counts(draws, truth)
  keys = _keys(len(truth))
  for i in (0, 7):
    one = slice(i, i + 1)
    np.testing.assert_array_equal(
        calibration.pit_counts(draws[:, one], truth[one], keys[one]),
        whole[one])


def test_pit_error_by_hand():
  """The error is largest if all true values are below all draws."""
  lowest = np.zeros((2, 2, 5))
  lowest[..., 0] = 3
  np.testing.assert_allclose(calibration.pit_error(lowest), 0.5)
  np.testing.assert_allclose(calibration.pit_error(lowest[..., ::-1]), 0.5)
  np.testing.assert_allclose(calibration.pit_error(np.ones((2, 2, 5))), 0,
                             atol=1e-12)
  # F is 1/2 throughout, against 1/5, 2/5, 3/5, 4/5.
  np.testing.assert_allclose(
      calibration.pit_error(lowest + lowest[..., ::-1]), 0.2)


@pytest.mark.parametrize(('n', 'level', 'expected'), [
    (19, 0.9, 0.9), (19, 0.5, 0.5), (9, 0.8, 0.8), (2, 0.9, 1 / 3),
    (4, 0.99, 0.6), (9, 0.01, 0.2), (10, 0.01, 1 / 11)])
def test_coverage_is_of_ranks_in_the_middle(n, level, expected):
  assert calibration.expected_coverage(n, level) == pytest.approx(expected)
  np.testing.assert_allclose(
      calibration.coverage(np.ones((3, 2, n + 1)), level), expected)
  ends = np.zeros((1, 2, n + 1))
  ends[..., 0] = ends[..., -1] = 1
  assert calibration.coverage(ends, level) == 0


def test_energy_score_agrees_with_a_double_loop(simulate):
  for n in (2, 5, 6):
    draws, truth = simulate(n=n)
    draws, truth = draws[:, :2], truth[:2]
    near = np.mean([np.linalg.norm(x - truth, axis=-1) for x in draws], 0)
    apart = np.mean(
        [np.linalg.norm(draws[i] - draws[j], axis=-1)
         for i in range(n) for j in range(n) if i != j], 0)
    np.testing.assert_allclose(
        calibration.energy_score(draws, truth),
        (near - apart / 2).mean((1, 2)), rtol=1e-4)


def test_energy_score_is_lowest_for_the_truth(simulate):
  score = jax.jit(calibration.energy_score)
  right = np.asarray(score(*simulate()))
  for wrong in ({'width': 0.4}, {'width': 2.0}, {'shift': 0.7}):
    worse = np.asarray(score(*simulate(**wrong))) - right
    assert worse.mean() > 3 * worse.std() / np.sqrt(len(worse))
  # Unbiased: the number of draws does not move it.
  few = np.asarray(score(*simulate(n=2)))
  error = (few - right).std() / np.sqrt(len(few))
  assert abs((few - right).mean()) < 4 * error


def _reliability_loop(draws, truth, num_classes):
  """Pixel by pixel; the first draw wins among bins drawn equally often."""
  place = [[tuple(np.floor(ab / 10 + 0.5)) for ab in x.reshape(-1, 2)]
           for x in (*draws, truth)]
  table = np.zeros((num_classes, 3))
  for *known, held_out, true in zip(*place, strict=True):
    forecast, votes = collections.Counter(known).most_common(1)[0]
    chosen = int(np.ceil(votes * num_classes / len(known) - 1e-9)) - 1
    table[chosen] += 1, forecast == true, forecast == held_out
  return table


@pytest.mark.parametrize('n', [2, 6, 12])
def test_reliability_agrees_with_a_loop(simulate, n):
  draws, truth = simulate(n=n)
  found = calibration.bin_reliability(draws[:, :3], truth[:3], num_classes=4)
  expected = [_reliability_loop(draws[:, i], truth[i], 4) for i in range(3)]
  np.testing.assert_array_equal(found, expected)


def test_reliability_detects_overconfidence(simulate):
  table = jax.jit(calibration.bin_reliability)
  right = np.asarray(table(*simulate()))
  assert calibration.expected_calibration_error(right) < 0.02
  curve = calibration.reliability_curve(right)
  many = curve.share > 0.02
  np.testing.assert_allclose(curve.truth[many], curve.draw[many], atol=0.07)
  assert curve.truth[many][-1] > curve.truth[many][0] + 0.2
  narrow = np.asarray(table(*simulate(width=0.3)))
  assert calibration.expected_calibration_error(narrow) > 0.2
  curve = calibration.reliability_curve(narrow)
  assert curve.draw[-1] > curve.truth[-1] + 0.2
  wide = calibration.reliability_curve(
      np.asarray(table(*simulate(width=2.5))))
  assert (wide.share * (wide.truth - wide.draw))[wide.share > 0].sum() > 0.02


def test_calibration_error_by_hand():
  statistics = np.array([[[10, 5, 7], [0, 0, 0]], [[0, 0, 0], [30, 30, 24]]])
  np.testing.assert_allclose(
      calibration.expected_calibration_error(statistics), 8 / 40)
  curve = calibration.reliability_curve(statistics)
  np.testing.assert_allclose(curve.share, [0.25, 0.75])
  np.testing.assert_allclose(curve.truth, [0.5, 1])
  np.testing.assert_allclose(curve.draw, [0.7, 0.8])


def test_hpd_level_by_hand():
  truth = np.array([1.0, 5.0, 0.0, 2.0, np.nan])
  draws = np.array([[2, 1, 3, 2, 0], [3, 2, 1, 2, 0], [0, 3, 0, 1, 0],
                    [0, 4, 2, 3, 0]], np.float32)
  np.testing.assert_allclose(
      calibration.hpd_level(truth, draws),
      [0.5, 0, 0.875, 0.5, np.nan])


@pytest.mark.parametrize(('claimed', 'sign'), [(1.0, 0), (0.6, -1), (1.8, 1)])
def test_hpd_coverage_of_whole_photographs(claimed, sign):
  """Truth N(0, I) in 6 dimensions, the method claims another width."""
  rng = np.random.default_rng(8)

  def log_prob(x):
    return scipy.stats.norm(0, claimed).logpdf(x).sum(-1)

  truth = rng.normal(size=(3000, 6))
  draws = claimed * rng.normal(size=(10, 3000, 6))
  levels = np.asarray(
      calibration.hpd_level(log_prob(truth), log_prob(draws)))
  for level in (0.5, 0.9):
    off = (calibration.hpd_coverage(levels, level)
           - calibration.expected_hpd_coverage(10, level))
    if sign == 0:
      assert abs(off) < 0.03
    elif level == 0.5:
      assert sign * off > 0.2
  assert np.isnan(calibration.hpd_coverage(np.append(levels, np.nan), 0.5))


def test_wrong_shapes_are_rejected(simulate):
  draws, truth = simulate()
  with pytest.raises(ValueError, match=r'n >= 2.*\[1, 60, 12, 12, 2\]'):
    calibration.energy_score(draws[:1], truth)
  with pytest.raises(ValueError, match='n >= 1'):
    calibration.pit_counts(draws, truth[:3], _keys(3))
  with pytest.raises(ValueError, match='sum 0'):
    calibration.pit_error(np.zeros((3, 2, 5)))
  with pytest.raises(ValueError, match=r'level in \(0, 1\)'):
    calibration.expected_coverage(9, 1.0)
  with pytest.raises(ValueError, match='shape'):
    calibration.expected_calibration_error(np.ones((3, 10)))
