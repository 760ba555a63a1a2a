"""The record of a metric."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from colorjax.evaluation.answers import Answers
from colorjax.metrics import bootstrap


class Metric(NamedTuple):
  """A metric.

  Attributes:
    statistics: `Answers -> [B]`, a value for each photograph, or
      `Answers -> [B, ...]`, statistics for `reduce`. The name of another metric
      means that its statistics are used.
    meaning: a line for tables: what is measured, and its unit.
    better: 'lower', 'higher', or '' if neither is better.
    needs: fields of Answers that must not be None.
    network: name of the network in Answers.networks that it uses, or ''.
    reduce: computes the metric of a set from the statistics [N, ...] of its
      photographs. None takes the mean of [N].
    resamples: number of bootstrap resamples.
    recenter: see `bootstrap.interval`.
    resample: `(statistics, counts [R, N]) -> [R]` computes the metric of all
      resamples at once, for metrics where one `reduce` for each resample would
      be too slow. None calls `reduce`.
    undefined: describes, for tables, the photographs whose value is not finite
      and which the mean leaves out. '' if nothing is left out.
  """
  statistics: Callable[[Answers], jax.Array] | str
  meaning: str
  better: str = 'lower'
  needs: tuple[str, ...] = ()
  network: str = ''
  reduce: bootstrap.Reduce | None = None
  resamples: int = bootstrap.NUM_RESAMPLES
  recenter: bool = False
  resample: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
  undefined: str = ''
