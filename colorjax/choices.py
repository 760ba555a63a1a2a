"""What a person chose for the coloring of one photograph, as JSON.

    {"version": 1,
     "model": "general",
     "coloring": {"index": 0, "seed": null, "strength": 1},
     "saturation": null,
     "regions": [{"coloring": {"index": 2}, "at": [120, 40], "size": "medium"},
                 {"coloring": {"index": 1}, "points": [[9, 9], [50, 9]],
                  "width": 20}],
     "mask": {"start": "color", "edits": [{"grey": true, "at": [3, 4]}]},
     "hints": [{"color": "#87ceeb", "points": [[120, 40]], "width": 9}],
     "reference": null}

All entries may be left out. x, to the right, and y, down, are pixels of the
upright photograph. Regions are painted in order: a segment of the photograph
(`at`) or a brush stroke (`points`) takes another coloring than the rest.
`composing.render` makes the picture.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from colorjax.errors import UserError

VERSION = 1
"""The version of the form."""

SIZES = ('small', 'medium', 'large')
"""Sizes of segments."""

_MAX_EDITS = 2000
_MAX_POINTS = 50_000
_MAX_COLORINGS = 32
_MAX_SEED = 2**31 - 1
_MAX_FACTOR = 10.0


@dataclasses.dataclass(frozen=True)
class Pick:
  """One coloring of a method.

  Attributes:
    index: its number among the proposals, from 0.
    seed: seed of random colorings; None for the most probable ones.
    strength: factor of the saturation.
  """
  index: int = 0
  seed: int | None = None
  strength: float = 1.0


@dataclasses.dataclass(frozen=True)
class Area:
  """A part of a photograph: a segment or a brush stroke.

  Attributes:
    at: a point of the segment; None for a stroke.
    size: size of the segment, one of SIZES.
    points: points of the stroke; () for a segment.
    width: width of the stroke in pixels.
  """
  at: tuple[float, float] | None = None
  size: str = 'medium'
  points: tuple[tuple[float, float], ...] = ()
  width: float = 0.0


@dataclasses.dataclass(frozen=True)
class Choices:
  """What was chosen; the module's docstring shows the form.

  Attributes:
    model: name of the model; None for the default.
    coloring: the coloring of the whole photograph.
    saturation: factor of the chroma; None for that of the model.
    regions: areas with their colorings, later ones over earlier ones.
    mask_start: 'color' or 'grey': what the photograph is without `mask`.
    mask: areas, and whether they are grey.
    hints: strokes in the form of `photo.strokes.of_json`.
    reference: digest of the reference photograph, or None.
  """
  model: str | None = None
  coloring: Pick = Pick()
  saturation: float | None = None
  regions: tuple[tuple[Pick, Area], ...] = ()
  mask_start: str = 'color'
  mask: tuple[tuple[bool, Area], ...] = ()
  hints: tuple[Mapping[str, Any], ...] = ()
  reference: str | None = None

  @property
  def has_mask(self) -> bool:
    """Whether a part of the photograph may stay grey."""
    return bool(self.mask) or self.mask_start == 'grey'

  @property
  def picks(self) -> list[Pick]:
    """The different colorings, that of the whole photograph first."""
    return list(dict.fromkeys(
        [self.coloring, *(pick for pick, _ in self.regions)]))


def parse(value: Any, width: int, height: int) -> Choices:
  """Reads choices, and checks everything that does not depend on the model.

  Args:
    value: a JSON value of the form above.
    width: columns of the upright photograph.
    height: its rows.

  Returns:
    The choices.

  Raises:
    UserError: the value has another form, a number is out of range, or there
      are too many strokes.
  """
  value = _mapping(value, 'choices', (
      'version', 'model', 'coloring', 'saturation', 'regions', 'mask', 'hints',
      'reference'))
  if value.get('version', VERSION) != VERSION:
    raise UserError(f'version: these choices are not of version {VERSION}')
  reader = _Reader(width, height)
  mask = _mapping(value.get('mask') or {}, 'mask', ('start', 'edits'))
  start = mask.get('start', 'color')
  if start not in ('color', 'grey'):
    raise UserError('mask: start is "color" or "grey"')
  choices = Choices(
      model=_text(value.get('model'), 'model'),
      coloring=_pick(value.get('coloring') or {}, 'coloring'),
      saturation=_factor(value.get('saturation'), 'saturation'),
      regions=tuple(
          (_pick(one.get('coloring') or {}, name), reader.area(one, name))
          for one, name in _edits(value.get('regions'), 'regions', 'coloring')),
      mask_start=start,
      mask=tuple(
          (_bool(one.get('grey', True), name), reader.area(one, name))
          for one, name in _edits(mask.get('edits'), 'mask', 'grey')),
      hints=tuple(reader.hint(one, name) for one, name in _edits(
          value.get('hints'), 'hints', 'color')),
      reference=_text(value.get('reference'), 'reference'))
  if len(choices.picks) > _MAX_COLORINGS:
    raise UserError(f'regions: at most {_MAX_COLORINGS} different colorings')
  return choices


class _Reader:
  """Reads areas and counts their points."""

  def __init__(self, width: int, height: int):
    self._width = width
    self._height = height
    self._num_points = 0

  def area(self, value: Mapping[str, Any], name: str) -> Area:
    if ('at' in value) == ('points' in value):
      raise UserError(f'{name}: give either "at" or "points"')
    if 'at' in value:
      size = value.get('size', 'medium')
      if size not in SIZES:
        raise UserError(f'{name}: size is one of {", ".join(SIZES)}')
      return Area(at=self._point(value['at'], name), size=size)
    return Area(points=self._points(value['points'], name),
                width=self._stroke_width(value.get('width'), name))

  def hint(self, value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    color = value.get('color')
    if not isinstance(color, str) or len(color) != 7 or color[0] != '#' or (
        set(color[1:].lower()) - set('0123456789abcdef')):
      raise UserError(f'{name}: color is written as "#87ceeb"')
    points = self._points(value.get('points'), name)
    return {'color': color, 'points': [list(point) for point in points],
            'width': self._stroke_width(value.get('width'), name)}

  def _points(self, value: Any, name: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, list) or not value:
      raise UserError(f'{name}: points are a list of [x, y], at least one')
    self._num_points += len(value)
    if self._num_points > _MAX_POINTS:
      raise UserError(f'{name}: at most {_MAX_POINTS} points in all')
    return tuple(self._point(point, name) for point in value)

  def _point(self, value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
      raise UserError(f'{name}: a point is [x, y]')
    x, y = (_number(number, name) for number in value)
    if not (0 <= x < self._width and 0 <= y < self._height):
      raise UserError(f'{name}: the point [{x:g}, {y:g}] is outside the '
                      f'photograph of {self._width} x {self._height} pixels')
    return x, y

  def _stroke_width(self, value: Any, name: str) -> float:
    if value is None:
      return max(1.0, min(self._width, self._height) / 100)
    width = _number(value, name)
    if not 0 < width <= max(self._width, self._height):
      raise UserError(f'{name}: the width {width:g} is out of range')
    return width


def _edits(value: Any, name: str, what: str
           ) -> list[tuple[Mapping[str, Any], str]]:
  """The entries of a list of areas, each with its name for errors."""
  if value is None:
    return []
  if not isinstance(value, list) or len(value) > _MAX_EDITS:
    raise UserError(f'{name}: give a list of at most {_MAX_EDITS} entries')
  known = (what, 'points', 'width') + (() if what == 'color' else
                                       ('at', 'size'))
  return [(_mapping(one, f'{name}[{i}]', known), f'{name}[{i}]')
          for i, one in enumerate(value)]


def _pick(value: Any, name: str) -> Pick:
  value = _mapping(value, name, ('index', 'seed', 'strength'))
  index, seed = value.get('index', 0), value.get('seed')
  for number, what in ((index, 'index'), (seed, 'seed')):
    if number is None and what == 'seed':
      continue
    if type(number) is not int or not 0 <= number <= _MAX_SEED:
      raise UserError(f'{name}: {what} is a whole number from 0')
  strength = _factor(value.get('strength', 1), name)
  return Pick(index, seed, 1.0 if strength is None else strength)


def _mapping(value: Any, name: str, known: tuple[str, ...]
             ) -> Mapping[str, Any]:
  if not isinstance(value, dict):
    raise UserError(f'{name}: give an object with some of {", ".join(known)}')
  for key in value:
    if key not in known:
      raise UserError(f'{name}: there is no entry {key[:40]!r}; there are '
                      f'{", ".join(known)}')
  return value


def _number(value: Any, name: str) -> float:
  if type(value) not in (int, float) or not math.isfinite(value):
    raise UserError(f'{name}: this is not a finite number')
  return float(value)


def _factor(value: Any, name: str) -> float | None:
  if value is None:
    return None
  factor = _number(value, name)
  if not 0 <= factor <= _MAX_FACTOR:
    raise UserError(f'{name}: a factor is between 0 and {_MAX_FACTOR:g}')
  return factor


def _bool(value: Any, name: str) -> bool:
  if not isinstance(value, bool):
    raise UserError(f'{name}: grey is true or false')
  return value


def _text(value: Any, name: str) -> str | None:
  if value is not None and (not isinstance(value, str) or len(value) > 100):
    raise UserError(f'{name}: this is not a short text')
  return value
