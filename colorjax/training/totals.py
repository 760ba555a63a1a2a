"""Means of metrics from (sum, count) pairs, added on the host in float64."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from colorjax.colorizer import Batch, Variables


class Totals:
  """Sums of metrics over batches, divided once at the end."""

  def __init__(self, pairs: Mapping[str, Iterable[float]] | None = None):
    """Starts empty, or from what `pairs` returned."""
    self._pairs = {name: tuple(pair) for name, pair in (pairs or {}).items()}

  def add(self, metrics: Mapping[str, tuple[Any, Any]]) -> None:
    """Adds metrics.

    Args:
      metrics: by name, each a pair (sum, count) of numbers; or of arrays [R],
        with an entry for each replica. Those are added as the metric NAME of
        all replicas, and as NAME/replica0, NAME/replica1, ...
    """
    for name, value, count in _columns(metrics):
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


def _columns(metrics: Mapping[str, tuple[Any, Any]]
             ) -> Iterator[tuple[str, float, float]]:
  """Name, sum and count of each metric, and of each of its replicas."""
  for name, (value, count) in metrics.items():
    if not np.ndim(value):
      yield name, value, count
      continue
    yield (name, np.sum(value, dtype=np.float64),
           np.sum(count, dtype=np.float64))
    for i, own in enumerate(zip(value, count, strict=True)):
      yield f'{name}/replica{i}', *own


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
