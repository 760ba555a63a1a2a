"""Fused sums: derivatives, transformations, numerical range and memory."""

import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_problem import (
  FAMILIES,
  every_built_in,
  every_family,
  flat_mixture,
  problem,
)

from colorjax import losses

LAYOUTS = {
    'flat': ((8, 2048), (8, 16, 2048), (1,), 1),
    'uneven': ((8, 2017), (8, 16, 2017), (1,), 1),
    'image': ((4, 32, 32, 2), (4, 16, 32, 32, 2), (1, 2, 3), 1),
    'channels_last': ((4, 32, 32, 2), (4, 32, 32, 16, 2), (1, 2, 3), 3),
}


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


def test_confident_correct_predictions_keep_their_precision():
  # Every term is log1p(exp(-40)). A product of factors 1 + exp(-40), computed
  # directly, would round to 1.
  targets = np.tile([0.0, 1.0], 500)
  logits = np.where(targets == 1, 40.0, -40.0)[None]
  with jax.enable_x64(True):
    got = losses.bernoulli_mixture_log_prob(targets, logits, np.zeros(1))
  np.testing.assert_allclose(got, -1000 * np.log1p(np.exp(-40.0)), rtol=1e-6)
  # The same for one element, computed as on a GPU.
  np.testing.assert_allclose(
      losses.bernoulli().log_prob(jnp.float32(0), jnp.float32(-40)),
      -np.exp(-40.0), rtol=1e-6)


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


@every_built_in
def test_finite_for_a_full_size_image_with_extreme_logits(name):
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


def test_backward_pass_keeps_only_the_inputs():
  family = losses.bernoulli()
  args = jax.tree.map(np.float32, problem(family, (4, 8, 512)))
  _, backward = jax.vjp(flat_mixture(family), *args)
  large = [a for a in jax.tree.leaves(backward)
           if getattr(a, 'size', 0) >= 4 * 8 * 512]
  assert len(large) == 1


@pytest.mark.parametrize('name', ['bernoulli', 'custom'])
def test_no_loop_on_a_gpu(name):
  # On a GPU XLA fuses a plain sum; only CPUs need slices.
  family = FAMILIES[name]
  args = jax.tree.map(np.float32, problem(family))
  compiled = jax.jit(jax.value_and_grad(
      lambda *a: flat_mixture(family)(*a).sum(), argnums=1))
  loops = {platform: jax.export.export(compiled, platforms=[platform])(*args)
           .mlir_module().count('stablehlo.while')
           for platform in ('cuda', 'cpu')}
  assert loops['cuda'] == 0 < loops['cpu']


def test_pmap_changes_nothing():
  family = losses.continuous_bernoulli()
  args = jax.tree.map(np.float32, problem(family))
  function = flat_mixture(family)
  got = jax.pmap(function)(*jax.tree.map(lambda a: a[None], args))
  np.testing.assert_allclose(got[0], function(*args), rtol=1e-6)
