"""More weight for rare colors, from settings (Zhang et al. 2016, eq. 4).

The prior of the training data over the bins of `colorjax.quantize` says how
rare a color is. Regression and classification read it from here.
"""

from collections.abc import Sequence

import jax
import numpy as np

from colorjax import quantize
from colorjax.errors import UserError


def weighted_bins(
    bins: Sequence[Sequence[float]] | None,
    prior: Sequence[float] | None,
    rebalance: float | None,
) -> tuple[np.ndarray, jax.Array | None]:
  """Color bins, and how much each counts.

  Args:
    bins: centers [a, b], see `colorjax.quantize`; None for the 313 of the
      published network.
    prior: probability of each bin in the training data; read for rebalancing
      alone.
    rebalance: lambda of eq. 4, the share of the uniform distribution that is
      mixed to the prior before its inverse becomes the weight; 1/2 as
      published, None for no rebalancing.

  Returns:
    Bins [Q, 2] and weights [Q] with mean 1 over the prior, or None where all
    count alike. UserError for settings that do not fit each other.
  """
  try:
    centers = (quantize.published_bins() if bins is None
               else quantize.check_bins(bins))
  except ValueError as error:
    raise UserError(f'these are no color bins: {error}') from error
  if rebalance is None:
    return centers, None
  if prior is None:
    raise UserError(
        f'rebalance={rebalance}: give the prior of the training data '
                    'too, as colorjax.runs.prior measures it')
  if len(prior) != len(centers):
    raise UserError(f'a prior of {len(prior)} bins does not fit '
                    f'{len(centers)} bins: measure it with the same bins')
  try:
    return centers, quantize.class_weights(prior, rebalance)
  except ValueError as error:
    raise UserError(f'rebalance={rebalance}: {error}') from error
