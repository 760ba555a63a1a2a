"""What a finished run prints, and leaves in `report/` to look at."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags

from colorjax import evaluation, inference, photo, report, report_page
from colorjax.colorizer import Colorizer, Variables
from colorjax.data.screening import Screen
from colorjax.metrics.bootstrap import Interval
from colorjax.training.state import TrainState
from experiments import photographs

FLAGS = flags.FLAGS

FIGURES_FILE = 'report/metrics.json'
"""Held-out figures of a run, inside its work directory."""

Summary = Mapping[str, Interval]


def write(workdir: pathlib.Path, colorizer: Colorizer, variables: Variables,
          photos: Screen, summary: Summary) -> None:
  """Writes `report/` and prints the figures and the paths.

  Args:
    workdir: of the finished run.
    colorizer: the method.
    variables: the checkpoint that the figures are of.
    photos: the photographs that they were measured on.
    summary: what `evaluation.summarize` returned.
  """
  folder = workdir / 'report'
  folder.mkdir(exist_ok=True)
  pictures = _pictures(workdir, colorizer, variables, photos)
  for figure, pixels in pictures:
    photo.write(folder / figure.file, pixels)
  rows = [
      [figure, f'{value.mean:.2f}', f'{value.low:.2f} to {value.high:.2f}',
       evaluation.FIGURES[figure]] for figure, value in summary.items()]
  report_page.write_index(
      folder / 'index.html', title=f'colorjax: {workdir.name}',
      tables=[report_page.Table(
          caption=f'{photos.source.name}: mean over photographs and 95 % '
          'bootstrap interval',
          header=['figure', 'mean', '95 %', 'what it is'],
          rows=rows)],
      figures=[figure for figure, _ in pictures],
      command=f'{_script()} --flagfile={workdir / "flags.txt"}',
      settings=(workdir / 'flags.txt').read_text())
  # Last: its presence says that the report is whole.
  _write_figures(workdir / FIGURES_FILE, summary)
  _print(rows, photos, workdir, [figure.file for figure, _ in pictures])


def image_hook(colorizer: Colorizer, photos: Screen
               ) -> Callable[[TrainState], dict[str, np.ndarray]]:
  """The pictures of a run in progress: a contact sheet for TensorBoard."""
  draw = report.proposal_drawer(
      colorizer, num_proposals=colorizer.num_proposals(FLAGS.num_proposals))
  images = photographs.some_images(
      photos, FLAGS.report_photos, FLAGS.image_size)

  def pictures(state: TrainState) -> dict[str, np.ndarray]:
    return {'proposals': draw(state.variables, images)}

  return pictures


def _pictures(workdir: pathlib.Path, colorizer: Colorizer,
              variables: Variables, photos: Screen
              ) -> list[tuple[report_page.Figure, np.ndarray]]:
  """Pictures of the report with their captions."""
  images = photographs.some_images(
      photos, FLAGS.report_photos, FLAGS.image_size)
  draw = report.proposal_drawer(
      colorizer, num_proposals=colorizer.num_proposals(FLAGS.num_proposals))
  index, pixels = photos.read_from(0)
  label = photos.source.label(index)
  picture = photo.Photo(pixels=pixels, alpha=None, icc_profile=None, exif=None,
                        format='PNG', path=label)
  coloured = next(inference.colorize(
      inference.answers(colorizer), variables, picture,
      image_size=FLAGS.image_size)).pixels
  return [
      (report_page.Figure(
          'proposals.png', 'Proposals',
          'Held-out photographs at the size the network sees: lightness, '
          'original, and the proposals in order of their probability, which '
          'is written under each. Framed: the one nearest to the original.'),
       draw(variables, images)),
      (report_page.Figure(
          'lab_split.png', 'Lab split',
          f'{label}: L, a and b of the original and of its '
          'most probable colouring, in its own resolution.'),
       report.lab_split(pixels, coloured)),
      (report_page.Figure(
          'loss.png', 'Loss', 'The training objective over steps.'),
       report.loss_curves(workdir / 'metrics.jsonl')),
  ]


def _write_figures(path: pathlib.Path, summary: Summary) -> None:
  path.write_text(json.dumps(
      {name: dataclasses.asdict(value) for name, value in summary.items()},
      indent=2) + '\n')


def _print(rows: Sequence[Sequence[str]], photos: Screen,
           workdir: pathlib.Path, files: Sequence[str]) -> None:
  print(f'\nHeld-out photographs ({photos.source.name}), mean and 95 % '
        'bootstrap interval:')
  for figure, mean, interval, meaning in rows:
    print(f'  {figure:<15} {mean:>7}  ({interval})  {meaning}')
  print(f'\nWritten to {workdir}:')
  for file in ['index.html', *files, 'metrics.json']:
    print(f'  {workdir / "report" / file}')


def _script() -> str:
  """How the script was started: `python -m experiments.mbm`."""
  return f'python -m experiments.{pathlib.Path(sys.argv[0]).stem}'
