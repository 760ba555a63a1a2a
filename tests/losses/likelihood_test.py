"""Mixture likelihoods against numpyro, loops and their own properties."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from mixture_problem import (
  FAMILIES,
  every_family,
  flat_mixture,
  image_problem,
  problem,
)

from colorjax import losses


def numpyro_bernoulli(targets, logits, mixing):
  # Without validation, which would reject soft targets.
  components = dist.Independent(
      dist.BernoulliLogits(logits, validate_args=False), 1,
      validate_args=False)
  mixture = dist.MixtureSameFamily(
      dist.Categorical(logits=mixing), components, validate_args=False)
  return mixture.log_prob(targets)


@pytest.mark.parametrize('dims', [1, 63, 997])
def test_bernoulli_mixture_agrees_with_numpyro(dims):
  def with_gradients(log_prob):
    return jax.jit(jax.value_and_grad(
        lambda mixing, logits, targets: log_prob(targets, logits, mixing).sum(),
        argnums=(0, 1, 2)))

  ours = with_gradients(losses.bernoulli_mixture_log_prob)
  theirs = with_gradients(numpyro_bernoulli)
  for scale in (0.01, 2.0, 30.0, 1e4):
    with jax.enable_x64(True):
      targets, (logits,), mixing = problem(
          losses.bernoulli(), (3, 5, dims), scale=scale)
      value, gradients = ours(mixing, logits, targets)
      want, slopes = theirs(mixing, logits, targets)
      assert value.dtype == jnp.float64
      np.testing.assert_allclose(value, want, rtol=1e-6)
      for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-12)


def test_bernoulli_sums_to_one_over_all_outcomes():
  outcomes = np.array(list(itertools.product([0, 1], repeat=5)))
  _, (logits,), mixing = problem(losses.bernoulli(), (1, 3, 5))
  log_prob = losses.bernoulli_mixture_log_prob(
      outcomes, np.repeat(logits, 32, 0), np.repeat(mixing, 32, 0))
  np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-6)


def test_mixture_log_density_uses_the_density():
  targets, params, mixing = problem(losses.bernoulli())
  density = losses.mixture_log_density(
      targets, params, mixing, family=losses.bernoulli(), event_axes=(1,))
  want = flat_mixture(losses.continuous_bernoulli())(targets, params, mixing)
  np.testing.assert_allclose(density, want, rtol=1e-6)
  family = losses.discretized_logistic(levels=100)
  targets, params, mixing = problem(family)
  density = losses.mixture_log_density(
      targets, params, mixing, family=family, event_axes=(1,))
  mass = flat_mixture(family)(targets, params, mixing)
  np.testing.assert_allclose(density, mass + 40 * np.log(100), rtol=1e-5)


def test_bits_per_dim_by_hand():
  # Uniform over a square of 220 ab units: log2(220) bits for every number.
  np.testing.assert_allclose(
      losses.bits_per_dim(jnp.zeros(3), 7), np.full(3, math.log2(220)),
      rtol=1e-6)
  # A normal density in ab units, against scipy.
  family = losses.gaussian()
  ab = np.array([-20.0, 3.0, 40.0])
  nats = losses.mixture_log_density(
      (ab / 110 + 1) / 2, (np.zeros((1, 3)), np.zeros((1, 3))), np.zeros(1),
      family=family, event_axes=(0,), component_axis=0)
  want = scipy.stats.norm.logpdf(ab, 0, 22).sum()
  np.testing.assert_allclose(losses.ab_log_density(nats, 3), want, rtol=1e-5)
  np.testing.assert_allclose(
      losses.bits_per_dim(nats, 3), -want / 3 / np.log(2), rtol=1e-5)


@every_family
def test_mixture_of_identical_components_is_the_component(name):
  family = FAMILIES[name]
  targets, params, mixing = problem(family)
  params = tuple(np.repeat(p[:, :1], 5, 1) for p in params)
  got = flat_mixture(family)(targets, params, mixing)
  want = family.log_prob(targets, *(p[:, 0] for p in params)).sum(-1)
  np.testing.assert_allclose(got, want, rtol=1e-5)


@every_family
def test_components_may_be_permuted(name):
  family = FAMILIES[name]
  targets, params, mixing = problem(family)
  order = np.array([3, 0, 4, 1, 2])
  got = flat_mixture(family)(
      targets, tuple(p[:, order] for p in params), mixing[:, order])
  want = flat_mixture(family)(targets, params, mixing)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@every_family
def test_pixel_events_equal_a_loop_over_pixels(name):
  family = FAMILIES[name]
  targets, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4))
  got = losses.mixture_log_prob(
      targets, params, mixing, family=family, event_axes=(3,))
  assert got.shape == (2, 6, 4)
  elements = np.asarray(jax.jit(family.log_prob)(
      np.float32(targets[:, None]), *(np.float32(p) for p in params)))
  for b, i, j in itertools.product(range(2), range(6), range(4)):
    priors = scipy.special.log_softmax(mixing[b, :, i, j])
    terms = [priors[k] + elements[b, k, i, j, 0] + elements[b, k, i, j, 1]
             for k in range(3)]
    np.testing.assert_allclose(
        got[b, i, j], scipy.special.logsumexp(terms), rtol=1e-5, atol=1e-5)


@every_family
def test_whole_image_patch_and_channels_last_agree(name):
  family = FAMILIES[name]
  targets, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3))
  whole = losses.mixture_log_prob(
      targets, params, mixing, family=family, event_axes=(1, 2, 3))
  flat = flat_mixture(family)(
      targets.reshape(2, -1), tuple(p.reshape(2, 3, -1) for p in params),
      mixing)
  np.testing.assert_allclose(whole, flat, rtol=1e-5)
  last = losses.mixture_log_prob(
      targets, tuple(np.moveaxis(p, 1, 3) for p in params), mixing,
      family=family, event_axes=(-3, -2, -1), component_axis=-2)
  np.testing.assert_allclose(last, whole, rtol=1e-5)
  # One patch as large as the image is the image.
  patch = losses.mixture_log_prob(
      targets.reshape(2, 1, 6, 1, 4, 2),
      tuple(p.reshape(2, 3, 1, 6, 1, 4, 2) for p in params),
      mixing.reshape(2, 3, 1, 1), family=family, event_axes=(2, 4, 5))
  assert patch.shape == (2, 1, 1)
  np.testing.assert_allclose(patch[:, 0, 0], whole, rtol=1e-5)


def test_without_event_axes_every_value_is_an_event():
  family = losses.gaussian()
  targets, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4, 2))
  got = losses.mixture_log_prob(
      targets, params, mixing, family=family, event_axes=())
  terms = family.log_prob(targets[:, None], *params)
  want = scipy.special.logsumexp(
      scipy.special.log_softmax(mixing, 1) + terms, 1)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_params_of_size_one_broadcast():
  family = losses.gaussian()
  targets, (loc, scale), rng = image_problem(family)
  mixing = rng.normal(size=(1, 3))
  scale = scale[:1, :, :1, :1, :1]
  got = losses.mixture_log_prob(
      targets, (loc, scale), mixing, family=family, event_axes=(1, 2, 3))
  want = losses.mixture_log_prob(
      targets, (loc, np.broadcast_to(scale, loc.shape)),
      np.repeat(mixing, 2, 0), family=family, event_axes=(1, 2, 3))
  np.testing.assert_allclose(got, want, rtol=1e-6)


@every_family
def test_responsibilities_are_the_posterior(name):
  family = FAMILIES[name]
  with jax.enable_x64(True):
    targets, params, mixing = problem(family, (3, 5, 6), scale=0.3)
    got = losses.responsibilities(
        targets, params, mixing, family=family, event_axes=(1,))
    np.testing.assert_allclose(got.sum(1), np.ones(3), rtol=1e-12)
    # The gradient of the likelihood by the log priors is posterior - prior.
    slope = jax.grad(lambda m: flat_mixture(family)(
        targets, params, m).sum())(mixing)
    np.testing.assert_allclose(
        got, slope + scipy.special.softmax(mixing, 1), atol=1e-12)


@pytest.mark.parametrize(('targets', 'logits', 'mixing'), [
    ((7,), (3, 8), (3,)), ((2, 8), (3, 8), (3,)), ((8,), (3, 8), (1,)),
    ((2, 8), (1, 3, 8), (2, 3)), ((8,), (3, 8), (2, 3)), ((), (3,), (3,)),
    ((8,), (8,), (1,)), ((1,), (3, 8), (3,))])
def test_errors_of_bernoulli_mixtures_name_shapes(targets, logits, mixing):
  with pytest.raises(ValueError, match=r'\[\.\.\., K, D\].*got') as error:
    losses.bernoulli_mixture_log_prob(
        np.zeros(targets), np.zeros(logits), np.zeros(mixing))
  for shape in (targets, logits, mixing):
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize(('change', 'message'), [
    ({'params': 1}, r'needs 2 component params, got 1'),
    ({'params': ((2, 3, 8), (3, 8))}, r'same rank: \[2, 3, 8\], \[3, 8\]'),
    ({'params': ((2, 3, 8), (2, 3, 5))}, r'do not broadcast: .*\[2, 3, 5\]'),
    ({'targets': (2, 7)}, r'targets \[2, 7\] do not match .*\[2, 3, 8\]'),
    ({'targets': (1, 8)}, r'targets \[1, 8\] do not match'),
    ({'targets': (8,)}, r'one more axis'),
    ({'mixing': (2, 4)}, r'mixing_logits \[2, 4\] .*\[2, 3\]'),
    ({'mixing': (2, 1)}, r'mixing_logits \[2, 1\]'),
    ({'mixing': (2, 3, 8)}, r'mixing_logits \[2, 3, 8\]'),
    ({'event_axes': (2,)}, r'event_axes=\(2,\): must be axes of the targets'),
    ({'event_axes': (-3,)}, r'event_axes=\(-3,\): must be axes of the targets'),
    ({'event_axes': (1, -1)}, r'twice'),
    ({'component_axis': 3}, r'component_axis=3: .* no such axis'),
])
def test_errors_of_mixtures_name_shapes_and_axes(change, message):
  shapes = {'targets': (2, 8), 'params': ((2, 3, 8), (2, 3, 1)),
            'mixing': (2, 3), 'event_axes': (1,), 'component_axis': 1}
  shapes |= {'params': ((2, 3, 8),)} if change == {'params': 1} else change
  with pytest.raises(ValueError, match=message):
    losses.mixture_log_prob(
        np.zeros(shapes['targets']), [np.zeros(s) for s in shapes['params']],
        np.zeros(shapes['mixing']), family=losses.gaussian(),
        event_axes=shapes['event_axes'],
        component_axis=shapes['component_axis'])


def test_photographs_are_refused_as_targets():
  with pytest.raises(TypeError, match='uint8'):
    losses.bernoulli_mixture_log_prob(
        np.zeros(8, np.uint8), np.zeros((3, 8)), np.zeros(3))
