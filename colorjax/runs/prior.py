"""The file in which the prior of colors stands, and the flags that name it.

`experiments.measure_prior` writes it; experiments that rebalance rare colors
read it, and put its numbers into their settings, so that a checkpoint does not
need the file. Nothing here imports JAX.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from absl import flags

from colorjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorFile:
  """How often colors occur in a data set.

  Attributes:
    data: the data set, as it was named.
    photos: number of photographs counted.
    image_size: side of the squares that photographs were cut to, in pixels.
    block_size: side of the blocks whose mean color was counted, in pixels.
    num_neighbors: bins that each color was spread over.
    sigma: width of that spread, ab units.
    bins: centers [a, b], Lab units.
    prior: probability of each bin.
  """
  data: str
  photos: int
  image_size: int
  block_size: int
  num_neighbors: int
  sigma: float
  bins: list[list[float]]
  prior: list[float]

  def write(self, path: pathlib.Path) -> None:
    """Writes the file whole or not at all; UserError where it cannot be."""
    unfinished = path.with_name(f'.{path.name}.unfinished')
    try:
      unfinished.write_text(json.dumps(dataclasses.asdict(self)) + '\n')
      os.replace(unfinished, path)
    except OSError as error:
      raise UserError(
          f'--output={path}: cannot be written: {error.strerror}') from error


def read(path: pathlib.Path) -> PriorFile:
  """Reads what `PriorFile.write` wrote; UserError, one line, for all else."""
  try:
    found = PriorFile(**json.loads(path.read_text()))
    numbers = [*found.prior, *(x for center in found.bins for x in center)]
    if not all(math.isfinite(x) for x in numbers):
      raise ValueError('a number is not finite')
    if len(found.bins) != len(found.prior):
      raise ValueError(f'{len(found.prior)} probabilities do not fit '
                       f'{len(found.bins)} bins')
  except OSError as error:
    raise UserError(f'--prior={path}: {error.strerror}; python -m '
                    'experiments.measure_prior makes it') from error
  except (TypeError, ValueError) as error:
    raise UserError(f'--prior={path}: is no prior that python -m '
                    f'experiments.measure_prior wrote: {error}') from error
  return found


def define_flags() -> None:
  """Defines --prior and --rebalance; called by experiments that rebalance."""
  flags.DEFINE_string(
      'prior', None, 'File that experiments.measure_prior wrote: the color '
      'bins, and how often each occurs in the training data.')
  flags.DEFINE_float(
      'rebalance', None, 'Give rare colors more weight: lambda of Zhang et '
      'al. 2016, 0.5 as published; 0 weighs by the inverse prior, 1 weighs all '
      'alike. No weights if not given. Needs --prior.', 0, 1)


def settings(*, num_neighbors: int | None = None, sigma: float | None = None
             ) -> dict[str, Any]:
  """Settings of a method that the flags stand for.

  Args:
    num_neighbors: bins that the method's targets are spread over, if they are.
    sigma: width of that spread, if there is one.

  Returns:
    `bins`, `prior` and `rebalance`, None where not given. UserError for a file
    that is none, or was measured with another spread.
  """
  given = flags.FLAGS.prior
  if given is None:
    return {'bins': None, 'prior': None, 'rebalance': flags.FLAGS.rebalance}
  found = read(pathlib.Path(given))
  for name, wanted in (('num_neighbors', num_neighbors), ('sigma', sigma)):
    if wanted is not None and wanted != getattr(found, name):
      raise UserError(f'--prior={given}: was measured with --{name}='
                      f'{getattr(found, name)}, not {wanted}')
  return {'bins': found.bins, 'prior': found.prior,
          'rebalance': flags.FLAGS.rebalance}
