"""Exact means: (sum, count) pairs added up on the host in float64."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from colorjax.colorizer import Batch, Variables


class Totals:
  """Sums of metrics over batches, divided once at the end."""

  def __init__(self, pairs: Mapping[str, Iterable[float]] | None = None):
    """Starts from nothing, or from what `pairs` returned."""
    self._pairs = {name: tuple(pair) for name, pair in (pairs or {}).items()}

  def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
    """Adds metrics, each a pair (sum, count) of numbers."""
    for name, (value, count) in metrics.items():
      old_value, old_count = self._pairs.get(name, (0.0, 0.0))
      self._pairs[name] = (old_value + float(value), old_count + float(count))

  def means(self) -> dict[str, float]:
    """sum / count by name, in the order of arrival; no name without count."""
    return {name: value / count
            for name, (value, count) in self._pairs.items() if count}

  def clear(self) -> None:
    """Begins again from nothing."""
    self._pairs = {}

  def pairs(self) -> dict[str, list[float]]:
    """The sums themselves, for JSON: floats survive it to the last bit."""
    return {name: list(pair) for name, pair in self._pairs.items()}


def evaluate(
    eval_step: Callable[[Variables, Batch], Any],
    variables: Variables,
    batches: Iterable[Batch],
) -> dict[str, float]:
  """Means of an evaluation over all photographs, each counted once.

  Args:
    eval_step: `make_eval_step`'s, mapped or not.
    variables: what to evaluate, `TrainState.variables`.
    batches: host batches; padding has mask 0.
  """
  totals = Totals()
  for batch in batches:
    totals.add(jax.device_get(eval_step(variables, batch)))
  return totals.means()
