"""Propagation of hints: minimizes the paper's energy and keeps the hints."""

import numpy as np
import pytest

from colorjax import propagation

FORMS = ('energy', 'equations')


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
  """u(r) - sum_s w_rs u(s), computed with loops as in the paper."""
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


def test_the_result_minimizes_the_energy_of_the_paper():
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 8)
  result = propagation.fill(lightness, hint_ab, mask).astype(np.float64)
  least = _energy(lightness, result)
  assert least > 1  # otherwise the test would be trivial
  rng = np.random.default_rng(2)
  for _ in range(5):
    direction = rng.normal(size=ab.shape) * (mask == 0)[..., None]
    step = 0.1
    up = _energy(lightness, result + step * direction)
    down = _energy(lightness, result - step * direction)
    curvature = up + down - 2 * least
    assert curvature > 0
    # The energy is a parabola along the line with its minimum at the result.
    assert abs(up - down) < 1e-3 * curvature


def test_equations_have_no_residual_at_pixels_without_hints():
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 8)
  result = propagation.fill(lightness, hint_ab, mask, form='equations')
  residuals = _residuals(lightness, result.astype(np.float64))
  free = mask.reshape(-1) == 0
  assert np.abs(residuals[free]).max() < 1e-4
  assert np.abs(residuals[~free]).max() > 1
  given = ab[mask > 0]
  assert (result <= given.max(0) + 1e-4).all()
  assert (result >= given.min(0) - 1e-4).all()


@pytest.mark.parametrize('form', FORMS)
def test_hints_are_kept_exactly(form):
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 20)
  result = propagation.fill(lightness, hint_ab, mask, form=form)
  np.testing.assert_array_equal(
      result[mask > 0], ab[mask > 0].astype(np.float32))
  assert np.abs(result[mask == 0]).min() > 0


@pytest.mark.parametrize('form', FORMS)
def test_one_color_spreads_everywhere(form):
  lightness, ab = _photo()
  _, mask = _hints(ab, 3)
  constant = np.broadcast_to([12., -34.], ab.shape)
  result = propagation.fill(
      lightness, constant * mask[..., None], mask, form=form)
  np.testing.assert_allclose(result, constant, rtol=1e-5)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('shape', [(9, 11), (1, 5), (1, 1)])
def test_all_pixels_given_or_none(form, shape):
  lightness, ab = _photo(*shape)
  everywhere = propagation.fill(lightness, ab, np.ones(shape), form=form)
  np.testing.assert_array_equal(everywhere, ab.astype(np.float32))
  nowhere = propagation.fill(lightness, ab, np.zeros(shape), form=form)
  np.testing.assert_array_equal(nowhere, np.zeros((*shape, 2), np.float32))


@pytest.mark.parametrize('form', FORMS)
def test_colors_stop_at_an_edge_of_lightness(form):
  """With a hint on each side, ab changes where the lightness does."""
  lightness = np.broadcast_to(np.where(np.arange(16) < 6, 20., 80.), (16, 16))
  hint_ab, mask = np.zeros((16, 16, 2)), np.zeros((16, 16))
  for column, color in ((2, -40.), (12, 60.)):
    hint_ab[8, column], mask[8, column] = color, 1
  flat = propagation.fill(np.full((16, 16), 50.), hint_ab, mask, form=form)
  result = propagation.fill(lightness, hint_ab, mask, form=form)
  step = (result[:, 6] - result[:, 5]).min()
  assert step > 2 * (flat[:, 6] - flat[:, 5]).max()
  assert step > 2 * np.abs(np.diff(result[:, 6:11], axis=1)).max()


def test_a_flat_photograph_has_equal_weights():
  """Noise below one 8-bit level has no influence."""
  averages = propagation.averages(np.full((3, 3), 50.)).toarray()
  np.testing.assert_allclose(averages[4], [1 / 8] * 4 + [0] + [1 / 8] * 4)
  np.testing.assert_allclose(averages[0, [1, 3, 4]], 1 / 3)
  np.testing.assert_allclose(averages.sum(1), 1, atol=1e-12)
  noisy = 50 + 0.01 * np.random.default_rng(0).normal(size=(3, 3))
  np.testing.assert_allclose(
      propagation.averages(noisy).toarray(), averages, atol=1e-3)


def test_a_correction_solves_its_equations():
  lightness, ab = _photo()
  hint_ab, mask = _hints(ab, 5)
  colorings = np.random.default_rng(3).normal(size=(2, *ab.shape))
  corrected = propagation.correct(lightness, colorings, hint_ab, mask)
  assert corrected.dtype == np.float32
  for before, after in zip(colorings, corrected, strict=True):
    np.testing.assert_array_equal(
        after[mask > 0], ab[mask > 0].astype(np.float32))
    difference = after.astype(np.float64) - before
    residuals = _residuals(lightness, difference)
    free = mask.reshape(-1) == 0
    # u = (1 - c) W u, so u - W u is the same share of u at all other pixels.
    flat = difference.reshape(-1, 2)[free]
    large = np.abs(flat) > 1
    share = (residuals[free] / np.where(large, flat, 1))[large]
    # W u = u / fading, so u - W u = (1 - 1 / fading) u.
    reach = min(lightness.shape) / 8
    np.testing.assert_allclose(share, -0.75 / (2 * reach**2), rtol=1e-2)


def test_a_correction_fades_with_distance():
  size = 64
  flat = np.full((size, size), 50.)
  hint_ab, mask = np.zeros((size, size, 2)), np.zeros((size, size))
  hint_ab[32, :], mask[32, :] = 40, 1
  corrected = propagation.correct(
      flat, np.zeros((1, size, size, 2)), hint_ab, mask)[0, ..., 0]
  np.testing.assert_allclose(corrected[40, 32] / 40, np.exp(-1), rtol=0.05)
  # The border reflects the correction.
  np.testing.assert_allclose(
      corrected[63, 32] / 40, 2 * np.exp(-31.5 / 8), rtol=0.1)


def test_without_hints_nothing_is_corrected():
  lightness, ab = _photo()
  np.testing.assert_array_equal(
      propagation.correct(lightness, ab[None], ab, np.zeros(ab.shape[:2])),
      ab[None].astype(np.float32))
