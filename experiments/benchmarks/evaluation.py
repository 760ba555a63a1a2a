"""Measures how long `experiments.evaluate --outputs` takes.

    python -m experiments.benchmarks.evaluation [--num_photos=5000]

Photographs of 256 x 256 pixels (JPEG, random crops of those that come with
scikit-image) and colorings of them (PNG) are written to a temporary folder and
measured by that command in a separate process. The time includes start,
compilation, intervals and report, but no network of LPIPS or FID.
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
from experiments import script

_NUM_PHOTOS = flags.DEFINE_integer(
    'num_photos', 5000, 'Number of photographs, each with a coloring.',
    lower_bound=2)
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 256, 'Side of the photographs, in pixels.', 11, 400)

_MAX_SHIFT = 20  # of 255; a coloring is the photograph with shifted channels


def write_pairs(folder: pathlib.Path, number: int, size: int) -> None:
  """Writes photographs and colorings of them.

  Args:
    folder: folder for photographs/00000.jpg, ... and pictures/00000.png, ...
    number: number of pairs.
    size: side in pixels; at most the smallest side of the bundled photographs.
  """
  from PIL import Image

  from colorjax.data import folders

  source = folders.bundled(train=True)
  for name in ('photographs', 'pictures'):
    (folder / name).mkdir()
  rng = np.random.default_rng(0)
  for i in range(number):
    whole = source.read(i % source.size)
    top, left = (rng.integers(side - size + 1) for side in whole.shape[:2])
    piece = whole[top:top + size, left:left + size]
    shift = rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1, 3)
    Image.fromarray(piece).save(
        folder / 'photographs' / f'{i:05d}.jpg', quality=92)
    Image.fromarray(np.clip(piece + shift, 0, 255).astype(np.uint8)).save(
        folder / 'pictures' / f'{i:05d}.png')


def main(argv: Sequence[str]) -> int:
  """Prints the seconds, and the photographs per second."""
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
    raise UserError('experiments.evaluate failed; see its error above')
  print(f'{number} photographs of {size} x {size} on {os.cpu_count()} '
        f'processors: {seconds:.1f} s, {number / seconds:.0f} per second')
  return 0


if __name__ == '__main__':
  script.run(main)
