"""What a finished run prints, and leaves in `report/` to look at."""

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
from colorjax.training.state import TrainState

FIGURES_FILE = 'report/metrics.json'
"""Held-out figures of a run, inside its work directory."""

Summary = Mapping[str, Interval]


RowTitles = Callable[[Colorizer, Variables, np.ndarray], Sequence[str]]
"""`(colorizer, variables, images) -> a line for each`, [] for none."""

REGIONS = ('published', 'segments')
"""Regions that a method that knows regions is measured with."""


def write(workdir: pathlib.Path, colorizer: Colorizer, variables: Variables,
          feed: Feed, summary: Summary, *, num_proposals: int,
          num_photos: int, row_titles: RowTitles | None = None,
          command: str = '') -> None:
  """Measures regions, writes `report/`, prints the figures and the paths.

  Args:
    workdir: of the finished run.
    colorizer: the method.
    variables: the checkpoint that the figures are of.
    feed: the photographs that they were measured on.
    summary: what `photographs.measure` returned.
    num_proposals: colorings of each photograph; fewer if there are no more.
    num_photos: photographs in the pictures.
    row_titles: what stands above each photograph of the sheet.
    command: what a person types to get the run again.
  """
  folder = workdir / 'report'
  folder.mkdir(exist_ok=True)
  knows_regions = 'region' in colorizer.accepts
  summaries = {'': summary} | {
      spec: photographs.measure_regions(colorizer, variables, feed, spec)
      for spec in REGIONS if knows_regions}
  pictures = _pictures(workdir, colorizer, variables, feed, num_proposals,
                       num_photos, row_titles)
  if knows_regions:
    pictures.insert(
        1, _regions_picture(colorizer, variables, feed, num_photos))
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  tables = [_table(feed, spec, one) for spec, one in summaries.items()]
  page.write_index(
      folder / 'index.html', title=f'colorjax: {workdir.name}', tables=tables,
      figures=[figure for figure, _ in pictures],
      command=command, settings=files.read_text(workdir / 'flags.txt'))
  # Last: its presence says that the report is whole.
  _write_figures(workdir / FIGURES_FILE, summaries)
  _print(tables, workdir, [figure.file for figure, _ in pictures])


def image_hook(colorizer: Colorizer, feed: Feed, *, num_proposals: int,
               num_photos: int
               ) -> Callable[[TrainState], dict[str, np.ndarray]]:
  """The pictures of a run in progress: a contact sheet for TensorBoard.

  Args:
    colorizer: the method.
    feed: the photographs.
    num_proposals: colorings of each; fewer if there are no more.
    num_photos: how many photographs are shown.
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
  """Pictures of the report with their captions."""
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
          'Held-out photographs at the size the network sees. Several '
          'proposals stand in order of their probability, which is written '
          'under each; the one nearest to the original is framed.'),
       draw(variables, images,
            row_titles(colorizer, variables, images) if row_titles else ())),
      (page.Figure(
          'lab_split.png', 'Lab split',
          f'{label}: L, a and b of the original and of its '
          'most probable coloring, in its own resolution.'),
       sheets.lab_split(pixels, colored)),
      (page.Figure(
          'loss.png', 'Loss', 'The training objective over steps.'),
       sheets.loss_curves(workdir / 'metrics.jsonl')),
  ]


def _regions_picture(colorizer: Colorizer, variables: Variables, feed: Feed,
                     num_photos: int) -> tuple[page.Figure, np.ndarray]:
  """Some photographs within segments, which follow the things in them."""
  feed = dataclasses.replace(feed, regions=region_sources.parse(REGIONS[-1]))
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
  """Figures of the whole photographs (regions '') or of regions."""
  meanings = {name: metric.meaning for name, metric
              in catalogue.METRICS.items()} | region_metrics.REGION_FIGURES
  return page.Table(
      caption=f'Held-out photographs ({feed.photos.source.name})'
      + (f', regions {regions!r}' if regions else '')
      + ', mean and 95 % bootstrap interval',
      header=['figure', 'mean', '95 %', 'what it is'], words=['what it is'],
      rows=[[figure, f'{value.mean:.2f}',
             f'{value.low:.2f} to {value.high:.2f}', meanings[figure]]
            for figure, value in summary.items()])


def _write_figures(path: pathlib.Path, summaries: Mapping[str, Summary]
                   ) -> None:
  files.write_json(path, {
      f'{regions}/{name}' if regions else name: result.interval_fields(value)
      for regions, summary in summaries.items()
      for name, value in summary.items()})


def _print(tables: Sequence[page.Table], workdir: pathlib.Path,
           names: Sequence[str]) -> None:
  for table in tables:
    print(f'\n{table.caption}:')
    for figure, mean, interval, meaning in table.rows:
      print(f'  {figure:<31} {mean:>7}  ({interval})  {meaning}')
  print(f'\nWritten to {workdir}:')
  for file in ['index.html', *names, 'metrics.json']:
    print(f'  {workdir / "report" / file}')
