"""The family of imitated scans that networks are trained with.

What is drawn for each photograph, and how often (the chance of each part is
independent of the others; every range is uniform):

  response   always. Orthochromatic in half of the cases: red 0 to 0.04, green
             0.30 to 0.55, blue the rest. Such emulsions see nothing beyond
             about 590 nm (Langford, Basic Photography, 7th edition, ch. 9),
             where the red of sRGB only begins. Otherwise panchromatic: red 0.2
             to 0.4, green 0.25 to 0.55, blue 0.1 to 0.5, divided by their sum.
             The ends are types A (little red, much blue) and C (much red,
             little blue) of Thorne Baker, Photographic Emulsion Technique,
             1941; blue 0.1 is with the usual yellow filter.
  blur       0.5: standard deviation up to 0.8 % of the side.
  curve      0.8: contrast 1.1 to 2.2, the product of that of a negative (0.6
             to 0.8) and of papers of the grades 2 to 4 (1.8 to 2.9: densities
             of 2 over exposure scales of ISO R 110 to 70), exposure within 0.7
             stops, largest density 1.4 (matte paper) to 2.1 (glossy).
  grain      0.6: strength up to 0.08 at density 1, clumps of up to 0.6 % of the
             side. RMS granularity of films is 0.008 (fine) to 0.03 (fast) in
             an aperture of 48 micrometers. Enlargements of small negatives,
             reproductions and scanners have more noise than that.
  fading     0.4: 45 to 100 % of the silver left, stain of density 0 to 0.25.
  marks      0.3: up to 4 scratches and 8 specks of dust, light or dark.
  JPEG       0.4: quality 20 to 90.

The parts that Wan et al. (2020, "Bringing Old Photos Back to Life") draw are
blur, noise, JPEG and marks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color
from colorjax import keys as key_lib
from colorjax.film import jpeg, parts

_MOST_BLUR = 0.008  # of the side
_MOST_CLUMP = 0.006  # of the side
_NUM_SCRATCHES = 4
_NUM_SPECKS = 8

# How many random numbers each part takes.
_DRAWN = (4, 2, 4, 3, 3, 3, 2, 8 * _NUM_SCRATCHES, 5 * _NUM_SPECKS)


class Recipe(NamedTuple):
  """What happens to photographs, a value or row for each of them.

  Attributes:
    weights: response of the emulsion, see `parts.expose`, [B, 3].
    blur: standard deviation as a share of the side, [B].
    has_curve: whether there is a characteristic curve, bool [B].
    contrast: see `parts.print_density`, [B].
    push: see `parts.print_density`, [B].
    most: see `parts.print_density`, [B].
    grain: strength, see `parts.grain`, [B].
    clump: size of the grain as a share of the side, [B].
    kept: see `parts.fade`, [B].
    stain: see `parts.fade`, [B].
    scratches: see `parts.scratches`, [B, K, 7].
    specks: see `parts.specks`, [B, N, 4].
    are_light: whether scratches and specks are light, bool [B, 2].
    quality: of JPEG, [B]; 0 for none.
  """
  weights: jax.Array
  blur: jax.Array
  has_curve: jax.Array
  contrast: jax.Array
  push: jax.Array
  most: jax.Array
  grain: jax.Array
  clump: jax.Array
  kept: jax.Array
  stain: jax.Array
  scratches: jax.Array
  specks: jax.Array
  are_light: jax.Array
  quality: jax.Array


def imitate(images: jax.Array, keys: jax.Array, *, rate: float = 1.0
            ) -> jax.Array:
  """Draws what a scan of an old print of each photograph could look like.

  Args:
    images: sRGB photographs, uint8 [B, S, S, 3].
    keys: typed keys [B]; a result depends on its photograph and key only.
    rate: share of the photographs that are imitated, in [0, 1]. The others
      keep the lightness of `color.split_lightness`.

  Returns:
    L in [0, 100], float32 [B, S, S, 1].
  """
  recipe = jax.vmap(_draw)(keys)
  noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:3]))(
      key_lib.named(keys, 'grain noise'))
  levels = develop(images, recipe, noise)
  chosen = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(
      key_lib.named(keys, 'chosen'))
  return jnp.where(chosen[:, None, None, None],
                   parts.lightness_of(levels)[..., None],
                   color.split_lightness(images)[0])


def develop(images: jax.Array, recipe: Recipe, noise: jax.Array) -> jax.Array:
  """Makes the scans that recipes describe.

  Args:
    images: sRGB photographs, uint8 [B, S, S, 3].
    recipe: what happens to them.
    noise: independent standard normal values for the grain, [B, S, S].

  Returns:
    Whole grey levels of 8-bit sRGB files, 0 to 255, float32 [B, S, S].
  """
  size = images.shape[1]
  exposure = parts.expose(images, recipe.weights)
  exposure = parts.blur(exposure, size * recipe.blur,
                        radius=_radius(_MOST_BLUR, size))
  density = jnp.where(
      recipe.has_curve[:, None, None],
      parts.print_density(
          exposure, recipe.contrast, recipe.push, recipe.most),
      parts.plain_density(exposure))
  density = parts.grain(density, noise, recipe.grain, size * recipe.clump,
                        radius=_radius(_MOST_CLUMP, size))
  density = parts.fade(density, recipe.kept, recipe.stain)
  for i, marks in enumerate((parts.scratches(recipe.scratches, size),
                             parts.specks(recipe.specks, size))):
    is_light = recipe.are_light[:, i, None, None]
    density = parts.mark(density, light=jnp.where(is_light, marks, 0),
                         dark=jnp.where(is_light, 0, marks))
  levels = parts.scan(density)
  return jnp.where(
      (recipe.quality > 0)[:, None, None],
      jpeg.compress(levels, jnp.maximum(recipe.quality, 1)), levels)


def _draw(key: jax.Array) -> Recipe:
  """Draws the recipe of one photograph, without the axis of a batch."""
  # One key for all: XLA takes a quarter of a second to compile each draw. New
  # parts take their numbers from the end, and do not change the others.
  drawn = jax.random.uniform(key_lib.named(key, 'recipe'), (sum(_DRAWN),))
  response, blur, curve, grain, fading, marks, jpeg, lines, spots = jnp.split(
      drawn, np.cumsum(_DRAWN)[:-1])

  def between(x: jax.Array, low: float, high: float) -> jax.Array:
    return low + (high - low) * x

  red, green = between(response[0], 0, 0.04), between(response[1], 0.3, 0.55)
  ortho = jnp.stack([red, green, 1 - red - green])
  pan = jnp.stack([between(response[0], 0.2, 0.4),
                   between(response[1], 0.25, 0.55),
                   between(response[2], 0.1, 0.5)])
  has_marks = marks[0] < 0.3
  is_faded = fading[0] < 0.4
  return Recipe(
      weights=jnp.where(response[3] < 0.5, ortho, pan / pan.sum()),
      blur=jnp.where(blur[0] < 0.5, _MOST_BLUR * blur[1], 0),
      has_curve=curve[0] < 0.8,
      contrast=between(curve[1], 1.1, 2.2),
      push=between(curve[2], -0.7, 0.7),
      most=between(curve[3], 1.4, 2.1),
      grain=jnp.where(grain[0] < 0.6, 0.08 * grain[1], 0),
      clump=_MOST_CLUMP * grain[2],
      kept=jnp.where(is_faded, between(fading[1], 0.45, 1), 1),
      stain=jnp.where(is_faded, 0.25 * fading[2], 0),
      scratches=_draw_scratches(
          lines.reshape(_NUM_SCRATCHES, -1), has_marks),
      specks=_draw_specks(spots.reshape(_NUM_SPECKS, -1), has_marks),
      are_light=marks[1:] < 0.6,
      quality=jnp.where(jpeg[0] < 0.4, jnp.round(between(jpeg[1], 20, 90)), 0))


def _draw_scratches(u: jax.Array, are_there: jax.Array) -> jax.Array:
  """Scratches [K, 7] from uniform numbers [K, 8]; each exists in half."""
  opacity = jnp.where(are_there & (u[:, 7] < 0.5), 0.3 + 0.7 * u[:, 6], 0)
  return jnp.stack([
      u[:, 0], u[:, 1],
      jnp.pi * u[:, 2],
      0.05 + 0.65 * u[:, 3],  # half the length
      0.1 * u[:, 4] - 0.05,  # bend
      0.001 + 0.006 * u[:, 5]**2,  # width
      opacity], -1)


def _draw_specks(u: jax.Array, are_there: jax.Array) -> jax.Array:
  """Specks of dust [N, 4] from uniform numbers [N, 5]; each exists in half."""
  opacity = jnp.where(are_there & (u[:, 4] < 0.5), 0.3 + 0.7 * u[:, 3], 0)
  return jnp.stack([u[:, 0], u[:, 1], 0.002 + 0.013 * u[:, 2]**2, opacity], -1)


def _radius(most: float, size: int) -> int:
  """Where Gaussians are cut off, in pixels: three deviations of the widest."""
  return max(1, round(3 * most * size))
