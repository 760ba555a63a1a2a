"""The report of a comparison: its table, its pictures and its page."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from colorjax import files, photo
from colorjax.errors import UserError
from colorjax.evaluation import (
  catalogue,
  comparison,
  comparison_table,
  result,
)
from colorjax.report import evaluation, page, sheets
from colorjax.runs import compare, evaluation_report
from colorjax.runs.compare import CompareOptions, EvaluatedRow

_PLOTTED = 'ab_distance'


def check(options: CompareOptions) -> None:
  """Checks the names of metrics and of the row to compare against.

  Raises:
    UserError: there is no such metric or no such row.
  """
  unknown = [name for name in options.metrics if name not in catalogue.METRICS]
  if unknown:
    raise UserError(f'metrics: there is no metric {unknown[0]!r}; choose from '
                    f'{", ".join(catalogue.METRICS)}')
  if options.against not in options.names():
    raise UserError(f'against={options.against}: there is no such row; choose '
                    f'from {", ".join(options.names())}')


def write(options: CompareOptions, evaluated: Sequence[EvaluatedRow], *,
          configuration: str = '', command: str = '') -> None:
  """Writes all files of a comparison and prints its table.

  Args:
    options: options of the comparison.
    evaluated: what `compare.run_jobs` returned.
    configuration: text for the end of the page.
    command: the command line that repeats the comparison, for the page.

  Raises:
    UserError: the rows cannot be compared, or a file cannot be written.
  """
  rows = comparison.check([
      comparison.ComparedMethod(
          name=row.name, seconds=_seconds(row.runs),
          results=[result.load(path) for path in row.evaluations])
      for row in evaluated], mixed=options.mixed_protocols)
  columns, against = options.metrics, options.against
  workdir = options.directory
  table = comparison.compare(rows, against=against)
  text = comparison_table.markdown(table, rows, columns, against=against)
  for name, content in (
      ('table.md', text),
      ('table.tex', comparison_table.latex(
          table, rows, columns, against=against)),
      ('table.csv', comparison_table.as_csv(table, rows))):
    files.write_text(workdir / name, content)
  figures = _pictures(workdir, evaluated, rows, table)
  page.write_index(
      workdir / 'index.html', title=f'colorjax: {workdir.name}',
      tables=[_page_table(table, rows, columns, against)], figures=figures,
      command=command, settings=configuration)
  print(f'\n{text}\nWritten to {workdir}: index.html, table.md, table.tex, '
        f'table.csv, {", ".join(figure.file for figure in figures)}')


def _seconds(runs: Sequence[pathlib.Path]) -> float | None:
  seconds = [compare.seconds_of(run) for run in runs]
  known = [one for one in seconds if one is not None]
  return float(np.mean(known)) if known and len(known) == len(seconds) else None


def _page_table(table: comparison.Table,
                rows: Sequence[comparison.ComparedMethod],
                columns: Sequence[str], against: str) -> page.Table:
  header, lines = comparison_table.texts(table, rows, columns)
  return page.Table(
      caption='Mean and 95 % interval; table.csv has every metric',
      header=header, rows=[[_in_two_lines(text) for text in line]
                           for line in lines],
      notes=comparison_table.notes(rows, columns, against=against))


def _in_two_lines(text: str) -> str:
  """Breaks '21.05 (19.75 to 22.62) *' before its interval."""
  mean, bracket, rest = text.partition(' (')
  interval, _, star = rest.partition(')')
  return f'{mean}{star}\n{interval}' if bracket else text


def _pictures(workdir: pathlib.Path,
              evaluated: Sequence[EvaluatedRow],
              rows: Sequence[comparison.ComparedMethod], table: comparison.Table
              ) -> list[page.Figure]:
  images, painted = _examples(evaluated, rows)
  photo.write(workdir / 'sheet.png', sheets.side_by_side(images, painted))
  figures = [page.Figure(
      'sheet.png', 'Side by side', 'The same photographs, colored by every '
      'method. If there are several seeds, the first one is shown.')]
  intervals = {name: cells[_PLOTTED].interval for name, cells in table.items()
               if _PLOTTED in cells and name != 'truth'}
  if intervals:
    photo.write(workdir / 'intervals.png', evaluation.interval_plot(
        {name: (one.mean, one.low, one.high)
         for name, one in intervals.items()}, _PLOTTED))
    figures.append(page.Figure(
        'intervals.png', _PLOTTED, catalogue.METRICS[_PLOTTED].meaning))
  return figures


def _examples(evaluated: Sequence[EvaluatedRow],
              rows: Sequence[comparison.ComparedMethod]
              ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
  """The originals, and the colorings of each row that has the same originals.

  The references are left out: every sheet has them as its first two columns.
  """
  images: np.ndarray | None = None
  painted = {}
  for row, one in zip(rows, evaluated, strict=True):
    examples = evaluation_report.load_examples(one.evaluations[0])
    if images is None:
      images = examples['original']
    if row.name not in compare.REFERENCES and np.array_equal(
        images, examples['original']):
      painted[row.name] = examples['picture']
  assert images is not None
  return images, painted
