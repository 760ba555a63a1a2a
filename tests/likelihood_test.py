"""Mixture likelihoods against numpyro, scipy, loops and their own properties.

Where a test needs double precision it says so with `jax.enable_x64`: the
formulas are judged there, and float32 by how close it comes.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from colorjax import losses
from colorjax.losses import families


def custom_family():
  """A family as a researcher writes one: log_prob alone, Laplace-like."""
  def log_prob(x, raw_loc, raw_scale):
    scale = 0.05 + jax.nn.softplus(raw_scale)
    return (-jnp.sqrt(1e-6 + (x - jax.nn.sigmoid(raw_loc))**2) / scale
            - jnp.log(2 * scale))

  def centre(raw_loc, raw_scale):
    return jax.nn.sigmoid(raw_loc) + jnp.zeros_like(raw_scale)

  return losses.Family(
      num_params=2, log_prob=log_prob, mean=centre, mode=centre,
      sample=lambda key, *params: centre(*params))


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

RAW = (-1e4, -30.0, -3.0, -0.9, -1e-3, 0.0, 0.4, 1.0, 2.0, 8.0, 100.0, 1e4)


def problem(family, shape=(3, 5, 40), seed=0, scale=2.0):
  """Targets [B, D], params [B, K, D] and mixing logits [B, K] in float64."""
  rng = np.random.default_rng(seed)
  batch, components, dims = shape
  targets = rng.uniform(size=(batch, dims))
  targets[:, ::3] = rng.integers(0, 2, size=targets[:, ::3].shape)
  params = tuple(
      rng.normal(size=shape) * scale for _ in range(family.num_params))
  return targets, params, rng.normal(size=(batch, components))


@functools.cache
def flat_mixture(family):
  """Mixture over the last axis, components before it, compiled."""
  @jax.jit
  def log_prob(targets, params, mixing_logits):
    return losses.mixture_log_prob(
        targets, params, mixing_logits, family=family, event_axes=(-1,),
        component_axis=-2)
  return log_prob


# Against numpyro and scipy.


def numpyro_bernoulli(targets, logits, mixing):
  # Without validation: soft targets are outside of what it calls support.
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


@pytest.mark.parametrize('scale', [0.01, 2.0, 30.0])
def test_float32_is_close_to_float64(scale):
  targets, (logits,), mixing = problem(
      losses.bernoulli(), (2, 3, 8192), scale=scale)
  single = losses.bernoulli_mixture_log_prob(
      *(np.float32(a) for a in (targets, logits, mixing)))
  with jax.enable_x64(True):
    double = losses.bernoulli_mixture_log_prob(targets, logits, mixing)
  assert single.dtype == jnp.float32
  np.testing.assert_allclose(single, double, rtol=2e-6)


def test_confident_and_right_keeps_its_digits():
  # Every term is log1p(exp(-40)): a product of (1 + exp(-40)) would be 1.
  targets = np.tile([0.0, 1.0], 500)
  logits = np.where(targets == 1, 40.0, -40.0)[None]
  with jax.enable_x64(True):
    got = losses.bernoulli_mixture_log_prob(targets, logits, np.zeros(1))
  np.testing.assert_allclose(got, -1000 * np.log1p(np.exp(-40.0)), rtol=1e-6)


def test_bernoulli_sums_to_one_over_all_outcomes():
  outcomes = np.array(list(itertools.product([0, 1], repeat=5)))
  _, (logits,), mixing = problem(losses.bernoulli(), (1, 3, 5))
  log_prob = losses.bernoulli_mixture_log_prob(
      outcomes, np.repeat(logits, 32, 0), np.repeat(mixing, 32, 0))
  np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-6)


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
    centres = (np.arange(levels)[:, None, None] + 0.5) / levels
    masses = np.exp(family.log_prob(centres, raw_loc[None], raw_scale[None]))
    cdf = scipy.stats.logistic.cdf(
        edges, scipy.special.expit(raw_loc), 0.01 + 0.04 * np.exp(raw_scale))
    cdf = np.concatenate([np.zeros_like(cdf[:1]), cdf, np.ones_like(cdf[:1])])
    np.testing.assert_allclose(masses, np.diff(cdf, axis=0), atol=1e-13)
    np.testing.assert_allclose(masses.sum(0), 1, rtol=1e-12)


def test_logistic_takes_the_bin_that_holds_x_and_the_ends():
  family = losses.discretized_logistic(levels=4)
  at = lambda x: float(family.log_prob(jnp.float32(x), 0.2, 0.0))  # noqa: E731
  assert at(0.0) == at(0.2499) != at(0.25)
  assert at(0.7499) != at(0.75) == at(1.0)


# Densities.


@pytest.mark.parametrize('name', ['bernoulli', 'continuous_bernoulli'])
def test_continuous_bernoulli_integrates_to_one(name):
  family = FAMILIES[name]
  log_density = jax.jit(family.log_density or family.log_prob)
  for raw in RAW:
    # All mass of a steep density lies within a few 1 / |raw| of its end.
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


def test_continuous_bernoulli_is_smooth_where_its_formulas_meet():
  family = losses.continuous_bernoulli()
  with jax.enable_x64(True):
    for at in (-1.0, 0.0, 1.0):
      logits = at + np.array([-1e-9, 1e-9])
      for function in (lambda raw: family.log_prob(0.3, raw), family.mean,
                       jax.grad(family.mean)):
        low, high = jax.jit(jax.vmap(function))(logits)
        assert abs(high - low) < 1e-8
    np.testing.assert_allclose(family.log_prob(0.3, 0.0), 0, atol=1e-15)
    # The variance of a uniform variable.
    np.testing.assert_allclose(
        jax.jit(jax.grad(family.mean))(0.0), 1 / 12, rtol=1e-12)


def test_logistic_density_integrates_to_one():
  family = losses.discretized_logistic(levels=16)
  x = (jnp.arange(1600) + 0.5) / 1600
  density = jnp.exp(family.log_density(x, jnp.full(1600, 0.7),
                                       jnp.full(1600, -1.0)))
  np.testing.assert_allclose(density.mean(), 1, rtol=1e-5)


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
  # A normal density in ab units, judged there by scipy.
  family = losses.gaussian()
  ab = np.array([-20.0, 3.0, 40.0])
  nats = losses.mixture_log_density(
      (ab / 110 + 1) / 2, (np.zeros((1, 3)), np.zeros((1, 3))), np.zeros(1),
      family=family, event_axes=(0,), component_axis=0)
  want = scipy.stats.norm.logpdf(ab, 0, 22).sum()
  np.testing.assert_allclose(losses.ab_log_density(nats, 3), want, rtol=1e-5)
  np.testing.assert_allclose(
      losses.bits_per_dim(nats, 3), -want / 3 / np.log(2), rtol=1e-5)


# Properties of mixtures.


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


def image_problem(family, seed=0):
  """Targets [B, H, W, 2] and params [B, K, H, W, 2]."""
  rng = np.random.default_rng(seed)
  targets = rng.uniform(size=(2, 6, 4, 2))
  params = [rng.normal(size=(2, 3, 6, 4, 2)) for _ in range(family.num_params)]
  return targets, params, rng


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


def test_no_event_axis_mixes_every_number():
  family = losses.gaussian()
  targets, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4, 2))
  got = losses.mixture_log_prob(
      targets, params, mixing, family=family, event_axes=())
  terms = family.log_prob(targets[:, None], *params)
  want = scipy.special.logsumexp(
      scipy.special.log_softmax(mixing, 1) + terms, 1)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_sizes_of_one_broadcast():
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


# Derivatives.


@every_family
def test_gradients_agree_with_finite_differences(name):
  family = FAMILIES[name]
  with jax.enable_x64(True):
    targets, params, mixing = problem(family, (2, 3, 97))
    if name == 'discretized_logistic':  # a step function of its targets
      targets = (np.floor(np.clip(targets, 0, 0.99) * 256) + 0.5) / 256
    function = lambda *args: flat_mixture(family)(*args).sum()  # noqa: E731
    args = (targets, params, mixing)
    gradient = jax.jit(jax.grad(function, argnums=(0, 1, 2)))(*args)
    rng = np.random.default_rng(1)
    step = jax.tree.map(lambda a: 1e-6 * rng.normal(size=a.shape), args)
    ahead, behind = (
        function(*jax.tree.map(lambda a, d, s=s: a + s * d, args, step))
        for s in (1, -1))
    slope = sum(float((g * d).sum()) for g, d in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(step), strict=True))
    np.testing.assert_allclose((ahead - behind) / 2, slope, rtol=1e-5)


@every_family
def test_forward_mode_and_second_derivatives(name):
  family = FAMILIES[name]
  with jax.enable_x64(True):
    targets, params, mixing = problem(family, (1, 2, 6))
    fused = lambda p: flat_mixture(family)(targets, p, mixing)[0]  # noqa: E731

    def plain(p):
      terms = family.log_prob(targets[:, None], *p).sum(-1)
      return jax.nn.logsumexp(jax.nn.log_softmax(mixing) + terms)

    for derivative in (jax.jacfwd, jax.hessian):
      for ours, theirs in zip(
          jax.tree.leaves(jax.jit(derivative(fused))(params)),
          jax.tree.leaves(jax.jit(derivative(plain))(params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@every_family
def test_jit_and_vmap_change_nothing(name):
  family = FAMILIES[name]
  args = jax.tree.map(np.float32, problem(family))

  def function(*args):
    return flat_mixture(family).__wrapped__(*args).sum()

  def compare(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-5, atol=1e-6), got, want)

  value_and_grad = jax.value_and_grad(function, argnums=(0, 1, 2))
  value, gradients = jax.jit(value_and_grad)(*args)
  compare(function(*args), value)
  values, mapped = jax.jit(jax.vmap(value_and_grad))(*args)
  compare((values.sum(), mapped), (value, gradients))


# Numerical range.


@every_built_in
def test_finite_at_the_size_of_a_real_image_and_extreme_logits(name):
  family = FAMILIES[name]
  rng = np.random.default_rng(0)
  dims, components = 2 * 224 * 224, 64
  targets = rng.choice(np.float32([0, 1, 0.3, 0.5]), size=dims)
  params = tuple(
      rng.choice(np.float32([-1e4, 1e4, 0, 1]), size=(components, dims))
      for _ in range(family.num_params))
  mixing = rng.choice(np.float32([-1e4, 1e4]), size=components)
  value, gradients = jax.jit(jax.value_and_grad(
      flat_mixture(family), argnums=(0, 1, 2)))(targets, params, mixing)
  assert np.isfinite(value)
  for gradient in jax.tree.leaves(gradients):
    assert np.isfinite(gradient).all()


@every_built_in
def test_every_element_function_is_finite(name):
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
  # Wide enough that every colour has a gradient to follow.
  assert family.log_prob(0.2, *zeros) - family.log_prob(0.5, *zeros) > -8


@every_built_in
def test_bfloat16_inputs_accumulate_in_float32(name):
  family = FAMILIES[name]
  args = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16),
                      problem(family, (2, 3, 4096)))
  value_and_grad = jax.jit(jax.value_and_grad(
      lambda *a: flat_mixture(family)(*a).sum(), argnums=(1, 2)))
  value, gradients = value_and_grad(*args)
  assert value.dtype == jnp.float32
  assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.bfloat16.dtype}
  wide = jax.tree.map(lambda a: a.astype(jnp.float32), args)
  want, slopes = value_and_grad(*wide)
  np.testing.assert_allclose(value, want, rtol=1e-6)
  for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(slopes),
                          strict=True):
    np.testing.assert_allclose(np.float32(ours), theirs, rtol=1e-2, atol=1e-6)


# Memory.


LAYOUTS = {
    'flat': ((8, 2048), (8, 16, 2048), (1,), 1),
    'uneven': ((8, 2017), (8, 16, 2017), (1,), 1),
    'image': ((4, 32, 32, 2), (4, 16, 32, 32, 2), (1, 2, 3), 1),
    'channels_last': ((4, 32, 32, 2), (4, 32, 32, 16, 2), (1, 2, 3), 3),
}


@pytest.mark.parametrize(('name', 'layout'), [
    *((name, 'image') for name in FAMILIES),
    *(('custom', layout) for layout in LAYOUTS if layout != 'image'),
    *(('bernoulli', layout) for layout in LAYOUTS if layout != 'image')])
def test_no_temporary_of_the_logits_size(name, layout):
  family = FAMILIES[name]
  target_shape, param_shape, event_axes, component_axis = LAYOUTS[layout]
  targets = jax.ShapeDtypeStruct(target_shape, jnp.float32)
  params = (jax.ShapeDtypeStruct(param_shape, jnp.float32),) * family.num_params
  mixing = jax.ShapeDtypeStruct((target_shape[0], 16), jnp.float32)

  def loss(params, mixing, targets):
    return losses.mixture_log_prob(
        targets, params, mixing, family=family, event_axes=event_axes,
        component_axis=component_axis).sum()

  for function in (loss, jax.value_and_grad(loss, argnums=(0, 1))):
    compiled = jax.jit(function).lower(params, mixing, targets).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 0.2 * 4 * math.prod(param_shape) * family.num_params


def test_backward_pass_keeps_the_inputs_alone():
  family = losses.bernoulli()
  args = jax.tree.map(np.float32, problem(family, (4, 8, 512)))
  _, backward = jax.vjp(flat_mixture(family), *args)
  large = [a for a in jax.tree.leaves(backward)
           if getattr(a, 'size', 0) >= 4 * 8 * 512]
  assert len(large) == 1


# Answers.


def assert_mean(draws, mean):
  draws = np.asarray(draws, np.float64)
  error = draws.std(0) / math.sqrt(len(draws))
  assert (abs(draws.mean(0) - mean) < 4.5 * error + 1e-4).all()


@every_built_in
def test_sample_means_are_the_family_means(name):
  family = FAMILIES[name]
  grid = list(np.meshgrid(
      *[[-3.0, -0.5, 0.0, 1.0, 4.0]] * family.num_params))
  if name == 'gaussian':  # clipping to [0, 1] moves the mean of wide ones
    grid[0], grid[1] = grid[0] / 4, grid[1] / 4 - 1.5
  params = tuple(jnp.asarray(p.ravel(), jnp.float32) for p in grid)
  draws = jax.jit(jax.vmap(lambda k: family.sample(k, *params)))(
      jax.random.split(jax.random.key(0), 20_000))
  assert_mean(draws, jax.jit(family.mean)(*params))


def test_samples_follow_the_law():
  draws = jax.jit(losses.continuous_bernoulli().sample)(
      jax.random.key(1), jnp.full(20_000, 2.0))
  law = lambda x: np.expm1(2 * x) / np.expm1(2.0)  # noqa: E731
  assert scipy.stats.kstest(np.asarray(draws), law).pvalue > 1e-3
  family = losses.discretized_logistic(levels=8)
  params = jnp.full(20_000, 0.5), jnp.full(20_000, 1.0)
  draws = np.asarray(jax.jit(family.sample)(jax.random.key(2), *params))
  counts = np.bincount((draws * 8).astype(int), minlength=8)
  centres = (jnp.arange(8) + 0.5) / 8
  mass = np.exp(np.float64(jax.jit(family.log_prob)(
      centres, *(p[:8] for p in params))))
  assert scipy.stats.chisquare(
      counts, 20_000 * mass / mass.sum()).pvalue > 1e-3


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


@every_built_in
def test_mixture_mean_is_the_mean_of_mixture_samples(name):
  family = FAMILIES[name]
  _, params, mixing = problem(family, (1, 3, 4))
  if name == 'gaussian':
    params = (params[0] / 4, params[1] / 4 - 1.5)
  options = {'family': family, 'event_axes': (1,)}
  draws = jax.jit(jax.vmap(lambda k: losses.mixture_sample(
      k, params, mixing, **options)))(
          jax.random.split(jax.random.key(3), 20_000))
  assert draws.shape == (20_000, 1, 4)
  mean = losses.mixture_mean(params, mixing, **options)
  assert_mean(draws, mean)


def test_samples_of_an_event_share_their_component():
  # Components that cannot be mistaken: all dark or all bright.
  logits = np.stack([np.full((6, 4, 2), -1e4), np.full((6, 4, 2), 1e4)])[None]

  def draws(mixing, axes):
    draw = functools.partial(
        losses.mixture_sample, component_params=(logits,),
        mixing_logits=mixing, family=losses.bernoulli(), event_axes=axes)
    keys = jax.random.split(jax.random.key(0), 64)
    return np.asarray(jax.jit(jax.vmap(draw))(keys))

  whole = draws(np.zeros((1, 2)), (1, 2, 3))
  assert set(np.unique(whole.mean((1, 2, 3, 4)))) == {0.0, 1.0}
  pixel = draws(np.zeros((1, 2, 6, 4)), (3,))
  assert (pixel[..., 0] == pixel[..., 1]).all()
  assert 0.4 < pixel.mean() < 0.6
  assert set(np.unique(pixel[0])) == {0.0, 1.0}


def test_answers_of_the_most_probable_component():
  family = losses.gaussian()
  _, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4))
  options = {'family': family, 'event_axes': (3,)}
  means = losses.component_means(params, family=family)
  assert means.shape == (2, 3, 6, 4, 2)
  np.testing.assert_allclose(means, scipy.special.expit(params[0]), rtol=1e-5)
  top = losses.top_component_mean(params, mixing, **options)
  for b, i, j in itertools.product(range(2), range(6), range(4)):
    np.testing.assert_allclose(
        top[b, i, j], means[b, mixing[b, :, i, j].argmax(), i, j], rtol=1e-6)
  np.testing.assert_allclose(
      losses.mixture_mode(params, mixing, **options), top, rtol=1e-6)
  np.testing.assert_allclose(
      losses.component_modes(params, family=family), means, rtol=1e-6)


def test_answers_channels_last():
  family = losses.discretized_logistic()
  _, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4))
  moved = tuple(np.moveaxis(p, 1, 3) for p in params)
  for answer in (losses.mixture_mean, losses.mixture_mode,
                 losses.top_component_mean):
    answer = functools.partial(answer, family=family, event_axes=(3,))
    last = jax.jit(functools.partial(answer, component_axis=3))(
        moved, np.moveaxis(mixing, 1, 3))
    np.testing.assert_allclose(
        last, jax.jit(answer)(params, mixing), rtol=1e-6)


# Wrong use.


@pytest.mark.parametrize(('targets', 'logits', 'mixing'), [
    ((7,), (3, 8), (3,)), ((2, 8), (3, 8), (3,)), ((8,), (3, 8), (1,)),
    ((2, 8), (1, 3, 8), (2, 3)), ((8,), (3, 8), (2, 3)), ((), (3,), (3,)),
    ((8,), (8,), (1,)), ((1,), (3, 8), (3,))])
def test_bernoulli_mixture_names_wrong_shapes(targets, logits, mixing):
  with pytest.raises(ValueError, match=r'\[\.\.\., K, D\].*got') as error:
    losses.bernoulli_mixture_log_prob(
        np.zeros(targets), np.zeros(logits), np.zeros(mixing))
  for shape in (targets, logits, mixing):
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize(('change', 'message'), [
    ({'params': 1}, r'has 2 component params, got 1'),
    ({'params': ((2, 3, 8), (3, 8))}, r'differ in rank: \[2, 3, 8\], \[3, 8\]'),
    ({'params': ((2, 3, 8), (2, 3, 5))}, r'do not broadcast: .*\[2, 3, 5\]'),
    ({'targets': (2, 7)}, r'targets \[2, 7\] do not fit .*\[2, 3, 8\]'),
    ({'targets': (1, 8)}, r'targets \[1, 8\] do not fit'),
    ({'targets': (8,)}, r'one axis more'),
    ({'mixing': (2, 4)}, r'mixing_logits \[2, 4\] .*\[2, 3\]'),
    ({'mixing': (2, 1)}, r'mixing_logits \[2, 1\]'),
    ({'mixing': (2, 3, 8)}, r'mixing_logits \[2, 3, 8\]'),
    ({'event_axes': (2,)}, r'event_axes \(2,\) name axes of targets'),
    ({'event_axes': (-3,)}, r'event_axes \(-3,\) name axes of targets'),
    ({'event_axes': (1, -1)}, r'twice'),
    ({'component_axis': 3}, r'no component_axis 3'),
])
def test_mixture_names_what_does_not_fit(change, message):
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


@pytest.mark.parametrize('build', [
    lambda: losses.gaussian(min_scale=0), lambda: losses.gaussian(min_scale=1),
    lambda: losses.discretized_logistic(levels=1),
    lambda: losses.discretized_logistic(min_scale=0.5)])
def test_senseless_settings_are_refused(build):
  with pytest.raises(ValueError, match=r'must (lie in|be)'):
    build()


def test_families_are_records_without_state():
  for family in FAMILIES.values():
    with pytest.raises(dataclasses.FrozenInstanceError):
      family.num_params = 3
  assert families.bernoulli() == families.bernoulli()
