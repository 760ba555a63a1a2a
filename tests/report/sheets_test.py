"""Report pictures are checked at places where the color is known."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import skimage.color
import skimage.data
import tiny_method

from colorjax.errors import UserError
from colorjax.report import page, sheets

BACKGROUND = sheets._BACKGROUND


def flat(color, shape=(10, 10)):
  return np.full((*shape, 3), color, np.uint8)


def runs(line):
  """Colors along a line of pixels, without repeats and background."""
  colors = []
  for pixel in line.tolist():
    if pixel != list(BACKGROUND) and (not colors or colors[-1] != pixel):
      colors.append(pixel)
  return colors


def test_contact_sheet_places_every_picture():
  red, green, blue = [200, 0, 0], [0, 200, 0], [0, 0, 200]
  sheet = sheets.contact_sheet(
      [[sheets.Tile(flat(red)), sheets.Tile(flat(green, (300, 300)))],
       [sheets.Tile(np.full((10, 10), 90, np.uint8)),
        sheets.Tile(flat(blue, (5, 10)))]], tile_size=50)
  assert sheet.dtype == np.uint8
  assert runs(sheet[30]) == [red, green]
  assert runs(sheet[:, 30]) == [red, [90, 90, 90]]
  assert (sheet == blue).all(-1).sum() == 50 * 25  # proportions are kept
  assert (sheet == red).all(-1).sum() == 50 * 50


def test_contact_sheet_titles_captions_and_frames():
  cell = flat([200, 0, 0])

  def sheet(*, titles=(), caption='', is_marked=False):
    return sheets.contact_sheet(
        [[sheets.Tile(cell, caption, is_marked)], [sheets.Tile(cell)]],
        column_titles=titles, tile_size=60)

  plain, captioned = sheet(), sheet(caption='0.25')
  rows, _ = np.nonzero((plain != captioned).any(-1))
  assert rows.min() >= 66
  assert rows.max() < 66 + 17  # between the two pictures
  long = sheet(caption='much too long for a cell of this width')
  assert long.shape == plain.shape
  assert (long[:, -6:] == BACKGROUND).all()  # cut, not run over
  assert sheet(titles=['one']).shape[0] > plain.shape[0]
  marked = sheet(is_marked=True)
  assert (marked[3:6, 10:60] == sheets._MARK).all()
  assert (marked[6:66, 6:66] == [200, 0, 0]).all()
  with pytest.raises(ValueError, match='at least one picture'):
    sheets.contact_sheet([])


def test_proposals_are_in_order_with_probabilities(monkeypatch):
  """Grey, original, then hues of 0, 90, 180 degrees; the nearest framed."""
  calls = []
  monkeypatch.setattr(
      sheets, 'contact_sheet',
      lambda rows, **options: calls.append((rows, options)))
  greenish = flat([110, 140, 110], (8, 8))
  yellow = flat([150, 140, 60], (8, 8))
  draw = sheets.proposal_drawer(tiny_method.build(), num_proposals=3)
  draw({'params': {'chroma': np.float32(40)}}, np.stack([greenish, yellow]))
  (rows, options), = calls
  assert options['column_titles'][:2] == ['lightness', 'original']
  for row, original, nearest in zip(rows, [greenish, yellow], [2, 1],
                                    strict=True):
    grey, shown, *proposals = row
    assert np.ptp(grey.pixels[0, 0].astype(int)) <= 1
    np.testing.assert_array_equal(shown.pixels, original)
    assert [cell.caption.split()[0] for cell in proposals] == [
        '0.500', '0.250', '0.125']
    assert [cell.is_marked for cell in proposals] == [
        i == nearest for i in range(3)]
    lab = skimage.color.rgb2lab(np.stack([c.pixels[0, 0] for c in proposals]))
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    assert np.abs((hue - [0, 90, 180] + 180) % 360 - 180).max() < 4
    assert np.ptp([skimage.color.rgb2lab(original)[0, 0, 0], *lab[:, 0]]) < 1


def test_one_prediction_is_between_lightness_and_original(monkeypatch):
  calls = []
  monkeypatch.setattr(
      sheets, 'contact_sheet',
      lambda rows, **options: calls.append((rows, options)))
  photo = flat([150, 140, 60], (8, 8))
  draw = sheets.proposal_drawer(tiny_method.build(), num_proposals=1)
  draw({'params': {'chroma': np.float32(0)}}, photo[None], ['a tulip'])
  ((row,), options), = calls
  assert options['column_titles'] == ['lightness', 'prediction', 'original']
  np.testing.assert_array_equal(row[2].pixels, photo)
  assert options['row_titles'] == ['a tulip']
  chroma = np.linalg.norm(skimage.color.rgb2lab(photo)[0, 0, 1:])
  assert row[1].caption == f'ab distance {chroma:.1f}'
  np.testing.assert_array_equal(row[1].pixels, row[0].pixels)  # chroma 0


def test_row_titles_are_above_their_rows():
  red = flat([200, 0, 0], (60, 60))
  rows = [[sheets.Tile(red)], [sheets.Tile(red)]]
  plain = sheets.contact_sheet(rows, tile_size=60)
  titled = sheets.contact_sheet(rows, tile_size=60, row_titles=['', 'daisy'])
  line = (titled.shape[0] - plain.shape[0]) // 2
  assert line > 0
  is_red = (titled == [200, 0, 0]).all(-1).any(1)
  first, second = np.flatnonzero(np.diff(is_red.astype(int)) == 1)
  above = titled[second + 1 - line:second + 1]
  assert above.min() < 128  # ink
  assert titled[first + 1 - line:first + 1].min() > 128


def test_region_sheet(monkeypatch):
  calls = []
  monkeypatch.setattr(
      sheets, 'contact_sheet',
      lambda rows, **options: calls.append((rows, options)))
  photo = flat([150, 140, 60], (8, 8))
  ab = skimage.color.rgb2lab(photo)[..., 1:]
  region = np.zeros((8, 8, 1), np.float32)
  region[:4] = 1
  sheets.region_sheet(photo[None], region[None], (region * ab)[None], ab[None])
  ((grey, mask, within, whole, original),), _ = calls[0]
  np.testing.assert_array_equal(mask.pixels[..., 0], 255 * region[..., 0])
  np.testing.assert_array_equal(within.pixels[:4], whole.pixels[:4])
  np.testing.assert_array_equal(within.pixels[4:], grey.pixels[4:])
  np.testing.assert_array_equal(original.pixels, photo)


def test_methods_side_by_side(monkeypatch):
  calls = []
  monkeypatch.setattr(
      sheets, 'contact_sheet',
      lambda rows, **options: calls.append((rows, options)))
  photos = np.stack([flat([150, 140, 60], (8, 8)), flat([90, 90, 99], (8, 8))])
  truth, other = photos.copy(), photos[::-1].copy()
  sheets.side_by_side(photos, {'truth': truth, 'other': other})
  (rows, options), = calls
  assert options['column_titles'] == ['lightness', 'original', 'truth', 'other']
  for n, (grey, original, first, second) in enumerate(rows):
    assert np.ptp(grey.pixels, axis=-1).max() == 0
    for cell, expected in ((original, photos), (first, truth),
                           (second, other)):
      np.testing.assert_array_equal(cell.pixels, expected[n])


def test_thumbnail_and_lightness_only():
  rgb = skimage.data.astronaut()[:100, :60]
  assert sheets.thumbnail(rgb, 50).shape == (50, 30, 3)
  assert sheets.thumbnail(rgb[..., 0], 200).shape == (200, 120)
  grey = sheets.lightness_only(rgb)
  assert np.ptp(grey.astype(int), axis=-1).max() <= 1
  np.testing.assert_allclose(skimage.color.rgb2lab(grey)[..., 0],
                             skimage.color.rgb2lab(rgb)[..., 0], atol=0.5)


def test_lab_split_planes():
  """The prediction is grey: its a and b planes are white, its L the same."""
  rgb = flat([180, 60, 60], (60, 90))
  sheet = sheets.lab_split(rgb, sheets.lightness_only(rgb)).astype(int)
  height, width = sheet.shape[:2]
  x = [int(width * (0.03 + 0.955 * (i + 0.5) / 4)) for i in range(4)]
  top, bottom = int(height * 0.25), int(height * 0.65)
  np.testing.assert_array_equal(sheet[top, x[0]], [180, 60, 60])
  np.testing.assert_array_equal(sheet[top, x[1]], sheet[bottom, x[1]])
  lightness = skimage.color.rgb2lab(rgb)[0, 0, 0]
  assert abs(sheet[top, x[1]][0] - 2.55 * lightness) < 4
  assert sheet[bottom, x[2]].min() > 225
  assert sheet[bottom, x[3]].min() > 225
  a, b = sheet[top, x[2]], sheet[top, x[3]]
  assert a[0] - a[1] > 60  # red: a is 49
  assert b[0] - b[2] > 60  # yellow: b is 28


def metrics_file(path, lines):
  path.write_text('\n'.join(
      line if isinstance(line, str) else json.dumps(line) for line in lines))
  return path


def test_losses_are_read_by_split(tmp_path):
  path = metrics_file(tmp_path / 'metrics.jsonl', [
      {'step': 10, 'split': 'train', 'loss': 2.0, 'lr': 1},
      {'step': 20, 'split': 'train', 'loss': None},
      {'step': 20, 'split': 'validation', 'loss': 1.5},
      {'step': 20, 'split': 'test', 'psnr': 1.5},
      'null', '{"step": 25, "split": "train", "loss": NaN}',
      '{"step": 30, "split": "train", "loss": 1.0}',
      '{"step": 40, "split": "train", "lo'])
  assert sheets.read_losses(path) == {
      'train': [(10, 2.0), (30, 1.0)], 'validation': [(20, 1.5)]}


def test_loss_curves_are_drawn(tmp_path):
  def picture(losses):
    return sheets.loss_curves(metrics_file(tmp_path / 'metrics.jsonl', [
        {'step': i, 'split': 'train', 'loss': v}
        for i, v in enumerate(losses)]))

  # The line's color, above and below the middle of the left half.
  for losses, is_high in [(np.linspace(3, 1, 50), True),
                          (np.linspace(1, 3, 50), False)]:
    image = picture(losses).astype(int)
    height, width = image.shape[:2]
    line = np.abs(image - [31, 119, 180]).sum(-1) < 60
    line[:, int(width * 0.45):] = False  # the legend
    rows, _ = np.nonzero(line)
    assert len(rows) > 100
    assert (np.median(rows) < height / 2) == is_high


@pytest.mark.parametrize(('lines', 'match'), [
    (None, 'No such file'), ([], 'no line with'),
    ([{'step': 1, 'loss': None}], 'no line with')])
def test_loss_curves_need_a_finite_loss(lines, match, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  if lines is not None:
    metrics_file(path, lines)
  with pytest.raises(UserError, match=match):
    sheets.loss_curves(path)


def test_page_is_well_formed_and_escaped(tmp_path):
  page.write_index(
      tmp_path / 'index.html', title='<b>run</b> & "more"',
      tables=[page.Table(
          'ab <distance>', ['figure', 'mean', 'is'],
          [['grey', '27.7', 'a'], ['mean & color', '23.5\n23 to 24', '<b>']],
          words=['is'], notes=['1 < 2', 'more'])],
      figures=[page.Figure('a b#1.png', 'Lab <split>', 'x < y')],
      command='python -m x --a="<1>"', settings='--a=<1>\n--b=2')
  text = (tmp_path / 'index.html').read_text()
  assert text.startswith('<!DOCTYPE html>')
  root = ET.fromstring(text.split('\n', 1)[1])
  assert root.find('head/title').text == '<b>run</b> & "more"'
  assert root.find('body/h1').text == '<b>run</b> & "more"'
  cells = [[cell.text for cell in row] for row in root.iter('tr')]
  assert cells == [['figure', 'mean', 'is'], ['grey', '27.7', 'a'],
                   ['mean & color', '23.5\n23 to 24', '<b>']]
  assert [cell.get('class') for cell in root.iter('td')] == [
      None, 'words'] * 2
  assert [note.text for note in root.iter('p')] == ['1 < 2', 'more']
  image, = root.iter('img')
  assert image.get('src') == 'a%20b%231.png'
  assert image.get('alt') == 'Lab <split>'
  assert [pre.text for pre in root.iter('pre')] == [
      'python -m x --a="<1>"', '--a=<1>\n--b=2']
  assert [path.name for path in tmp_path.iterdir()] == ['index.html']


def test_page_errors(tmp_path):
  contents = {'title': 'x', 'tables': [], 'figures': [], 'command': '',
              'settings': ''}
  with pytest.raises(UserError, match='cannot be written'):
    page.write_index(tmp_path / 'none' / 'index.html', **contents)
  contents['tables'] = [page.Table('t', ['a', 'b'], [['1']])]
  with pytest.raises(ValueError, match='needs 2 texts'):
    page.index_html(**contents)
