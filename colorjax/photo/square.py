"""The only definition of the square image that a network sees.

A network sees the lightness of a photograph that was resized to a square.
Training, evaluation and coloring all compute it in this order:

  1. convert to 8-bit sRGB (`photo.to_rgb8`);
  2. resize in sRGB with Pillow's antialiased bicubic filter and round to 8 bits
     (`resize`, or `resize_batch` for photographs on the device);
  3. compute Lab lightness on the device (`color.split_lightness`).

Lightness is a nonlinear function of sRGB. So the lightness of a resized
photograph differs from its resized lightness, by up to 3 units along edges.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from colorjax.photo import photo_files

_REDUCING_GAP = 3
"""A large photograph is first reduced by an integer factor with a box filter,
to at least this many times the final size."""


def resize(pixels: np.ndarray, height: int, width: int, *,
           box: tuple[float, float, float, float] | None = None) -> np.ndarray:
  """Resizes a picture with Pillow's antialiased bicubic filter.

  Args:
    pixels: uint8 sRGB, [H, W] or [H, W, 3].
    height: rows of the result.
    width: columns of the result.
    box: left, top, right and bottom of the part to resize, in pixels; None for
      the whole picture.

  Returns:
    uint8 [height, width] or [height, width, 3].
  """
  image = Image.fromarray(np.ascontiguousarray(pixels))
  return np.asarray(image.resize(
      (width, height), Image.Resampling.BICUBIC, box=box,
      reducing_gap=float(_REDUCING_GAP)))


def squash(pixels: np.ndarray, size: int) -> np.ndarray:
  """Resizes a whole photograph to the square that a network sees.

  The result is that of `photo.to_rgb8` followed by `resize`.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].
    size: side of the square in pixels.

  Returns:
    uint8 [size, size, 3].
  """
  # Repeating the grey channel after resizing gives the same result for a third
  # of the work.
  square = resize(photo_files.with_depth(pixels, 8), size, size)
  if square.ndim == 2:
    square = np.repeat(square[..., None], 3, axis=-1)
  return square


def resize_batch(images: jax.Array, size: int) -> jax.Array:
  """Resizes square photographs on the device, with the filter of `resize`.

  It also rounds after each pass like Pillow. The results may differ from those
  of `resize` by one level where a value lies between two levels.

  Args:
    images: uint8 sRGB [B, S, S, 3].
    size: side of the result in pixels; static.

  Returns:
    uint8 [B, size, size, 3].
  """
  side = images.shape[1]
  if side == size:
    return images
  x = images.astype(jnp.float32)
  factor = int(side / size / _REDUCING_GAP) or 1
  if factor > 1:
    box = jnp.asarray(_box_weights(side, factor))
    # Pillow adds half of the count as an integer, then multiplies by a
    # truncated reciprocal, which is exact only for powers of two.
    count = factor**2
    half = count // 2 / count - (1e-3 if count & (count - 1) else 0)
    x = _rounded(_along_columns(box, _along_rows(box, x)), half)
  weights = jnp.asarray(_bicubic_weights(x.shape[1], side / factor, size))
  x = _rounded(_along_columns(weights, x))
  return _rounded(_along_rows(weights, x)).astype(jnp.uint8)


def _along_rows(weights: jax.Array, x: jax.Array) -> jax.Array:
  """Applies weights [size, H] along the rows of x [B, H, W, C]."""
  return jnp.einsum('sh,bhwc->bswc', weights, x,
                    precision=jax.lax.Precision.HIGHEST)


def _along_columns(weights: jax.Array, x: jax.Array) -> jax.Array:
  """Applies weights [size, W] along the columns of x [B, H, W, C]."""
  return jnp.einsum('sw,bhwc->bhsc', weights, x,
                    precision=jax.lax.Precision.HIGHEST)


def _rounded(x: jax.Array, half: float = 0.5) -> jax.Array:
  """Rounds to 8-bit levels; `half` is added before rounding down."""
  return jnp.clip(jnp.floor(x + half), 0, 255)


@functools.cache
def _box_weights(side: int, factor: int) -> np.ndarray:
  """Weights of means over `factor` pixels; the last block may be shorter."""
  block = np.arange(side) // factor
  weights = (block == np.arange(block[-1] + 1)[:, None]).astype(np.float32)
  return weights / weights.sum(1, keepdims=True)


@functools.cache
def _bicubic_weights(count: int, length: float, size: int) -> np.ndarray:
  """Pillow's bicubic filter (Keys 1981, a = -0.5), float32 [size, count].

  Args:
    count: number of source pixels.
    length: length of the source to resize, in pixels from the first one; it may
      be a fraction below `count`.
    size: number of pixels of the result.
  """
  scale = length / size
  stretch = max(scale, 1.0)
  center = (np.arange(size)[:, None] + 0.5) * scale
  pixel = np.arange(count)[None]
  first = np.maximum(np.floor(center - 2 * stretch + 0.5), 0)
  end = np.minimum(np.floor(center + 2 * stretch + 0.5), count)
  x = np.abs((pixel - center + 0.5) / stretch)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  weights = np.where(x < 1, near, np.where(x < 2, far, 0))
  weights = np.where((pixel >= first) & (pixel < end), weights, 0)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
