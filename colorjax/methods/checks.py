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
