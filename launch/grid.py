"""The runs of a sweep: all combinations of sets of values of flags.

    4,8,16                 these values
    log:1e-4:1e-2:8        8 values from 1e-4 to 1e-2, evenly spaced in log
    linear:0:0.5:6         6 values from 0 to 0.5, evenly spaced
    uniform:0:0.5          random values, see below
    loguniform:1e-4:1e-2   random values, uniform in log
    choice:adam,sgd        random values, one of these

Commas in parentheses or brackets do not separate values: `mse,huber(delta=0.1)`
are two. A value in brackets is a list, for flags that take several:
`filters=[32,64],[64,128]`.

The random flags of a sweep are drawn together, `num_samples` times; draw i
does not depend on how many there are, so that more samples add runs.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence

from colorjax.errors import UserError

Value = str | float | list[str]
"""A value of a flag: text as a person writes it, a computed number, a list."""

Assignment = Mapping[str, Value]
"""Values by flag."""

_RANDOM = ('uniform', 'loguniform', 'choice')
_SPACED = ('linear', 'log')


def axes(sets: Sequence[str], *, num_samples: int | None = None,
         sample_seed: int = 0, listed: Sequence[Assignment] = ()
         ) -> list[list[Assignment]]:
  """The axes of a sweep, whose product is its runs.

  Args:
    sets: FLAG=VALUES each.
    num_samples: how often the random flags are drawn.
    sample_seed: of these draws.
    listed: values that go together, one mapping each: an axis of its own.

  Returns:
    One axis for each set that is not random, one for all random ones, and one
    for the listed values.

  Raises:
    UserError: a set that cannot be understood.
  """
  parsed = [_split_set(text) for text in sets]
  names = [name for name, _ in parsed] + sorted(
      {name for values in listed for name in values})
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise UserError(f'--set={twice[0]}=...: given twice; put all values into '
                    'one set')
  found: list[list[Assignment]] = []
  drawn: dict[str, str] = {}
  for name, text in parsed:
    if text.partition(':')[0] in _RANDOM:
      drawn[name] = text
    else:
      found.append([{name: value} for value in _values(name, text)])
  if drawn:
    if num_samples is None or num_samples < 1:
      raise UserError(f'--set={next(iter(drawn))}=...: random values need '
                      '--num_samples, at least 1')
    found.append([
        {name: _draw(name, text, sample_seed, i)
         for name, text in drawn.items()} for i in range(num_samples)])
  elif num_samples is not None:
    raise UserError('--num_samples: no --set is random; uniform:, loguniform: '
                    'and choice: are')
  if listed:
    found.append(list(listed))
  return found


def product(axes: Sequence[Sequence[Assignment]]) -> list[dict[str, Value]]:
  """All combinations of one assignment from each axis; the last varies first.

  Combinations that are equal stand once.
  """
  runs = []
  for parts in itertools.product(*axes):
    run: dict[str, Value] = {}
    for part in parts:
      run.update(part)
    if run not in runs:
      runs.append(run)
  return runs


def split_values(text: str) -> list[str]:
  """Splits at commas that stand outside of (), [] and {}."""
  parts, depth, start = [], 0, 0
  for i, letter in enumerate(text):
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and depth == 0:
      parts.append(text[start:i])
      start = i + 1
  return [part.strip() for part in [*parts, text[start:]]]


def _split_set(text: str) -> tuple[str, str]:
  name, equals, values = text.partition('=')
  name = name.strip().lstrip('-')
  if not equals or not name or not values.strip():
    raise UserError(f'--set={text}: FLAG=VALUES is meant, as in '
                    'learning_rate=1e-3,1e-4 or learning_rate=log:1e-4:1e-2:8')
  return name, values.strip()


def _values(name: str, text: str) -> list[Value]:
  kind = text.partition(':')[0]
  if kind in _SPACED and ':' in text:
    return list(_spaced(name, text))
  values: list[Value] = []
  for value in split_values(text):
    is_list = value.startswith('[') and value.endswith(']')
    values.append(split_values(value[1:-1]) if is_list else value)
  return values


def _spaced(name: str, text: str) -> list[float]:
  kind, *numbers = text.split(':')
  form = f'--set={name}={text}: {kind}:LOW:HIGH:NUMBER is meant'
  if len(numbers) != 3 or not numbers[2].isdigit() or int(numbers[2]) < 1:
    raise UserError(form)
  low, high = _bounds(form, numbers[:2], is_log=kind == 'log')
  count = int(numbers[2])
  if count == 1:
    return [low]
  parts = [i / (count - 1) for i in range(count)]
  if kind == 'log':
    return [_rounded(low * (high / low) ** part) for part in parts]
  return [_rounded(low + (high - low) * part) for part in parts]


def _draw(name: str, text: str, seed: int, index: int) -> Value:
  """Draw `index` of a random flag: a function of seed, flag and index."""
  generator = random.Random(f'{seed}/{name}/{index}')
  kind, *rest = text.split(':', 1)
  if kind == 'choice':
    return generator.choice(_values(name, rest[0]))
  form = f'--set={name}={text}: {kind}:LOW:HIGH is meant'
  low, high = _bounds(form, rest[0].split(':'), is_log=kind == 'loguniform')
  part = generator.random()
  value = (low * (high / low) ** part if kind == 'loguniform' else
           low + (high - low) * part)
  # More digits than above: two draws are to differ.
  return _rounded(value, digits=6)


def _bounds(form: str, numbers: Sequence[str], *, is_log: bool
            ) -> tuple[float, float]:
  try:
    low, high = map(float, numbers)
  except ValueError:
    raise UserError(form) from None
  if not (math.isfinite(low) and math.isfinite(high)) or low > high:
    raise UserError(f'{form}, LOW at most HIGH')
  if is_log and low <= 0:
    raise UserError(f'{form}, LOW above 0')
  return low, high


def _rounded(number: float, digits: int = 4) -> float:
  """So few digits that a person can read and type them."""
  return float(f'{number:.{digits}g}')
