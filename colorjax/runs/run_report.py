"""The report of a finished run: what it prints and writes to `report/`."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from colorjax import color, files, inference, photo
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import region_sources
from colorjax.evaluation import catalogue, region_metrics, result
from colorjax.metrics.bootstrap import Interval
from colorjax.report import page, sheets
from colorjax.runs import photographs
from colorjax.runs.photographs import Feed
from colorjax.runs.workdir import FLAGS, METRICS

METRICS_FILE = 'report/metrics.json'
"""Path of the held-out metrics of a run, relative to its work directory."""

REPLICAS_FILE = 'report/replicas.json'
"""Path of the metrics of each replica, relative to the work directory."""

Summary = Mapping[str, Interval]
"""Mean and interval of each metric, by name."""

RowTitles = Callable[[Colorizer, Variables, np.ndarray], Sequence[str]]
"""`(colorizer, variables, images) -> titles`, one line for each image."""

_REGIONS = ('published', 'segments')  # for methods that accept regions
_SHOWN_REGIONS = 'segments'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """A model that was measured.

  Attributes:
    variables: its variables.
    summary: what `photographs.measure` returned for it.
    replica: {'replica': its number, ...} with what it differs in; None for the
      only model of a run.
  """
  variables: Variables
  summary: Summary
  replica: Mapping[str, Any] | None = None


def write(workdir: pathlib.Path, colorizer: Colorizer,
          models: Sequence[Measured], feed: Feed, *, num_proposals: int,
          num_photos: int, row_titles: RowTitles | None = None,
          command: str = '') -> None:
  """Writes `report/`, prints the metrics and the paths of the files.

  If the method accepts regions, metrics of regions are measured too. Of
  replicas, tables and metrics.json have the mean and its interval over them,
  replicas.json has the metrics of each, and pictures show the first.

  Args:
    workdir: work directory of the finished run.
    colorizer: the method.
    models: the model of the run, or its replicas that have not failed.
    feed: the held-out photographs.
    num_proposals: number of colorings of each photograph; fewer if the method
      has no more.
    num_photos: number of photographs in the pictures.
    row_titles: makes the line above each photograph of the sheet.
    command: the command line that repeats the run.
  """
  folder = workdir / 'report'
  folder.mkdir(exist_ok=True)
  accepts_regions = 'region' in colorizer.accepts
  variables = models[0].variables
  each = {'': [one.summary for one in models]} | {
      spec: photographs.measure_regions(
          colorizer, [one.variables for one in models], feed, spec)
      for spec in _REGIONS if accepts_regions}
  named = [one.replica for one in models if one.replica is not None]
  summaries = {spec: _over_replicas(every) if named else every[0]
               for spec, every in each.items()}
  pictures = _pictures(workdir, colorizer, variables, feed, num_proposals,
                       num_photos, row_titles)
  if accepts_regions:
    pictures.insert(
        1, _regions_picture(colorizer, variables, feed, num_photos))
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  tables = [_table(feed, spec, one, each[spec] if named else (), named)
            for spec, one in summaries.items()]
  page.write_index(
      folder / 'index.html', title=f'colorjax: {workdir.name}', tables=tables,
      figures=[figure for figure, _ in pictures],
      command=command, settings=files.read_text(workdir / FLAGS))
  # Written last: if it exists, the report is complete.
  if named:
    files.write_json(workdir / REPLICAS_FILE, [
        {**name, 'metrics': _fields({spec: every[i]
                                     for spec, every in each.items()})}
        for i, name in enumerate(named)])
  files.write_json(workdir / METRICS_FILE, _fields(summaries))
  _print(tables, workdir, [figure.file for figure, _ in pictures]
         + (['replicas.json'] if named else []))


def image_hook(colorizer: Colorizer, feed: Feed, *, num_proposals: int,
               num_photos: int
               ) -> Callable[[Variables], dict[str, np.ndarray]]:
  """Makes the function that draws the pictures of a run in progress.

  Args:
    colorizer: the method.
    feed: the held-out photographs.
    num_proposals: number of colorings of each photograph; fewer if the method
      has no more.
    num_photos: number of photographs shown.

  Returns:
    `variables -> {'proposals': sheet}`, uint8 sRGB [H, W, 3], for TensorBoard.
  """
  draw = sheets.proposal_drawer(
      colorizer, num_proposals=colorizer.num_proposals(num_proposals))
  images = photographs.some_images(
      feed.photos, num_photos, feed.image_size, feed.options.fit)

  def pictures(variables: Variables) -> dict[str, np.ndarray]:
    return {'proposals': draw(variables, images)}

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


def _table(feed: Feed, regions: str, summary: Summary,
           each: Sequence[Summary], replicas: Sequence[Mapping[str, Any]]
           ) -> page.Table:
  """The metrics of whole photographs (regions '') or of regions."""
  meanings = {name: metric.meaning for name, metric
              in catalogue.METRICS.items()} | region_metrics.REGION_METRICS
  interval = (f'mean and 95 % interval over {len(each)} replicas' if each else
              'mean and 95 % bootstrap interval')
  return page.Table(
      caption=f'Held-out photographs ({feed.photos.source.name})'
      + (f', regions {regions!r}' if regions else '') + f', {interval}',
      header=['metric', 'mean', '95 %', 'meaning',
              *(_title(one) for one in replicas)], words=['meaning'],
      rows=[[name, f'{value.mean:.2f}',
             f'{value.low:.2f} to {value.high:.2f}', meanings[name],
             *(f'{one[name].mean:.2f}' for one in each)]
            for name, value in summary.items()])


def _title(replica: Mapping[str, Any]) -> str:
  """The title of a replica's column, such as 'replica 1, seed=4'."""
  return ', '.join([f'replica {replica["replica"]}', *(
      f'{name}={value}' for name, value in replica.items()
      if name != 'replica')])


def _fields(summaries: Mapping[str, Summary]) -> dict[str, Any]:
  """The metrics of whole photographs (regions '') and of regions as JSON."""
  return {
      f'{regions}/{name}' if regions else name: result.interval_fields(value)
      for regions, summary in summaries.items()
      for name, value in summary.items()}


def _over_replicas(each: Sequence[Summary]) -> dict[str, Interval]:
  """Mean of each metric over replicas, with Student's t interval at 95 %.

  `n` is the number of replicas whose metric is finite. The interval of a single
  one is that value.
  """
  found = {}
  for name in each[0]:
    values = np.array([one[name].mean for one in each])
    finite = values[np.isfinite(values)]
    n, half = len(finite), 0.0
    if n > 1:
      half = float(special.stdtrit(n - 1, 0.975) * finite.std(ddof=1)
                   / np.sqrt(n))
    mean = float(finite.mean()) if n else math.nan
    found[name] = Interval(
        mean=mean, low=mean - half, high=mean + half, n=n,
        num_undefined=len(values) - n)
  return found


def _print(tables: Sequence[page.Table], workdir: pathlib.Path,
           names: Sequence[str]) -> None:
  for table in tables:
    print(f'\n{table.caption}:')
    for name, mean, interval, meaning, *_ in table.rows:
      print(f'  {name:<31} {mean:>7}  ({interval})  {meaning}')
  print(f'\nWritten to {workdir}:')
  for file in ['index.html', *names, 'metrics.json']:
    print(f'  {workdir / "report" / file}')
