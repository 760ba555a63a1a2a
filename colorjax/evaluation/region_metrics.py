"""How well a method follows the region that it is asked to color."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from colorjax import color
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.metrics import bootstrap, regions

REGION_METRICS = {
    'chroma_outside': 'mean chroma outside the region, which should be grey',
    'difference_inside': 'ab distance from the coloring without a region, '
                         'inside the region',
    'distance_inside': 'ab distance from the photograph, inside the region',
}
"""The metrics of `per_region` by name, described for tables; Lab units."""


def per_region(colorizer: Colorizer
               ) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
  """Builds a pure function that measures how a method follows regions.

  Args:
    colorizer: a method that accepts a region.

  Returns:
    `(variables, batch) -> {name: [B]}` with the names of REGION_METRICS. The
    batch needs 'image' and 'region'.
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
  """Mean and 95 % bootstrap interval of each metric over photographs."""
  return {name: bootstrap.mean_interval(values[name])
          for name in REGION_METRICS if name in values}
