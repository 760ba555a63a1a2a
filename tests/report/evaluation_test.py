"""Plots of an evaluation: their contents, and that nothing is cut off."""

import matplotlib
import numpy as np
import pytest

from colorjax.report import evaluation as drawing
from colorjax.report import sheets

NAN, INF = np.nan, np.inf
RNG = np.random.default_rng(0)
BACKGROUND = sheets._BACKGROUND
VIRIDIS = [matplotlib.colormaps['viridis'](x, bytes=True)[:3]
           for x in (0.0, 1.0)]


@pytest.fixture
def figures(monkeypatch):
  """The Matplotlib figures that are rendered."""
  drawn = []
  render = sheets.rendered

  def rendered(figure):
    drawn.append(figure)
    return render(figure)

  monkeypatch.setattr(sheets, 'rendered', rendered)
  return drawn


@pytest.fixture
def contact_sheets(monkeypatch):
  """(rows, options) of the contact sheets that are made."""
  made = []
  make = sheets.contact_sheet

  def contact_sheet(rows, **options):
    made.append((rows, options))
    return make(rows, **options)

  monkeypatch.setattr(sheets, 'contact_sheet', contact_sheet)
  return made


def assert_nothing_cut_off(figure, pixels):
  """The picture has the size of the figure, and its edges are blank."""
  width, height = figure.get_size_inches() * figure.dpi
  assert pixels.shape == (int(height), int(width), 3)
  assert pixels.dtype == np.uint8
  for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
    assert (edge == 255).all()
  assert (pixels < 128).any()


def heights(axes):
  return [bar.get_height() for bar in axes.patches]


@pytest.mark.parametrize('n', [1, 2, 210])
def test_histograms_count_every_finite_value(figures, n):
  values = {'psnr': np.append(RNG.normal(24, 4, n), INF),
            'none': np.full(n, NAN), 'a' * 60: RNG.normal(0, 1, n),
            'd': np.zeros(n), 'e': 1e5 * RNG.normal(1, 1, n)}
  pixels = drawing.histograms(values, {'psnr': 'PSNR (dB)'})
  figure, = figures
  assert_nothing_cut_off(figure, pixels)
  assert len(figure.axes) == 8
  counts = [sum(heights(axes)) for axes in figure.axes]
  assert counts == [n, 0, n, n, n, 0, 0, 0]
  titles = [axes.get_title().split('\n') for axes in figure.axes[:5]]
  assert titles[0] == [
      'PSNR (dB)', f'mean {values["psnr"][:-1].mean():.4g}',
      f'1 of {n + 1} not finite']
  assert titles[1] == ['none', f'{n} of {n} not finite']
  assert titles[2][0] == 'a' * 35 + '…'
  assert titles[3] == ['d', 'mean 0']
  center, = (bar for bar in figure.axes[3].patches if bar.get_height())
  assert center.get_x() + center.get_width() / 2 == pytest.approx(0)


def test_histograms_mark_the_mean_and_its_interval(figures):
  values = {'a': np.arange(50.0), 'b': np.arange(50.0), 'c': np.arange(50.0)}
  drawing.histograms(values, None, {'a': (20.0, 18.5, 22.25),
                                    'b': (INF, NAN, INF)})
  a, b, c = figures[0].axes
  assert a.get_title() == 'a\nmean 20  [18.5, 22.25]'
  assert a.lines[0].get_xdata()[0] == 20
  band = a.patches[-1]
  assert (band.get_x(), band.get_width()) == (18.5, 3.75)
  assert b.get_title() == 'b\nmean inf'
  assert not b.lines
  assert c.lines[0].get_xdata()[0] == 24.5
  with pytest.raises(ValueError, match='no values'):
    drawing.histograms({})


def photographs(n, size=16):
  images = RNG.integers(0, 256, (n, size, size, 3), np.uint8)
  return images, 255 - images


