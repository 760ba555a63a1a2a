"""Color hints, from painted strokes or drawn at random from a photograph.

Hints are two inputs of a method (see `colorjax.colorizer`):

  hint_ab     float32 [..., H, W, 2], Lab units, 0 where there is no hint
  hint_mask   float32 [..., H, W, 1], 1 where there is a hint, else 0

A user gives them as strokes (`read`). An evaluation draws them at random
from the original, which simulates a user as in Zhang et al. 2017 ("Real-Time
User-Guided Image Colorization with Learned Deep Priors"). These hints are a
function of (seed, index of the photograph). So every method gets the same
hints, in any order and with any batch size.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from colorjax import color, files
from colorjax.errors import UserError
from colorjax.photo import chunks
from colorjax.photo import photo_files as photo

_EXAMPLE = '{"color": "#87ceeb", "points": [[x, y], ...], "width": 9}'

_NOISE = 8
"""Largest difference, in levels of 255, of a pixel that counts as unpainted."""


def random_points(key: jax.Array, ab: jax.Array, n: int, size: int = 1
                  ) -> tuple[jax.Array, jax.Array]:
  """Draws hints for one photograph: its true ab in n random squares.

  The squares are drawn uniformly, without replacement, from all that lie
  completely inside. The squares of a smaller n are among those of a larger n.
  Squares of more than one pixel may overlap.

  Args:
    key: random key.
    ab: the original, Lab units, [H, W, 2].
    n: number of squares, at least 0; static.
    size: side of a square in pixels; static.

  Returns:
    hint_ab [H, W, 2] and hint_mask [H, W, 1].

  Raises:
    UserError: the photograph is too small for n different squares.
  """
  height, width = ab.shape[:2]
  rows, columns = height - size + 1, width - size + 1
  if size < 1 or not 0 <= n <= max(rows, 0) * max(columns, 0):
    raise UserError(
        f'{n} hints of {size} x {size} pixels do not fit into a photograph of '
        f'{height} x {width}: use fewer or smaller hints')
  # The n largest of independent random numbers are at n different places. A
  # larger n only adds places.
  _, places = jax.lax.top_k(jax.random.uniform(key, (rows * columns,)), n)
  corners = jnp.zeros(rows * columns).at[places].set(1).reshape(rows, columns)
  grown = jnp.pad(corners, size - 1)
  hint_mask = jax.lax.reduce_window(
      grown, 0.0, jax.lax.max, (size, size), (1, 1), 'VALID')[..., None]
  return ab * hint_mask, hint_mask


def random_points_of(seed: int, index: jax.Array, ab: jax.Array, n: int,
                     size: int = 1) -> tuple[jax.Array, jax.Array]:
  """Draws hints for each photograph of a batch with `random_points`.

  Args:
    seed: seed of the evaluation.
    index: batch['index'], int32 [B]; -1 for padding.
    ab: the originals, Lab units, [B, H, W, 2].
    n: number of squares for each photograph.
    size: side of a square in pixels.

  Returns:
    hint_ab [B, H, W, 2] and hint_mask [B, H, W, 1].

  Raises:
    UserError: as in `random_points`.
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      jax.random.key(seed), index)
  return jax.vmap(lambda key, one: random_points(key, one, n, size))(keys, ab)


def read(path: str | os.PathLike, picture: photo.Photo, size: int
         ) -> tuple[np.ndarray, np.ndarray]:
  """Reads the hints for a photograph from a file.

  Args:
    path: a picture with painted strokes, see `of_strokes`, or a file whose name
      ends in .json, see `of_json`.
    picture: the photograph.
    size: side of the network's square input, in pixels.

  Returns:
    As `of_strokes`.

  Raises:
    UnreadablePhoto: the file cannot be read, or does not fit the photograph.
  """
  if pathlib.Path(path).suffix.lower() != '.json':
    return of_strokes(photo.read(path), picture, size)
  try:
    return of_json(files.read_json(path), picture.pixels.shape[:2], size)
  except photo.UnreadablePhoto as error:
    raise photo.UnreadablePhoto(f'{path}: {error}') from error
  except UserError as error:
    raise photo.UnreadablePhoto(str(error)) from error


def of_json(hints: Any, shape: tuple[int, ...], size: int
            ) -> tuple[np.ndarray, np.ndarray]:
  """Converts hints as JSON values to hints at the resolution of a network.

  The value is a list of strokes, in the order in which they are painted:

    [{"color": "#87ceeb", "points": [[120, 40]]},
     {"color": "#3a5f0b", "points": [[10, 300], [200, 310]], "width": 9}]

  A stroke with one point is a disc, one with more points a line. x, to the
  right, and y, down, are pixels of the upright photograph. The width is in
  pixels; the default is a hundredth of the shorter side. Only the hue and the
  chroma of a color matter.

  Args:
    hints: the value.
    shape: height and width of the photograph, in pixels.
    size: side of the network's square input, in pixels.

  Returns:
    As `of_strokes`.

  Raises:
    UnreadablePhoto: the value has another form, or a point is outside.
  """
  height, width = shape
  layer = Image.new('RGBA', (width, height))
  draw = ImageDraw.Draw(layer)
  if not isinstance(hints, list) or not hints:
    raise photo.UnreadablePhoto('hints are a list of strokes, at least one')
  for i, stroke in enumerate(hints):
    try:
      points, thickness = _stroke(stroke, width, height)
      color_8_bit = ImageColor.getcolor(stroke['color'], 'RGBA')
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise photo.UnreadablePhoto(
          f'stroke {i}: {error}; a stroke looks like {_EXAMPLE}') from error
    line(draw, points, thickness, color_8_bit)
  pixels = np.asarray(layer)
  painted = pixels[..., 3] > 127
  if not painted.any():
    raise photo.UnreadablePhoto('no stroke is opaque')
  return _in_cells(pixels[..., :3], painted, size)


