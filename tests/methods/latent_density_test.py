"""The bound of the latent-variable model, by brute force over the latents.

Most photographs have 2 x 2 pixels: the field is one value of a and of b.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asking import grey, keys

from colorjax import color
from colorjax.methods import latent
from colorjax.models import latent as model
from colorjax.models import trunk

_quickly = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})

SIDE = 32  # of a grid of ab, whose points are centers of bins
AXIS = (np.arange(SIDE) * 8 + 4.5) / 256 * 220 - 110
GRID = np.stack(np.meshgrid(AXIS, AXIS, indexing='ij'), -1).reshape(-1, 2)
CELL = (8 / 256 * 220)**2
LIGHTNESS = jnp.full((1, 2, 2, 1), 40.)


@functools.cache
def _method(strides=(), family='discretized_logistic', side=2):
  """A colorizer with latents of one dimension, and random variables.

  The posteriors are wide: importance weights of narrow ones have few large
  values, and their mean cannot be tested.
  """
  colorizer = latent.build(
      filters=(16,), width=16, num_components=2, latent_size=1,
      latent_strides=strides, latent_channels=1, family=family)
  variables = _quickly(colorizer.init, static_argnums=1)(
      jax.random.key(0), (side, side))
  numbers = iter(jax.random.split(jax.random.key(7), 99))
  params = jax.tree.map(
      lambda x: x + 0.2 * jax.random.normal(next(numbers), x.shape),
      variables['params'])
  # Pixels are wide too, so that sums over GRID are integrals.
  head = params['head']
  params['head'] = {'kernel': head['kernel'] / 2, 'bias': jnp.repeat(
      jnp.asarray([0., 0.3]), 2)}
  params['encoder']['z']['bias'] = jnp.asarray([0.3, 0.7])
  for stride in strides:
    params['ladder'][f'difference_{stride}']['bias'] = jnp.asarray([0.2, 0.3])
  return colorizer, {**variables, 'params': params}


@functools.cache
def _exact(strides=(), family='discretized_logistic'):
  """Log density of GRID in Lab units: an integral over z and noise."""
  _, variables = _method(strides, family)
  pixels = latent.FAMILIES[family]()
  net = model.TrunkLatent(
      trunk.build('unet', (16,), jnp.float32), 2, 1, strides, 1, width=16,
      num_params=pixels.num_params)
  known = jnp.zeros((1, 1, 1, 4)).at[..., 3].set(1)
  z = np.linspace(-8, 8, 161)
  noise = np.linspace(-5, 5, 61 if strides else 1)
  zs, noises = (jnp.asarray(x.ravel(), jnp.float32)[:, None]
                for x in np.meshgrid(z, noise, indexing='ij'))

  @_quickly
  def tables(v):
    scales = net.apply(v, color.normalize_lightness(LIGHTNESS), known,
                       train=False, method='look')
    prior = net.apply(v, scales, method='prior')
    params = net.apply(
        v, [jnp.broadcast_to(x, (len(zs), *x.shape[1:])) for x in scales], zs,
        [noises[:, :, None, None]] * len(strides), train=False,
        method='generate').params
    return jax.vmap(prior.log_prob)(zs[:, None])[:, 0], params

  prior, params = tables(variables)
  weight = np.exp(np.asarray(prior, np.float64)) * (z[1] - z[0])
  if strides:
    normal = np.exp(-noise**2 / 2) / np.sqrt(2 * np.pi)
    weight *= np.tile(normal, len(z)) * (noise[1] - noise[0])
  assert weight.sum() == pytest.approx(1, abs=1e-3)
  of_value = pixels.log_density or pixels.log_prob
  log_weight = jnp.log(weight)
  nats = jax.jit(lambda ab: jax.lax.map(lambda x: jax.nn.logsumexp(
      log_weight + of_value(x, *params).sum((1, 2, 3))), ab))(
          color.ab_to_unit(jnp.asarray(GRID, jnp.float32)))
  return np.asarray(nats, np.float64) - 2 * np.log(220)


@functools.cache
def _log_prob(samples, *settings):
  colorizer, variables = _method(*settings)
  return functools.partial(_quickly(colorizer.ask(
      importance_samples=samples).log_prob), variables)


def _bounds(ab, samples, *settings):
  """log_prob of fields [1024, 2], each with another key."""
  assert len(ab) == len(GRID)
  fields = jnp.asarray(ab, jnp.float32)[:, None, None].repeat(2, 1).repeat(2, 2)
  return np.asarray(_log_prob(samples, *settings)(
      grey(LIGHTNESS.repeat(len(ab), 0)), fields, keys(len(ab), samples)),
                    np.float64)


@pytest.mark.parametrize('strides', [(), (2,)])
def test_the_bound_approaches_the_integral_from_below(strides):
  """Its exponential is unbiased, and more samples make it tighter."""
  places = [SIDE * 16 + 16, SIDE * 19 + 14, SIDE * 13 + 18, SIDE * 16 + 10]
  exact = _exact(strides)[places]
  same = len(GRID) // len(places)
  means = []
  for samples in (1, 8, 128):
    found = _bounds(GRID[places].repeat(same, 0), samples, strides
                    ).reshape(-1, same)
    mean, error = found.mean(1), found.std(1) / same**0.5
    np.testing.assert_array_less(mean, exact + 4 * error)
    ratio = np.exp(found - exact[:, None])
    np.testing.assert_array_less(
        np.abs(ratio.mean(1) - 1), 5 * ratio.std(1) / same**0.5)
    means.append(mean)
  assert means[0].mean() < means[1].mean() < means[2].mean()
  np.testing.assert_allclose(means[2], exact, atol=0.06)
  assert (exact - means[0]).min() > 0.06


@pytest.mark.parametrize('family', latent.FAMILIES)
def test_it_integrates_to_one_and_draws_come_from_it(family):
  strides = (2,) if family == 'discretized_logistic' else ()
  exact = np.exp(_exact(strides, family))
  assert exact.sum() * CELL == pytest.approx(1, abs=0.03)
  bound = np.exp(_bounds(GRID, 8, strides, family))
  assert bound.sum() * CELL == pytest.approx(
      exact.sum() * CELL, abs=0.03)
  colorizer, variables = _method(strides, family)
  draws = np.asarray(_quickly(colorizer.draw, static_argnums=3)(
      variables, grey(LIGHTNESS.repeat(1000, 0)), keys(1000), 4)
  ).reshape(-1, 2)
  weights = exact / exact.sum()
  for i in range(2):
    mean = (weights * GRID[:, i]).sum()
    deviation = np.sqrt((weights * (GRID[:, i] - mean)**2).sum())
    assert draws[:, i].mean() == pytest.approx(mean, abs=0.07 * deviation)
    assert draws[:, i].std() == pytest.approx(deviation, rel=0.06)
    # Not only the mean and the deviation.
    below = (draws[:, i, None] < AXIS + 4 / 256 * 220).mean(0)
    expected = weights.reshape(SIDE, SIDE).sum(1 - i).cumsum()
    np.testing.assert_allclose(below, expected, atol=0.04)


def test_it_is_conditional_on_known_values():
  """The density of the unknown values does not count the known ones."""
  colorizer, variables = _method((2,), side=4)
  count = len(GRID)
  hint_mask = jnp.ones((count, 4, 4, 1)).at[:, :2, :2].set(0)
  ab = jnp.full((count, 4, 4, 2), 5.0)
  first = jnp.asarray(GRID, jnp.float32)[:, None, None]
  nats = _quickly(colorizer.ask(importance_samples=64).log_prob)(
      variables, {'lightness': jnp.full((count, 4, 4, 1), 50.),
                  'hint_ab': ab * hint_mask, 'hint_mask': hint_mask},
      jnp.where(hint_mask > 0, ab, first), keys(count))
  assert float(jnp.exp(nats).sum()) * CELL == pytest.approx(1, abs=0.06)


def test_training_finds_both_of_two_colors():
  """Two colors of one lightness: the latents must say which, in log 2 nats."""
  colorizer = latent.build(
      filters=(16,), width=16, num_components=2, latent_size=2,
      latent_strides=(), hint_share=0., region_share=0.)
  # L is 50 for both.
  pixels = np.array([[191, 85, 91], [71, 132, 71]], np.uint8)
  image = jnp.asarray(pixels.repeat(32, 0)[:, None, None].repeat(
      2, 1).repeat(2, 2))
  lightness, ab = color.split_lightness(image[::32])
  assert jnp.abs(lightness[0] - lightness[1]).max() < 1
  colors = ab[:, 0, 0]
  batch = {'image': image, 'padding_mask': jnp.ones(64)}
  variables = _quickly(colorizer.init, static_argnums=1)(
      jax.random.key(0), (2, 2))
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 200))

  def step(carry, number):
    params, state = carry
    (_, aux), gradient = jax.value_and_grad(lambda p: colorizer.loss(
        p, {}, batch, jax.random.split(jax.random.key(number), 64), step=0,
        train=True), has_aux=True)(params)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), aux.metrics['kl'][0]

  (params, _), kl = jax.jit(lambda p: jax.lax.scan(
      step, (p, optimizer.init(p)), jnp.arange(200)))(variables['params'])
  assert float(kl[-20:].mean() / 64) == pytest.approx(np.log(2), abs=0.25)

  @_quickly
  def answers(keys):
    inputs = grey(jnp.full((200, 2, 2, 1), lightness[0, 0, 0, 0]))
    variables = {'params': params, 'model_state': {}}
    return (colorizer.sample(variables, inputs, keys, 1)[0, :, 0, 0],
            colorizer.propose(variables, grey(lightness), 2))

  samples, (proposals, weights) = answers(keys(200))
  apart = float(jnp.linalg.norm(colors[0] - colors[1]))
  distance = jnp.linalg.norm(samples[:, None] - colors, axis=-1)
  assert float(distance.min(1).mean()) < 0.15 * apart
  assert 0.3 < float((distance.argmin(1) == 0).mean()) < 0.7
  distance = jnp.linalg.norm(proposals[:, 0, 0, 0, None] - colors, axis=-1)
  assert float(distance.min(0).max()) < 0.15 * apart
  assert sorted(distance.argmin(1).tolist()) == [0, 1]
  assert float(weights.min()) > 0.3