def test_uncertainty_and_error_have_one_scale(contact_sheets):
  images, pictures = photographs(2)
  deviation = np.zeros((2, 16, 16))
  error = np.zeros((2, 16, 16))
  deviation[0], error[1] = 20, 10
  deviation[1, :8] = NAN
  sheet = drawing.uncertainty_sheet(images, pictures, deviation, error)
  (rows, options), = contact_sheets
  assert options['column_titles'] == [
      'lightness', 'original', 'coloring', 'uncertainty', 'error']
  for n, row in enumerate(rows):
    np.testing.assert_array_equal(row[0].pixels, sheets.lightness_only(
        images)[n])
    np.testing.assert_array_equal(row[1].pixels, images[n])
    np.testing.assert_array_equal(row[2].pixels, pictures[n])
  assert [[cell.caption for cell in row[3:]] for row in rows] == [
      ['mean 20.0', 'mean 0.0'], ['mean 0.0', 'mean 10.0']]
  (high, low), (unknown, middle) = [
      [cell.pixels for cell in row[3:]] for row in rows]
  assert (high == VIRIDIS[1]).all()
  assert (low == VIRIDIS[0]).all()
  assert (unknown[:8] == 119).all()  # grey is no color of the map
  assert (unknown[8:] == VIRIDIS[0]).all()
  half = matplotlib.colormaps['viridis'](0.5, bytes=True)[:3]
  assert np.abs(middle.astype(int) - half).max() <= 2
  # A bar of the same colors below the pictures.
  bar = sheet[sheets.contact_sheet(rows, **options).shape[0]:]
  assert bar.shape[0] > 50
  assert (bar[0] == BACKGROUND).all()
  for end in VIRIDIS:
    assert (np.abs(bar.astype(int) - end).max(-1) <= 2).any()


def test_uncertainty_of_few_and_of_many_photographs(
    contact_sheets, figures, monkeypatch):
  monkeypatch.setattr(sheets, 'lightness_only', lambda images: images)
  images, pictures = photographs(40, 8)
  nothing = np.zeros((40, 8, 8))
  drawing.uncertainty_sheet(images[:1], pictures[:1], nothing[:1], nothing[:1])
  drawing.uncertainty_sheet(images[:1], pictures[:1], nothing[:1] + NAN,
                            nothing[:1] + INF)
  drawing.uncertainty_sheet(images, pictures, nothing, nothing, most=3)
  assert [len(rows) for rows, _ in contact_sheets] == [1, 1, 3]
  cell = contact_sheets[0][0][0][3]
  assert (cell.pixels == VIRIDIS[0]).all()
  assert contact_sheets[1][0][0][4].caption == 'mean nan'
  for figure in figures:
    assert figure.get_size_inches()[0] * 100 == pytest.approx(916)


@pytest.mark.parametrize(('is_better_high', 'best', 'worst'), [
    (True, [4, 0], [2, 3]), (False, [3, 1], [2, 4])])
def test_extremes_in_order_with_name_and_value(
    contact_sheets, is_better_high, best, worst):
  images, pictures = photographs(5)
  values = np.array([30.0, 20.0, NAN, 10.0, INF])
  labels = ['a/b.png', *(f'val/ILSVRC2012_val_0000000{n}.JPEG'
                         for n in range(1, 5))]
  drawing.extremes(images, pictures, values, labels, 2,
                   is_better_high=is_better_high)
  (rows, options), = contact_sheets
  assert options['column_titles'] == [
      'best: original', 'coloring', 'worst: original', 'coloring']
  assert len(rows) == 2
  for row, numbers in zip(rows, zip(best, worst, strict=True), strict=True):
    for n, (original, picture) in zip(numbers, (row[:2], row[2:]),
                                      strict=True):
      np.testing.assert_array_equal(original.pixels, images[n])
      np.testing.assert_array_equal(picture.pixels, pictures[n])
      assert original.caption == (
          'b.png' if n == 0 else f'…2_val_0000000{n}.JPEG')
      assert picture.caption == f'{values[n]:.4g}'


@pytest.mark.parametrize(('n', 'count', 'best', 'worst'), [
    (1, 4, 1, 0), (2, 4, 1, 1), (5, 4, 3, 2), (200, 4, 4, 4)])
