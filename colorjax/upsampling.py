"""A small colour field brought to a large photograph, along its edges.

The fast guided filter (He & Sun 2015, arXiv:1505.00996): in each small window
of the low-resolution picture the ab field is modelled as an affine function of
the lightness,

    ab = slope * L + offset,

by ridge regression; slope and offset are averaged over windows, interpolated to
full resolution and applied to the full-resolution lightness. Where lightness
has an edge, colour gets the same edge, at full sharpness; where it is flat the
slope tends to 0 and the colour is interpolated bilinearly.

The published filter extrapolates at highlights and fine dark lines that the
low-resolution guide does not show. Here the result stays within the range that
the field has in the neighbourhood: no colour appears that was not predicted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

EPS = 16.0
"""Ridge in L^2: lightness that varies by less than 4 units is no edge."""


class Field(NamedTuple):
  """An ab field as affine functions of lightness, each float32 [h, w, 2].

  Attributes:
    slope: ab units for each unit of L.
    offset: ab units at L = 0.
    low: smallest ab in the neighbourhood.
    high: largest ab in the neighbourhood.
  """
  slope: jax.Array
  offset: jax.Array
  low: jax.Array
  high: jax.Array


@jax.jit
def fit(lightness: jax.Array, ab: jax.Array, *, eps: float = EPS) -> Field:
  """Fits the affine functions at low resolution.

  Windows have a radius of 1/32 of the field's side, at least 1 pixel.

  Args:
    lightness: L in [0, 100], [h, w].
    ab: Lab units, [h, w, 2].
    eps: ridge in L^2; 0 follows every edge, infinity gives plain bilinear
      interpolation of the smoothed field.

  Returns:
    The fit.
  """
  radius = max(1, round(min(lightness.shape) / 32))
  guide = lightness[..., None]
  mean_guide, mean_ab = _box_mean(guide, radius), _box_mean(ab, radius)
  covariance = _box_mean(guide * ab, radius) - mean_guide * mean_ab
  variance = _box_mean(guide * guide, radius) - mean_guide**2
  slope = covariance / (jnp.maximum(variance, 0) + eps)
  offset = mean_ab - slope * mean_guide
  reach = 2 * radius  # a pixel lies in windows that reach this far
  return Field(
      slope=_box_mean(slope, radius), offset=_box_mean(offset, radius),
      low=-_box_max(-ab, reach), high=_box_max(ab, reach))


def positions(start: int, count: int, total: int) -> np.ndarray:
  """Pixel centres along one side of the photograph, as shares of the side.

  Args:
    start: first pixel.
    count: number of pixels; those past the end are clamped to it.
    total: pixels of the whole side.

  Returns:
    float32 [count] in (0, 1).
  """
  pixels = np.minimum(np.arange(start, start + count), total - 1)
  return ((pixels + 0.5) / total).astype(np.float32)


def evaluate(field: Field, lightness: jax.Array, y: jax.Array, x: jax.Array
             ) -> jax.Array:
  """The ab of a part of the photograph.

  Args:
    field: what `fit` returned.
    lightness: L of the part in full resolution, [H, W].
    y: position of each row, as `positions` gives them, [H].
    x: position of each column, [W].

  Returns:
    ab, Lab units, [H, W, 2].
  """
  height, width = field.slope.shape[:2]
  maps = jnp.concatenate(field, axis=-1)
  maps = jnp.einsum('Hh,hwc,Ww->HWc', _linear_weights(y, height), maps,
                    _linear_weights(x, width),
                    precision=jax.lax.Precision.HIGHEST)
  slope, offset, low, high = jnp.split(maps, 4, axis=-1)
  return jnp.clip(slope * lightness[..., None] + offset, low, high)


def _linear_weights(position: jax.Array, size: int) -> jax.Array:
  """Weights [n, size] of linear interpolation between pixel centres."""
  at = jnp.clip(position * size - 0.5, 0, size - 1)
  return jnp.maximum(0, 1 - jnp.abs(at[:, None] - jnp.arange(size)))


def _box_sum(x: jax.Array, radius: int) -> jax.Array:
  window = (2 * radius + 1, 2 * radius + 1, 1)
  return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1), 'SAME')


def _box_mean(x: jax.Array, radius: int) -> jax.Array:
  """Mean over windows [2 radius + 1]^2, cut off at the borders."""
  return _box_sum(x, radius) / _box_sum(jnp.ones_like(x[..., :1]), radius)


def _box_max(x: jax.Array, radius: int) -> jax.Array:
  window = (2 * radius + 1, 2 * radius + 1, 1)
  return jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, window, (1, 1, 1), 'SAME')
