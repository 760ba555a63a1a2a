"""The low-rank normal distribution, compared with scipy and its moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from colorjax.losses import low_rank


def _problem(rank, seed=0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=6), 0.3 * rng.normal(size=6),
          rng.normal(size=(6, rank)))


@pytest.mark.parametrize('rank', [1, 3, 8])
def test_log_prob_is_that_of_the_whole_covariance_matrix(rank):
  loc, log_scale, factors = _problem(rank)
  targets = np.random.default_rng(1).normal(size=(4, 6))
  covariance = np.diag(np.exp(2 * log_scale)) + factors @ factors.T
  expected = scipy.stats.multivariate_normal(loc, covariance).logpdf(targets)
  found = jax.jit(low_rank.log_prob)(targets, loc, log_scale, factors)
  assert found.shape == (4,)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_leading_axes_are_broadcast():
  """A target for each photograph, parameters for each component."""
  problems = [_problem(2, seed) for seed in range(6)]
  stacked = [np.stack(x).reshape(2, 3, *x[0].shape)
             for x in zip(*problems, strict=True)]
  targets = np.random.default_rng(1).normal(size=(2, 1, 6))
  found = low_rank.log_prob(targets, *stacked)
  for i, problem in enumerate(problems):
    np.testing.assert_allclose(
        found[i // 3, i % 3], low_rank.log_prob(targets[i // 3, 0], *problem),
        rtol=1e-5)


def test_samples_have_the_mean_and_the_covariance():
  loc, log_scale, factors = _problem(2)
  samples = jax.vmap(lambda key: low_rank.sample(
      key, *map(jnp.float32, (loc, log_scale, factors))))(
          jax.random.split(jax.random.key(0), 40000))
  np.testing.assert_allclose(samples.mean(0), loc, atol=0.06)
  np.testing.assert_allclose(
      np.cov(samples.T), np.diag(np.exp(2 * log_scale)) + factors @ factors.T,
      atol=0.15)
