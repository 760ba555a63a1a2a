"""The imitations that no network is trained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax.film import held_out

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SIDE = 64

_COMPILED = {name: jax.jit(imitation)
             for name, imitation in held_out.IMITATIONS.items()}


def _scans(name, images, seed=0):
  keys = jax.random.split(jax.random.key(seed), len(images))
  return np.asarray(_COMPILED[name](
      jnp.asarray(images), keys))


def _patch(*rgb, side=SIDE):
  return np.full((1, side, side, 3), rgb, np.uint8)


def _lightness(scans):
  return skimage.color.rgb2lab(scans)[..., 0]


@pytest.mark.parametrize('name', held_out.IMITATIONS)
def test_scans_are_grey_files_of_their_photograph_and_key(name):
  light = np.random.default_rng(0).integers(60, 256, (3, 4, 4, 1), np.uint8)
  images = light.repeat(8, 1).repeat(8, 2).repeat(3, 3)
  images[:, :16, :, 2] //= 2
  scans = _scans(name, images)
  assert scans.dtype == np.uint8
  assert scans.shape == images.shape
  assert (scans == scans[..., :1]).all()
  keys = jax.random.split(jax.random.key(0), 3)
  np.testing.assert_array_equal(_COMPILED[name](
      jnp.asarray(images[[2, 0, 1]]), keys[jnp.array([2, 0, 1])]),
      scans[[2, 0, 1]])
  assert (_scans(name, images, seed=1) != scans).any((1, 2, 3)).all()
  # They are still pictures of their photographs.
  for one, image in zip(scans, images, strict=True):
    other = np.corrcoef(_lightness(one).ravel(), _lightness(image).ravel())
    assert other[0, 1] > 0.5


def test_emulsions_see_other_colors_than_an_eye():
  middle = slice(SIDE // 2 - 8, SIDE // 2 + 8)

  def seen(name, *rgb):
    return _lightness(_scans(name, _patch(*rgb)))[0, middle, middle].mean()

  yellow, blue = (220, 200, 40), (60, 80, 220)
  assert seen('plate', *blue) > seen('plate', *yellow) + 20
  assert seen('print', *yellow) > seen('print', *blue) + 20
  greys = [seen('newspaper', x, x, x) for x in (60, 120, 180)]
  assert greys[0] + 5 < greys[1] < greys[2] - 5


def test_a_halftone_is_ink_or_paper():
  lightness = _lightness(_scans('newspaper', _patch(
      128, 128, 128, side=512)))[0]
  is_ink, is_paper = lightness < 40, lightness > 65
  assert is_ink.mean() > 0.25
  assert is_paper.mean() > 0.25
  assert (is_ink | is_paper).mean() > 0.7


def test_a_portrait_fades_to_its_paper():
  lightness = _lightness(_scans('print', _patch(10, 10, 10)))[0]
  corners = lightness[[0, 0, -1, -1], [0, -1, 0, -1]]
  assert (corners > 75).all()
  assert 15 < lightness[SIDE // 2, SIDE // 2] < 45
