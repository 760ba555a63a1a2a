"""Work on the pixels of photographs of any size with one compiled program.

JAX compiles a program for each shape, and keeps it. A photograph's own size
must therefore never be the shape of an array that reaches JAX: thousands of
photographs would mean thousands of compilations, and memory that grows with
each. Pixels go in chunks of one length instead.
"""

from collections.abc import Callable

import jax
import numpy as np

CHUNK = 2**16
"""Pixels that are worked on at once."""


def by_chunks(function: Callable[[np.ndarray], jax.Array],
              pixels: np.ndarray) -> np.ndarray:
  """Applies a function of single pixels to all of them, a chunk at a time.

  Args:
    function: `[CHUNK, C] -> [CHUNK, D]`, compiled; what it makes of a pixel
      depends on that pixel alone.
    pixels: any size, [..., C].

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
