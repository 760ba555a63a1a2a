"""Random variables for tests, without compiling an initialization."""

import jax
import numpy as np


def of(function, *arguments, size=0.6):
  """Fills the shapes that `function` returns.

  Scales and variances of norms are near 1, all others near 0 with the given
  standard deviation.
  """
  rng = np.random.default_rng(0)

  def fill(path, x):
    is_one = path[-1].key in ('scale', 'var')
    values = rng.normal(size=x.shape) * (0.1 if is_one else size)
    return np.asarray(np.abs(values + 1) if is_one else values, x.dtype)

  return jax.tree.map_with_path(fill, jax.eval_shape(function, *arguments))