def test_extremes_show_no_photograph_twice(
    contact_sheets, n, count, best, worst):
  images, pictures = photographs(n, 4)
  values = RNG.normal(size=n)
  labels = [str(i) for i in range(n)]
  drawing.extremes(images, pictures, values, labels, count,
                   is_better_high=True)
  (rows, options), = contact_sheets
  names = [cell.caption for row in rows for cell in row[::2]]
  assert len(set(names)) == len(names) == best + worst
  assert len(rows) == best
  assert len(options['column_titles']) == (4 if worst else 2)
  shown = np.concatenate(drawing.extreme_numbers(
      values, count, is_better_high=True))
  assert set(names) == {str(i) for i in shown}
  drawing.extremes(images[shown], pictures[shown], values[shown],
                   [labels[i] for i in shown], count, is_better_high=True)
  again = [cell.caption for row in contact_sheets[1][0] for cell in row]
  assert again == [cell.caption for row in rows for cell in row]


def test_extremes_need_equal_lengths():
  images, pictures = photographs(3)
  with pytest.raises(ValueError, match='3 images, 3 pictures, 2 labels'):
    drawing.extremes(images, pictures, np.zeros(3), ['a', 'b'],
                     is_better_high=True)


def test_reliability_draws_both_lines_and_the_shares(figures):
  share = np.array([0.0, 0.25, 0.0, 0.75])
  truth = np.array([NAN, 0.2, NAN, 0.5])
  draw = np.array([NAN, 0.3, NAN, 0.9])
  pixels = drawing.reliability(share, truth, draw)
  figure, = figures
  assert_nothing_cut_off(figure, pixels)
  axes, below = figure.axes
  lines = {line.get_label(): line for line in axes.lines}
  for label, rate in (('the true color', truth),
                      ('a draw of the method (claimed rate)', draw)):
    np.testing.assert_allclose(lines[label].get_xdata(), [0.375, 0.875])
    np.testing.assert_allclose(lines[label].get_ydata(), rate[[1, 3]])
  np.testing.assert_allclose(heights(below), [0, 25, 0, 75])
  drawing.reliability(np.full(3, NAN), np.full(3, NAN), np.full(3, NAN))
  assert heights(figures[1].axes[1]) == [0, 0, 0]


def test_ranks_are_drawn_in_multiples_of_uniform(figures):
  counts = np.array([[10.0, 10, 20], [0, 0, 0]])
  pixels = drawing.pit_histogram(counts)
  figure, = figures
  assert_nothing_cut_off(figure, pixels)
  a, b = figure.axes
  np.testing.assert_allclose(heights(a), [0.75, 0.75, 1.5])
  assert heights(b) == [0, 0, 0]
  assert b.get_title().endswith('no pixels')
  assert 'no pixels' not in a.get_title()
  assert a.lines[0].get_ydata()[0] == 1
  assert a.get_xlabel() == 'rank of the truth among 2 draws'
  assert a.get_ylim()[1] > 1.5


@pytest.mark.parametrize('n', [1, 2, 200])
def test_intervals_beside_their_names_and_numbers(figures, n):
  rows = {f'method {i}': (i + 1.0, i + 0.5, i + 2.0) for i in range(n)}
  rows |= {'truth': (INF, INF, INF), 'm' * 80: (3.0, 2.0, NAN)}
  pixels = drawing.interval_plot(rows, 'PSNR (dB), ' + 'folder ' * 20)
  figure, = figures
  assert_nothing_cut_off(figure, pixels)
  axes, beside = figure.axes
  names = [text.get_text() for text in axes.get_yticklabels()]
  assert names == [f'method {i}' for i in range(n)] + [
      'truth', 'm' * 47 + '…']
  numbers = [text.get_text() for text in beside.get_yticklabels()]
  assert numbers[0] == '1  [0.5, 2]'
  assert numbers[-2:] == ['inf  [inf, inf]', '3  [2, nan]']
  means = axes.lines[0]
  np.testing.assert_allclose(means.get_xdata(), np.arange(n) + 1)
  np.testing.assert_allclose(means.get_ydata(), np.arange(n))
  segments = np.array(axes.collections[0].get_segments())
  np.testing.assert_allclose(segments[:, :, 0], np.stack(
      [np.arange(n) + 0.5, np.arange(n) + 2], -1))
  # The first row is the top one, on both sides.
  assert axes.get_ylim() == beside.get_ylim() == (n + 1.5, -0.5)


def test_intervals_of_nothing_finite(figures):
  drawing.interval_plot({'truth': (INF, INF, INF)}, 'PSNR')
  assert not figures[0].axes[0].get_xticks().size
  with pytest.raises(ValueError, match='no rows'):
    drawing.interval_plot({}, 'PSNR')
