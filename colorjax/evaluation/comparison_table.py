"""Formats a comparison as Markdown, LaTeX or CSV, with explanatory notes."""

import csv
import io
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from colorjax.evaluation import catalogue, comparison
from colorjax.evaluation.comparison import ComparedMethod, Table, TableEntry

# The bootstrap of fewer photographs underestimates the variance.
_FEW = 20

_T = TypeVar('_T', bound=Hashable)


def markdown(table: Table, rows: Sequence[ComparedMethod],
             metrics: Sequence[str], *, against: str) -> str:
  """The table as Markdown, followed by `notes`.

  Args:
    table: the table that `compare` returned.
    rows: the rows that it was computed from.
    metrics: the columns; metrics that no row has are left out.
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
          metrics: Sequence[str], *, against: str) -> str:
  """The table as LaTeX (booktabs), with `notes` as comments.

  Args are those of `markdown`.
  """
  header, lines = texts(table, rows, metrics)
  text = [f'% {note}' for note in notes(rows, metrics, against=against)]
  text += ['\\begin{tabular}{l' + 'r' * (len(header) - 1) + '}',
           '\\toprule', ' & '.join(map(_escaped, header)) + ' \\\\',
           '\\midrule']
  text += [' & '.join(map(_escaped, line)) + ' \\\\' for line in lines]
  return '\n'.join([*text, '\\bottomrule', '\\end{tabular}']) + '\n'


def texts(table: Table, rows: Sequence[ComparedMethod], metrics: Sequence[str]
          ) -> tuple[list[str], list[list[str]]]:
  """Cells of the table as texts.

  Args:
    table: the table that `compare` returned.
    rows: the rows that it was computed from.
    metrics: the columns; metrics that no row has are left out.

  Returns:
    The header and one line for each row: name, metrics, training time.
  """
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
  """All metrics of all rows as CSV, one line for each metric of a row."""
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
          against: str) -> list[str]:
  """Notes that explain the table.

  Args:
    rows: the rows of the table.
    metrics: the columns of the table.
    against: as in `compare`.

  Returns:
    The protocol, the settings, warnings, and which rows are not comparable.
  """
  record = rows[0].results[0].record
  text = [
      f'{len(record.photographs)} photographs, protocol '
      f'{record.protocol.name} version {record.protocol.version}, '
      f'{record.protocol.image_size} x {record.protocol.image_size} '
      f'{record.protocol.fit}; mean with its 95 % bootstrap interval over '
      f'{_resampled_over(rows)}.',
      f'A star marks a significant difference from {against} (paired '
      f'bootstrap, two-sided p < {comparison.SIGNIFICANT:g}, not corrected '
      'for multiple comparisons).',
      f'K = {record.num_proposals} proposals, n = {record.num_samples} '
      f'samples, {record.num_draws} draws; SHA-256 of the pixels '
      f'{record.pixels[:12]}; {record.num_grey} photographs grey by nature; '
      f'{len(record.left_out)} left out.']
  if record.near_duplicates is not None:
    kept = 'left out' if record.drops_near_duplicates else 'not left out'
    text.append(f'{len(record.near_duplicates)} photographs are also in the '
                f'training set ({kept}).')
  if len(record.photographs) < _FEW:
    text.append(f'With only {len(record.photographs)} photographs, intervals '
                'are too narrow and too many differences are marked.')
  for name in metrics:
    text += _undefined_note(rows, name)
  densities = _names_by((row.name, comparison.density_of(row)) for row in rows
                        if comparison.density_of(row))
  if comparison.DENSITY_METRIC in metrics and densities:
    text.append(f'Resolution of the ab field of {comparison.DENSITY_METRIC}: '
                + '; '.join(f'{density} ({names})'
                            for density, names in densities.items())
                + '; a uniform density over the ab square has 7.78.')
  text += [f'{row.name}: {warning}.' for row in rows for warning in
           dict.fromkeys(warning for one in row.results
                         for warning in one.record.warnings)]
  text += [f'† {row.name} is not comparable with {rows[0].name}: {row.note}.'
           for row in rows if row.note]
  return text


def _undefined_note(rows: Sequence[ComparedMethod], name: str) -> list[str]:
  """A note if the mean of a metric leaves out photographs, else []."""
  metric = catalogue.METRICS.get(name)
  reason = metric.undefined if metric else ''
  missing = {row.name: len(row.results[0].record.photographs)
             - comparison.num_defined(row, name) for row in rows
             if reason and row.results and all(
                 name in one.statistics for one in row.results)}
  found = [f'{number} for {row}' for row, number in missing.items() if number]
  if not found:
    return []
  return [f'{name} leaves out {reason}: {", ".join(found)}; differences are '
          'over the photographs that both rows include.']


def _resampled_over(rows: Sequence[ComparedMethod]) -> str:
  """Says whether intervals are over photographs only or over seeds too."""
  several = _names_by((row.name, len(row.results)) for row in rows
                      if len(row.results) > 1)
  if not several:
    return ('photographs; each method has one training seed, so the interval '
            'does not include the variation between seeds')
  return ('photographs, and over training seeds where there are several ('
          + '; '.join(f'{number} of {names}'
                      for number, names in several.items()) + ')')


def _names_by(properties: Iterable[tuple[str, _T]]) -> dict[_T, str]:
  """Groups names by a property; each group is a text 'a, b, c'."""
  groups: dict[_T, list[str]] = {}
  for name, value in properties:
    groups.setdefault(value, []).append(name)
  return {value: ', '.join(names) for value, names in groups.items()}


def _text(cell: TableEntry) -> str:
  """'mean (low to high) *', with a star for a significant difference."""
  value = cell.interval
  if np.isinf(value.mean):
    return '∞' if value.mean > 0 else '-∞'
  # Small values get one more digit.
  digits = 3 if max(abs(value.mean), abs(value.high)) < 2 else 2
  text = f'{value.mean:.{digits}f}'
  if np.isfinite([value.low, value.high]).all():
    text += f' ({value.low:.{digits}f} to {value.high:.{digits}f})'
  return text + (' *' if cell.is_significant else '')


def _escaped(text: str) -> str:
  """Text with the special characters of LaTeX escaped."""
  return text.translate(_LATEX)


_LATEX = str.maketrans({
    **{plain: f'\\{plain}' for plain in '_%&#${}'},
    '\\': '\\textbackslash{}', '~': '\\textasciitilde{}',
    '^': '\\textasciicircum{}', '∞': '$\\infty$', '†': '$^\\dagger$',
    '*': '$^*$'})
