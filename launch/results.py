"""The metrics of the finished runs of a sweep, as tables and plots.

    SWEEPDIR/results.csv    a line a run: swept flags, state, every metric
    SWEEPDIR/results.md     a line a setting: mean and interval over seeds
    SWEEPDIR/plots/METRIC.png   the metric against each swept flag

The flag `seed` is not a setting: runs that differ in it alone are repetitions.
Intervals are Student's t intervals of the mean at 95 %.
"""

import csv
import dataclasses
import io
import math
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from colorjax import files
from colorjax.errors import UserError
from launch import progress, status
from launch.manifest import Sweep

SEED = 'seed'
"""The flag whose values are repetitions of one setting."""

_REPORT = pathlib.Path('report') / 'metrics.json'
_SHOWN = ('validation_loss', 'ab_distance', 'psnr', 'ssim', 'ciede2000',
          'best_of_k', 'bits_per_dim', 'fid_pytorch_fid', 'coverage_90')
_MOST_NAMED_LINES = 8
_MOST_NAMED_TICKS = 6
_LOG_RATIO = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """A metric of one setting.

  Attributes:
    mean: over seeds.
    half_width: of the 95 % interval of the mean; None for one seed.
    n: number of seeds.
  """
  mean: float
  half_width: float | None
  n: int

  def __str__(self) -> str:
    """'0.123 ± 0.004', with as many digits as the interval leaves."""
    if self.half_width is None:
      return f'{self.mean:.4g}'
    return f'{self.mean:.4g} ± {self.half_width:.2g}'


def interval(values: Sequence[float]) -> Interval:
  """Mean and 95 % Student's t interval of at least one value."""
  from scipy import special

  n = len(values)
  mean = statistics.fmean(values)
  if n == 1:
    return Interval(mean=mean, half_width=None, n=1)
  quantile = float(special.stdtrit(n - 1, 0.975))
  return Interval(mean=mean, n=n,
                  half_width=quantile * statistics.stdev(values) / math.sqrt(n))


def metrics_of(workdir: pathlib.Path) -> dict[str, float]:
  """Final metrics of a run: those of its report, and its last losses."""
  found: dict[str, float] = {}
  for line in progress.lines(workdir):
    if isinstance(line.get('loss'), (int, float)):
      found[f'{line.get("split")}_loss'] = float(line['loss'])
  path = workdir / _REPORT
  if path.is_file():
    report = files.read_json(path)
    for name, value in report.items() if isinstance(report, dict) else ():
      mean = value.get('mean') if isinstance(value, dict) else value
      if isinstance(mean, (int, float)) and math.isfinite(mean):
        found[name] = float(mean)
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
  name: str
  state: str
  values: Mapping[str, str]
  metrics: Mapping[str, float]


def write(sweep: Sweep, *, metrics: str | None = None) -> str:
  """Writes tables and plots.

  Args:
    sweep: the sweep.
    metrics: names of those in results.md and the plots, with commas between;
      'all' for all; None for a usual choice.

  Returns:
    The Markdown table and where the files are, for people.

  Raises:
    UserError: no run is finished, there is no such metric, or a file cannot be
      written.
  """
  rows = _rows(sweep)
  finished = [row for row in rows if row.state == 'finished']
  if not finished:
    raise UserError(f'--sweepdir={sweep.directory}: no run is finished yet')
  there = list(dict.fromkeys(name for row in finished for name in row.metrics))
  shown = _chosen(metrics, there)
  files.write_text(sweep.directory / 'results.csv',
                   _csv(rows, list(sweep.swept), there))
  text = _markdown(rows, list(sweep.swept), shown)
  files.write_text(sweep.directory / 'results.md', text)
  plots = _plot(sweep, finished, shown)
  missing = len(rows) - len(finished)
  notes = [f'{missing} of {len(rows)} runs are not finished'] if missing else []
  notes.append(f'{sweep.directory}: results.md, results.csv'
               + (f', {len(plots)} plots in plots/' if plots else ''))
  return '\n'.join([text, *notes])


def _rows(sweep: Sweep) -> list[_Row]:
  rows = []
  standings = status.read(sweep.workdirs())
  for run, standing in zip(sweep.runs, standings, strict=True):
    is_finished = standing.state == 'finished'
    rows.append(_Row(
        name=run.name, state=standing.state,
        values={flag: sweep.value(run, flag) for flag in sweep.swept},
        metrics=metrics_of(sweep.workdir(run)) if is_finished else {}))
  return rows


def _chosen(metrics: str | None, there: Sequence[str]) -> list[str]:
  if metrics is None:
    usual = [name for name in _SHOWN if name in there]
    return usual or list(there)[:6]
  if metrics == 'all':
    return list(there)
  chosen = [name.strip() for name in metrics.split(',')]
  unknown = [name for name in chosen if name not in there]
  if unknown:
    raise UserError(f'--metrics: no finished run has {unknown[0]!r}; there are '
                    f'{", ".join(there)}')
  return chosen


