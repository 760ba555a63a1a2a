"""Component families against scipy, published formulas and consistency checks.

Tests that check a formula to full precision use `jax.enable_x64`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from mixture_problem import (
  FAMILIES,
  assert_mean,
  every_built_in,
  problem,
)

from colorjax import losses
from colorjax.losses import families

RAW = (-1e4, -30.0, -3.0, -0.9, -1e-3, 0.0, 0.4, 1.0, 2.0, 8.0, 100.0, 1e4)


def test_gaussian_agrees_with_scipy():
  with jax.enable_x64(True):
    family = losses.gaussian(min_scale=0.01)
    x, (raw_loc, raw_scale), _ = problem(family, (4, 1, 50))
    x = x[:, None]
    scale = 0.01 + 0.09 * np.exp(raw_scale)
    want = scipy.stats.norm.logpdf(
        x, scipy.special.expit(raw_loc), scale)
    np.testing.assert_allclose(
        family.log_prob(x, raw_loc, raw_scale), want, rtol=1e-10)


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_logistic_masses_agree_with_scipy_and_sum_to_one(levels):
  with jax.enable_x64(True):
    family = losses.discretized_logistic(levels=levels, min_scale=0.01)
    raw_loc, raw_scale = np.meshgrid([-5.0, -0.3, 0.0, 4.0], [-6.0, 0.0, 3.0])
    edges = np.arange(1, levels)[:, None, None] / levels
    centers = (np.arange(levels)[:, None, None] + 0.5) / levels
    masses = np.exp(family.log_prob(centers, raw_loc[None], raw_scale[None]))
    cdf = scipy.stats.logistic.cdf(
        edges, scipy.special.expit(raw_loc), 0.01 + 0.04 * np.exp(raw_scale))
    cdf = np.concatenate([np.zeros_like(cdf[:1]), cdf, np.ones_like(cdf[:1])])
    np.testing.assert_allclose(masses, np.diff(cdf, axis=0), atol=1e-13)
    np.testing.assert_allclose(masses.sum(0), 1, rtol=1e-12)


def test_logistic_log_prob_is_constant_within_a_bin():
  family = losses.discretized_logistic(levels=4)
  at = lambda x: float(family.log_prob(jnp.float32(x), 0.2, 0.0))  # noqa: E731
  assert at(0.0) == at(0.2499) != at(0.25)
  assert at(0.7499) != at(0.75) == at(1.0)


@pytest.mark.parametrize('name', ['bernoulli', 'continuous_bernoulli'])
def test_continuous_bernoulli_integrates_to_one(name):
  family = FAMILIES[name]
  log_density = jax.jit(family.log_density or family.log_prob)
  for raw in RAW:
    # A steep density is concentrated within a few 1 / |raw| of one end.
    near = 40 / max(abs(raw), 40)
    low, high = (1 - near, 1) if raw > 0 else (0, near)
    with jax.enable_x64(True):
      total, _ = scipy.integrate.quad(
          lambda x, raw=raw: math.exp(log_density(x, raw)), low, high)
    np.testing.assert_allclose(total, 1, rtol=1e-7)


@pytest.mark.parametrize('mu', [1e-9, 0.01, 0.2, 0.4, 0.49, 0.499, 0.4999,
                                0.5001, 0.501, 0.6, 0.7, 0.99, 1 - 1e-9])
def test_continuous_bernoulli_mean_and_density_as_published(mu):
  mean = mu / (2 * mu - 1) + 1 / (2 * np.arctanh(1 - 2 * mu))
  constant = 2 * np.arctanh(1 - 2 * mu) / (1 - 2 * mu)
  family = losses.continuous_bernoulli()
  with jax.enable_x64(True):
    logit = scipy.special.logit(np.float64(mu))
    np.testing.assert_allclose(family.mean(logit), mean, rtol=1e-7)
    log_density = (np.log(constant) + 0.3 * np.log(mu)
                   + 0.7 * np.log1p(-mu))
    np.testing.assert_allclose(
        family.log_prob(0.3, logit), log_density, rtol=1e-7, atol=1e-12)
  np.testing.assert_allclose(
      family.mean(jnp.float32(logit)), mean, atol=2e-7)


def test_continuous_bernoulli_is_smooth_where_its_formulas_switch():
  family = losses.continuous_bernoulli()
  with jax.enable_x64(True):
    for at in (-1.0, 0.0, 1.0):
      logits = at + np.array([-1e-9, 1e-9])
      for function in (lambda raw: family.log_prob(0.3, raw), family.mean,
                       jax.grad(family.mean)):
        low, high = jax.jit(jax.vmap(function))(logits)
        assert abs(high - low) < 1e-8
    np.testing.assert_allclose(family.log_prob(0.3, 0.0), 0, atol=1e-15)
    # 1/12 is the variance of a uniform variable.
    np.testing.assert_allclose(
        jax.jit(jax.grad(family.mean))(0.0), 1 / 12, rtol=1e-12)


def test_logistic_density_integrates_to_one():
  family = losses.discretized_logistic(levels=16)
  x = (jnp.arange(1600) + 0.5) / 1600
  density = jnp.exp(family.log_density(x, jnp.full(1600, 0.7),
                                       jnp.full(1600, -1.0)))
  np.testing.assert_allclose(density.mean(), 1, rtol=1e-5)


@every_built_in
def test_every_elementwise_function_is_finite(name):
  family = FAMILIES[name]
  targets, *params = (
      jnp.asarray(p.ravel(), jnp.float32) for p in np.meshgrid(
          [0.0, 1e-6, 0.5, 1.0], *[RAW] * family.num_params))

  @jax.jit
  def finite_and_inside(targets, params):
    log_prob = lambda p: family.log_prob(targets, *p).sum()  # noqa: E731
    mean = lambda p: family.mean(*p).sum()  # noqa: E731
    finite = (family.log_prob(targets, *params), jax.grad(log_prob)(params),
              jax.grad(mean)(params))
    inside = (family.mean(*params), family.mode(*params),
              family.sample(jax.random.key(0), *params))
    return finite, inside

  finite, inside = finite_and_inside(targets, params)
  assert all(np.isfinite(v).all() for v in jax.tree.leaves(finite))
  assert all(((v >= 0) & (v <= 1)).all() for v in inside)


@every_built_in
def test_raw_outputs_of_zero_start_at_grey(name):
  family = FAMILIES[name]
  zeros = (jnp.zeros(()),) * family.num_params
  np.testing.assert_allclose(family.mean(*zeros), 0.5, atol=1e-6)
  # Wide enough to give every color a useful gradient.
  assert family.log_prob(0.2, *zeros) - family.log_prob(0.5, *zeros) > -8


@every_built_in
def test_sample_means_equal_the_family_means(name):
  family = FAMILIES[name]
  grid = list(np.meshgrid(
      *[[-3.0, -0.5, 0.0, 1.0, 4.0]] * family.num_params))
  if name == 'gaussian':  # clipping to [0, 1] shifts the mean of wide ones
    grid[0], grid[1] = grid[0] / 4, grid[1] / 4 - 1.5
  params = tuple(jnp.asarray(p.ravel(), jnp.float32) for p in grid)
  draws = jax.jit(jax.vmap(lambda k: family.sample(k, *params)))(
      jax.random.split(jax.random.key(0), 20_000))
  assert_mean(draws, jax.jit(family.mean)(*params))


@pytest.mark.parametrize('raw_scale', [-3.0, 0.0, 4.0, 7.9, 8.1, 30.0, 1e4])
def test_logistic_mean_is_the_mean_of_its_masses(raw_scale):
  family = losses.discretized_logistic(levels=64)
  centers = (jnp.arange(64) + 0.5) / 64

  @jax.jit
  def by_masses(params):
    masses = jnp.exp(family.log_prob(centers, *(p[None] for p in params)))
    return (masses * centers).sum(), family.mean(*params)

  want, mean = by_masses((jnp.float32(1.7), jnp.float32(raw_scale)))
  tolerance = 1 / 128 if raw_scale < 0 else 1e-5  # half a bin if narrow
  np.testing.assert_allclose(mean, want, atol=tolerance)


def test_samples_follow_the_distribution():
  draws = jax.jit(losses.continuous_bernoulli().sample)(
      jax.random.key(1), jnp.full(20_000, 2.0))
  cdf = lambda x: np.expm1(2 * x) / np.expm1(2.0)  # noqa: E731
  assert scipy.stats.kstest(np.asarray(draws), cdf).pvalue > 1e-3
  family = losses.discretized_logistic(levels=8)
  params = jnp.full(20_000, 0.5), jnp.full(20_000, 1.0)
  draws = np.asarray(jax.jit(family.sample)(jax.random.key(2), *params))
  counts = np.bincount((draws * 8).astype(int), minlength=8)
  centers = (jnp.arange(8) + 0.5) / 8
  mass = np.exp(np.float64(jax.jit(family.log_prob)(
      centers, *(p[:8] for p in params))))
  assert scipy.stats.chisquare(
      counts, 20_000 * mass / mass.sum()).pvalue > 1e-3


@pytest.mark.parametrize('family', [
    losses.bernoulli(), losses.continuous_bernoulli(),
    losses.discretized_logistic(levels=8)])
def test_normalized_families_are_densities_with_their_samples(family):
  params = tuple(jnp.full(20_000, x) for x in (0.7, 1.0)[:family.num_params])
  normalized = family.normalized()
  draws = jax.jit(normalized.sample)(jax.random.key(3), *params)
  edges = np.linspace(0, 1, 801)
  middles = jnp.asarray((edges[1:] + edges[:-1]) / 2, jnp.float32)
  density = np.exp(np.float64(normalized.log_prob(
      middles, *(p[:800] for p in params))))
  np.testing.assert_allclose(density.mean(), 1, rtol=1e-4)
  cdf = np.concatenate([[0], np.cumsum(density) / 800])
  assert scipy.stats.kstest(
      np.asarray(draws), lambda x: np.interp(x, edges, cdf)).pvalue > 1e-3
  assert normalized.normalized() is normalized


@every_built_in
def test_mode_is_the_most_probable_value(name):
  family = FAMILIES[name]
  params = tuple(
      jnp.asarray(p.ravel(), jnp.float32) for p in np.meshgrid(
          *[[-4.0, -0.7, 0.6, 3.0]] * family.num_params))
  x = jnp.linspace(0, 1, 513)[:, None]

  @jax.jit
  def best_and_at_mode(params):
    best = family.log_prob(x, *(p[None] for p in params)).max(0)
    return best, family.log_prob(family.mode(*params), *params)

  best, at_mode = best_and_at_mode(params)
  assert (at_mode >= best - 1e-5).all()


@pytest.mark.parametrize('build', [
    lambda: losses.gaussian(min_scale=0), lambda: losses.gaussian(min_scale=1),
    lambda: losses.discretized_logistic(levels=1),
    lambda: losses.discretized_logistic(min_scale=0.5)])
def test_arguments_out_of_range_are_refused(build):
  with pytest.raises(ValueError, match='must be'):
    build()


def test_families_are_immutable_records():
  for family in FAMILIES.values():
    with pytest.raises(dataclasses.FrozenInstanceError):
      family.num_params = 3
  assert families.bernoulli() == families.bernoulli()
