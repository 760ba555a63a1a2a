"""Plots and contact sheets of an evaluation.

These functions return pictures, uint8 sRGB [H, W, 3], and write no files.
Values that are not finite (such as the PSNR of equal pictures) are not drawn,
but counted or printed.
"""

import math
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from colorjax.report import sheets
from colorjax.report.sheets import Tile

_BLUE, _ORANGE, _GREY = '#3b6ea8', '#c8622d', '#777777'
_COLUMNS = 4
_LONGEST_TITLE = 36
_LONGEST_NAME = 48
_LONGEST_FILE = 20


def histograms(values: Mapping[str, np.ndarray],
               titles: Mapping[str, str] | None = None,
               intervals: Mapping[str, tuple[float, float, float]] | None = None
               ) -> np.ndarray:
  """Plots the distribution of each metric over the photographs.

  Args:
    values: values of each photograph, [N], by the name of the metric.
    titles: titles of the histograms by the name of the metric; by default the
      name.
    intervals: (mean, low, high) by the name of the metric, drawn as a line and
      a band. By default only the mean of the finite values is drawn.

  Returns:
    A grid of histograms, uint8 sRGB [H, W, 3].

  Raises:
    ValueError: there are no values.
  """
  if not values:
    raise ValueError('there are no values to draw')
  columns = min(_COLUMNS, len(values))
  rows = math.ceil(len(values) / columns)
  figure = Figure(figsize=(3.2 * columns, 2.6 * rows), dpi=100,
                  layout='constrained')
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes, (name, numbers) in zip(grid.flat, values.items(), strict=False):
    title = _short((titles or {}).get(name, name), _LONGEST_TITLE)
    _histogram(axes, title, np.asarray(numbers, np.float64),
               (intervals or {}).get(name))
  for axes in grid[:, 0]:
    axes.set_ylabel('photographs', fontsize=9)
  for axes in grid.flat[len(values):]:
    axes.set_axis_off()
  return sheets.rendered(figure)


def uncertainty_sheet(images: np.ndarray, pictures: np.ndarray,
                      deviation: np.ndarray, error: np.ndarray, *,
                      most: int = 16) -> np.ndarray:
  """Shows maps of predicted uncertainty and of actual error.

  Both maps have the same scale, from 0 to the 99th percentile of all values.
  For an overconfident method, the uncertainty is darker than the error.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    pictures: the colorings, same shape.
    deviation: predicted standard deviation of each pixel, ab units, [N, h, w].
    error: ab distance of each pixel from the original, ab units, [N, h, w].
    most: largest number of photographs to show.

  Returns:
    Contact sheet with the columns lightness, original, coloring, uncertainty,
    and error, with the mean below each map and a color bar; uint8 [H', W', 3].
  """
  images, pictures, deviation, error = (
      np.asarray(array)[:most] for array in (
          images, pictures, deviation, error))
  shown = np.concatenate([deviation.ravel(), error.ravel()])
  shown = shown[np.isfinite(shown)]
  top = float(np.percentile(shown, 99)) if shown.size else 0.0
  # If all values are 0, they are drawn in the lowest color.
  scale = Normalize(0, top or 1.0, clip=True)
  colors = matplotlib.colormaps['viridis'].with_extremes(bad=_GREY)
  grey = sheets.lightness_only(images)

  def cell(values):
    painted = colors(scale(np.ma.masked_invalid(values)), bytes=True)
    return Tile(painted[..., :3], f'mean {_mean(values):.1f}')

  sheet = sheets.contact_sheet(
      [[Tile(grey[n]), Tile(images[n]), Tile(pictures[n]), cell(deviation[n]),
        cell(error[n])] for n in range(len(images))],
      column_titles=['lightness', 'original', 'coloring', 'uncertainty',
                     'error'], tile_size=176)
  return _with_color_bar(sheet, scale, colors)


