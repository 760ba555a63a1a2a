"""colorjax.color against scikit-image, and its behavior outside the gamut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax import color


@pytest.fixture(scope='module')
def cube():
  """A dense sample of the sRGB cube, including corners and greys."""
  axis = np.linspace(0, 1, 52)
  grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
  greys = np.repeat(np.arange(256)[:, None] / 255, 3, -1)
  return np.concatenate([grid, greys]).astype(np.float32)


def test_rgb_to_lab_agrees_with_scikit_image(cube):
  ours = np.asarray(color.rgb_to_lab(cube))
  assert ours.dtype == np.float32
  np.testing.assert_allclose(
      ours, skimage.color.rgb2lab(cube.astype(np.float64)), atol=2e-3)


def test_each_stage_agrees_with_scikit_image(cube):
  xyz = skimage.color.rgb2xyz(cube.astype(np.float64))
  np.testing.assert_allclose(
      color.linear_to_xyz(color.srgb_to_linear(cube)), xyz, atol=2e-6)
  np.testing.assert_allclose(
      color.xyz_to_lab(xyz.astype(np.float32)),
      skimage.color.xyz2lab(xyz), atol=2e-3)


def test_round_trip(cube):
  back = np.asarray(color.lab_to_rgb(color.rgb_to_lab(cube)))
  assert np.abs(back - cube).max() < 1 / 512


def test_inverses_undo_each_stage(cube):
  linear = color.srgb_to_linear(cube)
  np.testing.assert_allclose(color.linear_to_srgb(linear), cube, atol=1e-5)
  xyz = color.linear_to_xyz(linear)
  np.testing.assert_allclose(color.xyz_to_linear(xyz), linear, atol=1e-5)
  np.testing.assert_allclose(
      color.lab_to_xyz(color.xyz_to_lab(xyz)), xyz, atol=1e-5)


@pytest.mark.parametrize('function', [color.rgb_to_lab, color.lab_to_rgb])
@pytest.mark.parametrize('lead', [(), (2,), (2, 3, 4)])
def test_leading_dimensions(function, lead):
  x = jnp.full((*lead, 3), 0.25)
  np.testing.assert_allclose(
      function(x), jnp.broadcast_to(function(x.reshape(-1, 3)[0]), x.shape),
      rtol=1e-6, atol=1e-4)  # a and b of a grey are rounding errors


@pytest.mark.parametrize('rgb', [
    (0, 0, 0), (1, 1, 1), (.5, .5, .5), (1, 0, 0), (0, 0, 1), (0, 1, 0),
    (0.04045, 0.04045, 0.04045), (1e-9, 0, 0)])
def test_gradients_are_finite(rgb):
  rgb = jnp.asarray(rgb, jnp.float32)
  assert np.isfinite(jax.jacrev(color.rgb_to_lab)(rgb)).all()
  assert np.isfinite(jax.jacfwd(color.rgb_to_lab)(rgb)).all()
  lab = color.rgb_to_lab(rgb)
  assert np.isfinite(jax.jacrev(color.lab_to_rgb)(lab)).all()


def test_gradient_agrees_with_finite_differences():
  rgb = jnp.asarray([0.2, 0.5, 0.7])
  jacobian = jax.jacrev(color.rgb_to_lab)(rgb)
  for channel in range(3):
    step = np.zeros(3)
    step[channel] = 1e-5
    slope = (skimage.color.rgb2lab(np.asarray(rgb, np.float64) + step)
             - skimage.color.rgb2lab(np.asarray(rgb, np.float64) - step)) / 2e-5
    np.testing.assert_allclose(jacobian[:, channel], slope, rtol=1e-3)


def test_outside_the_gamut_is_clipped_and_finite():
  lab = jnp.asarray([[50., 200., -200.], [0., 90., 90.], [100., -80., 80.],
                     [-5., 0., 0.], [120., 0., 0.]])
  rgb = color.lab_to_rgb(lab)
  assert ((rgb >= 0) & (rgb <= 1)).all()
  assert not color.in_gamut(lab).any()
  assert np.isfinite(jax.jacrev(color.lab_to_rgb)(lab)).all()


def test_the_cube_is_in_the_gamut(cube):
  assert color.in_gamut(color.rgb_to_lab(cube)).all()


def test_fit_to_gamut_keeps_lightness_and_hue():
  rng = np.random.default_rng(0)
  lab = jnp.asarray(np.concatenate(
      [rng.uniform(10, 99, (500, 1)), rng.uniform(-120, 120, (500, 2))], -1),
      jnp.float32)
  fitted = color.fit_to_gamut(lab)
  assert color.in_gamut(fitted).all()
  np.testing.assert_array_equal(fitted[:, 0], lab[:, 0])
  cross = fitted[:, 1] * lab[:, 2] - fitted[:, 2] * lab[:, 1]
  np.testing.assert_allclose(cross, 0, atol=1e-2)
  # Colors inside are kept; colors outside lose no more chroma than necessary.
  inside = color.in_gamut(lab)
  np.testing.assert_array_equal(fitted[inside], lab[inside])
  stretched = fitted.at[:, 1:].multiply(1.05)
  assert not color.in_gamut(stretched[~inside]).any()


def test_lightness_survives_fit_and_clip():
  lab = jnp.asarray([[50., 100., -100.], [20., -60., 60.], [90., 80., 0.]])
  rgb = color.lab_to_rgb(color.fit_to_gamut(lab))
  np.testing.assert_allclose(
      skimage.color.rgb2lab(np.asarray(rgb, np.float64))[:, 0], lab[:, 0],
      atol=0.05)


def test_split_lightness_is_lab_of_the_photograph():
  image = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), np.uint8)
  lightness, ab = color.split_lightness(jnp.asarray(image))
  lab = skimage.color.rgb2lab(image)
  np.testing.assert_allclose(lightness, lab[..., :1], atol=2e-3)
  np.testing.assert_allclose(ab, lab[..., 1:], atol=2e-3)


def test_units():
  np.testing.assert_allclose(
      color.normalize_lightness(jnp.asarray([0., 50., 100.])), [-1, 0, 1])
  ab = jnp.asarray([-110., 0., 55., 110.])
  np.testing.assert_allclose(color.ab_to_unit(ab), [0, .5, .75, 1], atol=1e-7)
  np.testing.assert_allclose(
      color.unit_to_ab(color.ab_to_unit(ab)), ab, atol=1e-4)


def test_wrong_input_is_refused():
  with pytest.raises(TypeError, match='divide uint8 images by 255'):
    color.rgb_to_lab(np.zeros((2, 3), np.uint8))
  with pytest.raises(ValueError, match=r'\[4, 2\]'):
    color.lab_to_rgb(np.zeros((4, 2), np.float32))
  with pytest.raises(TypeError, match='uint8'):
    color.split_lightness(jnp.zeros((1, 4, 4, 3)))
