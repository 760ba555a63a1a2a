"""Bootstrap compared with scipy, closed forms and small cases by hand."""

import numpy as np
import pytest
import scipy.stats

from colorjax.metrics import bootstrap


@pytest.fixture(scope='module')
def values():
  return np.random.default_rng(0).gamma(2.0, 3.0, 80)


def test_replicates_of_the_mean_are_those_of_scipy(values):
  found = bootstrap.replicates(values, num_resamples=20000)
  expected = scipy.stats.bootstrap(
      (values,), np.mean, n_resamples=20000, method='percentile',
      rng=np.random.default_rng(1))
  # Monte-Carlo error of a quantile at 2.5 % of 20,000: 0.02 deviations.
  error = 4 * 0.02 * expected.standard_error
  interval = bootstrap.interval(values.mean(), found, len(values))
  np.testing.assert_allclose(
      [interval.low, interval.high], expected.confidence_interval, atol=error)
  # The exact deviation of the mean of a resample.
  np.testing.assert_allclose(
      found.std(), values.std() / np.sqrt(len(values)), rtol=0.03)
  assert scipy.stats.ks_2samp(
      found, expected.bootstrap_distribution).pvalue > 1e-3
  assert (interval.mean, interval.n) == (values.mean(), 80)


def test_interval_of_another_level(values):
  found = bootstrap.replicates(values)
  interval = bootstrap.interval(values.mean(), found, len(values), level=0.8)
  assert (found < interval.low).sum() == (found > interval.high).sum() == 100


def test_a_mean_is_a_reduction_like_others(values):
  np.testing.assert_allclose(
      bootstrap.replicates(values, np.mean), bootstrap.replicates(values),
      rtol=1e-12)


def test_statistics_of_any_shape_are_drawn_by_photograph(values):
  both = np.stack([values, values ** 2], -1)

  def variance(statistics):
    first, second = statistics.mean(0)
    return second - first ** 2

  np.testing.assert_allclose(
      bootstrap.replicates(both, variance, num_resamples=100),
      bootstrap.replicates(values, np.var, num_resamples=100))


@pytest.mark.parametrize('chunk', [1, 80, 80 * 7, 80 * 1000])
@pytest.mark.parametrize('reduce', [None, np.median])
def test_the_chunk_size_does_not_matter(values, monkeypatch, chunk, reduce):
  expected = bootstrap.replicates(values, reduce)
  monkeypatch.setattr(bootstrap, '_CHUNK', chunk)
  found = bootstrap.replicates(values, reduce)
  assert found.shape == (1000,)
  np.testing.assert_array_equal(found, expected)


def test_two_metrics_are_resampled_with_the_same_photographs(values):
  difference = bootstrap.replicates(values) - bootstrap.replicates(values + 1)
  np.testing.assert_allclose(difference, -1, atol=1e-12)
  # Fewer resamples are the first ones of many.
  np.testing.assert_array_equal(
      bootstrap.replicates(values, num_resamples=50),
      bootstrap.replicates(values)[:50])
  other = bootstrap.replicates(values, seed=1)
  assert (other != bootstrap.replicates(values)).any()


def test_no_photograph_is_refused():
  with pytest.raises(ValueError, match='at least one row'):
    bootstrap.replicates(np.zeros(0))
  with pytest.raises(ValueError, match=r'got \[0\]'):
    bootstrap.mean_interval(np.zeros(0))


def test_recentering_removes_the_bias(values):
  # The largest of a resample is at most that of the set.
  found = bootstrap.replicates(values, np.max)
  plain = bootstrap.interval(values.max(), found, 80)
  shifted = bootstrap.interval(values.max(), found, 80, recenter=True)
  bias = found.mean() - values.max()
  assert bias < -0.1
  assert shifted.mean == plain.mean == values.max()
  np.testing.assert_allclose(
      [shifted.low, shifted.high], [plain.low - bias, plain.high - bias])
  np.testing.assert_allclose(
      bootstrap.recentered(found, values.max()).mean(), values.max())


