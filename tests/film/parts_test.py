"""The parts of a scan, by hand and by their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax.film import parts

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SIDE = 96

blur = jax.jit(parts.blur, static_argnames=('radius', 'mode'))
grain = jax.jit(parts.grain, static_argnames='radius')
print_density = jax.jit(parts.print_density)


def _each(*values):
  return jnp.asarray(values, jnp.float32)


def _flat(*values, side=SIDE):
  return jnp.broadcast_to(_each(*values)[:, None, None],
                          (len(values), side, side))


def test_exposure_by_hand():
  images = jnp.uint8([[[[255, 0, 0], [128, 128, 128], [0, 51, 255]]]])
  # Levels 128 and 51 are 21.6 % and 3.3 % of the light.
  np.testing.assert_allclose(
      parts.expose(images, jnp.float32([[0.1, 0.3, 0.6]])),
      [[[0.1, 0.2159, 0.6 + 0.3 * 0.0331]]], rtol=1e-3)


def test_blur_is_a_gaussian():
  point = jnp.zeros((3, 21, 21)).at[:, 10, 10].set(1)
  blurred = np.asarray(blur(point, _each(0, 1, 1.8), radius=7))
  np.testing.assert_array_equal(blurred[0], point[0])
  np.testing.assert_allclose(blurred.sum((1, 2)), 1, rtol=1e-5)
  distance = np.arange(21) - 10
  for one, sigma in zip(blurred[1:], (1, 1.8), strict=True):
    rows, columns = one.sum(1), one.sum(0)
    np.testing.assert_allclose(rows, columns, atol=1e-6)
    assert (rows * distance**2).sum() == pytest.approx(sigma**2, rel=0.01)
  np.testing.assert_allclose(  # at the border the last pixel is repeated
      blur(_flat(0.3, side=5), _each(1.5), radius=4), 0.3, rtol=1e-6)


def test_the_characteristic_curve_by_its_properties():
  decades = jnp.linspace(-2.9, 0, 400)
  curves = jnp.broadcast_to(10**decades, (2, 1, 400))
  density = np.asarray(print_density(
      curves, _each(1.2, 2), _each(0, 1), _each(1.5, 2.1)))[:, 0]
  slopes = -np.diff(density) / np.diff(decades)
  np.testing.assert_allclose(slopes.max(1), [1.2, 2], rtol=1e-3)
  assert (slopes > 0).all()
  assert ((density > 0) & (density < [[1.5], [2.1]])).all()
  # A mid-grey stays; pushed by a stop, the grey of half the light is as light.
  greys = print_density(
      _flat(0.18, 0.09, side=1), _each(1.3, 1.3), _each(0, 1), _each(1.8, 1.8))
  np.testing.assert_allclose(10.0**-greys, 0.18, rtol=1e-4)


def test_the_deviation_of_grain_is_as_stated_for_every_size():
  size = np.array([0, 0.8, 1.5, 1.5])
  density = np.array([1, 0.25, 1, 0])
  found = np.asarray(grain(
      _flat(*density), jax.random.normal(jax.random.key(0), (4, SIDE, SIDE)),
      _flat(0.04)[0, 0, :4], jnp.float32(size), radius=5))
  change = found - density[:, None, None]
  np.testing.assert_allclose(
      change.std((1, 2)), [0.04, 0.02, 0.04, 0], rtol=0.06)
  np.testing.assert_allclose(change.mean((1, 2)), 0, atol=3e-3)
  assert not found[3].any(), 'bare paper has no grain'
  neighbors = [np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]
               for one in change[:3]]
  # The autocorrelation of white noise under a Gaussian is a wider Gaussian.
  np.testing.assert_allclose(
      neighbors, [0, *np.exp(-1 / (4 * size[1:3]**2))], atol=0.05)


def test_fading_and_marks_by_hand():
  density = jnp.float32([[[0, 1]]])
  np.testing.assert_allclose(
      parts.fade(density, _each(0.5), _each(0.2)), [[[0.2, 0.7]]])
  light, dark = jnp.float32([[[0, 0.5]]]), jnp.float32([[[0.25, 0]]])
  np.testing.assert_allclose(
      parts.mark(density, light, dark),
      [[[0.25 * parts.INK_DENSITY, 0.5]]])


def test_scratches_are_lines():
  def line(x, y, angle, half, bend, width, opacity):
    return [[x, y, angle, half, bend, width, opacity]]

  drawn = np.asarray(jax.jit(parts.scratches, static_argnums=1)(jnp.float32([
      line(0.5, 0.25, 0, 0.25, 0, 0.01, 0.8),
      line(0.5, 0.5, np.pi / 2, 0.6, 0, 0.03, 1),
      line(0.5, 0.5, 0, 0.5, 0.1, 0.01, 1),
      line(0.5, 0.5, 0, 0.5, 0, 0.002, 1)]), 100))
  rows, columns = np.nonzero(drawn[0] > 0.4)
  assert (rows.min(), rows.max()) == (24, 25)
  assert (columns.min(), columns.max()) == (25, 74)
  assert drawn[0].max() == pytest.approx(0.8, rel=0.25)
  rows, columns = np.nonzero(drawn[1] > 0.5)
  assert (rows.min(), rows.max()) == (0, 99)
  assert set(columns) <= {47, 48, 49, 50, 51, 52}
  # The ends of a bent line are 0.1 of the side below its center.
  assert drawn[2][:, 50].argmax() in (49, 50)
  assert drawn[2][:, 99].argmax() in (59, 60)
  assert drawn[2][:, 0].argmax() in (59, 60)
  # A line of a fifth of a pixel is seen, and paler.
  assert 0.1 < drawn[3].max() < 0.2


def test_specks_are_spots():
  drawn = np.asarray(parts.specks(
      jnp.float32([[[0.305, 0.705, 0.05, 0.6], [0.9, 0.1, 0.05, 0]]]), 100))[0]
  assert np.unravel_index(drawn.argmax(), drawn.shape) == (70, 30)
  assert drawn.max() == pytest.approx(0.6, rel=1e-4)
  assert drawn[70, 35] == pytest.approx(0.6 / np.e, rel=1e-3)
  assert drawn[:40, 60:].max() < 1e-3


def test_lightness_of_grey_levels():
  levels = np.arange(256)
  grey = skimage.color.rgb2lab(
      np.repeat(levels[:, None, None], 3, -1).astype(np.uint8))[:, 0, 0]
  np.testing.assert_allclose(
      parts.lightness_of(jnp.float32(levels)), grey, atol=2e-3)


def test_a_scan_is_an_8_bit_file():
  # 21.4 % of the light is the middle grey level 127.5 of sRGB.
  levels = parts.scan(-jnp.log10(jnp.float32([[[1, 0.2122, 0.001]]])))
  np.testing.assert_array_equal(levels, [[[255, 127, 3]]])
