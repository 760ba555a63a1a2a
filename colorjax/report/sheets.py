"""Contact sheets and plots of the results of a method.

These functions return pictures, uint8 sRGB [H, W, 3], and write no files.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from colorjax import color
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.photo import chunks, painting

AB_RANGE = 60.0
"""Plots of a and b use the range from -AB_RANGE to AB_RANGE."""

_GAP = 6
_BACKGROUND = (244, 244, 244)  # neutral, so that colors look unchanged
_INK = (40, 40, 40)
_MARK = (30, 30, 30)


@dataclasses.dataclass(frozen=True)
class Tile:
  """A picture of a contact sheet.

  Attributes:
    pixels: uint8 sRGB [H, W, 3] or grey [H, W], of any size.
    caption: a few words below the picture.
    is_marked: whether the picture has a frame.
  """
  pixels: np.ndarray
  caption: str = ''
  is_marked: bool = False


def contact_sheet(rows: Sequence[Sequence[Tile]], *,
                  column_titles: Sequence[str] = (),
                  row_titles: Sequence[str] = (), tile_size: int = 144
                  ) -> np.ndarray:
  """Arranges pictures in a table.

  Args:
    rows: the pictures. Rows may have different lengths, and pictures different
      sizes.
    column_titles: a title for each column, or none.
    row_titles: a line above each row, or none.
    tile_size: longer side of each picture in the sheet, in pixels.

  Returns:
    uint8 sRGB [H, W, 3].

  Raises:
    ValueError: there is no picture.
  """
  if not rows or not any(rows):
    raise ValueError('a contact sheet needs at least one picture')
  text_size = min(max(11, tile_size // 10), 17)
  font = ImageFont.load_default(text_size)
  line = round(text_size * 1.5)
  columns = max(len(column_titles), *(len(row) for row in rows))
  thumbnails = [[Image.fromarray(thumbnail(cell.pixels, tile_size))
                 for cell in row] for row in rows]
  widths = [max((row[i].width for row in thumbnails if i < len(row)),
                default=tile_size) for i in range(columns)]
  heights = [max(t.height for t in row) for row in thumbnails if row]
  title_height = line if column_titles else 0
  size = (sum(widths) + _GAP * (columns + 1),
          sum(heights) + len(heights) * (line + _GAP) + title_height + _GAP
          + line * len(row_titles))
  sheet = Image.new('RGB', size, _BACKGROUND)
  draw = ImageDraw.Draw(sheet)
  lefts = [_GAP * (i + 1) + sum(widths[:i]) for i in range(columns)]

  def text(i, top, words):
    draw.text((lefts[i] + widths[i] / 2, top + line / 2),
              _shortened(words, font, widths[i]), _INK, font, anchor='mm')

  for i, title in enumerate(column_titles):
    text(i, _GAP / 2, title)
  top = title_height + _GAP
  for n, (row, pictures) in enumerate(zip(rows, thumbnails, strict=True)):
    if row_titles:
      draw.text((_GAP, top + line / 2), _shortened(
          row_titles[n], font, size[0] - 2 * _GAP), _INK, font, anchor='lm')
      top += line
    for i, (cell, picture) in enumerate(zip(row, pictures, strict=True)):
      sheet.paste(picture, (lefts[i], top))
      if cell.is_marked:
        draw.rectangle((lefts[i] - 3, top - 3, lefts[i] + picture.width + 2,
                        top + picture.height + 2), outline=_MARK, width=3)
      text(i, top + max(p.height for p in pictures), cell.caption)
    top += max((p.height for p in pictures), default=0) + line + _GAP
  return np.asarray(sheet)


def proposal_drawer(colorizer: Colorizer, *, num_proposals: int
                    ) -> Callable[..., np.ndarray]:
  """Builds a function that shows colorings beside the originals.

  With several proposals, the columns are lightness, original, and the proposals
  in order of probability, which is written below each if the method has one.
  The proposal nearest to the original (mean ab distance) has a frame. With one
  proposal, the columns are lightness, prediction with its ab distance, and
  original.

  Args:
    colorizer: any method.
    num_proposals: number of proposals, K.

  Returns:
    `(variables, images, row_titles=()) -> contact sheet` for images uint8 sRGB
    [N, H, W, 3], compiled once for each N.
  """
  @jax.jit
  def paint(variables, images):
    lightness, ab = color.split_lightness(images)
    proposals, probability = colorizer.propose(
        variables, {'lightness': lightness}, num_proposals)
    distance = jnp.linalg.norm(proposals - ab, axis=-1).mean((-2, -1))
    return (painting.grey_picture(lightness),
            painting.picture(lightness[None], proposals), probability,
            distance)

  def draw(variables: Variables, images: np.ndarray,
           row_titles: Sequence[str] = ()) -> np.ndarray:
    grey, painted, probability, distance = jax.device_get(
        paint(variables, images))
    rows = []
    for n, original in enumerate(np.asarray(images)):
      lightness = Tile(grey[n])
      if num_proposals == 1:
        prediction = Tile(painted[0, n], f'ab distance {distance[0, n]:.1f}')
        rows.append([lightness, prediction, Tile(original)])
      else:
        rows.append([lightness, Tile(original), *_proposal_tiles(
            painted[:, n],
            None if probability is None else probability[:, n],
            distance[:, n])])
    titles = (['lightness', 'prediction', 'original'] if num_proposals == 1
              else ['lightness', 'original',
                    *(f'proposal {k}' for k in range(num_proposals))])
    return contact_sheet(rows, column_titles=titles, row_titles=row_titles)

  return draw


def side_by_side(images: np.ndarray, pictures: Mapping[str, np.ndarray]
                 ) -> np.ndarray:
  """Shows the colorings of several methods side by side.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    pictures: the colorings by name of the method, uint8 sRGB [N, H, W, 3].

  Returns:
    Contact sheet with the columns lightness, original, and each method, uint8.
  """
  grey = lightness_only(images)
  return contact_sheet(
      [[Tile(grey[n]), Tile(original),
        *(Tile(painted[n]) for painted in pictures.values())]
       for n, original in enumerate(images)],
      column_titles=['lightness', 'original', *pictures])


def region_sheet(images: np.ndarray, regions: np.ndarray, within: np.ndarray,
                 whole: np.ndarray) -> np.ndarray:
  """Shows colorings with and without a region.

  Args:
    images: the originals, uint8 sRGB [N, H, W, 3].
    regions: [N, H, W, 1], 1 inside and 0 outside.
    within: colorings with the regions, ab [N, H, W, 2], Lab units.
    whole: colorings without regions, same shape and units.

  Returns:
    Contact sheet with the columns lightness, region, within region, everywhere,
    and original, uint8.
  """
  lightness, _ = color.split_lightness(jnp.asarray(images))
  columns = [
      lightness_only(images),
      np.repeat((255 * np.asarray(regions)).astype(np.uint8), 3, axis=-1),
      np.asarray(painting.picture(lightness, jnp.asarray(within))),
      np.asarray(painting.picture(lightness, jnp.asarray(whole))), images]
  return contact_sheet(
      [[Tile(column[n]) for column in columns] for n in range(len(images))],
      column_titles=['lightness', 'region', 'within region', 'everywhere',
                     'original'])


def _proposal_tiles(painted: np.ndarray, probability: np.ndarray | None,
                    distance: np.ndarray) -> list[Tile]:
  """Tiles of the proposals for one photograph; the nearest has a frame.

  Args:
    painted: the proposals, uint8 sRGB [K, H, W, 3].
    probability: of each proposal, [K], or None.
    distance: ab distance of each proposal from the original, [K].
  """
  nearest = distance.argmin()
  captions = (len(painted) * [''] if probability is None
              else [f'{share:.3f}' for share in probability])
  captions[nearest] = f'{captions[nearest]} nearest'.strip()
  return [Tile(pixels, caption, bool(k == nearest))
          for k, (pixels, caption) in enumerate(
              zip(painted, captions, strict=True))]


def thumbnail(pixels: np.ndarray, size: int) -> np.ndarray:
  """Resizes a picture so that its longer side is `size` pixels.

  Args:
    pixels: uint8 [H, W] or [H, W, 3].
    size: longer side of the result, in pixels.

  Returns:
    uint8 [H', W'] or [H', W', 3].
  """
  image = Image.fromarray(pixels)
  scale = size / max(image.size)
  return np.asarray(image.resize(
      (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
      Image.Resampling.LANCZOS, reducing_gap=3.0))


def lightness_only(pixels: np.ndarray) -> np.ndarray:
  """The grey picture with the same lightness.

  Args:
    pixels: uint8 sRGB [..., H, W, 3]. A new size needs no new compilation.

  Returns:
    uint8 sRGB, same shape.
  """
  return chunks.by_chunks(_grey, np.asarray(pixels))


@jax.jit
def _grey(pixels):
  return painting.grey_picture(color.split_lightness(pixels)[0])


@jax.jit
def _lab(pixels):
  return jnp.concatenate(color.split_lightness(pixels), -1)


def lab_split(original: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Plots L, a and b of a photograph and, below, of its coloring.

  L is drawn from 0 to 100. a and b are drawn from -AB_RANGE to AB_RANGE, from
  green to red and from blue to yellow, with white at 0.

  Args:
    original: the photograph, uint8 sRGB [H, W, 3].
    predicted: the coloring, uint8 sRGB, same shape.

  Returns:
    uint8 [H', W', 3].
  """
  # Sizes in inches: the planes, the color bars, and a gap for titles.
  width, bar = 3.0, 0.6
  height = width * original.shape[0] / original.shape[1]
  total = 2 * height + bar + 0.5
  figure = Figure(figsize=(4 * width + 0.4, total), dpi=100)
  axes = figure.subplots(3, 4, gridspec_kw={
      'height_ratios': [height, height, 0.15], 'left': 0.03, 'right': 0.985,
      'top': 1 - 0.3 / total, 'bottom': 0.3 / total, 'wspace': 0.05,
      'hspace': 0.05})
  planes = [('L', 'gray', 0, 100),
            ('a', _ab_colors(0), -AB_RANGE, AB_RANGE),
            ('b', _ab_colors(1), -AB_RANGE, AB_RANGE)]
  for row, (name, picture) in enumerate(
      [('original', original), ('prediction', predicted)]):
    lab = chunks.by_chunks(_lab, np.asarray(picture))
    axes[row, 0].imshow(picture)
    axes[row, 0].set_ylabel(name)
    for column, (_, colors, low, high) in enumerate(planes, start=1):
      drawn = axes[row, column].imshow(
          lab[..., column - 1], cmap=colors, vmin=low, vmax=high)
      if row == 0:
        figure.colorbar(drawn, cax=axes[2, column], orientation='horizontal',
                        ticks=np.linspace(low, high, 5)[1:-1])
  for axis, title in zip(axes[0], ['picture', 'L', 'a', 'b'], strict=True):
    axis.set_title(title)
  for axis in axes[:2].flat:
    axis.set(xticks=[], yticks=[])
  axes[2, 0].set_axis_off()
  return rendered(figure)


