"""Color hints: what a person would click on, drawn from the photograph itself.

A method that takes hints (`Colorizer.predict_with_hints`) is given the ab of
some pixels and where they are:

  hint_ab     float32 [..., H, W, 2], Lab units, 0 where there is no hint
  hint_mask   float32 [..., H, W, 1], 1 where the ab is given, else 0

A person paints them (`of_strokes`). Evaluations draw them at random from the
original, as Zhang et al. 2017 ("Real-Time User-Guided Image Colorization with
Learned Deep Priors") simulate a user. The draw is a function of (seed, index of
the photograph), so that every method is asked with the same hints, in any order
and batch size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color
from colorjax.errors import UserError
from colorjax.photo import chunks
from colorjax.photo import photo_files as photo

_NOISE = 8
"""Levels of 255 that a channel of a painted copy may differ by unpainted."""


def random_points(key: jax.Array, ab: jax.Array, n: int, size: int = 1
                  ) -> tuple[jax.Array, jax.Array]:
  """Shows the true ab of n squares at random places of one photograph.

  The places are uniform over those where a square lies wholly inside, no two
  are the same, and those of a smaller n are among those of a larger one.
  Squares of more than one pixel may overlap.

  Args:
    key: random key.
    ab: the original, Lab units, [H, W, 2].
    n: number of squares, at least 0; static.
    size: side of a square in pixels; static.

  Returns:
    hint_ab [H, W, 2] and hint_mask [H, W, 1].

  Raises:
    UserError: the photograph has no room for n different squares.
  """
  height, width = ab.shape[:2]
  rows, columns = height - size + 1, width - size + 1
  if size < 1 or not 0 <= n <= max(rows, 0) * max(columns, 0):
    raise UserError(
        f'{n} hints of {size} x {size} pixels asked of a photograph of '
        f'{height} x {width}: ask for fewer or smaller ones')
  # The n largest of independent numbers are n different places, and the
  # larger n is, the more of the same order are taken.
  _, places = jax.lax.top_k(jax.random.uniform(key, (rows * columns,)), n)
  corners = jnp.zeros(rows * columns).at[places].set(1).reshape(rows, columns)
  grown = jnp.pad(corners, size - 1)
  mask = jax.lax.reduce_window(
      grown, 0.0, jax.lax.max, (size, size), (1, 1), 'VALID')[..., None]
  return ab * mask, mask


def random_points_of(seed: int, index: jax.Array, ab: jax.Array, n: int,
                     size: int = 1) -> tuple[jax.Array, jax.Array]:
  """`random_points` of each photograph of a batch, by its place in the source.

  Args:
    seed: of the evaluation.
    index: batch['index'], int32 [B]; padding is -1.
    ab: the originals, Lab units, [B, H, W, 2].
    n: number of squares for each photograph.
    size: side of a square in pixels.

  Returns:
    hint_ab [B, H, W, 2] and hint_mask [B, H, W, 1].
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      jax.random.key(seed), index)
  return jax.vmap(lambda key, one: random_points(key, one, n, size))(keys, ab)


def of_strokes(strokes: photo.Photo, picture: photo.Photo, size: int
               ) -> tuple[np.ndarray, np.ndarray]:
  """What a person has painted, at the resolution of a network.

  Strokes lie on a transparent layer, where they are what is more than half
  opaque; or on a copy of the photograph, where they are what differs from it
  (by more than 8 of 255 levels: a copy that was saved as jpeg is noisy).

  Args:
    strokes: the layer or the copy, in the size of the photograph.
    picture: the photograph.
    size: side of the network's square, in pixels.

  Returns:
    hint_ab, float32 [size, size, 2], the mean ab of the strokes over each
    cell, and hint_mask, float32 [size, size, 1].

  Raises:
    UnreadablePhoto: the strokes have another size, or there are none.
  """
  shape = strokes.pixels.shape[:2]
  if shape != picture.pixels.shape[:2]:
    height, width = picture.pixels.shape[:2]
    raise photo.UnreadablePhoto(
        f'{strokes.path} is {shape[1]} x {shape[0]} pixels, its photograph '
        f'{width} x {height}: paint on a copy of the photograph, or on a '
        'transparent layer of its size')
  colors = photo.to_rgb8(strokes)
  rows, columns = np.nonzero(_painted(strokes, colors, picture))
  if not len(rows):
    raise photo.UnreadablePhoto(
        f'{strokes.path} holds no strokes: nothing on it is painted')
  ab = chunks.by_chunks(_ab, colors[rows, columns])
  cell = rows * size // shape[0] * size + columns * size // shape[1]
  count = np.bincount(cell, minlength=size**2)
  total = np.stack([np.bincount(cell, ab[:, i], size**2) for i in (0, 1)], -1)
  mask = (count > 0).astype(np.float32)
  mean = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
  return mean.reshape(size, size, 2), mask.reshape(size, size, 1)


@jax.jit
def _ab(pixels):
  return color.split_lightness(pixels)[1]


def _painted(strokes: photo.Photo, colors: np.ndarray, picture: photo.Photo
             ) -> np.ndarray:
  """Where strokes are, bool [H, W]."""
  alpha = None if strokes.alpha is None else photo.with_depth(strokes.alpha, 8)
  # A copy of a photograph with alpha has that alpha, and is no layer.
  of_photo = None if picture.alpha is None else photo.with_depth(
      picture.alpha, 8)
  if alpha is not None and alpha.min() < 255 and not (
      of_photo is not None and np.array_equal(alpha, of_photo)):
    return alpha > 127
  original = photo.to_rgb8(picture).astype(np.int16)
  return np.abs(colors - original).max(-1) > _NOISE