def extreme_numbers(values: np.ndarray, count: int, *, is_better_high: bool
                    ) -> tuple[np.ndarray, np.ndarray]:
  """Indices of the photographs that `extremes` shows.

  With these, a caller can load only the photographs that are shown.

  Args:
    values: as in `extremes`.
    count: as in `extremes`.
    is_better_high: as in `extremes`.

  Returns:
    Indices of the best photographs, the best first, and of the worst, the worst
    first. `extremes` of these photographs gives the same sheet.
  """
  badness = -np.asarray(values, np.float64) if is_better_high else values
  order = np.argsort(badness, kind='stable')  # sorts NaN to the end
  return (order[:min(count, (len(order) + 1) // 2)],
          order[::-1][:min(count, len(order) // 2)])


def extremes(images: np.ndarray, pictures: np.ndarray, values: np.ndarray,
             labels: Sequence[str], count: int = 6, *,
             is_better_high: bool) -> np.ndarray:
  """Shows the photographs that a method colored best and worst.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    pictures: the colorings, same shape.
    values: a metric of each photograph, [N]; NaN counts as the worst.
    labels: file names of the photographs, N.
    count: number of best and of worst photographs; fewer if N is small, so that
      no photograph is shown twice.
    is_better_high: whether high values are better.

  Returns:
    Contact sheet with a row for each rank: original and coloring of the best,
    then of the worst, with file name and value; uint8 [H', W', 3].

  Raises:
    ValueError: the arguments have different lengths, or are empty.
  """
  values = np.asarray(values, np.float64)
  if not len(images) == len(pictures) == len(labels) == len(values) > 0:
    raise ValueError(f'lengths must be equal and positive, got {len(images)} '
                     f'images, {len(pictures)} pictures, {len(labels)} labels '
                     f'and {len(values)} values')
  best, worst = extreme_numbers(values, count, is_better_high=is_better_high)

  def cells(n):
    name = os.path.basename(labels[n])
    # File names differ at the end: ..._val_00000293.JPEG.
    if len(name) > _LONGEST_FILE:
      name = '…' + name[1 - _LONGEST_FILE:]
    return [Tile(images[n], name), Tile(pictures[n], f'{values[n]:.4g}')]

  rows = [cells(n) for n in best]
  for row, n in zip(rows, worst, strict=False):
    row.extend(cells(n))
  titles = ['best: original', 'coloring', 'worst: original', 'coloring']
  return sheets.contact_sheet(
      rows, column_titles=titles[:len(rows[0])], tile_size=208)


def reliability(share: np.ndarray, truth: np.ndarray, draw: np.ndarray
                ) -> np.ndarray:
  """Plots how often the most probable color is correct, by confidence.

  For a calibrated method, the lines of the true color and of the draw are
  equal. If the true color is below the draw, the method is overconfident. The
  arguments are the fields of `metrics.calibration.Reliability`.

  Args:
    share: fraction of pixels in each of M confidence classes, from m / M to
      (m + 1) / M, [M].
    truth: fraction of pixels whose true color is the most probable one, [M];
      NaN in classes without pixels.
    draw: the same for a held-out draw of the method, [M].

  Returns:
    The curves, and below them the shares, uint8 sRGB [H, W, 3].
  """
  share, truth, draw = (
      np.asarray(array, np.float64) for array in (share, truth, draw))
  centers = (np.arange(len(share)) + 0.5) / len(share)
  figure = Figure(figsize=(5, 5.4), dpi=100, layout='constrained')
  axes, below = figure.subplots(
      2, 1, sharex=True, gridspec_kw={'height_ratios': [3, 1]})
  axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=':')
  axes.fill_between(centers, truth, draw, color=_ORANGE, alpha=0.2,
                    linewidth=0)
  for rate, color, style, label in (
      (draw, _GREY, '--', 'a draw of the method (claimed rate)'),
      (truth, _ORANGE, '-', 'the true color')):
    # The line is continuous over classes without pixels.
    known = np.isfinite(rate)
    axes.plot(centers[known], rate[known], color=color, linestyle=style,
              marker='o', markersize=4, label=label)
  axes.set(ylim=(-0.02, 1.02), ylabel='share of hits')
  axes.legend(fontsize=9)
  percent = 100 * np.nan_to_num(share)
  below.bar(centers, percent, 0.9 / len(share), color=_BLUE)
  below.set(xlim=(0, 1), xlabel='confidence', ylabel='% of pixels',
            ylim=(0, max(1, 1.1 * percent.max())))
  for panel in (axes, below):
    panel.grid(alpha=0.3)
  return sheets.rendered(figure)


def pit_histogram(counts: np.ndarray) -> np.ndarray:
  """Plots the ranks of the true values among draws of the method.

  Ranks of a calibrated method are uniform. A valley in the middle means that it
  is overconfident, a hill that it is underconfident, and a slope that its
  colors are shifted.

  Args:
    counts: number of pixels with each rank, for a and for b, [2, n + 1].

  Returns:
    Two histograms, relative to the uniform frequency, uint8 sRGB [H, W, 3].
  """
  counts = np.asarray(counts, np.float64)
  num_ranks = counts.shape[1]
  totals = counts.sum(1, keepdims=True)
  relative = counts * num_ranks / np.where(totals > 0, totals, 1)
  figure = Figure(figsize=(8, 3.2), dpi=100, layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  names = ('a, green to red', 'b, blue to yellow')
  for axes, name, heights, total in zip(
      panels, names, relative, totals.ravel(), strict=True):
    axes.bar(np.arange(num_ranks), heights, 0.92, color=_BLUE)
    axes.axhline(1, color=_ORANGE, linestyle='--', linewidth=1.2,
                 label='calibrated')
    axes.set_title(name if total else f'{name}: no pixels', fontsize=10)
    axes.set(xlabel=f'rank of the truth among {num_ranks - 1} draws',
             ylim=(0, 1.25 * max(1.0, relative.max())))
    axes.xaxis.get_major_locator().set_params(integer=True)
  panels[0].set_ylabel('frequency / uniform frequency')
  panels[0].legend(fontsize=9, loc='upper center')
  return sheets.rendered(figure)


def interval_plot(rows: Mapping[str, tuple[float, float, float]], title: str
                  ) -> np.ndarray:
  """Plots means with their intervals, one row each, with numbers beside them.

  Args:
    rows: (mean, low, high) by the name of the row, from top to bottom. For rows
      that are not finite, only the numbers are shown.
    title: what is compared, and its unit.

  Returns:
    uint8 sRGB [H, W, 3]; the height grows with the number of rows.

  Raises:
    ValueError: there are no rows.
  """
  if not rows:
    raise ValueError('there are no rows to draw')
  places = np.arange(len(rows))
  numbers = np.array(list(rows.values()), np.float64)
  figure = Figure(figsize=(8, 1.1 + 0.28 * len(rows)), dpi=100,
                  layout='constrained')
  axes = figure.subplots()
  is_drawn = np.isfinite(numbers).all(1)
  mean, low, high = numbers[is_drawn].T
  axes.hlines(places[is_drawn], low, high, color=_BLUE, linewidth=2)
  axes.plot(mean, places[is_drawn], 'o', color=_BLUE, markersize=5)
  beside = axes.twinx()
  texts = [f'{m:.4g}  [{a:.4g}, {b:.4g}]' for m, a, b in numbers]
  names = [_short(name, _LONGEST_NAME) for name in rows]
  for panel, words in ((axes, names), (beside, texts)):
    panel.set_yticks(places, words, fontsize=9)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.tick_params('y', length=0)
  # A title of the whole figure: long names leave little width for the axes.
  figure.suptitle(_short(title, 2 * _LONGEST_TITLE), fontsize=10)
  axes.grid(axis='x', alpha=0.3)
  if not is_drawn.any():
    axes.set_xticks([])
  return sheets.rendered(figure)


def _histogram(axes: Axes, title: str, numbers: np.ndarray,
               interval: tuple[float, float, float] | None) -> None:
  """Draws one histogram of `histograms`."""
  finite = numbers[np.isfinite(numbers)]
  lines = [title]
  if finite.size:
    # An odd number, so that the bar of a single value is in the middle.
    bins = round(np.clip(1.5 * math.sqrt(finite.size), 5, 41)) | 1
    axes.hist(finite, bins=bins, color=_BLUE)
    axes.locator_params(axis='x', nbins=5)
    axes.locator_params(axis='y', nbins=5, integer=True)
    mean, low, high = interval or (finite.mean(), math.nan, math.nan)
    if np.isfinite([low, high]).all():
      axes.axvspan(low, high, color=_ORANGE, alpha=0.35, linewidth=0)
      lines.append(f'mean {mean:.4g}  [{low:.4g}, {high:.4g}]')
    else:
      lines.append(f'mean {mean:.4g}')
    if math.isfinite(mean):
      axes.axvline(mean, color=_ORANGE, linewidth=1.5)
  else:
    axes.set(xticks=[], yticks=[])
  unknown = numbers.size - finite.size
  if unknown:
    lines.append(f'{unknown} of {numbers.size} not finite')
  axes.set_title('\n'.join(lines), fontsize=9)
  axes.tick_params(labelsize=8)


def _with_color_bar(sheet: np.ndarray, scale: Normalize,
                    colors: matplotlib.colors.Colormap) -> np.ndarray:
  """Adds a color bar of the same width below the sheet."""
  background = sheet[0, 0]
  width = sheet.shape[1]
  figure = Figure(figsize=(width / 100, 0.75), dpi=100, facecolor=tuple(
      background / 255))
  figure.colorbar(
      matplotlib.cm.ScalarMappable(scale, colors), orientation='horizontal',
      cax=figure.add_axes((0.02, 0.68, 0.96, 0.2)), extend='max').set_label(
          'ab units; both maps', fontsize=9)
  bar = sheets.rendered(figure)[:, :width]
  padded = np.full((len(bar), width, 3), background, np.uint8)
  padded[:, :bar.shape[1]] = bar
  return np.concatenate([sheet, padded])


def _mean(values: np.ndarray) -> float:
  """Mean of the finite values, NaN if there are none."""
  finite = values[np.isfinite(values)]
  return float(finite.mean()) if finite.size else math.nan


def _short(text: str, longest: int) -> str:
  """Shortens a text with an ellipsis to at most `longest` characters."""
  return text if len(text) <= longest else text[:longest - 1] + '…'
