"""Results of one protocol in one table, with what chance may have done.

A row is a method: the mean over its training seeds. Intervals are over
photographs and seeds together, differences from a chosen row are paired: both
are resampled with the same photographs.
"""

import csv
import dataclasses
import io
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from colorjax.errors import UserError
from colorjax.evaluation import catalogue, protocol
from colorjax.evaluation.result import EvaluationResult
from colorjax.metrics import bootstrap

SIGNIFICANT = 0.05
"""Differences with a smaller two-sided p are marked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedMethod:
  """A method of the table.

  Attributes:
    name: what it is called.
    results: one for each training seed.
    seconds: of training, mean over seeds; None where there was none.
    note: in what it does not compare with the other rows.
  """
  name: str
  results: Sequence[EvaluationResult]
  seconds: float | None = None
  note: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableEntry:
  """A metric of a row.

  Attributes:
    interval: mean over seeds, its interval over photographs and seeds.
    seed_std: standard deviation over seeds (n - 1); None for one seed.
    difference: from the chosen row, with its paired interval; None for that
      row itself, and where the two do not compare.
    p: two-sided bootstrap p-value of the difference.
  """
  interval: bootstrap.Interval
  seed_std: float | None = None
  difference: bootstrap.Interval | None = None
  p: float | None = None

  @property
  def is_significant(self) -> bool:
    """Whether chance alone would seldom make such a difference."""
    return self.p is not None and self.p < SIGNIFICANT


Table = Mapping[str, Mapping[str, TableEntry]]
"""By the row's name and the metric's."""

_OF_DENSITIES = 'bits_per_dim'  # of fields whose resolution is the method's

_FEW = 20
"""Resampling fewer photographs than these understates what chance does."""

_T = TypeVar('_T', bound=Hashable)

_Resampled = tuple[np.ndarray, np.ndarray]  # figures [S], replicates [S, R]


def check(rows: Sequence[ComparedMethod], *, mixed: bool
          ) -> list[ComparedMethod]:
  """The rows, if they compare; those that do not are noted, if that is wanted.

  Args:
    rows: the first one is what the others are held against.
    mixed: allow rows of other protocols or photographs.

  Raises:
    UserError: rows do not compare and `mixed` is not set, or two have one name.
  """
  names = [row.name for row in rows]
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise UserError(f'two rows are called {twice[0]}: name them NAME=PATH')
  checked = []
  for row in rows:
    found: list[str] = []
    for one in row.results:
      found += protocol.differences(rows[0].results[0].record, one.record)
    if found and not mixed:
      both = (f'{rows[0].name} and {row.name}' if row is not rows[0] else
              f'the seeds of {row.name}')
      raise UserError(
          f'{both} do not stand in one table: '
          f'{"; ".join(dict.fromkeys(found))}. Evaluate both alike, or ask for '
          'mixed_protocols=True')
    checked.append(dataclasses.replace(
        row, note='; '.join(dict.fromkeys(found))))
  return checked


def compare(rows: Sequence[ComparedMethod], *, against: str) -> Table:
  """All metrics of all rows.

  Args:
    rows: as `check` gives them.
    against: name of the row that differences are from.

  Raises:
    UserError: no row of that name.
  """
  by_name = {row.name: row for row in rows}
  if against not in by_name:
    raise UserError(f'against={against}: there are the rows '
                    f'{", ".join(by_name)}')
  base = by_name[against]
  table: dict[str, dict[str, TableEntry]] = {row.name: {} for row in rows}
  for name, metric in catalogue.METRICS.items():
    found = {row.name: _replicates(row, name) for row in rows}
    for row in rows:
      own, other = found[row.name], found[against]
      if own is None:
        continue
      cell = _cell(own, None, _num_defined(row, name),
                   recentre=metric.recentre)
      if (row is not base and other is not None
          and _comparable(row, base, name)):
        if metric.undefined:
          own, other = _of_common(row, base, name)
        paired = _cell(own, other, cell.interval.n, recentre=metric.recentre)
        cell = dataclasses.replace(
            cell, difference=paired.difference, p=paired.p)
      table[row.name][name] = cell
  return table


def markdown(table: Table, rows: Sequence[ComparedMethod],
             metrics: Sequence[str], *,
             against: str) -> str:
  """The table as Markdown, with what must be known to read it.

  Args:
    table: what `compare` gave.
    rows: the same rows.
    metrics: the columns; those that no row has are left out.
    against: as in `compare`.
  """
  header, lines = texts(table, rows, metrics)
  written = [[text.replace('|', '\\|') for text in line]
             for line in (header, *lines)]
  text = ['| ' + ' | '.join(line) + ' |' for line in written]
  text.insert(1, '|---|' + '--:|' * (len(header) - 1))
  return '\n'.join(text) + '\n\n' + '\n'.join(
      notes(rows, metrics, against=against)) + '\n'


def latex(table: Table, rows: Sequence[ComparedMethod],
          metrics: Sequence[str], *,
          against: str) -> str:
  """The table as LaTeX (booktabs), the notes as comments."""
  header, lines = texts(table, rows, metrics)
  text = [f'% {note}' for note in notes(rows, metrics, against=against)]
  text += ['\\begin{tabular}{l' + 'r' * (len(header) - 1) + '}',
           '\\toprule', ' & '.join(map(_escaped, header)) + ' \\\\',
           '\\midrule']
  text += [' & '.join(map(_escaped, line)) + ' \\\\' for line in lines]
  return '\n'.join([*text, '\\bottomrule', '\\end{tabular}']) + '\n'


def texts(table: Table, rows: Sequence[ComparedMethod], metrics: Sequence[str]
          ) -> tuple[list[str], list[list[str]]]:
  """Header and lines of the table as texts, the row's name first."""
  columns = [name for name in metrics
             if any(name in cells for cells in table.values())]
  lines = []
  for row in rows:
    cells = table[row.name]
    lines.append([row.name + ('†' if row.note else ''), *(
        _text(cells[name]) if name in cells else '' for name in columns),
        '' if row.seconds is None else f'{row.seconds:.0f}'])
  return ['method', *columns, 'training, s'], lines


