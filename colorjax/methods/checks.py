"""Checks of settings, shared by all methods.

Each error is one line that names the setting.
"""

from collections.abc import Iterable, Sequence

from colorjax.errors import UserError


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
  """Checks that a setting has one of the allowed values.

  Args:
    name: name of the setting.
    value: its value.
    choices: the allowed values.

  Raises:
    UserError: the value is not allowed; the message lists all choices.
  """
  choices = list(choices)
  if value not in choices:
    raise UserError(f'{name}={value}: choose one of {", ".join(choices)}')


def check_counts(**counts: int) -> None:
  """Checks that settings or options are at least 1.

  Args:
    **counts: their values by name.

  Raises:
    UserError: one of them is less.
  """
  for name, value in counts.items():
    if value < 1:
      raise UserError(f'{name}={value}: use at least 1')


def check_not_negative(**numbers: float) -> None:
  """Checks that settings or options are at least 0.

  Args:
    **numbers: their values by name.

  Raises:
    UserError: one of them is less, or not a number.
  """
  for name, value in numbers.items():
    if not value >= 0:
      raise UserError(f'{name}={value}: use at least 0')


def check_shares(**shares: float) -> None:
  """Checks that settings are shares.

  Args:
    **shares: their values by name.

  Raises:
    UserError: one of them is not from 0 to 1.
  """
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise UserError(f'{name}={value}: choose a share from 0 to 1')


def check_sides(image_shape: Sequence[int], divisor: int) -> None:
  """Checks that a network can process photographs of this size.

  Args:
    image_shape: (H, W) in pixels.
    divisor: H and W must be multiples of it.

  Raises:
    UserError: H or W is not.
  """
  if any(side % divisor for side in image_shape):
    raise UserError(
        f'image_size={" x ".join(map(str, image_shape))}: this network needs '
        f'sides divisible by {divisor}')