def test_values_that_are_not_finite():
  infinite = np.array([np.inf, 1.0, 2.0])
  found = bootstrap.mean_interval(infinite)
  assert (found.mean, found.low, found.high) == (np.inf,) * 3
  # A finite value with replicates that are not finite has a wide interval.
  found = bootstrap.interval(1.0, np.array([0.0, np.inf, 2.0]), 3)
  assert found.mean == 1.0
  assert (found.low, found.high) == (0, np.inf)
  found = bootstrap.interval(1.0, np.array([0.0, np.nan, 2.0]), 3)
  assert np.isnan([found.low, found.high]).all()


def test_one_training_seed_adds_no_spread(values):
  found = bootstrap.replicates(values)
  np.testing.assert_array_equal(bootstrap.over_seeds(found[None]), found)


@pytest.mark.parametrize('seeds', [[1.0, 3.0], [0.0, 1.0, 5.0],
                                   [2.0, 2.5, 7.0, 1.0, 1.0]])
def test_spread_of_training_seeds_is_that_of_their_mean(seeds):
  # No spread over photographs: what is left is that of a mean of seeds.
  by_seed = np.repeat(np.array(seeds)[:, None], 40000, 1)
  found = bootstrap.over_seeds(by_seed)
  np.testing.assert_allclose(found.mean(), np.mean(seeds), rtol=0.03)
  np.testing.assert_allclose(
      found.var(), np.var(seeds, ddof=1) / len(seeds), rtol=0.04)


def test_spread_of_seeds_adds_to_that_of_photographs(values):
  photographs = bootstrap.replicates(values, num_resamples=20000)
  found = bootstrap.over_seeds(photographs + np.array([[-1.0], [1.0]]))
  # The two seeds see the same resample: its part does not average out.
  np.testing.assert_allclose(
      found.var(), photographs.var() + 1.0, rtol=0.05)


def test_draws_of_training_seeds_depend_on_the_seed():
  by_seed = np.repeat(np.arange(5.0)[:, None], 100, 1)
  first = bootstrap.over_seeds(by_seed)
  np.testing.assert_array_equal(first, bootstrap.over_seeds(by_seed))
  assert (first != bootstrap.over_seeds(by_seed, seed=1)).any()


@pytest.mark.parametrize(('differences', 'expected'), [
    ([1.0] * 99, 2 / 100), ([-1.0] * 99, 2 / 100), ([0.0] * 99, 1.0),
    ([1.0] * 97 + [-1.0] * 2, 6 / 100), ([1.0] * 50 + [-1.0] * 49, 1.0),
    # Zero counts for both sides.
    ([1.0] * 90 + [0.0] * 9, 20 / 100)])
def test_p_values_by_hand(differences, expected):
  np.testing.assert_allclose(
      bootstrap.sign_probability(np.array(differences)), expected)


def test_p_values_are_uniform_if_there_is_no_difference():
  rng = np.random.default_rng(3)
  found = np.array([bootstrap.sign_probability(bootstrap.replicates(
      rng.normal(size=60), num_resamples=400, seed=trial))
      for trial in range(400)])
  assert scipy.stats.kstest(found, 'uniform').pvalue > 1e-3
  assert 0.02 < (found < 0.05).mean() < 0.09


def test_interval_has_its_nominal_coverage():
  rng = np.random.default_rng(4)
  found = [bootstrap.mean_interval(rng.gamma(4.0, 0.5, 100), seed=trial,
                                   num_resamples=400) for trial in range(500)]
  hits = np.mean([one.low <= 2.0 <= one.high for one in found])
  assert 0.92 < hits < 0.98


def test_counts_agree_with_replicates():
  values = np.random.default_rng(0).normal(size=30)
  counts = bootstrap.counts(30, num_resamples=50, seed=2)
  assert (counts.sum(1) == 30).all()
  np.testing.assert_allclose(
      counts @ values / 30,
      bootstrap.replicates(values, num_resamples=50, seed=2))


def test_error_of_a_mean():
  assert bootstrap.error_of_mean(np.array([3.0, 4.0])) == 2.5
  rng = np.random.default_rng(1)
  errors = np.array([1.0, 2.0, 0.5])
  means = (errors * rng.normal(size=(20000, 3))).mean(1)
  assert bootstrap.error_of_mean(errors) == pytest.approx(
      means.std(), rel=0.03)
