"""Levin's scribbles: stationary for the paper's energy, true to the hints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.errors import UserError
from colorjax.methods.baselines import levin


def _photo(height=9, width=11, seed=0):
  """Lightness with an edge and texture, and true ab."""
  rng = np.random.default_rng(seed)
  lightness = np.where(np.arange(width) < width // 2, 25., 75.)
  lightness = lightness + rng.normal(0, 3, (height, width))
  return lightness, rng.uniform(-80, 80, (height, width, 2))


def _hints(ab, n, seed=1):
  mask = np.zeros(ab.shape[:2])
  places = np.random.default_rng(seed).choice(mask.size, n, replace=False)
  mask.reshape(-1)[places] = 1
  return ab * mask[..., None], mask


def _residuals(lightness, u):
  """u(r) - sum_s w_rs u(s), by loops, as the paper writes it."""
  height, width = lightness.shape
  out = []
  for y in range(height):
    for x in range(width):
      window = [(i, j) for i in range(max(y - 1, 0), min(y + 2, height))
                for j in range(max(x - 1, 0), min(x + 2, width))]
      values = np.array([lightness[p] for p in window])
      variance = max(((values - values.mean())**2).mean(), 0.16)
      weights = [0 if p == (y, x) else np.exp(
          -(lightness[p] - lightness[y, x])**2 / (2 * variance))
                 for p in window]
      average = sum(
          w * u[p] for w, p in zip(weights, window, strict=True)) / sum(weights)
      out.append(u[y, x] - average)
  return np.array(out)


def _energy(lightness, u):
  return (_residuals(lightness, u)**2).sum()


def test_the_answer_is_stationary_for_the_energy_of_the_paper():
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 8)
  answer = levin.propagate(lightness, hint_ab, mask).astype(np.float64)
  least = _energy(lightness, answer)
  assert least > 1  # or there would be nothing to be stationary for
  rng = np.random.default_rng(2)
  for _ in range(5):
    direction = rng.normal(size=ab.shape) * (mask == 0)[..., None]
    step = 0.1
    up = _energy(lightness, answer + step * direction)
    down = _energy(lightness, answer - step * direction)
    curvature = up + down - 2 * least
    assert curvature > 0
    # A parabola along the line, its lowest point at the answer.
    assert abs(up - down) < 1e-3 * curvature


def test_equations_leave_no_residual_where_no_hint_is():
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 8)
  answer = levin.propagate(lightness, hint_ab, mask, form='equations')
  residuals = _residuals(lightness, answer.astype(np.float64))
  free = mask.reshape(-1) == 0
  assert np.abs(residuals[free]).max() < 1e-4
  assert np.abs(residuals[~free]).max() > 1
  given = ab[mask > 0]
  assert (answer <= given.max(0) + 1e-4).all()
  assert (answer >= given.min(0) - 1e-4).all()


@pytest.mark.parametrize('form', levin.FORMS)
def test_hints_are_kept_to_the_last_bit(form):
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 20)
  answer = levin.propagate(lightness, hint_ab, mask, form=form)
  np.testing.assert_array_equal(
      answer[mask > 0], ab[mask > 0].astype(np.float32))
  assert np.abs(answer[mask == 0]).min() > 0


@pytest.mark.parametrize('form', levin.FORMS)
def test_one_color_spreads_everywhere(form):
  lightness, ab = _photo()
  _, mask = _hints(ab, 3)
  constant = np.broadcast_to([12., -34.], ab.shape)
  answer = levin.propagate(
      lightness, constant * mask[..., None], mask, form=form)
  np.testing.assert_allclose(answer, constant, rtol=1e-5)


@pytest.mark.parametrize('form', levin.FORMS)
@pytest.mark.parametrize('shape', [(9, 11), (1, 5), (1, 1)])
def test_all_pixels_given_or_none(form, shape):
  lightness, ab = _photo(*shape)
  everywhere = levin.propagate(lightness, ab, np.ones(shape), form=form)
  np.testing.assert_array_equal(everywhere, ab.astype(np.float32))
  nowhere = levin.propagate(lightness, ab, np.zeros(shape), form=form)
  np.testing.assert_array_equal(nowhere, np.zeros((*shape, 2), np.float32))


@pytest.mark.parametrize('form', levin.FORMS)
def test_colors_stop_at_an_edge_of_lightness(form):
  """One hint on each side: a step in ab where the step in lightness is."""
  lightness = np.broadcast_to(np.where(np.arange(16) < 6, 20., 80.), (16, 16))
  hint_ab, mask = np.zeros((16, 16, 2)), np.zeros((16, 16))
  for column, color in ((2, -40.), (12, 60.)):
    hint_ab[8, column], mask[8, column] = color, 1
  flat = levin.propagate(np.full((16, 16), 50.), hint_ab, mask, form=form)
  answer = levin.propagate(lightness, hint_ab, mask, form=form)
  step = (answer[:, 6] - answer[:, 5]).min()
  assert step > 2 * (flat[:, 6] - flat[:, 5]).max()
  assert step > 2 * np.abs(np.diff(answer[:, 6:11], axis=1)).max()


def test_a_flat_photograph_has_even_weights():
  """Rounding noise below a level of 8 bits makes no difference of color."""
  residual = levin.residual_matrix(np.full((3, 3), 50.)).toarray()
  np.testing.assert_allclose(
      residual[4], [-1 / 8] * 4 + [1] + [-1 / 8] * 4)
  np.testing.assert_allclose(residual[0, [1, 3, 4]], -1 / 3)
  np.testing.assert_allclose(residual.sum(1), 0, atol=1e-12)
  noisy = 50 + 0.01 * np.random.default_rng(0).normal(size=(3, 3))
  np.testing.assert_allclose(
      levin.residual_matrix(noisy).toarray(), residual, atol=1e-3)


def test_within_jit_and_vmap():
  """The contract, and the same numbers as one photograph at a time."""
  colorizer = levin.build(form='equations')
  variables = colorizer.init(jax.random.key(0), (9, 11))
  photos = [_photo(seed=seed) for seed in range(4)]
  hints = [_hints(ab, 6, seed=7 + i) for i, (_, ab) in enumerate(photos)]
  lightness = jnp.float32([p[0] for p in photos])[..., None]
  hint_ab, mask = (
      jnp.float32([h[0] for h in hints]),
      jnp.float32([h[1] for h in hints])[..., None])
  found = jax.jit(colorizer.predict_with_hints)(
      variables, lightness, hint_ab, mask)
  assert found.shape == (4, 9, 11, 2)
  for i in range(4):
    np.testing.assert_allclose(found[i], levin.propagate(
        np.asarray(lightness[i, ..., 0]), np.asarray(hint_ab[i]),
        np.asarray(mask[i, ..., 0]), form='equations'), rtol=1e-5, atol=1e-5)

  def pairs(x):
    return x.reshape(2, 2, *x.shape[1:])

  mapped = jax.jit(jax.vmap(
      colorizer.predict_with_hints, in_axes=(None, 0, 0, 0)))(
          variables, pairs(lightness), pairs(hint_ab), pairs(mask))
  np.testing.assert_array_equal(mapped.reshape(found.shape), found)
  one_lightness = jax.vmap(
      colorizer.predict_with_hints, in_axes=(None, None, 0, 0))(
          variables, lightness[:2], pairs(hint_ab), pairs(mask))
  np.testing.assert_array_equal(one_lightness[0], found[:2])
  assert (one_lightness[1] != found[2:]).any()
  np.testing.assert_array_equal(
      colorizer.predict(variables, lightness), np.zeros_like(found))


def test_unknown_form():
  with pytest.raises(UserError, match='--levin_form=fast: choose one of'):
    levin.build(form='fast')
