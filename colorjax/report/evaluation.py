"""Pictures of an evaluation: what its page shows beside the table.

Functions from arrays to pictures, uint8 sRGB [H, W, 3], like those of `report`.
Values that are not finite (the PSNR of equal pictures, a figure that a
photograph does not have) are never drawn and always said.
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
  """How each figure is spread over the photographs.

  Args:
    values: by figure, one for each photograph, [N].
    titles: what figures are called in the picture, by default their names.
    intervals: by figure its mean and the ends of the mean's interval, drawn as
      a line and a band; by default the mean of the finite values alone.

  Returns:
    A grid of histograms, uint8 [H, W, 3].
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
  """Where a method says that it does not know, and where it was wrong.

  Both maps have one scale, from 0 to the 99th percentile of all that they show,
  so that a method which is too sure looks darker on the left than on the right.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    pictures: the colorings, alike.
    deviation: predicted standard deviation of each pixel, ab units, [N, h, w].
    error: ab distance of each pixel to the original, [N, h, w].
    most: only the first so many photographs are shown.

  Returns:
    Contact sheet lightness | original | coloring | uncertainty | error, with
    the mean of each map below it, and a color bar; uint8 [H', W', 3].
  """
  images, pictures, deviation, error = (
      np.asarray(array)[:most] for array in (
          images, pictures, deviation, error))
  shown = np.concatenate([deviation.ravel(), error.ravel()])
  shown = shown[np.isfinite(shown)]
  top = float(np.percentile(shown, 99)) if shown.size else 0.0
  # A constant that is 0 everywhere is drawn as the lowest color.
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
  return _above_color_bar(sheet, scale, colors)


def extreme_numbers(values: np.ndarray, count: int, *, is_better_high: bool
                    ) -> tuple[np.ndarray, np.ndarray]:
  """Which photographs `extremes` shows, for those that keep none in memory.

  Args:
    values: as in `extremes`.
    count: as in `extremes`.
    is_better_high: as in `extremes`.

  Returns:
    Numbers of the best, the best first, and of the worst, the worst first.
    `extremes` of these alone is the sheet of all.
  """
  badness = -np.asarray(values, np.float64) if is_better_high else values
  order = np.argsort(badness, kind='stable')  # sorts NaN to the end
  return (order[:min(count, (len(order) + 1) // 2)],
          order[::-1][:min(count, len(order) // 2)])


def extremes(images: np.ndarray, pictures: np.ndarray, values: np.ndarray,
             labels: Sequence[str], count: int = 6, *,
             is_better_high: bool) -> np.ndarray:
  """The photographs that a method colored best and worst.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    pictures: the colorings, alike.
    values: a figure of each photograph, [N]; NaN counts as the worst.
    labels: N file names.
    count: how many of the best and of the worst; fewer where N is small, so
      that none is shown twice.
    is_better_high: whether a high value is a good one.

  Returns:
    Contact sheet: a row for each rank, original | coloring of the best and
    original | coloring of the worst, with file name and value; uint8.
  """
  values = np.asarray(values, np.float64)
  if not len(images) == len(pictures) == len(labels) == len(values) > 0:
    raise ValueError(f'{len(images)} images, {len(pictures)} pictures, '
                     f'{len(labels)} labels and {len(values)} values')
  best, worst = extreme_numbers(values, count, is_better_high=is_better_high)

  def cells(n):
    name = os.path.basename(labels[n])
    # The end tells file names apart: ..._val_00000293.JPEG.
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
  """How often the most probable color is right, by how sure the method is.

  A calibrated method's two lines are equal; the truth below the draw is a
  method that is too sure.

  Args:
    share: share of the pixels in each of M classes of confidence, class m from
      m / M to (m + 1) / M, [M].
    truth: how often the truth is the most probable color, [M]; NaN in a class
      without pixels.
    draw: how often a held-out draw of the method is, alike.

  Returns:
    The curves above the shares, uint8 [H, W, 3].
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
      (draw, _GREY, '--', 'a draw of the method: what it claims'),
      (truth, _ORANGE, '-', 'the true color')):
    # Classes without pixels leave no hole in the line.
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
  """Ranks of the true values among draws of the method, against uniform.

  A valley is a method that is too sure, a hill one that is too unsure, a slope
  one whose colors are shifted.

  Args:
    counts: pixels with each rank, for a and for b, [2, n + 1].

  Returns:
    Two histograms, in multiples of the uniform share, uint8 [H, W, 3].
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
  panels[0].set_ylabel('pixels / uniform share')
  panels[0].legend(fontsize=9, loc='upper center')
  return sheets.rendered(figure)


def interval_plot(rows: Mapping[str, tuple[float, float, float]], title: str
                  ) -> np.ndarray:
  """Means with their intervals, a row each, the numbers beside them.

  Args:
    rows: by name the mean, and the low and the high end of its interval, from
      top to bottom. Rows that are not finite have their numbers alone.
    title: what is compared, and in which unit.

  Returns:
    uint8 [H, W, 3]; higher with more rows.
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
  # Over the whole picture: long names leave the axes little width.
  figure.suptitle(_short(title, 2 * _LONGEST_TITLE), fontsize=10)
  axes.grid(axis='x', alpha=0.3)
  if not is_drawn.any():
    axes.set_xticks([])
  return sheets.rendered(figure)


def _histogram(axes: Axes, title: str, numbers: np.ndarray,
               interval: tuple[float, float, float] | None) -> None:
  finite = numbers[np.isfinite(numbers)]
  lines = [title]
  if finite.size:
    # An odd number, so that a lone value has its bar in the middle.
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


def _above_color_bar(sheet: np.ndarray, scale: Normalize,
                      colors: matplotlib.colors.Colormap) -> np.ndarray:
  """The sheet with a color bar of its width below it."""
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
  finite = values[np.isfinite(values)]
  return float(finite.mean()) if finite.size else math.nan


def _short(text: str, longest: int) -> str:
  return text if len(text) <= longest else text[:longest - 1] + '…'
