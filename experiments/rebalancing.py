"""The prior of --rebalance, for scripts with `define_rebalancing_flags`."""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from colorjax.errors import UserError
from experiments import common


def settings_of(
    method: str, settings: Mapping[str, Any], *, block_size: int,
    num_neighbors: int | None = None, sigma: float | None = None,
) -> dict[str, Any]:
  """Returns the settings `bins`, `prior` and `rebalance` from the flags.

  With --rebalance and without --prior, the colors of the training photographs
  are measured once and stored in the work directory.

  Args:
    method: import path of the method.
    settings: its other settings.
    block_size: side of the block of pixels for which the method predicts one
      color.
    num_neighbors: number of bins that its targets are spread over, if they are.
    sigma: standard deviation of that spread, ab units.

  Returns:
    The three settings, each of them None if not given.

  Raises:
    UserError: the file holds no prior, or one that does not fit the method.
  """
  rebalance = flags.FLAGS.rebalance
  given = flags.FLAGS.prior
  if given is None and rebalance is None:
    return {'bins': None, 'prior': None, 'rebalance': None}
  from colorjax import quantize
  from colorjax.runs import prior as priors
  from colorjax.runs import train as runs
  from colorjax.runs.workdir import claim_workdir

  options = common.train_options()
  spread = {'num_neighbors': num_neighbors, 'sigma': sigma}
  sizes = {'image_size': options.image_size, 'block_size': block_size}
  if given is not None:
    found = priors.read(pathlib.Path(given))
    wrong = priors.differences(found, **spread)
    if wrong:
      raise UserError(f'prior={given}: was measured with {", ".join(wrong)}; '
                      'measure it again')
    for difference in priors.differences(found, data=options.data, **sizes):
      print(f'note: --prior={given} was measured with --{difference}')
    return {**found.settings(), 'rebalance': rebalance}
  # Checks the settings now, before all photographs are read.
  count = len(quantize.published_bins())
  runs.check(method, {**settings, 'prior': [1 / count] * count,
                      'rebalance': rebalance}, options)
  workdir = pathlib.Path(flags.FLAGS.workdir)
  arguments = common.run_arguments()
  with claim_workdir(workdir, arguments['configuration'],
                     harmless=arguments['harmless']):
    found = priors.read_or_measure(
        workdir / priors.FILE, options.data, options.photos,
        batch_size=options.batch_size, **sizes,
        **{name: x for name, x in spread.items() if x is not None})
  return {**found.settings(), 'rebalance': rebalance}
