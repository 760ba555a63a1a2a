"""The report of a finished run: what it prints and writes to `report/`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from colorjax import color, files, inference, photo
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import region_sources
from colorjax.evaluation import catalogue, region_metrics, result
from colorjax.metrics.bootstrap import Interval
from colorjax.report import page, sheets
from colorjax.runs import photographs
from colorjax.runs.photographs import Feed
from colorjax.runs.workdir import FLAGS, METRICS
from colorjax.training.state import TrainState

METRICS_FILE = 'report/metrics.json'
"""Path of the held-out metrics of a run, relative to its work directory."""

Summary = Mapping[str, Interval]
"""Mean and interval of each metric, by name."""

RowTitles = Callable[[Colorizer, Variables, np.ndarray], Sequence[str]]
"""`(colorizer, variables, images) -> titles`, one line for each image."""

_REGIONS = ('published', 'segments')  # for methods that accept regions
_SHOWN_REGIONS = 'segments'


def write(workdir: pathlib.Path, colorizer: Colorizer, variables: Variables,
          feed: Feed, summary: Summary, *, num_proposals: int,
          num_photos: int, row_titles: RowTitles | None = None,
          command: str = '') -> None:
  """Writes `report/`, prints the metrics and the paths of the files.

  If the method accepts regions, metrics of regions are measured too.

  Args:
    workdir: work directory of the finished run.
    colorizer: the method.
    variables: the variables that were measured.
    feed: the held-out photographs.
    summary: what `photographs.measure` returned.
    num_proposals: number of colorings of each photograph; fewer if the method
      has no more.
    num_photos: number of photographs in the pictures.
    row_titles: makes the line above each photograph of the sheet.
    command: the command line that repeats the run.
  """
  folder = workdir / 'report'
  folder.mkdir(exist_ok=True)
  accepts_regions = 'region' in colorizer.accepts
  summaries = {'': summary} | {
      spec: photographs.measure_regions(colorizer, variables, feed, spec)
      for spec in _REGIONS if accepts_regions}
  pictures = _pictures(workdir, colorizer, variables, feed, num_proposals,
                       num_photos, row_titles)
  if accepts_regions:
    pictures.insert(
        1, _regions_picture(colorizer, variables, feed, num_photos))
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  tables = [_table(feed, spec, one) for spec, one in summaries.items()]
  page.write_index(
      folder / 'index.html', title=f'colorjax: {workdir.name}', tables=tables,
      figures=[figure for figure, _ in pictures],
      command=command, settings=files.read_text(workdir / FLAGS))
  # Written last: if it exists, the report is complete.
  _write_metrics(workdir / METRICS_FILE, summaries)
  _print(tables, workdir, [figure.file for figure, _ in pictures])


def image_hook(colorizer: Colorizer, feed: Feed, *, num_proposals: int,
               num_photos: int
               ) -> Callable[[TrainState], dict[str, np.ndarray]]:
  """Makes the function that draws the pictures of a run in progress.

  Args:
    colorizer: the method.
    feed: the held-out photographs.
    num_proposals: number of colorings of each photograph; fewer if the method
      has no more.
    num_photos: number of photographs shown.

  Returns:
    `state -> {'proposals': sheet}`, uint8 sRGB [H, W, 3], for TensorBoard.
  """
  draw = sheets.proposal_drawer(
      colorizer, num_proposals=colorizer.num_proposals(num_proposals))
  images = photographs.some_images(
      feed.photos, num_photos, feed.image_size, feed.options.fit)

  def pictures(state: TrainState) -> dict[str, np.ndarray]:
    return {'proposals': draw(state.variables, images)}

  return pictures


def _pictures(workdir: pathlib.Path, colorizer: Colorizer,
              variables: Variables, feed: Feed, num_proposals: int,
              num_photos: int, row_titles: RowTitles | None
              ) -> list[tuple[page.Figure, np.ndarray]]:
  """The pictures of the report with their captions."""
  photos = feed.photos
  images = photographs.some_images(
      photos, num_photos, feed.image_size, feed.options.fit)
  draw = sheets.proposal_drawer(
      colorizer, num_proposals=colorizer.num_proposals(num_proposals))
  index, pixels = photos.read_from(0)
  label = photos.source.label(index)
  picture = photo.Photo(pixels=pixels, alpha=None, icc_profile=None, exif=None,
                        format='PNG', path=label)
  colored = next(inference.colorize(
      inference.answers(colorizer), variables, picture,
      image_size=feed.image_size)).pixels
  return [
      (page.Figure(
          'proposals.png', 'Proposals',
          'Held-out photographs at the size that the network sees. Proposals '
          'are sorted by their probability, which is written below each. The '
          'one nearest to the original has a frame.'),
       draw(variables, images,
            row_titles(colorizer, variables, images) if row_titles else ())),
      (page.Figure(
          'lab_split.png', 'Lab split',
          f'{label}: L, a and b of the original and of its most probable '
          'coloring, at the resolution of the original.'),
       sheets.lab_split(pixels, colored)),
      (page.Figure(
          'loss.png', 'Loss', 'The training objective over steps.'),
       sheets.loss_curves(workdir / METRICS)),
  ]


def _regions_picture(colorizer: Colorizer, variables: Variables, feed: Feed,
                     num_photos: int) -> tuple[page.Figure, np.ndarray]:
  """Photographs colored within some of their segments."""
  feed = dataclasses.replace(
      feed, regions=region_sources.parse(_SHOWN_REGIONS))
  with feed.held_out() as stream:
    batch = next(stream)
  number = min(num_photos, int(batch['padding_mask'].sum()))
  images, regions = (batch[name][batch['padding_mask'] > 0][:number]
                     for name in ('image', 'region'))
  lightness, _ = color.split_lightness(jax.numpy.asarray(images))
  predict = jax.jit(colorizer.predict)
  within = predict(variables, {'lightness': lightness, 'region': regions})
  whole = predict(variables, {'lightness': lightness})
  return (page.Figure(
      'regions.png', 'Regions',
      'Held-out photographs colored within some of their segments.'),
          sheets.region_sheet(images, regions, within, whole))


def _table(feed: Feed, regions: str, summary: Summary) -> page.Table:
  """The metrics of whole photographs (regions '') or of regions."""
  meanings = {name: metric.meaning for name, metric
              in catalogue.METRICS.items()} | region_metrics.REGION_FIGURES
  return page.Table(
      caption=f'Held-out photographs ({feed.photos.source.name})'
      + (f', regions {regions!r}' if regions else '')
      + ', mean and 95 % bootstrap interval',
      header=['metric', 'mean', '95 %', 'meaning'], words=['meaning'],
      rows=[[name, f'{value.mean:.2f}',
             f'{value.low:.2f} to {value.high:.2f}', meanings[name]]
            for name, value in summary.items()])


def _write_metrics(path: pathlib.Path, summaries: Mapping[str, Summary]
                   ) -> None:
  files.write_json(path, {
      f'{regions}/{name}' if regions else name: result.interval_fields(value)
      for regions, summary in summaries.items()
      for name, value in summary.items()})


def _print(tables: Sequence[page.Table], workdir: pathlib.Path,
           names: Sequence[str]) -> None:
  for table in tables:
    print(f'\n{table.caption}:')
    for name, mean, interval, meaning in table.rows:
      print(f'  {name:<31} {mean:>7}  ({interval})  {meaning}')
  print(f'\nWritten to {workdir}:')
  for file in ['index.html', *names, 'metrics.json']:
    print(f'  {workdir / "report" / file}')
