"""Densities and trained samples of flow matching, by brute force.

Tests that compute much are compiled with optimizations, the others without.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import skimage.color
from asking import grey, keys

from colorjax import color, ode
from colorjax.methods import flow_matching
from colorjax.models import trunk, velocity

_quickly = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def _method(size, filters=(16,), **settings):
  """A colorizer and random variables; the output layer starts at 0."""
  colorizer = flow_matching.build(filters=filters, width=8, **settings)
  variables = _quickly(colorizer.init, static_argnums=1)(
      jax.random.key(0), (size, size))
  numbers = iter(jax.random.split(jax.random.key(7), 99))
  return colorizer, {**variables, 'params': jax.tree.map(
      lambda x: x + 0.1 * jax.random.normal(next(numbers), x.shape),
      variables['params'])}


def test_it_integrates_to_one_in_lab_units():
  """A photograph of 2 x 2 pixels has a field of one value of a and of b."""
  colorizer, variables = _method(2, ab_scale=10.0)
  assert colorizer.event_shape((2, 2)) == (1, 1)
  assert colorizer.density_kind((2, 2)) == 'exact'
  variables = {**variables, 'params': jax.tree.map(
      lambda x: 2 * x, variables['params'])}
  axis = np.linspace(-88, 88, 45)
  ab = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing='ij'), -1),
                   jnp.float32).reshape(-1, 1, 1, 2)
  lightness = jnp.full((len(ab), 2, 2, 1), 40.)
  nats = jax.jit(colorizer.log_prob)(
      variables, grey(lightness), ab.repeat(2, 1).repeat(2, 2), keys(len(ab)))
  density = np.exp(np.asarray(nats, np.float64)).reshape(45, 45)
  assert density.sum() * 16 == pytest.approx(1, abs=0.01)
  draw = colorizer.ask(solver='heun').draw
  draws = np.asarray(jax.jit(draw, static_argnums=3)(
      variables, grey(jnp.full((2000, 2, 2, 1), 40.)), keys(2000), 4)
  ).reshape(-1, 2)
  weights = density / density.sum()
  for i, values in enumerate((axis[:, None], axis[None])):
    mean = (weights * values).sum()
    deviation = np.sqrt((weights * (values - mean)**2).sum())
    assert draws[:, i].mean() == pytest.approx(mean, abs=0.05 * deviation)
    assert draws[:, i].std() == pytest.approx(deviation, rel=0.04)
  # Not the density of noise alone.
  assert abs(draws.mean(0)).max() > 2 or abs(draws.std(0) - 10).max() > 2


def test_the_exact_trace_equals_the_determinant_of_the_whole_flow():
  """A field of 2 x 2; the brute force has a Jacobian of 8 x 8."""
  colorizer, variables = _method(4)
  lightness = jnp.full((1, 4, 4, 1), 30.).at[0, :2].set(70)
  ab = 20 * jax.random.normal(jax.random.key(3), (1, 2, 2, 2))
  found = _quickly(colorizer.ask(density_steps=64).log_prob)(
      variables, grey(lightness), ab.repeat(2, 1).repeat(2, 2), keys(1))
  net = velocity.TrunkVelocity(trunk.build('unet', (16,), jnp.float32), 8)

  def field_velocity(x, time):
    field = jnp.concatenate([x[None], jnp.zeros((1, 2, 2, 1)),
                             jnp.ones((1, 2, 2, 1))], -1)
    return net.apply(variables, field, color.normalize_lightness(lightness),
                     jnp.ones(1), jnp.full((1, 1), time), train=False)[0]

  def back(end):
    return ode.solve(field_velocity, end / 20, solver='heun', num_steps=64,
                     start=1., stop=0.)

  start = _quickly(back)(ab[0])
  _, volume = jnp.linalg.slogdet(
      _quickly(jax.jacfwd(back))(ab[0]).reshape(8, 8))
  expected = jax.scipy.stats.norm.logpdf(start).sum() + volume
  assert float(found[0]) == pytest.approx(float(expected), abs=5e-3)


def test_the_estimate_agrees_with_the_exact_trace(monkeypatch):
  """The same photograph 40 times, with different keys."""
  same = 40
  colorizer, variables = _method(16, (16, 16))
  assert colorizer.density_kind((16, 16)) == 'estimate'
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (1, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
  lab = jnp.asarray(skimage.color.rgb2lab(image), jnp.float32)
  asked = colorizer.ask(density_steps=4)

  def run(function, count):
    copies = lab.repeat(count, 0)
    return _quickly(function)(
        variables, grey(copies[..., :1]), copies[..., 1:], keys(count))

  nats, error = run(asked.log_prob_and_error, same)
  np.testing.assert_allclose(run(asked.log_prob, same), nats, rtol=1e-5)
  monkeypatch.setattr(ode, 'MAX_EXACT', 128)
  assert colorizer.density_kind((16, 16)) == 'exact'
  # Another function, because jit has compiled the first one.
  exact, none = run(lambda *args: asked.log_prob_and_error(*args), 1)
  assert float(none[0]) == 0
  spread = float(nats.std(ddof=1))
  assert spread > 0
  assert float(nats.mean()) == pytest.approx(
      float(exact[0]), abs=4 * spread / same**0.5)
  assert float(jnp.square(error).mean()) == pytest.approx(
      spread**2, rel=0.5)


def test_it_is_conditional_on_known_values():
  """The density of the unknown values does not count the known ones."""
  colorizer, variables = _method(4)
  lightness = jnp.full((1, 4, 4, 1), 50.)
  ab = jnp.full((1, 4, 4, 2), 5.0)
  hint_mask = jnp.ones((1, 4, 4, 1)).at[:, :2, :2].set(0)
  inputs = {'lightness': lightness, 'hint_ab': ab * hint_mask,
            'hint_mask': hint_mask}
  axis = np.linspace(-150, 150, 31)
  first = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing='ij'), -1),
                      jnp.float32).reshape(-1, 1, 1, 2)
  count = len(first)
  fields = jnp.where(hint_mask > 0, ab, first)
  nats = jax.jit(colorizer.ask(density_steps=6).log_prob)(
      variables, {name: x.repeat(count, 0) for name, x in inputs.items()},
      fields, keys(count))
  assert float(jnp.exp(nats).sum()) * 100 == pytest.approx(1, abs=0.01)


def _toy(objective):
  """Trains on two colors, at random, without lightness.

  Returns:
    `(num_steps) -> ab [1000, 2]`, samples for a photograph of 2 x 2 pixels; and
    the two colors, [2, 2].
  """
  colorizer = flow_matching.build(
      objective=objective, filters=(32,), width=32, ab_scale=30.0,
      hint_share=0., region_share=0., lightness_dropout=1.0)
  pixels = np.array([[200, 90, 90], [60, 150, 90]], np.uint8)
  image = jnp.asarray(pixels.repeat(64, 0)[:, None, None].repeat(
      2, 1).repeat(2, 2))
  batch = {'image': image, 'padding_mask': jnp.ones(128)}
  variables = colorizer.init(jax.random.key(0), (2, 2))
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 300))

  def step(carry, number):
    params, state = carry
    gradient = jax.grad(lambda p: colorizer.loss(
        p, {}, batch, jax.random.split(jax.random.key(number), 128), step=0,
        train=True)[0])(params)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.jit(lambda p: jax.lax.scan(
      step, (p, optimizer.init(p)), jnp.arange(300)))(variables['params'])

  def sample(num_steps):
    # With guidance 0, the velocity is that without lightness.
    return jax.jit(lambda keys: colorizer.ask(
        num_steps=num_steps, guidance=0.0).draw(
            {'params': params, 'model_state': {}},
            grey(jnp.full((1000, 2, 2, 1), 50.)), keys, 1))(
                keys(1000)).reshape(1000, 2)

  return sample, color.split_lightness(image[::64])[1][:, 0, 0]


@pytest.mark.parametrize('objective', flow_matching.OBJECTIVES)
def test_many_steps_find_both_colors(objective):
  sample, colors = _toy(objective)
  apart = float(jnp.linalg.norm(colors[0] - colors[1]))
  distance = jnp.linalg.norm(sample(32)[:, None] - colors, axis=-1)
  assert float(distance.min(1).mean()) < 0.12 * apart
  assert 0.3 < float((distance.argmin(1) == 0).mean()) < 0.7
  # One step: mean flow finds both colors too, flow matching their mean.
  once = sample(1)
  distance = jnp.linalg.norm(once[:, None] - colors, axis=-1)
  if objective == 'mean_flow':
    assert float(distance.min(1).mean()) < 0.12 * apart
    assert 0.3 < float((distance.argmin(1) == 0).mean()) < 0.7
  else:
    assert float(jnp.linalg.norm(once - colors.mean(0), axis=-1).mean()
                 ) < 0.15 * apart
