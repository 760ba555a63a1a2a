"""Converts Lab to sRGB pixels that keep the photograph's lightness exactly.

The grey level of a color is the sRGB grey of the same CIE luminance, rounded to
the bit depth of the file. Every pixel of a coloring has the same grey level as
the photograph's pixel. So a coloring converted back to grey is bit-identical to
the grey photograph. This holds for all lossless formats, at 8 and 16 bits, but
not for JPEG. (Grey levels are computed in float32: within 0.02 of the border of
two 16-bit levels, the neighboring level may result.)
"""

import jax
import jax.numpy as jnp

from colorjax import color


def picture(lightness: jax.Array, ab: jax.Array, *, bits: int = 8) -> jax.Array:
  """Makes the sRGB picture of a coloring, with the lightness kept exactly.

  Args:
    lightness: L in [0, 100], [..., H, W, 1], broadcastable against `ab`.
    ab: Lab units, [..., H, W, 2]. Colors outside the sRGB gamut at this
      lightness lose chroma at constant hue until they are inside.
    bits: bit depth of a channel, 8 or 16.

  Returns:
    sRGB, uint8 or uint16 [..., H, W, 3].
  """
  lightness = jnp.broadcast_to(lightness, (*ab.shape[:-1], 1))
  lab = color.fit_to_gamut(jnp.concatenate([lightness, ab], -1))
  return round_at_lightness(lab, bits=bits)


def grey_picture(lightness: jax.Array, *, bits: int = 8) -> jax.Array:
  """Makes the grey picture: `picture` with ab = 0, but faster.

  Args:
    lightness: L in [0, 100], [..., H, W, 1].
    bits: bit depth of a channel, 8 or 16.

  Returns:
    sRGB, uint8 or uint16 [..., H, W, 3].
  """
  lab = jnp.concatenate([lightness, *[jnp.zeros_like(lightness)] * 2], -1)
  luminance = jnp.clip(color.lab_to_xyz(lab)[..., 1:2], 0, 1)
  grey = jnp.round(color.linear_to_srgb(luminance) * (2**bits - 1))
  return jnp.repeat(grey, 3, -1).astype(
      jnp.uint8 if bits == 8 else jnp.uint16)


def round_at_lightness(lab: jax.Array, *, bits: int) -> jax.Array:
  """Rounds colors to integer sRGB levels without changing the grey level.

  The luminance is set to that of the color's grey level. Red and blue are
  rounded. Green, which contributes 72 % of the luminance, then gets the level
  that restores the luminance best. One step of green is at most 0.88 grey
  levels, so the result differs from the grey level by at most 0.45. Where green
  is 0 or at its maximum, the difference is at most 0.37, from rounding red and
  blue.

  Args:
    lab: L in [0, 100], a and b, [..., 3]. Colors outside the sRGB gamut are
      mixed with the grey of their luminance until they are inside.
    bits: bit depth of a channel, 8 or 16.

  Returns:
    uint8 or uint16 [..., 3].
  """
  top = 2**bits - 1
  xyz = color.lab_to_xyz(lab)
  luminance = jnp.clip(xyz[..., 1:2], 0, 1)
  grey = jnp.round(color.linear_to_srgb(luminance) * top)
  kept = color.srgb_to_linear(grey / top)
  # Scaling linear light keeps the chromaticity.
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
  """Moves linear RGB [..., 3] into [0, 1] at constant luminance [..., 1].

  It mixes colors with the grey of equal luminance, which keeps the luminance
  exactly. `color.fit_to_gamut` is not exact enough here: its tolerance is 85
  levels of 16-bit black.
  """
  share = jnp.where(linear < 0, luminance / (luminance - linear), 1.0)
  share = jnp.where(linear > 1, (1 - luminance) / (linear - luminance), share)
  mixed = luminance + share.min(-1, keepdims=True) * (linear - luminance)
  return jnp.clip(mixed, 0, 1)


def _luminance(red, green, blue, top) -> jax.Array:
  rgb = jnp.stack([red, green, blue], -1) / top
  return color.linear_to_xyz(color.srgb_to_linear(rgb))[..., 1]
