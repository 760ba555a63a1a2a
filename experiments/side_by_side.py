"""Measures finished runs on the same photographs, and draws them in one sheet.

    python -m experiments.side_by_side --runs=runs/mbm,runs/fusion \\
        --data=folder:flowers17/test --output=runs/side_by_side

Writes OUTPUT/table.md, one row a run, and OUTPUT/sheet.png: lightness,
original, and the best single answer of each run. Baselines (grey, mean colour)
are runs of `experiments.baselines`.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from colorjax.errors import UserError
from experiments import common

if TYPE_CHECKING:
  import numpy as np

  from colorjax.metrics.bootstrap import Interval

common.define_photo_flags()
flags.adopt_module_key_flags(common)

_RUNS = flags.DEFINE_list(
    'runs', None, 'Work directories of finished runs, with commas between.',
    required=True)
_DATA = flags.DEFINE_string(
    'data', 'bundled', f'Held-out photographs: {common.DATA_FORM}')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the table and the sheet; made if it is not '
    'there.', required=True)
_NUM_PROPOSALS = flags.DEFINE_integer(
    'num_proposals', 8, 'K of best of K; fewer if the method has no more.',
    lower_bound=1)
_SHEET_PHOTOS = flags.DEFINE_integer(
    'sheet_photos', 10, 'Photographs in the sheet.', lower_bound=1)
flags.DEFINE_integer('batch_size', 16, 'Photographs at a time.', lower_bound=1)

_COLUMNS = {
    'predicted': 'ab distance', 'best_of_k': 'best of K',
    'hinted': 'with 10 hints', 'psnr_predicted': 'PSNR, dB',
    'chroma_predicted': 'chroma', 'bits_per_dim': 'bits/dim'}


def main(argv: Sequence[str]) -> int:
  """Measures, draws, prints the table and the paths."""
  del argv
  from colorjax import inference, photo, report
  from experiments import photographs

  workdirs = _named(_RUNS.value)
  feed = photographs.Feed(
      photos=photographs.open_photos(_DATA.value, train=False))
  runs = {name: inference.load(path) for name, path in workdirs.items()}
  size = _common_size({name: run[2] for name, run in runs.items()})
  images = photographs.some_images(feed.photos, _SHEET_PHOTOS.value, size)
  summaries, answers = {}, {}
  for name, (colorizer, variables, _) in runs.items():
    print(f'{name} ...', flush=True)
    summaries[name] = photographs.measure(
        colorizer, variables, feed, num_proposals=_NUM_PROPOSALS.value,
        image_size=size)
    answers[name] = _answers(colorizer, variables, images)
  output = pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  table = _table(summaries, {
      name: _seconds(path) for name, path in workdirs.items()})
  (output / 'table.md').write_text(table)
  photo.write(output / 'sheet.png', report.side_by_side(images, answers))
  print(f'\n{table}\nWritten to {output}: table.md, sheet.png')
  photographs.say_exclusions(feed.photos, 'data')
  return 0


def _named(paths: Sequence[str]) -> dict[str, pathlib.Path]:
  """Work directories by their last name; UserError for two of one name."""
  named = {pathlib.Path(path).name: pathlib.Path(path) for path in paths}
  if len(named) < len(paths):
    raise UserError('--runs: two of them have the same last name, by which '
                    'rows are called')
  return named


def _common_size(sizes: Mapping[str, int]) -> int:
  """The image size of all runs; figures of different ones do not compare."""
  if len(set(sizes.values())) > 1:
    raise UserError('--runs: trained at different image sizes ('
                    + ', '.join(f'{n}: {s}' for n, s in sizes.items())
                    + '); their figures do not stand in one table')
  return next(iter(sizes.values()))


def _answers(colorizer: Any, variables: Any, images: 'np.ndarray'
             ) -> 'np.ndarray':
  """The best single answers, ab [N, H, W, 2]."""
  import jax
  import numpy as np

  from colorjax import color

  predict = jax.jit(colorizer.predict)
  return np.stack([
      np.asarray(predict(variables, color.split_lightness(image[None])[0])[0])
      for image in images])


def _seconds(workdir: pathlib.Path) -> float | None:
  """Seconds of training by the clock; None if the run kept no record."""
  path = workdir / common.SESSIONS_FILE
  if not path.is_file():
    return None
  return sum(json.loads(line)['seconds']
             for line in path.read_text().splitlines())


def _table(summaries: Mapping[str, Mapping[str, 'Interval']],
           seconds: Mapping[str, float | None]) -> str:
  """Markdown: a row a run, means with their 95 % intervals."""
  columns = {key: title for key, title in _COLUMNS.items()
             if any(key in summary for summary in summaries.values())}
  lines = ['| run | ' + ' | '.join(
      [*columns.values(), 'training, s']) + ' |',
           '|---|' + '--:|' * (len(columns) + 1)]
  for name, summary in summaries.items():
    cells = [
        f'{value.mean:.2f} ({value.low:.2f} to {value.high:.2f})'
        if (value := summary.get(key)) else '' for key in columns]
    time = seconds[name]
    cells.append('' if time is None else f'{time:.0f}')
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  some = next(iter(next(iter(summaries.values())).values()))
  return ('\n'.join(lines)
          + f'\n\n{some.n} photographs; mean and 95 % bootstrap interval.\n')


if __name__ == '__main__':
  common.run(main)
