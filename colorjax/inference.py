"""A photograph of any size and depth to its colorings.

The network sees the photograph's lightness, squashed to its square; the ab
field that it answers is brought up to the photograph's resolution along the
photograph's own edges (`upsampling`), fitted into the sRGB gamut at constant
lightness and hue, and rounded such that every pixel keeps its lightness
(`painting`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from colorjax import color, photo, resample
from colorjax.colorizer import Colorizer, Variables
from colorjax.photo import painting

Answer = Callable[..., tuple[jax.Array, jax.Array]]
"""`(variables, lightness [B, H, W, 1], region [B, H, W, 1] or None, hints or
None) -> (ab [k, B, H, W, 2], weight [k, B])`; hints are as `hints` has them,
[B, H, W, 2] and [B, H, W, 1]."""

_TILE = 512


@dataclasses.dataclass(frozen=True)
class Coloring:
  """One coloring of a photograph.

  Attributes:
    pixels: sRGB, uint8 or uint16 [H, W, 3], in the photograph's resolution.
    weight: its probability among the answers; 1 for a single best answer.
  """
  pixels: np.ndarray
  weight: float


def answers(colorizer: Colorizer, *, num_proposals: int = 0) -> Answer:
  """A method's answers as one compiled function, to be used for many photos.

  Args:
    colorizer: the method.
    num_proposals: 0 for the best single answer (`predict`), else the number of
      proposals, most probable first.

  Returns:
    The function; it is compiled once for each image size. Where one best
    answer is asked for it heeds a region if the method knows regions, and
    hints, which the method then must take.
  """
  def answer(variables, lightness, region=None, hints=None):
    if num_proposals:
      return colorizer.propose(variables, lightness, num_proposals)
    if hints is not None:
      assert colorizer.predict_with_hints is not None
      ab = colorizer.predict_with_hints(variables, lightness, *hints)[None]
    elif region is not None and colorizer.predict_within is not None:
      ab = colorizer.predict_within(variables, lightness, region)[None]
    else:
      ab = colorizer.predict(variables, lightness)[None]
    return ab, jnp.ones(ab.shape[:2])

  return jax.jit(answer)


def colorize(
    answer: Answer, variables: Variables, picture: photo.Photo, *,
    image_size: int, bits: int | None = None,
    region: np.ndarray | None = None,
    hints: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Coloring]:
  """Colors a photograph, one answer after the other.

  Colors that the photograph may have are not looked at: it is taken as its
  lightness. Beside the photograph and one coloring, 4 bytes a pixel are held:
  large photographs are worked on in tiles.

  Args:
    answer: what `answers` returned.
    variables: the network's variables.
    picture: the photograph.
    image_size: side of the network's square input, in pixels.
    bits: depth of the colorings, 8 or 16; the photograph's own if None.
    region: where color is wanted, bool [H, W]; the rest is exactly grey, with
      every method. None: everywhere.
    hints: colors that a person gives, as `hints.of_strokes` returns them at
      `image_size`; None: none.

  Yields:
    The colorings, most probable first.
  """
  lightness = lightness_of(picture.pixels)
  guide = squash(lightness, image_size)
  seen = None
  if region is not None:
    small = squash(region.astype(np.float32), image_size) > 0.5
    seen = jnp.asarray(small, jnp.float32)[None, ..., None]
  given = None if hints is None else tuple(jnp.asarray(x)[None] for x in hints)
  ab, weight = answer(
      variables, jnp.asarray(guide)[None, ..., None], seen, given)
  for one_ab, one_weight in zip(ab[:, 0], np.asarray(weight[:, 0]),
                                strict=True):
    field = resample.fit(guide, one_ab)
    yield Coloring(
        pixels=paint(lightness, field, region=region,
                     bits=bits or 8 * picture.pixels.itemsize),
        weight=float(one_weight))


def lightness_of(pixels: np.ndarray) -> np.ndarray:
  """Lab lightness of a photograph.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].

  Returns:
    float32 [H, W], L in [0, 100].
  """
  lightness = np.empty(pixels.shape[:2], np.float32)
  for rows, columns in _tiles(*pixels.shape[:2]):
    tile = _padded(pixels[rows, columns])
    lightness[rows, columns] = _cut(_lightness(tile), rows, columns)
  return lightness


def squash(lightness: np.ndarray, size: int) -> np.ndarray:
  """Lightness [H, W] brought to a square [size, size], antialiased bicubic.

  The proportions change, as `fit_square(..., 'squash')` of the data does it.
  """
  small = Image.fromarray(lightness).resize(
      (size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
  # Bicubic rings past black and white.
  return np.clip(np.asarray(small), 0, 100)


def paint(lightness: np.ndarray, field: resample.Field, *, bits: int,
          region: np.ndarray | None = None) -> np.ndarray:
  """Lightness and a color field to sRGB pixels of that lightness.

  Args:
    lightness: L in [0, 100], float32 [H, W].
    field: the colors at low resolution, as `resample.fit` returns them.
    bits: depth of the pixels, 8 or 16.
    region: bool [H, W], False where the pixel is left grey; None: nowhere.

  Returns:
    uint8 or uint16 [H, W, 3].
  """
  height, width = lightness.shape
  pixels = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
  for rows, columns in _tiles(height, width):
    painted = _paint_tile(
        _padded(lightness[rows, columns]),
        None if region is None else _padded(region[rows, columns]), field,
        resample.positions(rows.start, _TILE, height),
        resample.positions(columns.start, _TILE, width), bits=bits)
    pixels[rows, columns] = _cut(painted, rows, columns)
  return pixels


@functools.partial(jax.jit, static_argnames='bits')
def _paint_tile(lightness, region, field, y, x, *, bits):
  ab = resample.evaluate(field, lightness, y, x)
  if region is not None:
    ab = jnp.where(region[..., None], ab, 0)
  return painting.picture(lightness[..., None], ab, bits=bits)


@jax.jit
def _lightness(pixels):
  rgb = pixels.astype(jnp.float32) / jnp.iinfo(pixels.dtype).max
  if rgb.ndim == 2:
    rgb = jnp.repeat(rgb[..., None], 3, axis=-1)
  return color.rgb_to_lab(rgb)[..., 0]


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
  """Tiles that cover a picture; those at its ends are smaller."""
  for top in range(0, height, _TILE):
    for left in range(0, width, _TILE):
      yield (slice(top, min(top + _TILE, height)),
             slice(left, min(left + _TILE, width)))


def _padded(tile: np.ndarray) -> np.ndarray:
  """A tile at full size, so that all tiles share one compiled program."""
  pad = [(0, _TILE - side) for side in tile.shape[:2]]
  return np.pad(tile, pad + [(0, 0)] * (tile.ndim - 2))


def _cut(tile: jax.Array, rows: slice, columns: slice) -> np.ndarray:
  return np.asarray(tile)[:rows.stop - rows.start,
                          :columns.stop - columns.start]
