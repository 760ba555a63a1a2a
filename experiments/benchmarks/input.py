"""Measures how many photographs a second become training batches.

    python -m experiments.benchmarks.input [--data=folder:PATH]

Without --data, the photographs are JPEG files of about the size of ImageNet's
(500 x 375), cut from those of scikit-image. Both engines of colorjax are
measured, and for comparison plain tf.data: `tf.image.decode_and_crop_jpeg`, an
antialiased resize and a flip, without colorjax. All read the files from the
disk's cache, take random crops, and run with the same number of threads. They
take turns, and the best turn of each counts, because other programs may use the
machine. The rate per core counts the processor time of all threads, so it does
not depend on the number of cores and little on other programs.
"""

import functools
import importlib.util
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from absl import flags

from colorjax.errors import UserError
from experiments import script

_DATA = flags.DEFINE_string(
    'data', None, 'folder:PATH with JPEG files; if not given, files are made.')
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 256, 'Side of the squares, in pixels.', lower_bound=8)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 32, 'Photographs in a batch.', lower_bound=1)
_BATCHES = flags.DEFINE_integer(
    'batches', 10, 'Batches of a turn.', lower_bound=1)
_TURNS = flags.DEFINE_integer('turns', 3, 'Turns of each row.', lower_bound=1)
_NUM_THREADS = flags.DEFINE_integer(
    'num_threads', None, 'Threads; if not given, one per processor.',
    lower_bound=1)

WIDTH, HEIGHT, QUALITY = 500, 375, 97
"""The files that are made: size in pixels, and quality of the JPEG."""


def write_photographs(folder: pathlib.Path, count: int) -> None:
  """Writes parts of scikit-image's photographs as JPEG files."""
  import skimage.data
  from PIL import Image

  sources = [Image.fromarray(x) for x in (
      skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea())]
  rng = np.random.default_rng(0)
  for number in range(count):
    source = sources[number % len(sources)]
    width = int(rng.uniform(0.8, 1) * min(
        source.width, source.height * WIDTH / HEIGHT))
    height = width * HEIGHT // WIDTH
    left = int(rng.integers(source.width - width + 1))
    top = int(rng.integers(source.height - height + 1))
    source.crop((left, top, left + width, top + height)).resize(
        (WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(
            folder / f'{number:04d}.jpg', quality=QUALITY)


def plain_tf_data(paths: Sequence[pathlib.Path], num_threads: int):
  """Makes the batches of a turn with tf.data alone.

  Args:
    paths: JPEG files.
    num_threads: as --num_threads.

  Returns:
    A tf.data.Dataset of uint8 [B, S, S, 3].
  """
  import tensorflow as tf

  side = _IMAGE_SIZE.value

  def load(path):
    data = tf.io.read_file(path)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(data), tf.zeros((0, 0, 4)),
        area_range=(0.5, 1), use_image_if_no_bounding_boxes=True)
    pixels = tf.image.decode_and_crop_jpeg(
        data, tf.concat([begin[:2], size[:2]], 0), channels=3)
    pixels = tf.image.resize(pixels, (side, side), antialias=True)
    pixels = tf.image.random_flip_left_right(pixels)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

  options = tf.data.Options()
  options.threading.private_threadpool_size = num_threads
  return (tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
          .repeat().map(load, num_parallel_calls=num_threads)
          .batch(_BATCH_SIZE.value).take(_BATCHES.value).prefetch(2)
          .with_options(options))


def measure(readers: Mapping[str, Callable[[], Iterable[object]]]
            ) -> dict[str, tuple[float, float]]:
  """Reads in turns.

  Args:
    readers: functions that start the batches of a turn, by name.

  Returns:
    Photographs per second, and per second of processor time; the best turn.
  """
  count = _BATCH_SIZE.value * _BATCHES.value
  best = dict.fromkeys(readers, (0.0, 0.0))
  for turn in range(_TURNS.value + 1):
    for name, start in readers.items():
      wall, cpu = time.perf_counter(), time.process_time()
      for _ in start():
        pass
      rates = (count / (time.perf_counter() - wall),
               count / (time.process_time() - cpu))
      if turn:  # The first one fills the caches.
        best[name] = max(best[name][0], rates[0]), max(best[name][1], rates[1])
  return best


def main(argv: Sequence[str]) -> int:
  """Prints a row for each way to read."""
  del argv
  # This imports JAX, which --help must not wait for.
  from colorjax.data import engines, pipeline, sources
  from colorjax.data.screening import Screen

  threads = _NUM_THREADS.value or len(os.sched_getaffinity(0))
  with tempfile.TemporaryDirectory() as name:
    data = _DATA.value
    if data is None:
      data = f'folder:{name}'
      write_photographs(pathlib.Path(name), 64)
    if not data.startswith('folder:'):
      raise UserError(f'data={data}: give folder:PATH, a folder of JPEG files')
    root = pathlib.Path(data.removeprefix('folder:')).expanduser()
    photos = Screen(sources.parse(data, train=True))
    paths = sorted(path for path in root.rglob('*')
                   if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not paths:
      raise UserError(f'data={data}: there are no JPEG files')
    spec = pipeline.TrainSpec(
        batch_size=_BATCH_SIZE.value, image_size=_IMAGE_SIZE.value)
    readers: dict[str, Callable[[], Iterable[object]]] = {
        f'colorjax, --engine={engine}': functools.partial(
            pipeline.train_stream, photos, spec, 0, engine=engine,
            num_threads=threads, num_steps=_BATCHES.value)
        for engine in engines.ENGINES if engine != 'auto'}
    if importlib.util.find_spec('tensorflow'):
      dataset = plain_tf_data(paths, threads)
      readers['plain tf.data'] = lambda: dataset
    else:
      print("note: tf.data is not measured; pip install 'colorjax[tf]'")
      del readers['colorjax, --engine=tf.data']
    rates = measure(readers)
    kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
  print(f'{len(paths)} JPEG files, mean {kilobytes:.0f} kB; to '
        f'{_IMAGE_SIZE.value} x {_IMAGE_SIZE.value}; {threads} threads\n\n'
        '| reader | photographs a second | per second of one core |\n'
        '|---|--:|--:|')
  for reader, (wall, cpu) in rates.items():
    print(f'| {reader} | {wall:.0f} | {cpu:.0f} |')
  return 0


if __name__ == '__main__':
  script.run(main)
