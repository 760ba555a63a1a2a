"""Parts of a photograph that a person chooses, at any resolution.

Parts are segments of the photograph (Felzenszwalb and Huttenlocher 2004,
"Efficient Graph-Based Image Segmentation", on lightness) or brush strokes. They
are drawn on a small grid. A guided filter (He, Sun and Tang 2010) moves their
borders to the edges of the photograph and softens them where there is no edge.
Its coefficients are enlarged to any resolution and applied to the lightness
there (He and Sun 2015, "Fast Guided Filter").
"""

import threading
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw
from skimage import segmentation

from colorjax import full_size
from colorjax.choices import Area
from colorjax.photo import photo_files, square, strokes

GRID = 512
"""Longest side of the grid, in cells."""

_SEGMENTS = {'small': (60, 50), 'medium': (250, 160), 'large': (800, 600)}
"""Scale and smallest number of cells of the segments of each size."""

_RADIUS = 2  # cells; of the windows of the guided filter
_RIDGE = 16.0  # L^2: differences of less than 4 L are not treated as edges
_MARGIN = 2 * _RADIUS + 2  # cells around a border that the filter changes
_LEVELS = 256  # weights are multiples of 1 / 256, so that 0 and 1 are exact


class Grid:
  """The lightness of a photograph on the grid, and its segments.

  Attributes:
    width: columns of the upright photograph.
    height: its rows.
    lightness: L in [0, 100], float32 [h, w].
  """

  def __init__(self, pixels: np.ndarray):
    """Reduces a photograph.

    Args:
      pixels: sRGB, uint8 or uint16, [H, W] or [H, W, 3].
    """
    self.height, self.width = pixels.shape[:2]
    rows, columns = fitted(self.height, self.width, GRID)
    self.lightness = full_size.lightness_of(square.resize(
        photo_files.with_depth(pixels, 8), rows, columns))
    self._segments: dict[str, np.ndarray] = {}
    self._lock = threading.Lock()

  @property
  def num_bytes(self) -> int:
    """Bytes in memory, with the segments of all sizes."""
    return self.lightness.nbytes + len(_SEGMENTS) * 4 * self.lightness.size

  def segments(self, size: str) -> np.ndarray:
    """Divides the photograph into segments; computed once for each size.

    Args:
      size: one of `choices.SIZES`.

    Returns:
      The number of the segment of each cell, int32 [h, w].
    """
    with self._lock:
      if size not in self._segments:
        scale, least = _SEGMENTS[size]
        self._segments[size] = segmentation.felzenszwalb(
            self.lightness / 100, scale=scale, sigma=1.0, min_size=least,
            channel_axis=None).astype(np.int32)
      return self._segments[size]

  def draw(self, areas: Sequence[tuple[int, Area]], start: int = 0
           ) -> np.ndarray:
    """Draws areas over each other.

    Args:
      areas: a number below 256 for each area, later ones over earlier ones.
      start: the number of the rest.

    Returns:
      The number of each cell, uint8 [h, w].
    """
    rows, columns = self.lightness.shape
    across, down = columns / self.width, rows / self.height
    labels = np.full((rows, columns), start, np.uint8)
    for label, area in areas:
      if area.at is not None:
        x, y = area.at
        segments = self.segments(area.size)
        cell = segments[min(int(y * down), rows - 1),
                        min(int(x * across), columns - 1)]
        labels[segments == cell] = label
        continue
      image = Image.fromarray(labels)
      # A pixel center is at a half in the photograph and a whole in Pillow.
      strokes.line(ImageDraw.Draw(image), [
          ((x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5)
          for x, y in area.points],
          area.width * (across + down) / 2, label)
      labels = np.array(image)
    return labels


class Weights:
  """The share of each part at each pixel of a picture of the photograph."""

  def __init__(self, grid: Grid, labels: np.ndarray, count: int):
    """Filters the parts along the edges of the photograph.

    Args:
      grid: the photograph.
      labels: the part of each cell, below `count`, uint8 [h, w].
      count: number of parts.
    """
    guide = grid.lightness.astype(np.float64)
    parts = (labels[..., None] == np.arange(count)).astype(np.float64)
    self._labels, self._count = labels, count
    mean, mean_parts = _mean(guide[..., None]), _mean(parts)
    covariance = _mean(guide[..., None] * parts) - mean * mean_parts
    variance = _mean(guide[..., None]**2) - mean**2
    slope = covariance / (variance + _RIDGE)
    self._offset = _mean(mean_parts - slope * mean).astype(np.float32)
    self._slope = _mean(slope).astype(np.float32)

  def of(self, lightness: np.ndarray, rows: slice, columns: slice
         ) -> np.ndarray | int:
    """Computes the weights in a rectangle of a picture.

    Args:
      lightness: L in [0, 100] of the whole picture, float32 [H, W].
      rows: rows of the rectangle.
      columns: its columns.

    Returns:
      Multiples of 1 / 256 that sum to 1, float32 [h, w, n]; or the number of
      the part, if there is only one.
    """
    height, width = lightness.shape
    cells = self._labels.shape
    top, bottom = (edge * cells[0] / height for edge in (rows.start, rows.stop))
    left, right = (edge * cells[1] / width
                   for edge in (columns.start, columns.stop))
    near = np.unique(self._labels[
        max(int(top) - _MARGIN, 0):int(np.ceil(bottom)) + _MARGIN,
        max(int(left) - _MARGIN, 0):int(np.ceil(right)) + _MARGIN])
    if len(near) == 1:
      return int(near[0])
    part = lightness[rows, columns]

    def enlarged(values):
      return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(
          part.shape[::-1], Image.Resampling.BILINEAR,
          box=(left, top, right, bottom)))

    weights = np.zeros((*part.shape, self._count), np.float32)
    for i in near:
      weights[..., i] = (enlarged(self._slope[..., i]) * part
                         + enlarged(self._offset[..., i]))
    return _rounded(weights)


def _rounded(weights: np.ndarray) -> np.ndarray:
  """Clips weights to [0, 1] and rounds them; their sum is then exactly 1."""
  weights = np.clip(weights, 0, 1)
  weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-6)
  levels = np.rint(weights * _LEVELS)
  levels[levels <= 2] = 0
  largest = levels.argmax(-1)[..., None]
  np.put_along_axis(levels, largest, 0, -1)
  np.put_along_axis(
      levels, largest, _LEVELS - levels.sum(-1, keepdims=True), -1)
  return levels / np.float32(_LEVELS)


def _mean(values: np.ndarray) -> np.ndarray:
  """Means over windows of [h, w, n]."""
  size = 2 * _RADIUS + 1
  return scipy.ndimage.uniform_filter(values, (size, size, 0), mode='nearest')


def fitted(height: int, width: int, longest: int) -> tuple[int, int]:
  """Rows and columns of a picture that is reduced to a longest side."""
  scale = min(1.0, longest / max(height, width))
  return max(1, round(height * scale)), max(1, round(width * scale))
