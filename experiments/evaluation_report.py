"""What an evaluation prints, and leaves in `report/` to look at."""

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from colorjax import report_page
from colorjax.evaluation import catalogue, result

if TYPE_CHECKING:
  from experiments.evaluation_run import Judged, Photographs

FLAGS = flags.FLAGS

EXAMPLES_FILE = 'report/examples.npz'
"""Some photographs and their colourings, for the sheets of comparisons."""


def write(workdir: pathlib.Path, judged: 'Judged', photos: 'Photographs',
          finished: result.Result, networks: Mapping[str, Any],
          indices: np.ndarray) -> None:
  """Writes `report/`."""
  folder = workdir / 'report'
  folder.mkdir(exist_ok=True)
  number = min(FLAGS.report_photos, len(indices))
  # Spread over the source: a folder is sorted by class.
  chosen = indices[np.linspace(0, len(indices) - 1, number).round().astype(int)]
  with photos.batches([int(i) for i in chosen], number) as stream:
    batch = next(stream)
  shown = jax.device_get(jax.jit(judged.answer)(
      judged.variables, {name: rows for name, rows in batch.items()
                         if name != 'mask'}, {}))
  result.write_whole(workdir / EXAMPLES_FILE, result.pack(
      {'original': shown.original, 'picture': shown.picture}))
  report_page.write_index(
      folder / 'index.html', title=f'colorjax: {judged.name}',
      tables=[table(finished)], figures=[],
      command='python -m experiments.evaluate '
      f'--flagfile={workdir / "flags.txt"}',
      settings=json.dumps(finished.record.as_json(), indent=2))


def load_examples(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """Some photographs, 'original', and their colourings, 'picture'."""
  return result.unpack(workdir / EXAMPLES_FILE)


def table(finished: result.Result) -> report_page.Table:
  """All metrics with their intervals."""
  record = finished.record
  return report_page.Table(
      caption=f'{record.judged}: {len(record.photographs)} photographs, '
      f'protocol {record.protocol.name} version {record.protocol.version}, '
      f'{record.protocol.image_size} x {record.protocol.image_size} '
      f'{record.protocol.fit}; mean and 95 % bootstrap interval',
      header=['figure', 'mean', '95 %', 'better', 'what it is'],
      rows=[[name, f'{value.mean:.4g}', f'{value.low:.4g} to {value.high:.4g}',
             catalogue.METRICS[name].better, catalogue.METRICS[name].meaning]
            for name, value in finished.summary.items()])


def say(workdir: pathlib.Path, finished: result.Result) -> None:
  """Prints the figures, what was noticed, and the paths."""
  printed = table(finished)
  print(f'\n{printed.caption}:')
  for name, mean, interval, _, meaning in printed.rows:
    print(f'  {name:<31} {mean:>8}  ({interval})  {meaning}')