def as_csv(table: Table, rows: Sequence[ComparedMethod]) -> str:
  """Every metric of every row, one a line."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['row', 'metric', 'mean', 'low', 'high', 'photographs',
                   'seeds', 'seed_std', 'difference', 'difference_low',
                   'difference_high', 'p', 'seconds', 'note'])
  for row in rows:
    for name, cell in table[row.name].items():
      difference = cell.difference
      numbers = [cell.interval.mean, cell.interval.low, cell.interval.high,
                 cell.interval.n, len(row.results), cell.seed_std,
                 *((difference.mean, difference.low, difference.high)
                   if difference else (None,) * 3), cell.p, row.seconds]
      writer.writerow([row.name, name, *(
          '' if number is None else f'{number:.6g}' for number in numbers),
                       row.note])
  return text.getvalue()


def notes(rows: Sequence[ComparedMethod], metrics: Sequence[str], *,
          against: str
          ) -> list[str]:
  """What must be known to read the table, a sentence each."""
  record = rows[0].results[0].record
  text = [
      f'{len(record.photographs)} photographs, protocol '
      f'{record.protocol.name} version {record.protocol.version}, '
      f'{record.protocol.image_size} x {record.protocol.image_size} '
      f'{record.protocol.fit}; mean with its 95 % bootstrap interval over '
      f'{_resampled_over(rows)}.',
      f'A * marks what differs from {against} (paired bootstrap, two-sided p < '
      f'{SIGNIFICANT:g}, not corrected for the number of comparisons).',
      f'K = {record.num_proposals} proposals, n = {record.num_samples} '
      'samples, '
      f'{record.num_draws} draws; pixels {record.pixels[:12]}; '
      f'{record.num_grey} photographs grey by nature; '
      f'{len(record.left_out)} left out.']
  if record.near_duplicates is not None:
    kept = ('left out' if record.drops_near_duplicates else 'not left out')
    text.append(f'{len(record.near_duplicates)} photographs were in the '
                f'training set too ({kept}).')
  if len(record.photographs) < _FEW:
    text.append(f'{len(record.photographs)} photographs are few: intervals and '
                'stars are surer than they should be.')
  for name in metrics:
    text += _left_out(rows, name)
  densities = _names_by((row.name, _density(row)) for row in rows
                        if _density(row))
  if _OF_DENSITIES in metrics and densities:
    text.append(f'{_OF_DENSITIES} are of the ab field at ' + '; '.join(
        f'{density} ({names})' for density, names in densities.items())
        + '; a uniform density over the ab square has 7.78.')
  text += [f'{row.name}: {warning}.' for row in rows for warning in
           dict.fromkeys(warning for one in row.results
                         for warning in one.record.warnings)]
  text += [f'† {row.name} does not compare with {rows[0].name}: {row.note}.'
           for row in rows if row.note]
  return text


def _left_out(rows: Sequence[ComparedMethod], name: str) -> list[str]:
  """A sentence where a metric's mean is not over all photographs."""
  metric = catalogue.METRICS.get(name)
  reason = metric.undefined if metric else ''
  missing = {row.name: len(row.results[0].record.photographs)
             - _num_defined(row, name) for row in rows
             if reason and row.results and all(
                 name in one.statistics for one in row.results)}
  found = [f'{number} for {row}' for row, number in missing.items() if number]
  if not found:
    return []
  return [f'{name} leaves out {reason}: {", ".join(found)}; differences are '
          'over the photographs that both rows keep.']