def _csv(rows: Sequence[_Row], flags: Sequence[str], metrics: Sequence[str]
         ) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['run', *flags, 'state', *metrics])
  for row in rows:
    writer.writerow([row.name, *(row.values[flag] for flag in flags), row.state,
                     *(row.metrics.get(name, '') for name in metrics)])
  return text.getvalue()


def _settings(rows: Sequence[_Row], flags: Sequence[str]
              ) -> dict[tuple[str, ...], list[_Row]]:
  """Rows by the values of the flags that are no seeds."""
  found: dict[tuple[str, ...], list[_Row]] = {}
  for row in rows:
    found.setdefault(tuple(row.values[flag] for flag in flags), []).append(row)
  return found


def _measured(rows: Sequence[_Row], metric: str) -> Interval | None:
  values = [row.metrics[metric] for row in rows if metric in row.metrics]
  return interval(values) if values else None


def _markdown(rows: Sequence[_Row], flags: Sequence[str],
              metrics: Sequence[str]) -> str:
  axes = [flag for flag in flags if flag != SEED]
  head = [*axes, 'finished', *metrics]
  lines = [head, ['---'] * len(head)]
  for values, group in _settings(rows, axes).items():
    done = [row for row in group if row.state == 'finished']
    cells = [_measured(done, name) for name in metrics]
    lines.append([*values, f'{len(done)} of {len(group)}',
                  *('' if cell is None else str(cell) for cell in cells)])
  return ''.join(
      f'| {" | ".join(cell.replace("|", "/") for cell in line)} |\n'
      for line in lines)


def _plot(sweep: Sweep, rows: Sequence[_Row], metrics: Sequence[str]
          ) -> list[pathlib.Path]:
  """A picture a metric, a panel a swept flag."""
  axes = [flag for flag in sweep.swept if flag != SEED
          and len({row.values[flag] for row in rows}) > 1]
  if not axes:
    return []
  import matplotlib

  matplotlib.use('agg')
  from matplotlib import pyplot

  folder = sweep.directory / 'plots'
  folder.mkdir(exist_ok=True)
  paths = []
  for metric in metrics:
    figure, panels = pyplot.subplots(
        1, len(axes), figsize=(4.2 * len(axes), 3.4), squeeze=False,
        sharey=True, layout='constrained')
    for panel, flag in zip(panels[0], axes, strict=True):
      _draw(panel, rows, flag, [other for other in axes if other != flag],
            metric)
    panels[0][0].set_ylabel(metric)
    paths.append(folder / f'{re.sub(r"[^A-Za-z0-9._-]+", "-", metric)}.png')
    with files.replacing(paths[-1]) as temporary:
      figure.savefig(temporary, dpi=130, format='png')
    pyplot.close(figure)
  return paths


def _draw(panel: Any, rows: Sequence[_Row], flag: str, others: Sequence[str],
          metric: str) -> None:
  """One metric against one flag: a line for each setting of the others."""
  values = list(dict.fromkeys(row.values[flag] for row in rows))
  numbers = _numbers(values)
  if numbers is None:
    where = {value: float(i) for i, value in enumerate(values)}
    panel.set_xticks(range(len(values)), values, rotation=20, ha='right')
  else:
    where = dict(zip(values, numbers, strict=True))
    if min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_RATIO:
      panel.set_xscale('log')
    if len(values) <= _MOST_NAMED_TICKS:
      panel.set_xticks(numbers, values)
      panel.minorticks_off()
  lines = _settings(rows, others)
  is_named = len(lines) <= _MOST_NAMED_LINES
  for setting, group in lines.items():
    name = ', '.join(f'{other}={value}' for other, value
                     in zip(others, setting, strict=True))
    style = {'label': name or None} if is_named else {
        'color': '0.8', 'linewidth': 0.8}
    _line(panel, group, flag, where, metric, style)
  if not is_named:
    _line(panel, rows, flag, where, metric,
          {'color': 'C0', 'linewidth': 2, 'label': 'mean over all'})
  panel.set_xlabel(flag)
  panel.grid(alpha=0.3)
  if others:
    panel.legend(fontsize=7)


def _line(panel: Any, rows: Sequence[_Row], flag: str,
          where: Mapping[str, float], metric: str, style: Mapping[str, Any]
          ) -> None:
  points = []
  for value, group in _settings(rows, [flag]).items():
    measured = _measured(group, metric)
    if measured is not None:
      points.append((where[value[0]], measured.mean, measured.half_width or 0))
  if points:
    x, y, half = zip(*sorted(points), strict=True)
    panel.errorbar(x, y, yerr=half if any(half) else None, marker='o',
                   markersize=4, capsize=3, **style)


def _numbers(values: Sequence[str]) -> list[float] | None:
  """The values as numbers; None where one is no number."""
  try:
    numbers = [float(value) for value in values]
  except ValueError:
    return None
  return numbers if all(map(math.isfinite, numbers)) else None
