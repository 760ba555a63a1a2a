"""Flags of several models in one program.

Nothing here imports JAX at import time, because `--help` must print at once.
"""

import ast

from absl import flags

from colorjax.errors import UserError


def define_training_flags() -> None:
  """Defines how many models are trained at once, and what they differ in."""
  flags.DEFINE_integer(
      'replicas', None, 'Train this many models at once, with the seeds '
      '--seed, --seed + 1, ... and the same batches, in one program, work '
      'directory and checkpoint. If not given, one model.', lower_bound=1)
  flags.DEFINE_multi_string(
      'vmap', [], 'NAME=VALUE,VALUE,...: train a model for each value, at once '
      'as with --replicas. NAME is learning_rate, weight_decay, clip_norm, '
      'encoder_learning_rate or seed. Repeat the flag to vary several of them '
      'together: model i gets value i of each.')
  flags.DEFINE_integer(
      'data_seed', None, 'Seed of data order, crops and '
      'imitated scans; if not given, --seed.')


def define_replica_flag() -> None:
  """Defines which model of a run with replicas is used."""
  flags.DEFINE_integer(
      'replica', None, 'Number of the replica to use, from 0, if --checkpoint '
      'is a run with --replicas or --vmap.')


def swept() -> dict[str, list[float | int]] | None:
  """Returns the values of --vmap by name; None if it is not given.

  Raises:
    UserError: a value is not NAME=VALUE,..., or a name is given twice.
  """
  values: dict[str, list[float | int]] = {}
  for text in flags.FLAGS.vmap:
    name, equals, listed = text.partition('=')
    if not equals or not name.isidentifier():
      raise UserError(f'vmap={text}: give NAME=VALUE,VALUE,...')
    if name in values:
      raise UserError(f'vmap={text}: {name} is given twice')
    values[name] = [_number(text, value) for value in listed.split(',')]
  return values or None


def _number(text: str, value: str) -> float | int:
  try:
    number = ast.literal_eval(value.strip())
  except (ValueError, SyntaxError):
    number = None
  if type(number) not in (int, float):
    raise UserError(f'vmap={text}: {value!r} is not a number')
  return number