def loss_curves(metrics_path: pathlib.Path) -> np.ndarray:
  """Plots the loss over training steps, one curve for each split.

  Args:
    metrics_path: `metrics.jsonl` of a run, see `read_losses`.

  Returns:
    uint8 sRGB [H, W, 3].

  Raises:
    UserError: the file cannot be read or has no finite loss.
  """
  curves = read_losses(metrics_path)
  if not curves:
    raise UserError(f'{metrics_path} has no line with a finite loss: train for '
                    'at least one step')
  figure = Figure(figsize=(8, 4.5), dpi=100, layout='constrained')
  axes = figure.subplots()
  for split, points in sorted(curves.items()):
    steps, losses = np.array(points).T
    axes.plot(steps, losses, label=f'{split}, last {losses[-1]:.4g}',
              linewidth=1.2, marker='o' if len(steps) < 30 else None,
              markersize=3)
  values = np.concatenate([np.array(p)[:, 1] for p in curves.values()])
  # Without a limit, the large losses of the first steps would hide the rest.
  low, high = values.min(), np.quantile(values, 0.97)
  margin = 0.08 * max(high - low, 1e-6)
  axes.set(xlabel='step', ylabel='loss', ylim=(low - margin, high + margin))
  axes.grid(alpha=0.3)
  axes.legend()
  return rendered(figure)


