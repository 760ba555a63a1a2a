"""Lightness and coloring of a photograph at its full resolution.

Pixels are processed in chunks and tiles of a constant size, so that photographs
of all sizes share a few compiled programs, and memory beyond the photograph and
one coloring is 4 bytes per pixel.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, resample
from colorjax.photo import chunks, painting

_TILE = 512

WeightsOf = Callable[[slice, slice], np.ndarray | int]
"""The weights of fields in a tile, see `paint_mixture`."""


def lightness_of(pixels: np.ndarray) -> np.ndarray:
  """Computes the Lab lightness of a photograph at full resolution.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].

  Returns:
    float32 [H, W], L in [0, 100].
  """
  flat = pixels if pixels.ndim == 3 else pixels[..., None]
  return chunks.by_chunks(_lightness_of_chunk, flat)[..., 0]


def paint(lightness: np.ndarray, field: resample.Field, *, bits: int,
          region: np.ndarray | None = None) -> np.ndarray:
  """Makes sRGB pixels from lightness and a low-resolution color field.

  Args:
    lightness: L in [0, 100], float32 [H, W].
    field: the color field, from `resample.fit_locally`.
    bits: bit depth of the pixels, 8 or 16.
    region: the pixels to color, bool [H, W]; None for all.

  Returns:
    uint8 or uint16 [H, W, 3].
  """
  return paint_mixture(lightness, [field], lambda rows, columns: 0,
                       bits=bits, region=region)


def paint_mixture(
    lightness: np.ndarray, fields: Sequence[resample.Field],
    weights_of: WeightsOf, *, bits: int, region: np.ndarray | None = None,
    tile: int | None = None,
) -> np.ndarray:
  """Paints several color fields, each with its weight at every pixel.

  Where one field has the weight 1, the pixels are those of `paint` for it.

  Args:
    lightness: L in [0, 100], float32 [H, W].
    fields: n color fields, from `resample.fit_locally`.
    weights_of: the weights of a tile, `(rows, columns) -> float32 [h, w, n]`,
      which sum to 1; or the number of the only field there.
    bits: bit depth of the pixels, 8 or 16.
    region: the pixels to color, bool [H, W]; None for all.
    tile: side of the tiles in pixels, 512 by default; a smaller one is faster
      for a small picture. Each value compiles its own program.

  Returns:
    uint8 or uint16 [H, W, 3].
  """
  tile = tile or _TILE
  height, width = lightness.shape
  pixels = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
  for rows, columns in _tiles(height, width, tile):
    light = _padded(lightness[rows, columns], tile)
    inside = (None if region is None
              else _padded(region[rows, columns], tile))
    positions = (resample.positions(rows.start, tile, height),
                 resample.positions(columns.start, tile, width))
    weights = weights_of(rows, columns)
    if isinstance(weights, int):
      ab = _ab_tile(light, fields[weights], *positions)
    else:
      ab = np.zeros((tile, tile, 2), np.float32)
      weights = _padded(weights, tile)
      for i in np.flatnonzero(weights.any((0, 1))).tolist():
        ab += weights[..., i, None] * np.asarray(
            _ab_tile(light, fields[i], *positions))
    painted = np.asarray(_paint_tile(light, inside, ab, bits=bits))
    pixels[rows, columns] = painted[:rows.stop - rows.start,
                                    :columns.stop - columns.start]
  return pixels


@jax.jit
def _ab_tile(lightness, field, y, x):
  return resample.evaluate(field, lightness, y, x)


@functools.partial(jax.jit, static_argnames='bits')
def _paint_tile(lightness, region, ab, *, bits):
  if region is not None:
    ab = jnp.where(region[..., None], ab, 0)
  return painting.picture(lightness[..., None], ab, bits=bits)


def _lightness_of_chunk(pixels: np.ndarray) -> jax.Array:
  """Lightness [n, 1] of sRGB uint8 or uint16, [n, 1] grey or [n, 3].

  Grey and color, 8 and 16 bits share one compiled program.
  """
  rgb = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
  return _lightness(np.broadcast_to(rgb, (len(rgb), 3)))


@jax.jit
def _lightness(rgb):
  return color.rgb_to_lab(rgb)[..., :1]


def _tiles(height: int, width: int, tile: int
           ) -> Iterator[tuple[slice, slice]]:
  """Yields tiles that cover a picture; the last ones may be smaller."""
  for top in range(0, height, tile):
    for left in range(0, width, tile):
      yield (slice(top, min(top + tile, height)),
             slice(left, min(left + tile, width)))


def _padded(values: np.ndarray, tile: int) -> np.ndarray:
  """Pads a tile to full size, so that all tiles share one compiled program."""
  pad = [(0, tile - side) for side in values.shape[:2]]
  return np.pad(values, pad + [(0, 0)] * (values.ndim - 2))
