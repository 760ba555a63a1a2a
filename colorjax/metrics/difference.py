"""CIEDE2000: the colour difference that people see, in Lab."""

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.metrics import image

_CHROMA_FLAT = 25.0**7


def mean_ciede2000(picture: jax.Array, original: jax.Array) -> jax.Array:
  """Mean CIEDE2000 over the pixels of two 8-bit pictures.

  Both are read as sRGB under D65 with the 2 degree observer. Lightness counts
  too: rounding a colouring to 8 bits moves it by less than 1.

  Args:
    picture: uint8 sRGB [..., H, W, 3].
    original: uint8 sRGB, same shape.

  Returns:
    At least 0, 0 for equal pictures, shape [...].
  """
  image.levels(picture, original)  # refuses what is no pair of pictures
  lab = [jnp.concatenate(color.split_lightness(x), -1)
         for x in (picture, original)]
  return ciede2000(*lab).mean((-2, -1))


def ciede2000(lab_a: jax.Array, lab_b: jax.Array) -> jax.Array:
  """CIEDE2000 colour difference with k_L = k_C = k_H = 1.

  Follows Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula:
  implementation notes, supplementary test data, and mathematical
  observations" (2005), whose numbers of equations the comments give. The
  formula is symmetric but no metric, it jumps where the hues are opposite, and
  its gradient is not finite everywhere.

  Args:
    lab_a: L in [0, 100], a and b, shape [..., 3].
    lab_b: broadcastable against `lab_a`.

  Returns:
    Difference, at least 0; about 1 is just noticeable. Shape [...].
  """
  (l_a, a_a, b_a), (l_b, a_b, b_b) = (
      jnp.moveaxis(x, -1, 0) for x in (lab_a, lab_b))

  # Eqs. 2-7: a is stretched near grey, then chroma and hue are taken anew.
  flat = _rises_from_grey((jnp.hypot(a_a, b_a) + jnp.hypot(a_b, b_b)) / 2)
  a_a, a_b = (a * (1.5 - flat / 2) for a in (a_a, a_b))
  chroma_a, chroma_b = jnp.hypot(a_a, b_a), jnp.hypot(a_b, b_b)
  # In [0, 2 pi) as published: it decides the mean of two opposite hues.
  hue_a, hue_b = (jnp.arctan2(b, a) % (2 * jnp.pi)
                  for a, b in ((a_a, b_a), (a_b, b_b)))

  # Eqs. 8-11.
  of_lightness, of_chroma = l_b - l_a, chroma_b - chroma_a
  turn = hue_b - hue_a
  turn = turn - 2 * jnp.pi * jnp.round(turn / (2 * jnp.pi))
  of_hue = 2 * jnp.sqrt(chroma_a * chroma_b) * jnp.sin(turn / 2)

  # Eqs. 12-14. A grey has no hue, so the mean hue is that of the other colour.
  lightness, chroma = (l_a + l_b) / 2, (chroma_a + chroma_b) / 2
  hue = jnp.where(chroma_a == 0, hue_b,
                  jnp.where(chroma_b == 0, hue_a, hue_a + turn / 2))

  # Eqs. 15-21: how much each part counts.
  weight_of_hue = (
      1 - 0.17 * jnp.cos(hue - jnp.pi / 6) + 0.24 * jnp.cos(2 * hue)
      + 0.32 * jnp.cos(3 * hue + jnp.pi / 30)
      - 0.20 * jnp.cos(4 * hue - 63 * jnp.pi / 180))
  off_middle = jnp.square(lightness - 50)
  by_lightness = of_lightness / (
      1 + 0.015 * off_middle / jnp.sqrt(20 + off_middle))
  by_chroma = of_chroma / (1 + 0.045 * chroma)
  by_hue = of_hue / (1 + 0.015 * chroma * weight_of_hue)
  from_blue = (jnp.degrees(hue) % 360 - 275) / 25
  rotation = -2 * _rises_from_grey(chroma) * jnp.sin(
      jnp.pi / 3 * jnp.exp(-jnp.square(from_blue)))

  # Eq. 22. The form is not negative; its rounding may be.
  squared = (jnp.square(by_lightness) + jnp.square(by_chroma)
             + jnp.square(by_hue) + rotation * by_chroma * by_hue)
  return jnp.sqrt(jnp.maximum(squared, 0))


def _rises_from_grey(chroma: jax.Array) -> jax.Array:
  power = chroma**7
  return jnp.sqrt(power / (power + _CHROMA_FLAT))
