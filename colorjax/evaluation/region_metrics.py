"""How a method heeds the regions that it is asked to color."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from colorjax import color
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.metrics import bootstrap, regions

REGION_FIGURES = {
    'chroma_outside': 'mean chroma outside the region, where grey is asked for',
    'difference_inside': 'ab distance inside to the answer without a region',
    'distance_inside': 'ab distance inside to the photograph',
}
"""What each figure of `per_region` is, for tables; Lab units."""


def per_region(colorizer: Colorizer
               ) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
  """A pure function that measures how a method heeds regions.

  Args:
    colorizer: a method that accepts a region.

  Returns:
    `(variables, batch) -> {figure: [B]}` with the names of REGION_FIGURES, for
    a batch with 'region'.
  """
  def measure(variables, batch):
    lightness, ab = color.split_lightness(batch['image'])
    region = batch['region']
    within = colorizer.predict(
        variables, {'lightness': lightness, 'region': region})
    whole = colorizer.predict(variables, {'lightness': lightness})
    return {
        'chroma_outside': regions.chroma_outside(within, region),
        'difference_inside': regions.difference_inside(within, whole, region),
        'distance_inside': regions.difference_inside(within, ab, region)}

  return measure


def summarize(values: Mapping[str, np.ndarray]
              ) -> dict[str, bootstrap.Interval]:
  """Mean and 95 % bootstrap interval of each figure over photographs."""
  return {name: bootstrap.mean_interval(values[name])
          for name in REGION_FIGURES if name in values}
