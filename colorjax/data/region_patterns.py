"""Binary patterns of any size: the ten published ones, and random ones.

The published ten are the masks of the project "colorization-masks-gans" (H.
Paz, IMPA 2018), in the order of its files mask1 to mask10: four halves, four
vertical and four horizontal stripes each with the complement, and a 4 x 4
checkerboard with its complement. Its 224 x 224 files were drawn by hand: their
stripes are 52, 60, 60 and 52 pixels wide, and four rows or columns in the
middle belong to neither half. Here the stripes keep those widths in proportion
and a half is a half, so that a pattern and its complement share all pixels out
at every size.
"""

import math
from collections.abc import Callable

import numpy as np

Draws = Callable[[int], np.ndarray]
"""`count -> float64 [count]`, uniform in [0, 1): always the same numbers, and
fewer of them are the first ones of more."""

_PUBLISHED_SIZE = 224
_HALF = (112,)
_STRIPES = (52, 112, 172)
_CELLS = (56, 112, 168)

_MIN_SHARE, _MAX_SHARE = 0.2, 0.8  # of the area, that noise and blobs take


def _band(size: int, edges: tuple[int, ...]) -> np.ndarray:
  """Number of the band that each of `size` pixels lies in: int [size]."""
  starts = [(2 * edge * size + _PUBLISHED_SIZE) // (2 * _PUBLISHED_SIZE)
            for edge in edges]  # to the nearest pixel
  return np.searchsorted(starts, np.arange(size), side='right')


def _is_even(bands: np.ndarray, height: int, width: int) -> np.ndarray:
  return np.broadcast_to(bands % 2 == 0, (height, width)).copy()


def left(height: int, width: int) -> np.ndarray:
  """The left half, with the middle column if there is one: bool [H, W]."""
  return _is_even(_band(width, _HALF)[None], height, width)


def top(height: int, width: int) -> np.ndarray:
  """The upper half, with the middle row if there is one: bool [H, W]."""
  return _is_even(_band(height, _HALF)[:, None], height, width)


def vertical_stripes(height: int, width: int) -> np.ndarray:
  """Four vertical stripes, the first inside: bool [height, width]."""
  return _is_even(_band(width, _STRIPES)[None], height, width)


def horizontal_stripes(height: int, width: int) -> np.ndarray:
  """Four horizontal stripes, the first inside: bool [height, width]."""
  return _is_even(_band(height, _STRIPES)[:, None], height, width)


def checkerboard(height: int, width: int) -> np.ndarray:
  """4 x 4 cells, the upper left one inside: bool [height, width]."""
  return _is_even(_band(height, _CELLS)[:, None] + _band(width, _CELLS),
                  height, width)


def complement(pattern: Callable[[int, int], np.ndarray]
               ) -> Callable[[int, int], np.ndarray]:
  """The pattern that is inside where another one is outside."""
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
"""Those of them that are halves."""


def random_stripes(height: int, width: int, draws: Draws) -> np.ndarray:
  """One to six stripes of any direction and width: bool [height, width]."""
  angle, frequency, phase, width_draw = draws(4)
  y, x = _centred(height, width)
  along = x * math.cos(math.pi * angle) + y * math.sin(math.pi * angle)
  place = along * (1 + 5 * frequency) + phase
  return place - np.floor(place) < 0.3 + 0.4 * width_draw


def random_boxes(height: int, width: int, draws: Draws) -> np.ndarray:
  """One to four boxes, or all but them: bool [height, width].

  The sides of a box are an eighth to five eighths of the picture's.
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
  """Round shapes, 20 to 80 % of the area: bool [height, width].

  A sum of eight plane waves, cut where it leaves that share inside.
  """
  share, *rest = draws(1 + 8 * 3)
  y, x = _centred(height, width)
  field = np.zeros((height, width))
  for angle, frequency, phase in np.reshape(rest, (8, 3)):
    along = x * math.cos(2 * math.pi * angle) + y * math.sin(
        2 * math.pi * angle)
    field += np.cos(2 * math.pi * (along * (0.5 + 2 * frequency) + phase))
  return field <= np.quantile(field, _share(share))


def random_noise(height: int, width: int, draws: Draws) -> np.ndarray:
  """Square cells of 1, 2, 4 or 8 pixels, each inside or not by chance.

  Args:
    height: rows.
    width: columns.
    draws: randomness; the chance of a cell, 20 to 80 %, is drawn too.

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


def _centred(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates y [H, 1] and x [1, W]; the shorter side spans [-1/2, 1/2]."""
  side = min(height, width)
  y = (np.arange(height) + 0.5 - height / 2) / side
  x = (np.arange(width) + 0.5 - width / 2) / side
  return y[:, None], x[None]


def _share(draw: float) -> float:
  return _MIN_SHARE + draw * (_MAX_SHARE - _MIN_SHARE)
