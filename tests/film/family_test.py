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


PLAIN = family.Recipe(
    weights=LUMINANCE, blur=0, has_curve=False, contrast=1.5, push=0, most=2,
    grain=0, clump=0, kept=1, stain=0, scratches=((0.1,) * 6 + (0,),),
    specks=((0,) * 4,), are_light=(False, False), quality=0)
"""Reproduces photographs as they are."""


@jax.jit
def _imitate(images, keys, rate):
  return family.imitate(images, keys, rate=rate)


@jax.jit
def _develop(images, recipe):
  noise = jax.random.normal(jax.random.key(1), images.shape[:3])
  return family.develop(images, recipe, noise)


def _developed(images, changes):
  """Grey levels [N, 32, 32]; changes of PLAIN for each photograph."""
  count = 12  # one shape for all tests, which is compiled once
  recipes = [PLAIN._replace(**one) for one in changes]
  recipes += [PLAIN] * (count - len(recipes))
  stacked = family.Recipe(*(jnp.stack([jnp.asarray(
      x, jnp.bool_ if name in ('has_curve', 'are_light') else jnp.float32)
      for x in values]) for name, values in zip(
          PLAIN._fields, zip(*recipes, strict=True), strict=True)))
  images = np.resize(images, (count, *images.shape[1:]))
  return np.asarray(_develop(jnp.asarray(images), stacked))[:len(changes)]


def _lightness(levels):
  """L of grey levels, by scikit-image."""
  return skimage.color.rgb2lab(
      np.repeat(levels[..., None], 3, -1) / 255)[..., 0]


def test_the_plain_recipe_reproduces_lightness():
  images = _images(12, 32)
  found = _lightness(_developed(images, [{}] * 12))
  lightness = skimage.color.rgb2lab(images)[..., 0]
  is_black = lightness < 1  # L below 0.9 is black on a print
  np.testing.assert_allclose(
      found[~is_black], lightness[~is_black], atol=0.4)


def test_orthochromatic_emulsions_see_no_red():
  recipes = jax.jit(jax.vmap(family._draw))(_keys(2000))
  red, green, blue = np.asarray(recipes.weights).T
  is_ortho = red <= 0.04
  assert 0.45 < is_ortho.mean() < 0.55
  assert (red[~is_ortho] > 0.15).all()
  np.testing.assert_allclose(red + green + blue, 1, rtol=1e-5)
  ortho, pan = (recipes.weights[np.flatnonzero(which)[0]]
                for which in (is_ortho, ~is_ortho))
  patches = np.zeros((3, 32, 32, 3), np.uint8)
  patches[:] = np.reshape(
      [(220, 30, 30), (220, 30, 30), (30, 30, 220)], (3, 1, 1, 3))
  by_ortho, by_pan, sky = _lightness(_developed(patches, [
      {'weights': ortho}, {'weights': pan}, {'weights': ortho}]))[:, 0, 0]
  red, _, blue = skimage.color.rgb2lab(patches)[:, 0, 0, 0]
  assert by_ortho < red - 15
  assert abs(by_pan - red) < 15
  assert sky > blue + 20


def test_draws_are_in_the_ranges_and_as_frequent_as_stated():
  recipes = jax.device_get(jax.jit(jax.vmap(family._draw))(_keys(2000)))
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
  photo = np.random.default_rng(1).integers(
      90, 160, (1, 32, 32, 3), np.uint8)
  line, spot = ((0.5, 0.5, 0.3, 0.4, 0, 0.02, 1),), ((0.5, 0.5, 0.1, 1),)
  changes = [
      {}, {'blur': 0.02}, {'has_curve': True}, {'grain': 0.05}, {'kept': 0.5},
      {'stain': 0.2}, {'quality': 20}, {'scratches': line}, {'specks': spot},
      {'scratches': line, 'are_light': (True, False)},
      {'specks': spot, 'are_light': (False, True)}]
  plain, *others = _developed(photo, changes)
  for other, change in zip(others, changes[1:], strict=True):
    assert np.abs(other - plain).max() > 5, change
  # The photograph has levels from about 100 to 150.
  scratch, speck, light_scratch, light_speck = (
      one[15:17, 15:17].mean() for one in others[-4:])
  assert max(scratch, speck) < 80
  assert min(light_scratch, light_speck) > 160


def test_the_rate_is_the_share_of_imitated_photographs():
  images, keys = jnp.asarray(_images(1).repeat(60, 0)), _keys(60)
  true = np.asarray(jax.jit(color.split_lightness)(images)[0])
  changed = {}
  for rate in (0.0, 0.5, 1.0):
    lightness = np.asarray(_imitate(images, keys, rate))
    assert lightness.shape == true.shape
    assert lightness.min() >= 0
    assert lightness.max() <= 100
    changed[rate] = (lightness != true).any((1, 2, 3))
  assert not changed[0].any()
  assert changed[1].all()
  assert 0.3 < changed[0.5].mean() < 0.7


def test_a_scan_depends_on_its_photograph_and_key_only():
  images, keys = jnp.asarray(_images(60)), _keys(60)
  together = np.asarray(_imitate(images, keys, 1.0))
  part = _imitate(images[40:44], keys[40:44], 1.0)
  np.testing.assert_allclose(part, together[40:44], atol=1e-4)
  other = np.asarray(_imitate(images, keys[::-1], 1.0))
  assert (other != together).any((1, 2, 3)).all()
