"""CIEDE2000: the perceived difference between colors, in Lab."""

import math

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.metrics import image

_CHROMA_FLAT = 25.0**7


def mean_ciede2000(picture: jax.Array, original: jax.Array) -> jax.Array:
  """Mean CIEDE2000 over the pixels of two 8-bit pictures.

  Both are read as sRGB under D65 with the 2 degree observer. The difference
  includes lightness: rounding a coloring to 8 bits changes it by less than 1.

  Args:
    picture: uint8 sRGB [..., H, W, 3].
    original: uint8 sRGB, same shape.

  Returns:
    At least 0, shape [...]: 0 for equal pictures.

  Raises:
    TypeError: a picture is not uint8.
    ValueError: the shapes differ, or the last axis is not 3.
  """
  image.levels(picture, original)  # checks types and shapes
  lab = [jnp.concatenate(color.split_lightness(x), -1)
         for x in (picture, original)]
  return ciede2000(*lab).mean((-2, -1))


def ciede2000(lab_a: jax.Array, lab_b: jax.Array) -> jax.Array:
  """CIEDE2000 color difference with k_L = k_C = k_H = 1.

  Follows Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula:
  implementation notes, supplementary test data, and mathematical
  observations" (2005). Comments give the numbers of their equations. The
  formula is symmetric but does not satisfy the triangle inequality. It is not
  continuous where hues are opposite, and its gradient is not finite everywhere.

  Args:
    lab_a: L in [0, 100], a and b, Lab units, [..., 3].
    lab_b: broadcastable against `lab_a`.

  Returns:
    At least 0, shape [...]. A difference of about 1 is just noticeable.
  """
  l_a, a_a, b_a = (lab_a[..., i] for i in range(3))
  l_b, a_b, b_b = (lab_b[..., i] for i in range(3))

  # Eqs. 2-7: a is stretched near grey; chroma and hue are then recomputed.
  # Hues are kept as directions (cos, sin), and (0, 0) for grey, because angles
  # are expensive and rarely needed.
  stretch = 1.5 - _chroma_factor(
      (_length(a_a, b_a) + _length(a_b, b_b)) / 2) / 2
  a_a, a_b = a_a * stretch, a_b * stretch
  chroma_a, chroma_b = _length(a_a, b_a), _length(a_b, b_b)
  hue_a = [x / jnp.where(chroma_a > 0, chroma_a, 1) for x in (a_a, b_a)]
  hue_b = [x / jnp.where(chroma_b > 0, chroma_b, 1) for x in (a_b, b_b)]
  # For opposite hues the published formula takes angles in [0, 360) and starts
  # at the smaller one. The two products are compared, not subtracted: they are
  # equal for opposite colors, but a fused multiply-subtract may not give 0.
  ahead, behind = a_a * b_b, b_a * a_b
  is_first = (b_a > 0) | ((b_a == 0) & (a_a > 0))
  turns_left = (ahead > behind) | ((ahead == behind) & is_first)
  turn = jnp.where(turns_left, 1, -1)

  # Eqs. 8-13: 2 sin(dh / 2) is the distance between the two directions.
  delta_lightness, delta_chroma = l_b - l_a, chroma_b - chroma_a
  delta_hue = turn * jnp.sqrt(chroma_a * chroma_b) * _length(
      hue_b[0] - hue_a[0], hue_b[1] - hue_a[1])
  lightness, chroma = (l_a + l_b) / 2, (chroma_a + chroma_b) / 2
  hue = _mean_hue(hue_a, hue_b, turn)

  # Eqs. 16-21: the weight of each part.
  off_middle = jnp.square(lightness - 50)
  by_lightness = delta_lightness / (
      1 + 0.015 * off_middle / jnp.sqrt(20 + off_middle))
  by_chroma = delta_chroma / (1 + 0.045 * chroma)
  by_hue = delta_hue / (1 + 0.015 * chroma * _hue_weight(*hue))
  from_blue = jnp.degrees(jnp.arctan2(_cos(*hue, 275 + 90), _cos(*hue, 275)))
  rotation = -2 * _chroma_factor(chroma) * jnp.sin(
      jnp.pi / 3 * jnp.exp(-jnp.square(from_blue / 25)))

  # Eq. 22. The sum is not negative, except for rounding.
  squared = (jnp.square(by_lightness) + jnp.square(by_chroma)
             + jnp.square(by_hue) + rotation * by_chroma * by_hue)
  return jnp.sqrt(jnp.maximum(squared, 0))


def _mean_hue(hue_a: list[jax.Array], hue_b: list[jax.Array], turn: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
  """Eq. 14: the mean hue, half way along the smaller arc.

  Args:
    hue_a: cos and sin of a hue; both 0 for grey, which has no hue.
    hue_b: as `hue_a`.
    turn: sign of the angle from hue_a to hue_b.

  Returns:
    cos and sin of the mean hue. If one color is grey, the hue of the other.
  """
  (cos_a, sin_a), (cos_b, sin_b) = hue_a, hue_b
  # For similar hues, the sum of the directions is accurate. For nearly opposite
  # hues, the normal of their difference is.
  cos, sin = cos_a + cos_b, sin_a + sin_b
  squared = jnp.square(cos) + jnp.square(sin)
  is_similar = squared > 0.5
  cos = jnp.where(is_similar, cos, turn * (sin_b - sin_a))
  sin = jnp.where(is_similar, sin, turn * (cos_a - cos_b))
  squared = jnp.square(cos) + jnp.square(sin)
  scale = 1 / jnp.sqrt(jnp.where(squared > 0, squared, 1))
  return cos * scale, sin * scale


def _hue_weight(cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Eq. 15: T, from multiples of the mean hue."""
  cos_2, sin_2 = cos * cos - sin * sin, 2 * sin * cos
  cos_3, sin_3 = cos_2 * cos - sin_2 * sin, sin_2 * cos + cos_2 * sin
  cos_4, sin_4 = cos_2 * cos_2 - sin_2 * sin_2, 2 * sin_2 * cos_2
  return (1 - 0.17 * _cos(cos, sin, 30) + 0.24 * cos_2
          + 0.32 * _cos(cos_3, sin_3, -6) - 0.20 * _cos(cos_4, sin_4, 63))


def _cos(cos: jax.Array, sin: jax.Array, degrees: float) -> jax.Array:
  """cos(x - degrees) from the cosine and the sine of x."""
  angle = math.radians(degrees)
  return cos * math.cos(angle) + sin * math.sin(angle)


def _length(x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.square(x) + jnp.square(y))


def _chroma_factor(chroma: jax.Array) -> jax.Array:
  """sqrt(C^7 / (C^7 + 25^7)) of eqs. 4 and 17: 0 for grey, rises to 1."""
  power = chroma**7
  return jnp.sqrt(power / (power + _CHROMA_FLAT))
