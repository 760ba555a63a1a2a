"""Means of metrics from (sum, count) pairs, added on the host in float64."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from colorjax.colorizer import Batch, Variables


class Totals:
  """Sums of metrics over batches, divided once at the end."""

  def __init__(self, pairs: Mapping[str, Iterable[float]] | None = None):
    """Starts empty, or from what `pairs` returned."""
    self._pairs = {name: tuple(pair) for name, pair in (pairs or {}).items()}

  def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
    """Adds metrics, each a pair (sum, count) of numbers."""
    for name, (value, count) in metrics.items():
      old_value, old_count = self._pairs.get(name, (0.0, 0.0))
      self._pairs[name] = (old_value + float(value), old_count + float(count))

  def means(self) -> dict[str, float]:
    """Returns sum / count by name, without names whose count is 0."""
    return {name: value / count
            for name, (value, count) in self._pairs.items() if count}

  def clear(self) -> None:
    """Discards all sums."""
    self._pairs = {}

  def pairs(self) -> dict[str, list[float]]:
    """Returns [sum, count] by name for JSON, which keeps floats exactly."""
    return {name: list(pair) for name, pair in self._pairs.items()}


def evaluate(
    eval_step: Callable[[Variables, Batch], Any],
    variables: Variables,
    batches: Iterable[Batch],
) -> dict[str, float]:
  """Returns the mean of each metric over all photographs.

  Args:
    eval_step: the step of `make_eval_step`, under `parallel.pmap_step` or not.
    variables: the variables to evaluate, `TrainState.variables`.
    batches: host batches; padding has padding mask 0.
  """
  totals = Totals()
  for batch in batches:
    totals.add(jax.device_get(eval_step(variables, batch)))
  return totals.means()