def line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]],
         width: float, fill: Any) -> None:
  """Draws a stroke with round ends and corners.

  Args:
    draw: where it is drawn.
    points: x and y in pixels; one point gives a disc.
    width: in pixels.
    fill: its color, as Pillow wants it for this image.
  """
  radius = width / 2
  draw.line(list(points), fill=fill, width=max(1, round(width)))
  for x, y in points:
    draw.point((x, y), fill=fill)
    if radius >= 1:
      draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _stroke(stroke: Any, width: int, height: int
            ) -> tuple[list[tuple[float, float]], float]:
  """The points of a stroke, and its width in pixels.

  Raises:
    KeyError, TypeError, ValueError: it has another form.
  """
  unknown = stroke.keys() - {'color', 'points', 'width'}
  if unknown:
    raise ValueError(f'unknown entry {min(unknown)!r}')
  points = [(float(x), float(y)) for x, y in stroke['points']]
  thickness = float(stroke.get('width', min(width, height) / 100))
  if not points or not 0 < thickness <= max(width, height):
    raise ValueError('points or width are out of range')
  for x, y in points:
    if not (0 <= x < width and 0 <= y < height):
      raise ValueError(f'the point [{x:g}, {y:g}] is outside the photograph of '
                       f'{width} x {height} pixels')
  return points, thickness


def of_strokes(strokes: photo.Photo, picture: photo.Photo, size: int
               ) -> tuple[np.ndarray, np.ndarray]:
  """Converts painted strokes to hints at the resolution of a network.

  The strokes are painted on a transparent layer or on a copy of the photograph.
  On a layer, pixels that are more than half opaque are strokes. On a copy,
  pixels that differ from the photograph are strokes; differences of up to 8 of
  255 levels are ignored as JPEG noise.

  Args:
    strokes: the layer or the copy, of the same size as the photograph.
    picture: the photograph.
    size: side of the network's square input, in pixels.

  Returns:
    hint_ab, float32 [size, size, 2], the mean ab of the strokes in each cell,
    and hint_mask, float32 [size, size, 1].

  Raises:
    UnreadablePhoto: the sizes differ, or there are no strokes.
  """
  shape = strokes.pixels.shape[:2]
  if shape != picture.pixels.shape[:2]:
    height, width = picture.pixels.shape[:2]
    raise photo.UnreadablePhoto(
        f'{strokes.path} is {shape[1]} x {shape[0]} pixels, but its photograph '
        f'is {width} x {height}: paint on a copy of the photograph, or on a '
        'transparent layer of its size')
  colors = photo.to_rgb8(strokes)
  painted = _painted(strokes, colors, picture)
  if not painted.any():
    raise photo.UnreadablePhoto(
        f'{strokes.path} holds no strokes: paint on a copy of the photograph, '
        'or on a transparent layer of its size')
  return _in_cells(colors, painted, size)


def _in_cells(colors: np.ndarray, painted: np.ndarray, size: int
              ) -> tuple[np.ndarray, np.ndarray]:
  """Mean ab of the painted pixels in each cell, and the cells that have some.

  Args:
    colors: uint8 sRGB [H, W, 3].
    painted: bool [H, W].
    size: number of rows and of columns of cells.
  """
  shape = painted.shape
  rows, columns = np.nonzero(painted)
  ab = chunks.by_chunks(_ab, colors[rows, columns])
  cell = rows * size // shape[0] * size + columns * size // shape[1]
  count = np.bincount(cell, minlength=size**2)
  total = np.stack([np.bincount(cell, ab[:, i], size**2) for i in (0, 1)], -1)
  hint_mask = (count > 0).astype(np.float32)
  mean = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
  return mean.reshape(size, size, 2), hint_mask.reshape(size, size, 1)


@jax.jit
def _ab(pixels):
  return color.split_lightness(pixels)[1]


def _painted(strokes: photo.Photo, colors: np.ndarray, picture: photo.Photo
             ) -> np.ndarray:
  """The pixels with strokes, bool [H, W]."""
  alpha = None if strokes.alpha is None else photo.with_depth(strokes.alpha, 8)
  photo_alpha = None if picture.alpha is None else photo.with_depth(
      picture.alpha, 8)
  if alpha is not None and alpha.min() < 255:
    # A picture with the alpha of the photograph is a copy of it, not a layer.
    is_copy = photo_alpha is not None and np.array_equal(alpha, photo_alpha)
    if not is_copy:
      return alpha > 127
  original = photo.to_rgb8(picture).astype(np.int16)
  return np.abs(colors - original).max(-1) > _NOISE
