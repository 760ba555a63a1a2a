"""Colors on a photograph's lightness: Lab to sRGB pixels that keep it.

What "keeps its lightness" means: the grey level of a color is the sRGB grey of
the same CIE luminance, rounded to the depth of the file. Every pixel of a
coloring has the grey level of the photograph's pixel, so that a coloring that
is made grey again IS the grey photograph, to the last bit. This holds for all
lossless formats, at 8 and at 16 bits; jpeg cannot promise it. (float32 finds
the level itself of a colored pixel: where that lies within 0.02 of a 16-bit
level's border, the neighbor may be taken.)
"""

import jax
import jax.numpy as jnp

from colorjax import color


def picture(lightness: jax.Array, ab: jax.Array, *, bits: int = 8) -> jax.Array:
  """The picture that a person is given: in the gamut, lightness kept, rounded.

  Args:
    lightness: L in [0, 100], [..., H, W, 1], broadcastable against `ab`.
    ab: Lab units, [..., H, W, 2]; what sRGB cannot hold at this lightness is
      brought towards grey at its hue.
    bits: depth of a channel, 8 or 16.

  Returns:
    sRGB, uint8 or uint16 [..., H, W, 3].
  """
  lightness = jnp.broadcast_to(lightness, (*ab.shape[:-1], 1))
  lab = color.fit_to_gamut(jnp.concatenate([lightness, ab], -1))
  return round_at_lightness(lab, bits=bits)


def grey_picture(lightness: jax.Array, *, bits: int = 8) -> jax.Array:
  """`picture` where ab is 0, at a fraction of its cost.

  Args:
    lightness: L in [0, 100], [..., H, W, 1].
    bits: depth of a channel, 8 or 16.

  Returns:
    sRGB, uint8 or uint16 [..., H, W, 3].
  """
  lab = jnp.concatenate([lightness, *[jnp.zeros_like(lightness)] * 2], -1)
  luminance = jnp.clip(color.lab_to_xyz(lab)[..., 1:2], 0, 1)
  grey = jnp.round(color.linear_to_srgb(luminance) * (2**bits - 1))
  return jnp.repeat(grey, 3, -1).astype(
      jnp.uint8 if bits == 8 else jnp.uint16)


def round_at_lightness(lab: jax.Array, *, bits: int) -> jax.Array:
  """Rounds colors to whole sRGB levels that keep the grey level.

  The luminance is set to that of the color's grey level. Red and blue are
  rounded; green, which carries 72 % of the luminance, then takes the level that
  restores it best. One step of green is at most 0.88 grey levels, so the result
  is never further than 0.45 from the grey level; where green is at its end, it
  is 0.37, which is what rounding red and blue can do.

  Args:
    lab: colors, [..., 3]. What the sRGB gamut does not hold is mixed with the
      grey of its luminance until it does.
    bits: depth of a channel, 8 or 16.

  Returns:
    uint8 or uint16 [..., 3].
  """
  top = 2**bits - 1
  xyz = color.lab_to_xyz(lab)
  luminance = jnp.clip(xyz[..., 1:2], 0, 1)
  grey = jnp.round(color.linear_to_srgb(luminance) * top)
  kept = color.srgb_to_linear(grey / top)
  # Brighter or darker light of the same chromaticity.
  scale = kept / jnp.maximum(luminance, 1e-9)
  linear = _mixed_into_gamut(color.xyz_to_linear(xyz) * scale, kept)
  red, _, blue = jnp.moveaxis(
      jnp.round(color.linear_to_srgb(linear) * top), -1, 0)
  others = _luminance(red, jnp.zeros_like(red), blue, top)
  weight = color.linear_to_xyz(jnp.array([0.0, 1.0, 0.0]))[1]
  missing = jnp.clip((kept[..., 0] - others) / weight, 0, 1)
  below = jnp.floor(color.linear_to_srgb(missing) * top)
  above = jnp.minimum(below + 1, top)

  def error(green):
    got = color.linear_to_srgb(_luminance(red, green, blue, top)) * top
    return jnp.abs(got - grey[..., 0])

  green = jnp.where(error(above) < error(below), above, below)
  rgb = jnp.stack([red, green, blue], -1)
  return rgb.astype(jnp.uint8 if bits == 8 else jnp.uint16)


def _mixed_into_gamut(linear: jax.Array, luminance: jax.Array) -> jax.Array:
  """Linear RGB [..., 3] in [0, 1], its luminance [..., 1] unchanged.

  Mixing with the grey of equal luminance is linear in light, so that the
  luminance stays exact; `color.fit_to_gamut`, which keeps the hue, leaves an
  excess of its tolerance that is 85 levels of 16-bit black.
  """
  share = jnp.where(linear < 0, luminance / (luminance - linear), 1.0)
  share = jnp.where(linear > 1, (1 - luminance) / (linear - luminance), share)
  mixed = luminance + share.min(-1, keepdims=True) * (linear - luminance)
  return jnp.clip(mixed, 0, 1)


def _luminance(red, green, blue, top) -> jax.Array:
  rgb = jnp.stack([red, green, blue], -1) / top
  return color.linear_to_xyz(color.srgb_to_linear(rgb))[..., 1]
