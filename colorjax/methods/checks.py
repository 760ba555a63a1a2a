"""Settings that a method cannot take, refused in one line that names the flag.

Every method has these checks from here, so that the same mistake is answered
by the same words.
"""

from collections.abc import Iterable, Sequence

from colorjax.errors import UserError


def check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
  """Refuses a value that is none of the choices.

  Args:
    flag: name of the flag, without dashes.
    value: its value.
    choices: what there is; all of it is named.
  """
  choices = list(choices)
  if value not in choices:
    raise UserError(f'--{flag}={value}: choose one of {", ".join(choices)}')


def check_sides(image_shape: Sequence[int], divisor: int) -> None:
  """Refuses photographs that a network cannot halve as often as it does.

  Args:
    image_shape: (H, W) in pixels.
    divisor: what H and W have to be multiples of.
  """
  if any(side % divisor for side in image_shape):
    raise UserError(
        f'--image_size: a network of this depth needs sides divisible by '
        f'{divisor}, got {" x ".join(map(str, image_shape))}')
