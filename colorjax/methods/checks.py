"""Checks of settings; each error is one line that names the setting.

Every method has these checks from here, so that the same mistake is answered
by the same words.
"""

from collections.abc import Iterable, Sequence

from colorjax.errors import UserError


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
  """Refuses a value that is none of the choices.

  Args:
    name: name of the setting.
    value: its value.
    choices: what there is; all of it is named.
  """
  choices = list(choices)
  if value not in choices:
    raise UserError(f'{name}={value}: choose one of {", ".join(choices)}')


def check_sides(image_shape: Sequence[int], divisor: int) -> None:
  """Refuses photographs that a network cannot halve as often as it does.

  Args:
    image_shape: (H, W) in pixels.
    divisor: what H and W have to be multiples of.
  """
  if any(side % divisor for side in image_shape):
    raise UserError(
        f'image_size={" x ".join(map(str, image_shape))}: this network needs '
        f'sides divisible by {divisor}')
