"""Class rebalancing: larger weights for rare colors (Zhang et al. 2016, eq. 4).

A color is rare if the prior of the training data over the color bins of
`colorjax.quantize` is small. Classification and fusion use these weights.
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
  """Returns the color bins and their class weights.

  Args:
    bins: bin centers [a, b], see `colorjax.quantize`; None for the 313 bins of
      the published network.
    prior: probability of each bin in the training data; used only for
      rebalancing.
    rebalance: lambda of eq. 4: the prior is mixed with this share of the
      uniform distribution, and the weights are the inverse of the mixture. 1/2
      as published; None for no rebalancing.

  Returns:
    Bins [Q, 2], and weights [Q] with mean 1 under the prior, or None without
    rebalancing.

  Raises:
    UserError: the bins are invalid, or the prior is missing or does not match
      the bins.
  """
  try:
    centers = (quantize.published_bins() if bins is None
               else quantize.check_bins(bins))
  except ValueError as error:
    raise UserError(f'bins: {error}') from error
  if rebalance is None:
    return centers, None
  if prior is None:
    raise UserError(
        f'rebalance={rebalance}: also give the prior of the training data, as '
        'measured by colorjax.runs.prior')
  if len(prior) != len(centers):
    raise UserError(f'prior: it has {len(prior)} bins instead of '
                    f'{len(centers)}; measure it with the same bins')
  try:
    return centers, quantize.class_weights(prior, rebalance)
  except ValueError as error:
    raise UserError(f'rebalance={rebalance}: {error}') from error
