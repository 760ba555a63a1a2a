"""What JPEG does to a grey picture, with a quality for each picture.

Baseline JPEG (ITU-T T.81): blocks of 8 x 8 pixels, their discrete cosine
transform, coefficients rounded to multiples of a quantization table. Entropy
coding loses nothing and is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np

_TABLE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
], np.float32)
"""Quantization of luminance, ITU-T T.81, table K.1; rows are vertical
frequencies."""

_N = 8


def quantization(quality: jax.typing.ArrayLike) -> jax.Array:
  """The quantization table at a quality, scaled as by the IJG's library.

  Args:
    quality: from 1 to 100, any shape [...].

  Returns:
    Integers from 1 to 255 as float32, [..., 8, 8].
  """
  quality = jnp.asarray(quality, jnp.float32)[..., None, None]
  # The library computes in integers. The half keeps a quotient that is an
  # integer from being rounded down.
  percent = jnp.where(quality < 50, jnp.floor((5000 + 0.5) / quality),
                      200 - 2 * quality)
  return jnp.clip(jnp.floor((_TABLE * percent + 50.5) / 100), 1, 255)


def compress(levels: jax.Array, quality: jax.Array) -> jax.Array:
  """Compresses grey pictures and decodes them again.

  Args:
    levels: grey levels in [0, 255], [B, H, W], any H and W.
    quality: of each picture, integers from 1 to 100, [B].

  Returns:
    Whole grey levels in [0, 255], float32 [B, H, W].
  """
  _, height, width = levels.shape
  # As libjpeg does: blocks beyond the border repeat the last row and column.
  padded = jnp.pad(levels, ((0, 0), (0, -height % _N), (0, -width % _N)),
                   mode='edge') - 128
  blocks = padded.reshape(len(levels), padded.shape[1] // _N, _N, -1, _N)
  table = quantization(quality)[:, None, :, None, :]
  cosines = jnp.asarray(_cosines())
  coefficients = _transform(cosines, blocks)
  coefficients = jnp.round(coefficients / table) * table
  decoded = _transform(cosines.T, coefficients).reshape(padded.shape)
  return jnp.clip(jnp.round(decoded + 128), 0, 255)[:, :height, :width]


def _transform(matrix: jax.Array, blocks: jax.Array) -> jax.Array:
  """Applies a matrix [8, 8] to rows and columns of [B, h, 8, w, 8]."""
  # Without HIGHEST, a GPU would round coefficients to 3 digits.
  return jnp.einsum('ui,vj,bhiwj->bhuwv', matrix, matrix, blocks,
                    precision=jax.lax.Precision.HIGHEST)


def _cosines() -> np.ndarray:
  """The orthonormal DCT-II, [frequency, place]."""
  frequency, place = np.arange(_N)[:, None], np.arange(_N)
  matrix = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _N)) / 2
  matrix[0] /= np.sqrt(2)
  return matrix.astype(np.float32)
