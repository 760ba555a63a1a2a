"""The parts of an imitated scan, in the order in which they happen.

Light falls through a lens onto an emulsion, which is developed and printed. The
print ages and is damaged, and a scanner makes an 8-bit file of it. Each part is
a function without random numbers; `family` draws their arguments.

All pictures are float32 [B, H, W], and all other arguments have a value for
each picture, [B], unless another shape is given. Two units occur:

  exposure   light on the emulsion, 0 to 1, 1 for white
  density    optical density of the print above that of its paper: log10 of
             paper's reflectance / reflectance; 0 for bare paper
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp

from colorjax import color

LEAST_EXPOSURE = 1e-3
"""Exposures below are black: three decades, more than a print can show."""

MID_GREY = 0.18
"""Reflectance of a mid-grey, which a correct exposure reproduces as it is."""

INK_DENSITY = 1.6
"""Density of dark marks on a print."""


def expose(images: jax.Array, weights: jax.Array) -> jax.Array:
  """The exposure of an emulsion: its response to red, green and blue.

  Args:
    images: sRGB photographs, uint8 [B, H, W, 3].
    weights: response to linear R, G and B, at least 0, [B, 3]. Greys are
      reproduced as they are if they sum to 1.

  Returns:
    Exposures, [B, H, W].
  """
  # Not a sum over the last axis, which takes twice the time on a CPU, nor a
  # product of matrices, which a GPU would compute with 3 digits.
  srgb = images.astype(jnp.float32) / 255
  red, green, blue = (
      weights[:, i, None, None] * color.srgb_to_linear(srgb[..., i])
      for i in range(3))
  return red + green + blue


def blur(picture: jax.Array, sigma: jax.Array, *, radius: int,
         mode: str = 'edge') -> jax.Array:
  """Convolves with a Gaussian.

  Args:
    picture: [B, H, W].
    sigma: standard deviation of the Gaussian in pixels, [B]; 0 changes nothing.
    radius: the Gaussian is cut off at this distance, in pixels; static.
    mode: how the picture goes on beyond its border, as in `jnp.pad`.

  Returns:
    The blurred picture, [B, H, W].
  """
  weights = _gaussian(sigma, radius)[:, :, None, None]
  for axis in (1, 2):
    margin = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
    padded = jnp.pad(picture, margin, mode=mode)
    size = picture.shape[axis]
    picture = functools.reduce(operator.add, (
        weights[:, i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
        for i in range(2 * radius + 1)))
  return picture


def print_density(exposure: jax.Array, contrast: jax.Array, push: jax.Array,
                  most: jax.Array) -> jax.Array:
  """The density of a print, by a characteristic curve.

  Density is a logistic function of the logarithm of exposure, with the toe,
  the straight part and the shoulder of the curves of Hurter and Driffield
  (1890). It is that of negative and print together.

  Args:
    exposure: [B, H, W].
    contrast: slope of the straight part, density per decade of exposure.
    push: deviation from the correct exposure in stops. With 0, MID_GREY is
      reproduced as it is.
    most: largest density of the print, above -log10(MID_GREY) = 0.74.

  Returns:
    Densities from 0 to `most`, [B, H, W].
  """
  contrast, push, most = (x[:, None, None] for x in (contrast, push, most))
  steepness = 4 * contrast / (most * math.log(10))
  # The logistic's argument at which the density is that of MID_GREY.
  odds = most / -math.log10(MID_GREY) - 1
  stops = jnp.log2(jnp.maximum(exposure, LEAST_EXPOSURE) / MID_GREY) + push
  return most * jax.nn.sigmoid(-(
      jnp.log(odds) + steepness * math.log(2) * stops))


def plain_density(exposure: jax.Array) -> jax.Array:
  """The density that reproduces exposures as they are, [B, H, W]."""
  return -jnp.log10(jnp.clip(exposure, LEAST_EXPOSURE, 1))


def grain(density: jax.Array, noise: jax.Array, strength: jax.Array,
          size: jax.Array, *, radius: int) -> jax.Array:
  """Adds grain whose deviation grows as the root of the density.

  Grain is random clumps of silver. For grains of one size, the variance of the
  density of a small area is proportional to the density (Siedentopf 1937).

  Args:
    density: [B, H, W].
    noise: independent standard normal values, [B, H, W].
    strength: standard deviation at density 1.
    size: standard deviation of the Gaussian that makes clumps, in pixels; 0 for
      independent pixels. It does not change the strength.
    radius: as in `blur`.

  Returns:
    Densities, at least 0, [B, H, W].
  """
  # The noise goes on at the other side, so its variance is the same everywhere.
  clumps = blur(noise, size, radius=radius, mode='wrap')
  clumps /= jnp.square(_gaussian(size, radius)).sum(-1)[:, None, None]
  return jnp.maximum(density + strength[:, None, None] * clumps * jnp.sqrt(
      jnp.maximum(density, 0)), 0)


def fade(density: jax.Array, kept: jax.Array, stain: jax.Array) -> jax.Array:
  """Bleaches the silver, and makes the paper darker.

  Args:
    density: [B, H, W].
    kept: share of the silver that is left, 0 to 1.
    stain: density of the yellowed paper, at least 0.

  Returns:
    Densities, [B, H, W].
  """
  return kept[:, None, None] * density + stain[:, None, None]


def mark(density: jax.Array, light: jax.Array, dark: jax.Array) -> jax.Array:
  """Removes or covers the picture at scratches and dust.

  Args:
    density: [B, H, W].
    light: 1 where the emulsion is gone, 0 where it is whole, [B, H, W].
    dark: 1 where a mark of INK_DENSITY covers the print, else 0, [B, H, W].

  Returns:
    Densities, [B, H, W].
  """
  density = (1 - light) * density
  return density + dark * (INK_DENSITY - density)


def scratches(lines: jax.Array, size: int) -> jax.Array:
  """Draws thin, slightly bent lines.

  Args:
    lines: K lines, [B, K, 7]: x and y of the center, angle to the horizontal in
      radians, half the length, bend (distance of the ends from a straight
      line), width, and opacity. Lengths are shares of the side of the picture.
    size: side of the picture in pixels; static.

  Returns:
    Opacities, 0 to 1, [B, size, size].
  """
  x, y, angle, half, bend, width, opacity = jnp.moveaxis(
      lines, -1, 0)[..., None, None]
  places = _places(size)
  right, down = places - x, places[:, None] - y
  along = right * jnp.cos(angle) + down * jnp.sin(angle)
  across = down * jnp.cos(angle) - right * jnp.sin(angle)
  along /= half
  # A line that is thinner than a pixel is a paler line of a pixel.
  wide = jnp.maximum(width, 1 / size)
  profile = jnp.exp(-jnp.square((across - bend * along**2) / wide))
  return (opacity * width / wide * profile * (jnp.abs(along) < 1)).max(1)


def specks(spots: jax.Array, size: int) -> jax.Array:
  """Draws soft round spots.

  Args:
    spots: N spots, [B, N, 4]: x and y of the center and radius, as shares of
      the side of the picture, and opacity.
    size: side of the picture in pixels; static.

  Returns:
    Opacities, 0 to 1, [B, size, size].
  """
  x, y, radius, opacity = jnp.moveaxis(spots, -1, 0)[..., None]
  radius = jnp.maximum(radius, 0.5 / size)
  columns, rows = (
      jnp.exp(-jnp.square((_places(size) - at) / radius)) for at in (x, y))
  return jnp.minimum(jnp.einsum(
      'bny,bnx->byx', opacity * rows, columns,
      precision=jax.lax.Precision.HIGHEST), 1)


def scan(density: jax.Array) -> jax.Array:
  """Whole grey levels of an 8-bit sRGB file of the print, 0 to 255."""
  # Several times as fast on a CPU as a power of 10.
  reflectance = jnp.exp(-math.log(10) * density)
  return jnp.round(255 * color.linear_to_srgb(reflectance))


def lightness_of(levels: jax.Array) -> jax.Array:
  """L in [0, 100] of whole grey levels 0 to 255, any shape."""
  return color.lightness_of_luminance(color.srgb_to_linear(levels / 255))


def _gaussian(sigma: jax.Array, radius: int) -> jax.Array:
  """Weights of a Gaussian with the sum 1, [B, 2 * radius + 1]."""
  distance = jnp.arange(-radius, radius + 1) / jnp.maximum(sigma, 1e-2)[:, None]
  weights = jnp.exp(-jnp.square(distance) / 2)
  return weights / weights.sum(-1, keepdims=True)


def _places(size: int) -> jax.Array:
  """Centers of pixels as shares of the side, [size]."""
  return (jnp.arange(size) + 0.5) / size
