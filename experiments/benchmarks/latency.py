"""Measures how long a photograph takes to color, and how much memory.

    python -m experiments.benchmarks.latency [--model=general] [--sizes=512x512]

These times are measured for each size of a JPEG: `experiments.colorize` from
the start of the process to the finished picture, the first time on a machine
and again, when JAX has kept the compiled programs (the best of several); in a
process that has loaded the model, the first photograph, which includes
compilation; and the best of several further ones (read, color, write a PNG).
The memory is the largest of the whole process of the first time.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from colorjax.errors import UserError
from experiments import model_flags, script

model_flags.define_checkpoint_flags()
flags.adopt_module_key_flags(model_flags)

_SIZES = flags.DEFINE_list(
    'sizes', ['256x256', '512x512', '4000x3000', '11600x8700'],
    'Widths and heights of the photographs, in pixels.')
_TURNS = flags.DEFINE_integer(
    'turns', 3, 'Number of repetitions after the first one; the best counts.',
    lower_bound=1)

_WARM = """
import json, sys, time
from colorjax import inference, photo, saved
source, target, path, turns = sys.argv[1:]
start = time.perf_counter()
colorizer, variables, image_size = saved.load(path)
answer = inference.answers(colorizer)
seconds = [time.perf_counter() - start]
for _ in range(1 + int(turns)):
  start = time.perf_counter()
  (coloring,) = inference.colorize(
      answer, variables, photo.read(source), image_size=image_size)
  photo.write(target, coloring.pixels)
  seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def write_photograph(path: pathlib.Path, width: int, height: int) -> None:
  """Writes a photograph of scikit-image, enlarged, as a JPEG."""
  import skimage.data
  from PIL import Image

  # 100 megapixels are more than Pillow reads from files without a warning, but
  # not more than it resizes.
  Image.fromarray(skimage.data.coffee()).resize(
      (width, height), Image.Resampling.BICUBIC).save(path, quality=92)


def whole_command(source: pathlib.Path, folder: pathlib.Path, model: str,
                  programs: pathlib.Path) -> tuple[float, float]:
  """Colors a photograph in a process of its own.

  Args:
    source: the photograph.
    folder: an empty folder for the coloring.
    model: work directory or model file.
    programs: where JAX keeps compiled programs.

  Returns:
    Seconds from start to end, and the largest memory in GB.

  Raises:
    UserError: the command failed.
  """
  start = time.perf_counter()
  process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.colorize', f'--input={source}',
       f'--output={folder}', f'--checkpoint={model}'],
      stdout=subprocess.DEVNULL, env=os.environ | {
          'JAX_COMPILATION_CACHE_DIR': str(programs),
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS':
              str(script.SHORTEST_COMPILATION)})
  _, status, usage = os.wait4(process.pid, 0)
  seconds = time.perf_counter() - start
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise UserError('experiments.colorize failed; see its error above')
  # Linux counts kilobytes, macOS bytes.
  return seconds, usage.ru_maxrss / (1e9 if sys.platform == 'darwin' else 1e6)


def main(argv: Sequence[str]) -> int:
  """Prints a row for each size."""
  del argv
  from colorjax import zoo

  model = model_flags.checkpoint() or str(zoo.path(zoo.MODELS[0]))
  sizes = []
  for text in _SIZES.value:
    sides = [int(side) for side in text.split('x') if side.isdigit()]
    if len(sides) != 2 or not all(sides):
      raise UserError(f'--sizes={text}: give WIDTHxHEIGHT')
    sizes.append((sides[0], sides[1]))
  print('| photograph | start to finished picture, s | again, s | loading, s | '
        'first, s | further, s | memory, GB |\n'
        '|---|--:|--:|--:|--:|--:|--:|', flush=True)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source = folder / 'photograph.jpg'
    for number, (width, height) in enumerate(sizes):
      write_photograph(source, width, height)
      programs = folder / f'programs_{number}'
      whole, memory = whole_command(
          source, folder / str(number), model, programs)
      again = min(
          whole_command(source, folder / f'{number}_{turn}', model, programs)[0]
          for turn in range(_TURNS.value))
      done = subprocess.run(
          [sys.executable, '-c', _WARM, str(source), str(folder / 'warm.png'),
           model, str(_TURNS.value)], stdout=subprocess.PIPE, text=True,
          check=True, env=os.environ | {'JAX_ENABLE_COMPILATION_CACHE': '0'})
      loading, first, *further = json.loads(done.stdout)
      print(f'| {width} x {height} | {whole:.1f} | {again:.1f} | {loading:.1f} '
            f'| {first:.1f} | {min(further):.2f} | {memory:.1f} |', flush=True)
  return 0


if __name__ == '__main__':
  script.run(main)
