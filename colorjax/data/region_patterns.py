"""Binary patterns of any size: the ten published ones, and random ones.

The published patterns are the masks of the project "colorization-masks-gans"
(H. Paz, IMPA 2018), in the order of its files mask1 to mask10: four halves,
four vertical and four horizontal stripes each with the complement, and a 4 x 4
checkerboard with its complement. Its 224 x 224 files were drawn by hand: their
stripes are 52, 60, 60 and 52 pixels wide, and four rows or columns in the
middle belong to neither half. Here the stripes have the same relative widths,
and the halves are exact, so that a pattern and its complement cover all pixels
at every size.
"""

import math
from collections.abc import Callable

import numpy as np

Draws = Callable[[int], np.ndarray]
"""`count -> float64 [count]`, uniform in [0, 1). Repeated calls return the same
numbers; a larger count only appends numbers."""

_PUBLISHED_SIZE = 224
_HALF = (112,)
_STRIPES = (52, 112, 172)
_CELLS = (56, 112, 168)

_MIN_SHARE, _MAX_SHARE = 0.2, 0.8  # of the area that noise and blobs cover


def _band(size: int, edges: tuple[int, ...]) -> np.ndarray:
  """Number of the band that each of `size` pixels lies in: int [size].

  Args:
    size: number of pixels.
    edges: where bands begin in a pattern of _PUBLISHED_SIZE pixels.
  """
  starts = [(2 * edge * size + _PUBLISHED_SIZE) // (2 * _PUBLISHED_SIZE)
            for edge in edges]  # rounded to the nearest pixel
  return np.searchsorted(starts, np.arange(size), side='right')


def _even_bands(bands: np.ndarray, height: int, width: int) -> np.ndarray:
  """The pixels whose band number is even: bool [height, width]."""
  return np.broadcast_to(bands % 2 == 0, (height, width)).copy()


def left(height: int, width: int) -> np.ndarray:
  """The left half, with the middle column if there is one: bool [H, W]."""
  return _even_bands(_band(width, _HALF)[None], height, width)


def top(height: int, width: int) -> np.ndarray:
  """The upper half, with the middle row if there is one: bool [H, W]."""
  return _even_bands(_band(height, _HALF)[:, None], height, width)


def vertical_stripes(height: int, width: int) -> np.ndarray:
  """Four vertical stripes, the first inside: bool [height, width]."""
  return _even_bands(_band(width, _STRIPES)[None], height, width)


def horizontal_stripes(height: int, width: int) -> np.ndarray:
  """Four horizontal stripes, the first inside: bool [height, width]."""
  return _even_bands(_band(height, _STRIPES)[:, None], height, width)


def checkerboard(height: int, width: int) -> np.ndarray:
  """4 x 4 cells, the upper left one inside: bool [height, width]."""
  return _even_bands(_band(height, _CELLS)[:, None] + _band(width, _CELLS),
                     height, width)


def complement(pattern: Callable[[int, int], np.ndarray]
               ) -> Callable[[int, int], np.ndarray]:
  """Exchanges inside and outside of a pattern."""
  return lambda height, width: ~pattern(height, width)


PUBLISHED: dict[str, Callable[[int, int], np.ndarray]] = {
    'right': complement(left),
    'top': top,
    'left': left,
    'bottom': complement(top),
    'vertical_complement': complement(vertical_stripes),
    'horizontal': horizontal_stripes,
    'vertical': vertical_stripes,
    'horizontal_complement': complement(horizontal_stripes),
    'checkerboard_complement': complement(checkerboard),
    'checkerboard': checkerboard,
}
"""The ten published patterns by name: `(height, width) -> bool [H, W]`."""

HALVES = ('left', 'right', 'top', 'bottom')
"""The published patterns that are halves."""


def random_stripes(height: int, width: int, draws: Draws) -> np.ndarray:
  """One to six stripes of random direction and width: bool [height, width]."""
  angle, frequency, phase, width_draw = draws(4)
  y, x = _centered(height, width)
  along = x * math.cos(math.pi * angle) + y * math.sin(math.pi * angle)
  place = along * (1 + 5 * frequency) + phase
  return place - np.floor(place) < 0.3 + 0.4 * width_draw


def random_boxes(height: int, width: int, draws: Draws) -> np.ndarray:
  """One to four boxes, or their complement: bool [height, width].

  Each side of a box is 1/8 to 5/8 of the picture's side.
  """
  count, is_outside, *rest = draws(2 + 4 * 4)
  inside = np.zeros((height, width), bool)
  boxes = np.reshape(rest, (4, 4))[:1 + int(4 * count)]
  for rows_draw, columns_draw, top_draw, left_draw in boxes:
    rows = max(1, round(height * (0.125 + 0.5 * rows_draw)))
    columns = max(1, round(width * (0.125 + 0.5 * columns_draw)))
    first_row = int(top_draw * (height - rows + 1))
    first_column = int(left_draw * (width - columns + 1))
    inside[first_row:first_row + rows,
           first_column:first_column + columns] = True
  return ~inside if is_outside < 0.5 else inside


def random_blobs(height: int, width: int, draws: Draws) -> np.ndarray:
  """Round shapes that cover 20 to 80 % of the area: bool [height, width].

  They are a thresholded sum of eight random plane waves.
  """
  share, *rest = draws(1 + 8 * 3)
  y, x = _centered(height, width)
  field = np.zeros((height, width))
  for angle, frequency, phase in np.reshape(rest, (8, 3)):
    along = x * math.cos(2 * math.pi * angle) + y * math.sin(
        2 * math.pi * angle)
    field += np.cos(2 * math.pi * (along * (0.5 + 2 * frequency) + phase))
  return field <= np.quantile(field, _share(share))


def random_noise(height: int, width: int, draws: Draws) -> np.ndarray:
  """Square cells with a side of 1, 2, 4 or 8 pixels, inside at random.

  Args:
    height: rows.
    width: columns.
    draws: random numbers; they also choose the cell size and the probability
      that a cell is inside, 20 to 80 %.

  Returns:
    bool [height, width].
  """
  cell_draw, share = draws(2)
  cell = 2**int(4 * cell_draw)
  rows, columns = -(-height // cell), -(-width // cell)
  cells = draws(2 + rows * columns)[2:].reshape(rows, columns) < _share(share)
  return cells.repeat(cell, 0).repeat(cell, 1)[:height, :width]


RANDOM: dict[str, Callable[[int, int, Draws], np.ndarray]] = {
    'stripes': random_stripes,
    'boxes': random_boxes,
    'blobs': random_blobs,
    'noise': random_noise,
}
"""Random patterns by name: `(height, width, draws) -> bool [H, W]`."""


def _centered(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates y [H, 1] and x [1, W]; the shorter side spans [-1/2, 1/2]."""
  side = min(height, width)
  y = (np.arange(height) + 0.5 - height / 2) / side
  x = (np.arange(width) + 0.5 - width / 2) / side
  return y[:, None], x[None]


def _share(draw: float) -> float:
  return _MIN_SHARE + draw * (_MAX_SHARE - _MIN_SHARE)
