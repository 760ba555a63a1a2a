"""Batches of photographs for training and evaluation.

A training batch is a function of (seed, step), of the source's files and of the
spec. It does not depend on earlier batches. So a run that is resumed, repeated
or divided among hosts sees the same pixels, and a stream can start at any step
without reading the batches before it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from colorjax.data import augment as augment_lib
from colorjax.data import engines, order, region_sources
from colorjax.data.engines import Batch, BatchStream, Row
from colorjax.data.screening import Screen
from colorjax.data.source import Source
from colorjax.photo import Reduced


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSpec:
  """Settings of the training batches.

  Attributes:
    batch_size: photographs in the global batch, over all shards.
    image_size: side of the square images, in pixels.
    augment: random crop and flip.
    regions: source of 'region'; None for batches without regions. With a source
      that cycles through n patterns, n epochs show each photograph with each
      pattern once.
  """
  batch_size: int
  image_size: int
  augment: augment_lib.Augment = dataclasses.field(
      default_factory=augment_lib.Augment)
  regions: region_sources.RegionSource | None = None


def num_eval_batches(size: int, batch_size: int) -> int:
  """Number of batches in an evaluation, including the padded last one."""
  return -(-size // batch_size)


def train_batch(photos: Source | Screen, spec: TrainSpec, seed: int, step: int,
                *, shard: tuple[int, int] = (0, 1)) -> Batch:
  """Loads the training batch of one step.

  `train_stream` yields the same batches faster; this function serves to look at
  a single batch. Batches run on over the end of an epoch. A photograph that the
  screen leaves out is replaced by the next one in the source, so there is no
  padding.

  Args:
    photos: the photographs. With a Source, an unreadable photograph is an
      error; a Screen can skip it.
    spec: sizes and augmentation.
    seed: seed of the order and the augmentation, at least 0.
    step: at least 0.
    shard: (number of the shard, number of shards), for example
      (jax.process_index(), jax.process_count()). A shard is a contiguous part
      of the global batch.

  Returns:
    A batch of batch_size / shards photographs.

  Raises:
    UnreadablePhoto: a photograph cannot be read, and the screen does not skip
      unreadable photographs.
    SourceError: no photograph can be used.
    ValueError: a size is below 1, there is no such shard, or the batch cannot
      be divided evenly.
  """
  return engines.load_batch(_train_plan(photos, spec, seed, step, None, shard),
                            step)


def train_stream(photos: Source | Screen, spec: TrainSpec, seed: int, *,
                 start_step: int = 0, num_steps: int | None = None,
                 shard: tuple[int, int] = (0, 1), engine: str = 'auto',
                 num_threads: int | None = None, prefetch: int = 2
                 ) -> BatchStream:
  """Loads the batches of consecutive training steps ahead of time.

  Args:
    photos: as in `train_batch`.
    spec: as in `train_batch`.
    seed: as in `train_batch`.
    start_step: first step; nothing before it is read.
    num_steps: number of batches, None for an endless stream.
    shard: as in `train_batch`.
    engine: 'threads', 'tf.data' or 'auto', see engines.stream. All give the
      same batches.
    num_threads: photographs decoded at the same time, by default one per
      processor.
    prefetch: number of batches to load ahead.

  Returns:
    The stream of what `train_batch` returns; the caller must close it. It
    raises the same errors.

  Raises:
    ValueError: as in `train_batch` and `engines.stream`.
  """
  stop = None if num_steps is None else start_step + num_steps
  plan = _train_plan(photos, spec, seed, start_step, stop, shard)
  return engines.stream(
      plan, engine=engine, num_threads=num_threads, prefetch=prefetch,
      prefers_tf_data=_screen(photos).source.prefers_tf_data)


def eval_stream(photos: Source | Screen, *, batch_size: int, image_size: int,
                fit: str = 'crop',
                regions: region_sources.RegionSource | None = None,
                indices: Sequence[int] | None = None,
                shard: tuple[int, int] = (0, 1), engine: str = 'auto',
                num_threads: int | None = None, prefetch: int = 2
                ) -> BatchStream:
  """Loads every photograph once, in the order of the source, or a selection.

  The last batch is filled up with padding rows: zeros, padding_mask 0, index
  -1. A photograph that the screen leaves out becomes a padding row too.

  Args:
    photos: as in `train_batch`.
    batch_size: rows in the global batch, over all shards.
    image_size: side of the square images, in pixels.
    fit: 'crop' or 'squash', see augment.fit_square.
    regions: source of 'region', None for batches without regions. A photograph
      has the same region in every evaluation.
    indices: indices in the source of the selected photographs, in the order
      wanted; None for all.
    shard: as in `train_batch`.
    engine: as in `train_stream`.
    num_threads: as in `train_stream`.
    prefetch: as in `train_stream`.

  Returns:
    A stream of `num_eval_batches` batches; the caller must close it. 'index' is
    the index in the source, also for a selection. The stream raises
    UnreadablePhoto as `train_batch` does.

  Raises:
    ValueError: `fit` is not one of augment.FITS, or as in `train_stream`.
  """
  if fit not in augment_lib.FITS:
    raise ValueError(f'fit must be one of {augment_lib.FITS}, got {fit!r}')
  screen = _screen(photos)
  local_size, number_of = _sharding(batch_size, image_size, shard)
  padding = _padding(image_size, regions)
  make_row = _row_maker(screen.source, image_size, regions)

  wanted = range(screen.source.size) if indices is None else indices

  def load(number):
    place = number_of(number)
    index = wanted[place] if place < len(wanted) else -1
    pixels = screen.read(index) if index >= 0 else None
    if pixels is None:
      return padding
    height, width = pixels.shape[:2]
    return make_row(
        Reduced(pixels, (height, width)), index,
        augment_lib.fitted_view(height, width, fit), turn=index,
        draws=functools.partial(order.region_uniforms, 0, index))

  plan = engines.Plan(
      load=load, padding=padding, batch_size=local_size, start=0,
      stop=num_eval_batches(len(wanted), batch_size))
  return engines.stream(
      plan, engine=engine, num_threads=num_threads, prefetch=prefetch,
      prefers_tf_data=screen.source.prefers_tf_data)


def _train_plan(photos: Source | Screen, spec: TrainSpec, seed: int,
                start: int, stop: int | None, shard: tuple[int, int]
                ) -> engines.Plan:
  """The plan of the training batches from `start` to `stop`."""
  if seed < 0 or start < 0:
    raise ValueError(
        f'seed and step must be at least 0, got {seed} and {start}')
  screen = _screen(photos)
  local_size, number_of = _sharding(spec.batch_size, spec.image_size, shard)
  index_of = order.index_lookup(seed, screen.source.size)
  make_row = _row_maker(screen.source, spec.image_size, spec.regions)

  def load(number):
    example = number_of(number)
    draws = order.uniforms(seed, example, augment_lib.NUM_DRAWS)

    def view_of(height, width):
      return augment_lib.random_view(height, width, spec.augment, draws)

    def reduce(height, width):
      return augment_lib.reduction(view_of(height, width), spec.image_size)

    index, photograph = screen.read_reduced_from(index_of(example), reduce)
    # The turn is epoch plus index. So a batch mixes all patterns, and n epochs
    # with n patterns show each photograph with each pattern once.
    return make_row(
        photograph, index, view_of(*photograph.shape),
        turn=index + example // screen.source.size,
        draws=functools.partial(order.region_uniforms, seed, example))

  return engines.Plan(
      load=load, padding=_padding(spec.image_size, spec.regions),
      batch_size=local_size, start=start, stop=stop)


def _row_maker(source: Source, image_size: int,
               regions: region_sources.RegionSource | None
               ) -> Callable[..., Row]:
  """Returns `(photograph, index, view, *, turn, draws) -> row`; see Example."""
  make_region = regions.open(source) if regions else None

  def make_row(photograph, index, view, *, turn, draws):
    square = augment_lib.cut(photograph.pixels, view, image_size,
                             factor=photograph.factor)
    row = {'image': square, 'index': np.array(index, np.int32)}
    if make_region:
      region = make_region(region_sources.Example(
          pixels=square, index=index, photo_shape=photograph.shape, view=view,
          turn=turn, draws=draws))
      row['region'] = region[..., None].astype(np.float32)
    return row

  return make_row


def _padding(image_size: int, regions: region_sources.RegionSource | None
             ) -> Row:
  """A padding row: zeros and index -1."""
  side = (image_size, image_size)
  row: Row = {'image': np.zeros((*side, 3), np.uint8),
              'index': np.array(-1, np.int32)}
  if regions:
    row['region'] = np.zeros((*side, 1), np.float32)
  return row


def _screen(photos: Source | Screen) -> Screen:
  return photos if isinstance(photos, Screen) else Screen(photos)


def _sharding(batch_size: int, image_size: int, shard: tuple[int, int]
              ) -> tuple[int, Callable[[int], int]]:
  """Divides the global batch into shards.

  Returns:
    The batch size of the shard, and a function from the number of an example
    within the shard to its number over all shards.
  """
  which, shards = shard
  if batch_size < 1 or image_size < 1:
    raise ValueError(f'batch_size and image_size must be at least 1, got '
                     f'{batch_size} and {image_size}')
  if not 0 <= which < shards:
    raise ValueError(f'there is no shard {which} of {shards}')
  if batch_size % shards:
    raise ValueError(f'batch_size {batch_size} cannot be split evenly over '
                     f'{shards} hosts; make it a multiple of {shards}')
  local_size = batch_size // shards

  def global_number(number):
    batch, row = divmod(number, local_size)
    return batch * batch_size + which * local_size + row

  return local_size, global_number