def _resampled_over(rows: Sequence[ComparedMethod]) -> str:
  several = _names_by((row.name, len(row.results)) for row in rows
                      if len(row.results) > 1)
  if not several:
    return ('photographs; one training seed each: what another would change '
            'is not in it')
  return ('photographs and training seeds, where there are several ('
          + '; '.join(f'{number} of {names}'
                      for number, names in several.items()) + ')')


def _names_by(properties: Iterable[tuple[str, _T]]) -> dict[_T, str]:
  """The names that share a property, 'a, b, c', by the property."""
  groups: dict[_T, list[str]] = {}
  for name, value in properties:
    groups.setdefault(value, []).append(name)
  return {value: ', '.join(names) for value, names in groups.items()}


def _replicates(row: ComparedMethod, name: str) -> _Resampled | None:
  """The metric of each seed [S], and its replicates [S, R]."""
  found = [catalogue.statistics_of(name, one.statistics)
           for one in row.results]
  statistics = [one for one in found if one is not None]
  return (_resampled(name, statistics) if len(statistics) == len(found)
          else None)


def _resampled(name: str, by_seed: Sequence[np.ndarray]) -> _Resampled:
  return (np.array([catalogue.figure(name, one) for one in by_seed]),
          np.array([catalogue.replicates(name, one) for one in by_seed]))


def _num_defined(row: ComparedMethod, name: str) -> int:
  """Photographs that the metric is over; of several seeds the fewest."""
  return min(
      catalogue.num_defined(name, statistics) for one in row.results
      if (statistics := catalogue.statistics_of(name, one.statistics))
      is not None)


def _of_common(row: ComparedMethod, base: ComparedMethod, name: str
               ) -> tuple[_Resampled, _Resampled]:
  """Two rows' figures of the photographs where all seeds of both have one.

  Otherwise a photograph that one row has exactly right would count for the
  other alone.
  """
  by_row = [[np.asarray(one.statistics[name], np.float64)
             for one in each.results] for each in (row, base)]
  common = np.isfinite([*by_row[0], *by_row[1]]).all(0)
  own, other = (
      _resampled(name, [np.where(common, x, np.nan) for x in values]
                    if common.any() else values) for values in by_row)
  return own, other


def _comparable(row: ComparedMethod, base: ComparedMethod, name: str) -> bool:
  if row.note or base.note:
    return False
  # Bits of a coarser field are other bits, and a bound is no density.
  return name != _OF_DENSITIES or _density(row) == _density(base)


def _density(row: ComparedMethod) -> str:
  return row.results[0].record.density


def _cell(own: _Resampled, other: _Resampled | None, n: int, *,
          recentre: bool) -> TableEntry:
  """A metric of a row, and its difference from the `other` row's."""
  figures, replicates = own
  figure, pooled = figures.mean(), bootstrap.over_seeds(replicates)
  cell = TableEntry(
      interval=bootstrap.interval(figure, pooled, n, recentre=recentre),
      seed_std=_deviation(figures))
  if other is None:
    return cell
  # Other draws of seeds than the row's own: its seeds are not paired.
  base, of_base = other[0].mean(), bootstrap.over_seeds(other[1], seed=1)
  if not all(np.isfinite(x).all() for x in (figure, base, pooled, of_base)):
    return cell
  difference, paired = figure - base, pooled - of_base
  if recentre:
    paired = bootstrap.recentered(paired, difference)
  return dataclasses.replace(
      cell, p=bootstrap.sign_probability(paired),
      difference=bootstrap.interval(difference, paired, n))


def _deviation(figures: np.ndarray) -> float | None:
  if len(figures) < 2 or not np.isfinite(figures).all():
    return None
  return float(figures.std(ddof=1))


def _text(cell: TableEntry) -> str:
  value = cell.interval
  if np.isinf(value.mean):
    return '∞' if value.mean > 0 else '-∞'
  # Figures of [0, 1] need a digit more than distances.
  digits = 3 if max(abs(value.mean), abs(value.high)) < 2 else 2
  text = f'{value.mean:.{digits}f}'
  if np.isfinite([value.low, value.high]).all():
    text += f' ({value.low:.{digits}f} to {value.high:.{digits}f})'
  return text + (' *' if cell.is_significant else '')


def _escaped(text: str) -> str:
  return text.translate(_LATEX)


_LATEX = str.maketrans({
    **{plain: f'\\{plain}' for plain in '_%&#${}'},
    '\\': '\\textbackslash{}', '~': '\\textasciitilde{}',
    '^': '\\textasciicircum{}', '∞': '$\\infty$', '†': '$^\\dagger$',
    '*': '$^*$'})
