"""Imitations of old photographs that no network is trained with.

They measure whether a network that was trained with `family` copes with scans
of another kind. Their emulsions, their curves and their damage all have another
form, and no part of the family occurs here:

  plate      a glass plate that sees blue only, developed unevenly, with a hard
             straight-line curve, water stains and fog from the edges
  newspaper  a photoengraving in a newspaper: a line screen at 45 degrees, ink
             on yellowed paper, with the lines of the other side showing through
  print      a portrait print behind an orange filter: soft focus, an oval that
             fades to paper, a straight curve without black, silk paper

An imitation is a function `(images, keys) -> scans`, from uint8 sRGB
photographs [B, S, S, 3] and typed keys [B] to grey uint8 sRGB pictures
[B, S, S, 3]. A scan depends on its photograph and key only.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color
from colorjax import keys as key_lib

Imitation = Callable[[jax.Array, jax.Array], jax.Array]
"""`(images, keys) -> scans`, see above."""

VERSION = 1
"""Increases with every change of an imitation: results are then others."""


def plate(images: jax.Array, keys: jax.Array) -> jax.Array:
  """A blue-sensitive glass plate, unevenly developed and stained.

  Collodion and the first gelatin plates saw blue and violet only: foliage and
  skin are dark, and skies white. The curve is a straight line between black and
  clear glass, without toe and shoulder.
  """
  size = images.shape[1]

  def one(image: jax.Array, key: jax.Array) -> jax.Array:
    linear = _linear(image)
    exposure = 0.06 * linear[..., 1] + 0.94 * linear[..., 2]
    development = 1 + 0.3 * _cloud(key_lib.named(key, 'development'), size, 1.5)
    # 0.4 puts white at the upper end, with 1.7 decades below it.
    tone = 1 + jnp.log10(jnp.maximum(exposure, 1e-4)) / 1.7
    tone = jnp.clip(development * (tone - 0.4) + 0.45, 0, 1)
    tone += 0.5 * _edge_fog(key_lib.named(key, 'fog'), size) * (0.75 - tone)
    water, rim = _water(key_lib.named(key, 'water'), size)
    tone += 0.12 * water * (0.7 - tone) - 0.35 * rim * tone
    return 8 + 84 * tone

  return _scans(jax.vmap(one)(images, keys))


def newspaper(images: jax.Array, keys: jax.Array) -> jax.Array:
  """A faded photoengraving: ink dots or bare paper, nothing between.

  The engraver's response is that of television: weights of gamma-encoded and
  not of linear colors. The screen has 55 to 75 lines along a side. Sizes of
  dots carry the picture; a dot is round and grows until its neighbors touch.
  """
  size = images.shape[1]

  def one(image: jax.Array, key: jax.Array) -> jax.Array:
    coded = image.astype(jnp.float32) / 255
    tone = coded @ jnp.array([0.40, 0.52, 0.08])
    u = jax.random.uniform(key_lib.named(key, 'screen'), (5,))
    # Retouched: local contrast is exaggerated before the screen.
    tone = 0.5 + 1.3 * (tone - 0.45) + 0.5 * (tone - _spread(tone, 24))
    tone = jnp.clip(tone, 0.03, 0.97)
    place = (jnp.arange(size) + 0.5) / size
    lines = (55 + 20 * u[0]) / np.sqrt(2)
    waves = [jnp.cos(2 * jnp.pi * (lines * (place[:, None] + sign * place)
                                   + phase))
             for sign, phase in ((1, u[1]), (-1, u[2]))]
    # As many places lie above a threshold as the tone says, nearly.
    threshold = 0.5 + 0.25 * (waves[0] + waves[1])
    # Blurred by the pixels: the steps of the screen from one to the next.
    softness = jnp.maximum(0.05, 0.45 * lines / size)
    paper = jax.nn.sigmoid((tone - threshold) / softness)
    through = 3 * _other_side(key_lib.named(key, 'other side'), size)
    paper_lightness = 74 + 10 * u[3] - through
    return paper_lightness - (46 + 8 * u[4]) * (1 - paper)

  return _scans(jax.vmap(one)(images, keys))


def portrait_print(images: jax.Array, keys: jax.Array) -> jax.Array:
  """A soft portrait print, vignetted to an oval, on silk paper.

  An orange filter makes blue dark and skin light. The soft lens adds a wide
  halo to a sharp picture. L is a linear function of the root of the exposure,
  from a dark grey to cream; the oval fades to the paper.
  """
  size = images.shape[1]

  def one(image: jax.Array, key: jax.Array) -> jax.Array:
    exposure = _linear(image) @ jnp.array([0.78, 0.20, 0.02])
    exposure = jnp.maximum(
        0.55 * exposure + 0.45 * _spread(exposure, 12), 0)
    u = jax.random.uniform(key_lib.named(key, 'print'), (6,))
    black, cream = 20 + 10 * u[0], 80 + 8 * u[1]
    lightness = black + (cream - black) * jnp.sqrt(exposure)
    place = (jnp.arange(size) + 0.5) / size - 0.5
    down, right = place[:, None] - 0.06 * (u[2] - 0.5), place
    radius = jnp.sqrt((down / (0.47 + 0.05 * u[3]))**2
                      + (right / (0.42 + 0.05 * u[4]))**2)
    inside = jax.nn.sigmoid((1 - radius) / 0.07)
    silk = jnp.sin(2 * jnp.pi * size / 5 * place[:, None]) * jnp.sin(
        2 * jnp.pi * size / 5 * place)
    return cream + inside * (lightness - cream) + (0.8 + 0.8 * u[5]) * silk

  return _scans(jax.vmap(one)(images, keys))


IMITATIONS: Mapping[str, Imitation] = {
    'plate': plate, 'newspaper': newspaper, 'print': portrait_print}
"""The imitations by the names used in settings and flags."""


def _linear(image: jax.Array) -> jax.Array:
  return color.srgb_to_linear(image.astype(jnp.float32) / 255)


def _scans(lightness: jax.Array) -> jax.Array:
  """Grey sRGB files of lightness [B, S, S], uint8 [B, S, S, 3]."""
  grey = 255 * color.grey_rgb(jnp.clip(lightness, 0, 100)[..., None])
  return jnp.round(grey).astype(jnp.uint8)


def _spread(picture: jax.Array, cells: int) -> jax.Array:
  """A picture [S, S] reduced to cells x cells, and enlarged again."""
  small = jax.image.resize(picture, (cells, cells), 'linear')
  return jax.image.resize(small, picture.shape, 'cubic')


def _cloud(key: jax.Array, size: int, waves: float) -> jax.Array:
  """A smooth random field [size, size] of mean 0, mostly within [-1, 1].

  Args:
    key: typed key.
    size: side in pixels.
    waves: largest number of waves along a side.
  """
  number = 6
  u = jax.random.uniform(key, (3, number))
  place = (jnp.arange(size) + 0.5) / size
  angles = 2 * jnp.pi * (
      waves * ((2 * u[0] - 1) * place[:, None, None]
               + (2 * u[1] - 1) * place[:, None]) + u[2])
  return jnp.cos(angles).mean(-1) * 2


def _edge_fog(key: jax.Array, size: int) -> jax.Array:
  """Light that leaked in at the edges, 0 to 1, [size, size]."""
  place = (jnp.arange(size) + 0.5) / size
  border = jnp.minimum(place, 1 - place)
  nearest = jnp.minimum(border[:, None], border)
  uneven = 0.04 * (1 + _cloud(key, size, 3.0))
  return jnp.exp(-nearest / jnp.maximum(uneven, 0.01))


def _water(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Two dried puddles, and their rims: 0 to 1, [size, size] each.

  A rim is sharp outside and fades inward. It is darker on one side.
  """
  u = jax.random.uniform(key_lib.named(key, 'places'), (2, 3))
  wobble = 0.15 * _cloud(key_lib.named(key, 'outline'), size, 4.0)
  uneven = _cloud(key_lib.named(key, 'rim'), size, 2.0)
  place = (jnp.arange(size) + 0.5) / size
  x, y, radius = u.T[..., None, None]
  distance = jnp.hypot(place - x, place[:, None] - y) * (1 + wobble)
  beyond = distance - (0.12 + 0.2 * radius)
  width = jnp.where(beyond > 0, 0.004, 0.02)
  rim = jnp.exp(-jnp.abs(beyond) / width).max(0)
  return (jax.nn.sigmoid(-beyond / 0.006).max(0),
          rim * jnp.clip(0.5 + uneven, 0, 1))


def _other_side(key: jax.Array, size: int) -> jax.Array:
  """Lines of text that show through the paper, 0 to 1, [size, size]."""
  rows, columns = 24, 48
  words = jax.random.bernoulli(key, 0.7, (rows, columns)).astype(jnp.float32)
  # A row of text, and the space below it.
  page = jnp.stack([words, jnp.zeros_like(words)], 1).reshape(-1, columns)
  return jax.image.resize(page, (size, size), 'linear')
