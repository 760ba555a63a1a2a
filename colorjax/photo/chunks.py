"""Applies one compiled program to photographs of any size.

JAX compiles and caches a program for each array shape. So the size of a
photograph must not become the shape of a JAX array: thousands of photographs
would need thousands of compilations, and memory would grow with each of them.
Instead, pixels are processed in chunks of equal length.
"""

from collections.abc import Callable

import jax
import numpy as np

CHUNK = 2**16
"""Number of pixels in a chunk."""


def by_chunks(function: Callable[[np.ndarray], jax.Array],
              pixels: np.ndarray) -> np.ndarray:
  """Applies a pixelwise function to all pixels, one chunk at a time.

  Args:
    function: `[CHUNK, C] -> [CHUNK, D]`, a compiled function that maps each
      pixel independently of the others.
    pixels: [..., C], any number of pixels.

  Returns:
    [..., D].
  """
  flat = pixels.reshape(-1, pixels.shape[-1])
  result: np.ndarray | None = None
  for start in range(0, max(len(flat), 1), CHUNK):
    chunk = flat[start:start + CHUNK]
    count = len(chunk)
    if count < CHUNK:
      chunk = np.pad(chunk, [(0, CHUNK - count), (0, 0)])
    done = np.asarray(function(chunk))
    if result is None:
      result = np.empty((len(flat), done.shape[-1]), done.dtype)
    result[start:start + count] = done[:count]
  assert result is not None
  return result.reshape(*pixels.shape[:-1], result.shape[-1])
