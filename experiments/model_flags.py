"""Flags that select a trained method and the options of its predictions."""

import ast
from typing import Any

from absl import flags

from colorjax import zoo
from colorjax.errors import UserError


def define_checkpoint_flags() -> None:
  """Defines which trained method is used: a file or directory, or a model."""
  flags.DEFINE_string(
      'checkpoint', None, 'A trained method: the work directory of a run, or a '
      'file of experiments.pack.')
  flags.DEFINE_enum(
      'model', None, zoo.MODELS, 'A trained method that comes with colorjax.')


def checkpoint() -> str | None:
  """Returns the path that --checkpoint or --model selects; None if neither.

  Raises:
    UserError: both are given.
  """
  given, model = flags.FLAGS.checkpoint, flags.FLAGS.model
  if given is not None and model is not None:
    raise UserError(f'--checkpoint={given} and --model={model}: give only one')
  return given if model is None else str(zoo.path(model))


def define_ask_flag() -> None:
  """Defines the options of prediction of a trained method."""
  flags.DEFINE_multi_string(
      'ask', [], 'NAME=VALUE: an option of the method that is chosen at '
      'prediction, such as temperature=0.2 or readout=mode of classification; '
      'repeat the flag for several.')


def ask_options() -> dict[str, Any]:
  """Returns the options of --ask; numbers and Booleans are parsed as such.

  Raises:
    UserError: a value is not NAME=VALUE.
  """
  options = {}
  for text in flags.FLAGS.ask:
    name, equals, value = text.partition('=')
    if not equals or not name.isidentifier():
      raise UserError(f'--ask={text}: give NAME=VALUE')
    try:
      options[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      options[name] = value
  return options
