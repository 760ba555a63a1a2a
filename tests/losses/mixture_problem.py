"""Families and random problems shared by the tests of mixtures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax import losses


def custom_family():
  """A minimal user-written family, similar to a Laplace distribution."""
  def log_prob(x, raw_loc, raw_scale):
    scale = 0.05 + jax.nn.softplus(raw_scale)
    return (-jnp.sqrt(1e-6 + (x - jax.nn.sigmoid(raw_loc))**2) / scale
            - jnp.log(2 * scale))

  def center(raw_loc, raw_scale):
    return jax.nn.sigmoid(raw_loc) + jnp.zeros_like(raw_scale)

  return losses.Family(
      num_params=2, log_prob=log_prob, mean=center, mode=center,
      sample=lambda key, *params: center(*params))


FAMILIES = {
    'bernoulli': losses.bernoulli(),
    'continuous_bernoulli': losses.continuous_bernoulli(),
    'gaussian': losses.gaussian(),
    'discretized_logistic': losses.discretized_logistic(),
    'custom': custom_family(),
}
BUILT_IN = [name for name in FAMILIES if name != 'custom']
every_family = pytest.mark.parametrize('name', FAMILIES)
every_built_in = pytest.mark.parametrize('name', BUILT_IN)


def problem(family, shape=(3, 5, 40), seed=0, scale=2.0):
  """Targets [B, D], params [B, K, D] and mixing logits [B, K] in float64."""
  rng = np.random.default_rng(seed)
  batch, components, dims = shape
  targets = rng.uniform(size=(batch, dims))
  targets[:, ::3] = rng.integers(0, 2, size=targets[:, ::3].shape)
  params = tuple(
      rng.normal(size=shape) * scale for _ in range(family.num_params))
  return targets, params, rng.normal(size=(batch, components))


def image_problem(family, seed=0):
  """Targets [B, H, W, 2] and params [B, K, H, W, 2]."""
  rng = np.random.default_rng(seed)
  targets = rng.uniform(size=(2, 6, 4, 2))
  params = [rng.normal(size=(2, 3, 6, 4, 2)) for _ in range(family.num_params)]
  return targets, params, rng


@functools.cache
def flat_mixture(family):
  """Compiled mixture; events on the last axis, components on the one before."""
  @jax.jit
  def log_prob(targets, params, mixing_logits):
    return losses.mixture_log_prob(
        targets, params, mixing_logits, family=family, event_axes=(-1,),
        component_axis=-2)
  return log_prob


def assert_mean(draws, mean):
  """Checks the mean of draws [n, ...] within 4.5 standard errors."""
  draws = np.asarray(draws, np.float64)
  error = draws.std(0) / math.sqrt(len(draws))
  assert (abs(draws.mean(0) - mean) < 4.5 * error + 1e-4).all()
