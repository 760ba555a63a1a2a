"""Trained models that come with colorjax.

Each is a model file (see `colorjax.saved`) with a card: what it was trained on
and how, what it reaches on held-out photographs, and what it does badly.
"""

import pathlib

from colorjax.errors import UserError

MODELS = ('general', 'diverse')
"""Names of the models; the first one is the default of `colorize`.

    general  one coloring for each photograph
    diverse  eight colorings with probabilities
"""

_FOLDER = pathlib.Path(__file__).parent


def path(name: str) -> pathlib.Path:
  """Returns the file of a model, for `saved.load`.

  Args:
    name: one of MODELS.

  Raises:
    UserError: there is no such model.
  """
  if name not in MODELS:
    raise UserError(f'model={name}: choose one of {", ".join(MODELS)}')
  return _FOLDER / f'{name}.safetensors'


def card(name: str) -> str:
  """Returns the card of a model, in Markdown.

  Args:
    name: one of MODELS.

  Raises:
    UserError: there is no such model.
  """
  return path(name).with_suffix('.md').read_text('utf-8')
