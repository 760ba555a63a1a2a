"""The family of scans that networks are trained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax import color
from colorjax.film import family

pytestmark = pytest.mark.usefixtures('compiles_quickly')

LUMINANCE = (0.2127, 0.7152, 0.0722)


def _images(count=4, side=16):
  coarse = np.random.default_rng(0).integers(
      0, 256, (count, 4, 4, 3), np.uint8)
  return coarse.repeat(side // 4, 1).repeat(side // 4, 2)


def _keys(count):
  return jax.random.split(jax.random.key(3), count)


def _recipe(count=1, **changes):
  """A recipe that reproduces photographs as they are, with some changes."""
  plain = {
      'weights': jnp.float32(LUMINANCE), 'blur': 0.0, 'has_curve': False,
      'contrast': 1.5, 'push': 0.0, 'most': 2.0, 'grain': 0.0, 'clump': 0.0,
      'kept': 1.0, 'stain': 0.0, 'scratches': jnp.zeros((1, 7)) + 0.1,
      'specks': jnp.zeros((1, 4)), 'are_light': jnp.zeros(2, bool),
      'quality': 0}
  plain['scratches'] = plain['scratches'].at[:, 6].set(0)
  return jax.tree.map(
      lambda x: jnp.broadcast_to(jnp.asarray(x), (count, *jnp.shape(x))),
      family.Recipe(**plain | changes))


def _developed(images, recipe):
  noise = jax.random.normal(jax.random.key(1), images.shape[:3])
  return np.asarray(family.develop(jnp.asarray(images), recipe, noise))


def _patch(*rgb):
  return np.full((1, 16, 16, 3), rgb, np.uint8)


def test_the_plain_recipe_reproduces_lightness():
  images = _images()
  levels = _developed(images, _recipe(len(images)))
  grey = np.repeat(levels[..., None], 3, -1) / 255
  lightness = skimage.color.rgb2lab(images)[..., 0]
  is_black = lightness < 1  # L below 0.9 is black on a print
  np.testing.assert_allclose(
      skimage.color.rgb2lab(grey)[..., 0][~is_black], lightness[~is_black],
      atol=0.4)


def test_orthochromatic_emulsions_see_no_red():
  recipes = jax.vmap(family._draw)(_keys(400))
  red, green, blue = np.asarray(recipes.weights).T
  is_ortho = red <= 0.04
  assert 0.4 < is_ortho.mean() < 0.6
  assert (red[~is_ortho] > 0.15).all()
  np.testing.assert_allclose(red + green + blue, 1, rtol=1e-5)
  ortho, pan = (recipes.weights[np.flatnonzero(which)[0]]
                for which in (is_ortho, ~is_ortho))
  true = skimage.color.rgb2lab(_patch(220, 30, 30))[0, 0, 0, 0]
  seen = {name: float(family.parts.lightness_of(jnp.asarray(_developed(
      _patch(220, 30, 30), _recipe(weights=weights))))[0, 0, 0])
          for name, weights in (('ortho', ortho), ('pan', pan))}
  assert seen['ortho'] < true - 15
  assert abs(seen['pan'] - true) < 15
  # Blue is darker for an eye than for any of them.
  true = skimage.color.rgb2lab(_patch(30, 30, 220))[0, 0, 0, 0]
  sky = _developed(_patch(30, 30, 220), _recipe(weights=ortho))
  assert family.parts.lightness_of(jnp.asarray(sky))[0, 0, 0] > true + 20


def test_draws_are_in_the_ranges_and_as_frequent_as_stated():
  recipes = jax.device_get(jax.vmap(family._draw)(_keys(2000)))
  ranges = {'blur': (0, 0.008), 'contrast': (1.1, 2.2), 'push': (-0.7, 0.7),
            'most': (1.4, 2.1), 'grain': (0, 0.08), 'clump': (0, 0.006),
            'kept': (0.45, 1), 'stain': (0, 0.25)}
  for name, (low, high) in ranges.items():
    values = getattr(recipes, name)
    assert low <= values.min() < low + 0.05 * (high - low), name
    assert high - 0.05 * (high - low) < values.max() <= high, name
  used = recipes.quality[recipes.quality > 0]
  assert used.min() == 20
  assert used.max() == 90
  has_marks = (recipes.specks[..., 3] > 0).any(1)
  for share, chance in ((recipes.blur > 0, 0.5), (recipes.has_curve, 0.8),
                        (recipes.grain > 0, 0.6), (recipes.kept < 1, 0.4),
                        (recipes.quality > 0, 0.4),
                        (has_marks, 0.3 * (1 - 0.5**8))):
    assert share.mean() == pytest.approx(chance, abs=0.04)


def test_each_part_changes_the_scan():
  photo = _images(1, 32)
  plain = _developed(photo, _recipe())
  line = jnp.float32([[0.5, 0.5, 0.3, 0.4, 0, 0.02, 1]])
  spot = jnp.float32([[0.5, 0.5, 0.1, 1]])
  for changes in ({'blur': 0.02}, {'has_curve': True}, {'grain': 0.05},
                  {'kept': 0.5}, {'stain': 0.2}, {'scratches': line},
                  {'specks': spot}, {'quality': 20}):
    assert np.abs(_developed(photo, _recipe(**changes)) - plain).max() > 5, (
        changes)
  dark, light = (_developed(photo, _recipe(
      specks=spot, are_light=jnp.asarray([False, is_light])))[0, 16, 16]
                 for is_light in (False, True))
  assert dark < 50
  assert light > 240


def test_the_rate_is_the_share_of_imitated_photographs():
  images, keys = jnp.asarray(_images(1).repeat(60, 0)), _keys(60)
  true = np.asarray(color.split_lightness(images)[0])
  imitate = jax.jit(family.imitate, static_argnames='rate')
  changed = {}
  for rate in (0.0, 0.5, 1.0):
    lightness = np.asarray(imitate(images, keys, rate=rate))
    assert lightness.shape == true.shape
    assert lightness.min() >= 0
    assert lightness.max() <= 100
    changed[rate] = (lightness != true).any((1, 2, 3))
  assert not changed[0].any()
  assert changed[1].all()
  assert 0.3 < changed[0.5].mean() < 0.7


def test_a_scan_depends_on_its_photograph_and_key_only():
  images, keys = jnp.asarray(_images(6)), _keys(6)
  imitate = jax.jit(family.imitate)
  together = np.asarray(imitate(images, keys))
  np.testing.assert_array_equal(imitate(images[4:], keys[4:]), together[4:])
  np.testing.assert_array_equal(imitate(images, keys), together)
  other = np.asarray(imitate(images, keys[::-1]))
  assert (other != together).any((1, 2, 3)).all()
