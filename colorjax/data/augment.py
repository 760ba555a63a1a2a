"""From a photograph of any size to the square that the network sees."""

import dataclasses
import math

import numpy as np

from colorjax.photo.square import resize

FITS = ('crop', 'squash')
"""How evaluation makes a photograph square: see `fit_square`."""

_CROP_ATTEMPTS = 10

NUM_DRAWS = 1 + 4 * _CROP_ATTEMPTS
"""Random numbers that `random_square` uses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
  """Random-resized-crop (Szegedy et al. 2015, arXiv:1409.4842) and flip.

  Attributes:
    scale: smallest and largest share of the photograph's area, in (0, 1].
    ratio: smallest and largest width / height of the crop before it is made
      square; its logarithm is uniform.
    flip: probability of mirroring left and right.
  """
  scale: tuple[float, float] = (0.25, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.5

  def __post_init__(self):
    """Refuses ranges that are none."""
    if not 0 < self.scale[0] <= self.scale[1] <= 1:
      raise ValueError(f'crop scale needs 0 < low <= high <= 1: {self.scale}')
    if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
      raise ValueError(f'crop ratio needs 0 < low <= high: {self.ratio}')
    if not 0 <= self.flip <= 1:
      raise ValueError(f'flip is a probability, got {self.flip}')


def crop_box(height: int, width: int, augment: Augment, draws: np.ndarray
             ) -> tuple[int, int, int, int]:
  """Where a random-resized-crop falls.

  Up to ten boxes of random area and ratio are tried; if none lies inside the
  photograph it is the largest one in the middle with an allowed ratio.

  Args:
    height: rows of the photograph.
    width: its columns.
    augment: scale and ratio.
    draws: uniform in [0, 1), [4 * attempts].

  Returns:
    top, left, rows, columns.
  """
  low, high = np.log(augment.ratio)
  for area_draw, ratio_draw, top_draw, left_draw in draws.reshape(-1, 4):
    area = height * width * (
        augment.scale[0] + area_draw * (augment.scale[1] - augment.scale[0]))
    ratio = math.exp(low + ratio_draw * (high - low))
    rows = max(1, round(math.sqrt(area / ratio)))
    columns = max(1, round(math.sqrt(area * ratio)))
    if rows <= height and columns <= width:
      return (int(top_draw * (height - rows + 1)),
              int(left_draw * (width - columns + 1)), rows, columns)
  ratio = min(max(width / height, augment.ratio[0]), augment.ratio[1])
  rows = max(1, min(height, round(width / ratio)))
  columns = max(1, min(width, round(height * ratio)))
  return (height - rows) // 2, (width - columns) // 2, rows, columns


@dataclasses.dataclass(frozen=True)
class View:
  """Which part of a photograph the network sees.

  Attributes:
    top: first row.
    left: first column.
    rows: number of rows.
    columns: number of columns.
    is_mirrored: whether left and right are exchanged.
  """
  top: int
  left: int
  rows: int
  columns: int
  is_mirrored: bool = False


def random_view(height: int, width: int, augment: Augment, draws: np.ndarray
                ) -> View:
  """A random crop of a photograph, perhaps mirrored.

  Args:
    height: rows of the photograph.
    width: its columns.
    augment: what may be drawn.
    draws: uniform in [0, 1), [NUM_DRAWS]; equal draws give equal views.

  Returns:
    The view.
  """
  return View(*crop_box(height, width, augment, draws[1:]),
              bool(draws[0] < augment.flip))


def fitted_view(height: int, width: int, fit: str) -> View:
  """What evaluation sees of a photograph.

  Args:
    height: rows of the photograph.
    width: its columns.
    fit: 'crop' takes the largest square in the middle, 'squash' the whole.

  Returns:
    The view.
  """
  if fit == 'squash':
    return View(0, 0, height, width)
  if fit != 'crop':
    raise ValueError(f'fit is one of {FITS}, got {fit!r}')
  side = min(height, width)
  return View((height - side) // 2, (width - side) // 2, side, side)


def cut(pixels: np.ndarray, view: View, size: int) -> np.ndarray:
  """A view of a photograph as a square.

  Args:
    pixels: uint8 [H, W, 3].
    view: what to show; it lies inside.
    size: side of the result in pixels.

  Returns:
    uint8 [size, size, 3].
  """
  square = resize(pixels[view.top:view.top + view.rows,
                         view.left:view.left + view.columns], size, size)
  return square[:, ::-1] if view.is_mirrored else square


def random_square(pixels: np.ndarray, size: int, augment: Augment,
                  draws: np.ndarray) -> np.ndarray:
  """`cut` at a `random_view`: uint8 [H, W, 3] to [size, size, 3]."""
  height, width = pixels.shape[:2]
  return cut(pixels, random_view(height, width, augment, draws), size)


def fit_square(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
  """A photograph made square for evaluation.

  Args:
    pixels: uint8 [H, W, 3].
    size: side of the result in pixels.
    fit: 'crop' takes the largest square in the middle and resizes it; 'squash'
      resizes the whole, which changes its proportions.

  Returns:
    uint8 [size, size, 3].
  """
  height, width = pixels.shape[:2]
  return cut(pixels, fitted_view(height, width, fit), size)