def read_losses(path: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Reads the losses of a run.

  Args:
    path: `metrics.jsonl` of a run. Lines without a finite `loss`, and an
      incomplete last line, are skipped.

  Returns:
    (step, loss) by split, in the order of the file.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    lines = path.read_text().splitlines()
  except OSError as error:
    raise UserError(f'{path}: {error.strerror or error}') from error
  curves: dict[str, list[tuple[int, float]]] = {}
  for line in lines:
    try:
      entry = json.loads(line)
      point = (int(entry['step']), float(entry['loss']))
    except (ValueError, KeyError, TypeError):
      continue
    if np.isfinite(point[1]):
      curves.setdefault(str(entry.get('split', '')), []).append(point)
  return curves


def _ab_colors(channel: int) -> LinearSegmentedColormap:
  """A diverging color map for a (channel 0) or b (channel 1)."""
  lab = np.array([[50.0, 0, 0], [97.0, 0, 0], [50.0, 0, 0]], np.float32)
  lab[:, 1 + channel] = -AB_RANGE, 0, AB_RANGE
  rgb = np.asarray(color.lab_to_rgb(color.fit_to_gamut(lab)))
  return LinearSegmentedColormap.from_list('ab'[channel], rgb)


def rendered(figure: Figure) -> np.ndarray:
  """Renders a Matplotlib figure as a picture.

  Args:
    figure: made by `matplotlib.figure.Figure`, which has no global state and
      needs no display. Its size in inches times its dpi is the size in pixels.

  Returns:
    uint8 sRGB [H, W, 3].
  """
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _shortened(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
               width: int) -> str:
  """Shortens words with an ellipsis to fit a width in pixels."""
  if font.getlength(words) <= width:
    return words
  while words and font.getlength(words + '…') > width:
    words = words[:-1]
  return words + '…'
