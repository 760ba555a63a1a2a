"""Compares the results of several methods, with significance of differences.

Each row is a method, averaged over its training seeds. Intervals account for
the choice of photographs and of seeds. Differences from a chosen row are
paired: both rows are resampled with the same photographs. `comparison_table`
formats the result.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from colorjax.errors import UserError
from colorjax.evaluation import catalogue, protocol
from colorjax.evaluation.result import EvaluationResult
from colorjax.metrics import bootstrap

SIGNIFICANT = 0.05
"""Differences with a smaller two-sided p-value are marked with a star."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedMethod:
  """A method of the table: one row.

  Attributes:
    name: name of the row.
    results: one result for each training seed.
    seconds: training time, mean over seeds, or None without training.
    note: why the row is not comparable with the first row; '' if it is.
  """
  name: str
  results: Sequence[EvaluationResult]
  seconds: float | None = None
  note: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableEntry:
  """A metric of a row: one cell of the table.

  Attributes:
    interval: mean over seeds, with its interval over photographs and seeds.
    seed_std: sample standard deviation over seeds; None for one seed.
    difference: difference from the chosen row, with its paired interval. None
      for the chosen row itself and for rows that are not comparable.
    p: two-sided bootstrap p-value of the difference, or None.
  """
  interval: bootstrap.Interval
  seed_std: float | None = None
  difference: bootstrap.Interval | None = None
  p: float | None = None

  @property
  def is_significant(self) -> bool:
    """Whether the difference is significant at the level SIGNIFICANT."""
    return self.p is not None and self.p < SIGNIFICANT


Table = Mapping[str, Mapping[str, TableEntry]]
"""Entries by the name of the row and the name of the metric."""

DENSITY_METRIC = 'bits_per_dim'
"""The metric that is comparable only for densities of the same ab field."""

_Resampled = tuple[np.ndarray, np.ndarray]  # values [S], replicates [S, R]


def check(rows: Sequence[ComparedMethod], *, mixed: bool
          ) -> list[ComparedMethod]:
  """Checks that the rows are comparable.

  Args:
    rows: the rows; all are checked against the first one.
    mixed: allow rows of other protocols or photographs.

  Returns:
    The rows. With `mixed`, `note` says why a row is not comparable.

  Raises:
    UserError: rows are not comparable and `mixed` is False, or two rows have
      the same name.
  """
  names = [row.name for row in rows]
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise UserError(f'two rows have the name {twice[0]}: give each its own '
                    'name with NAME=PATH')
  checked = []
  for row in rows:
    found: list[str] = []
    for one in row.results:
      found += protocol.differences(rows[0].results[0].record, one.record)
    if found and not mixed:
      both = (f'{rows[0].name} and {row.name}' if row is not rows[0] else
              f'the seeds of {row.name}')
      raise UserError(
          f'{both} are not comparable: {"; ".join(dict.fromkeys(found))}; '
          'evaluate both in the same way, or set mixed_protocols=True')
    checked.append(dataclasses.replace(
        row, note='; '.join(dict.fromkeys(found))))
  return checked


def compare(rows: Sequence[ComparedMethod], *, against: str) -> Table:
  """Computes all metrics of all rows, and their differences from one row.

  Args:
    rows: the rows that `check` returned.
    against: name of the row from which differences are computed.

  Returns:
    The table.

  Raises:
    UserError: there is no row with the name `against`.
  """
  by_name = {row.name: row for row in rows}
  if against not in by_name:
    raise UserError(f'against={against}: there is no such row; choose one of '
                    f'{", ".join(by_name)}')
  base = by_name[against]
  table: dict[str, dict[str, TableEntry]] = {row.name: {} for row in rows}
  for name, metric in catalogue.METRICS.items():
    found = {row.name: _replicates(row, name) for row in rows}
    for row in rows:
      own, other = found[row.name], found[against]
      if own is None:
        continue
      cell = _cell(own, None, num_defined(row, name),
                   recenter=metric.recenter)
      if (row is not base and other is not None
          and _is_comparable(row, base, name)):
        if metric.undefined:
          own, other = _on_common_photographs(row, base, name)
        paired = _cell(own, other, cell.interval.n, recenter=metric.recenter)
        cell = dataclasses.replace(
            cell, difference=paired.difference, p=paired.p)
      table[row.name][name] = cell
  return table


