"""Measures the run time of `experiments.evaluate` for pictures in files.

    python -m experiments.benchmarks.evaluation [--num_photos=5000]

Writes photographs of 256 x 256 pixels (JPEG, random crops of the photographs in
scikit-image) and colorings of them (PNG) to a temporary folder. Then runs
`experiments.evaluate` in a separate process. The time includes start-up,
compilation, intervals and the report, but no network metrics.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from colorjax.errors import UserError
from experiments import common

_NUM_PHOTOS = flags.DEFINE_integer(
    'num_photos', 5000, 'Number of photographs and of colorings.',
    lower_bound=2)
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 256, 'Side of the photographs, in pixels.', 11, 400)

_LARGEST_SHIFT = 20  # of 255: a coloring is a photograph with shifted channels


def write_pairs(folder: pathlib.Path, number: int, size: int) -> None:
  """Writes photographs and colorings of them.

  Args:
    folder: folder for photographs/00000.jpg, ... and pictures/00000.png, ...
    number: number of pairs.
    size: side in pixels, at most the shortest side of the bundled photographs.
  """
  from PIL import Image

  from colorjax.data import folders

  source = folders.bundled(train=True)
  for name in ('photographs', 'pictures'):
    (folder / name).mkdir()
  rng = np.random.default_rng(0)
  for i in range(number):
    photo = source.read(i % source.size)
    top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
    crop = photo[top:top + size, left:left + size]
    shift = rng.integers(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1, 3)
    Image.fromarray(crop).save(
        folder / 'photographs' / f'{i:05d}.jpg', quality=92)
    Image.fromarray(np.clip(crop + shift, 0, 255).astype(np.uint8)).save(
        folder / 'pictures' / f'{i:05d}.png')


def main(argv: Sequence[str]) -> int:
  """Prints the time in seconds and the photographs per second."""
  del argv
  number, size = _NUM_PHOTOS.value, _IMAGE_SIZE.value
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_pairs(folder, number, size)
    command = [
        sys.executable, '-m', 'experiments.evaluate',
        f'--outputs={folder / "pictures"}', f'--image_size={size}',
        f'--data=folder:{folder / "photographs"}',
        f'--workdir={folder / "measured"}']
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - start
  if done.returncode:
    raise UserError('experiments.evaluate failed: see its error above')
  print(f'{number} photographs of {size} x {size} on {os.cpu_count()} '
        f'processors: {seconds:.1f} s, {number / seconds:.0f} per second')
  return 0


if __name__ == '__main__':
  common.run(main)
