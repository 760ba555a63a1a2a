"""The JSON document of what a person chose: its form and its limits."""

import json
import re

import pytest

from colorjax import choices
from colorjax.choices import Area, Pick
from colorjax.errors import UserError


def test_nothing_chosen():
  assert choices.parse({}, 10, 10) == choices.Choices()
  assert not choices.Choices().has_mask


def test_the_example_of_the_docstring():
  text = re.search(r'\n\n(    \{.*?\})\n\n', choices.__doc__, re.S)[1]
  got = choices.parse(json.loads(text), 200, 100)
  assert got == choices.Choices(
      model='general', coloring=Pick(),
      regions=((Pick(index=2), Area(at=(120, 40))),
               (Pick(index=1), Area(points=((9, 9), (50, 9)), width=20))),
      mask=((True, Area(at=(3, 4))),),
      hints=({'color': '#87ceeb', 'points': [[120, 40]], 'width': 9},))
  assert got.picks == [Pick(), Pick(index=2), Pick(index=1)]
  assert got.has_mask


POINT = [5, 5]


@pytest.mark.parametrize(('value', 'message'), [
    ([], 'choices: give an object'),
    ({'colour': 1}, "there is no entry 'colour'"),
    ({'version': 2}, 'version 1'),
    ({'coloring': {'index': -1}}, 'index is a whole number'),
    ({'coloring': {'index': True}}, 'index is a whole number'),
    ({'coloring': {'index': 1.0}}, 'index is a whole number'),
    ({'coloring': {'seed': 2**31}}, 'seed is a whole number'),
    ({'coloring': {'strength': 11}}, 'between 0 and 10'),
    ({'saturation': float('nan')}, 'not a finite number'),
    ({'saturation': '1'}, 'not a finite number'),
    ({'saturation': -1}, 'between 0 and 10'),
    ({'regions': {}}, 'a list of at most 2000'),
    ({'regions': 2001 * [{'at': POINT}]}, 'a list of at most 2000'),
    ({'regions': [{}]}, 'regions.0.: give either'),
    ({'regions': [{'at': POINT, 'points': [POINT]}]}, 'give either'),
    ({'regions': [{'at': [10, 5]}]}, r'\[10, 5\] is outside .* 10 x 20'),
    ({'regions': [{'at': [5, 20]}]}, 'is outside'),
    ({'regions': [{'at': [-0.1, 5]}]}, 'is outside'),
    ({'regions': [{'at': [5]}]}, 'a point is'),
    ({'regions': [{'at': POINT, 'size': 'huge'}]}, 'size is one of'),
    ({'regions': [{'points': []}]}, 'at least one'),
    ({'regions': [{'points': [POINT], 'width': 21}]}, 'out of range'),
    ({'regions': [{'points': 50_001 * [POINT]}]}, 'at most 50000 points'),
    ({'regions': [{'at': POINT, 'coloring': {'index': i}}
                  for i in range(32)]}, None),
    ({'regions': [{'at': POINT, 'coloring': {'index': i}}
                  for i in range(33)]}, 'at most 32 different'),
    ({'mask': {'start': 'white'}}, 'start is'),
    ({'mask': {'edits': [{'at': POINT, 'grey': 1}]}}, 'true or false'),
    ({'hints': [{'points': [POINT]}]}, 'color is written'),
    ({'hints': [{'color': 'red', 'points': [POINT]}]}, 'color is written'),
    ({'hints': [{'color': '#12345g', 'points': [POINT]}]}, 'color is written'),
    ({'hints': [{'color': '#123456', 'at': POINT}]}, "no entry 'at'"),
    ({'model': 101 * 'x'}, 'short text'),
    ({'reference': 3}, 'short text'),
])
def test_refuses(value, message):
  if message is None:
    choices.parse(value, 10, 20)
    return
  with pytest.raises(UserError, match=message) as error:
    choices.parse(value, 10, 20)
  assert '\n' not in str(error.value)