def num_defined(row: ComparedMethod, name: str) -> int:
  """Number of photographs in the mean of a metric, the minimum over seeds."""
  return min(
      catalogue.num_defined(name, statistics) for one in row.results
      if (statistics := catalogue.statistics_of(name, one.statistics))
      is not None)


def density_of(row: ComparedMethod) -> str:
  """Resolution and kind of the row's density, see `Record.density`."""
  return row.results[0].record.density


def _replicates(row: ComparedMethod, name: str) -> _Resampled | None:
  """A metric of each seed with its replicates; None if a seed lacks it."""
  found = [catalogue.statistics_of(name, one.statistics)
           for one in row.results]
  statistics = [one for one in found if one is not None]
  return (_resampled(name, statistics) if len(statistics) == len(found)
          else None)


def _resampled(name: str, by_seed: Sequence[np.ndarray]) -> _Resampled:
  """Values [S] and replicates [S, R] from the statistics of S seeds."""
  return (np.array([catalogue.value(name, one) for one in by_seed]),
          np.array([catalogue.replicates(name, one) for one in by_seed]))


def _on_common_photographs(
    row: ComparedMethod, base: ComparedMethod, name: str
) -> tuple[_Resampled, _Resampled]:
  """A metric of two rows over photographs with a value for all their seeds.

  Without this, a photograph that one row reproduces exactly (infinite PSNR)
  would enter the mean of the other row only.
  """
  by_row = [[np.asarray(one.statistics[name], np.float64)
             for one in each.results] for each in (row, base)]
  common = np.isfinite([*by_row[0], *by_row[1]]).all(0)
  own, other = (
      _resampled(name, [np.where(common, x, np.nan) for x in values]
                    if common.any() else values) for values in by_row)
  return own, other


def _is_comparable(row: ComparedMethod, base: ComparedMethod, name: str
                   ) -> bool:
  if row.note or base.note:
    return False
  # Bits per dimension depend on the resolution, and a bound is not a density.
  return name != DENSITY_METRIC or density_of(row) == density_of(base)


def _cell(own: _Resampled, other: _Resampled | None, n: int, *,
          recenter: bool) -> TableEntry:
  """The entry of a metric.

  Args:
    own: the metric of the row.
    other: the metric of the row to subtract; None for no difference.
    n: number of photographs in the mean.
    recenter: see `bootstrap.interval`.
  """
  values, replicates = own
  mean, pooled = values.mean(), bootstrap.over_seeds(replicates)
  cell = TableEntry(
      interval=bootstrap.interval(mean, pooled, n, recenter=recenter),
      seed_std=_seed_std(values))
  if other is None:
    return cell
  # Seeds of two rows are not paired, so they are drawn independently.
  base, base_pooled = other[0].mean(), bootstrap.over_seeds(other[1], seed=1)
  if not all(np.isfinite(x).all() for x in (mean, base, pooled, base_pooled)):
    return cell
  difference, paired = mean - base, pooled - base_pooled
  if recenter:
    paired = bootstrap.recentered(paired, difference)
  return dataclasses.replace(
      cell, p=bootstrap.sign_probability(paired),
      difference=bootstrap.interval(difference, paired, n))


def _seed_std(values: np.ndarray) -> float | None:
  """Standard deviation over seeds (n - 1), None if it is not defined."""
  if len(values) < 2 or not np.isfinite(values).all():
    return None
  return float(values.std(ddof=1))
