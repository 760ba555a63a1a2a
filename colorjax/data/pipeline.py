"""Batches of photographs for training and evaluation.

A training batch is a function of (seed, step): of the source's files, of the
spec, and of nothing that happened before. A run that is resumed, sharded over
hosts or replayed sees the same pixels, and starting at step a million costs
nothing.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSpec:
  """What a training batch looks like.

  Attributes:
    batch_size: photographs in the global batch, over all shards.
    image_size: side of the squares, in pixels.
    augment: random crop and flip.
    regions: where 'region' comes from; None for batches without it. A source
      that goes through a list shows every photograph with every entry once in
      as many epochs as the list is long.
  """
  batch_size: int
  image_size: int
  augment: augment_lib.Augment = dataclasses.field(
      default_factory=augment_lib.Augment)
  regions: region_sources.RegionSource | None = None


def steps_per_epoch(size: int, batch_size: int) -> float:
  """Steps in which every photograph comes once: not a whole number.

  Batches run on over the end of an epoch, so none is short and none is left
  out; E epochs are the first `ceil(E * steps_per_epoch)` steps.
  """
  return size / batch_size


def num_eval_batches(size: int, batch_size: int) -> int:
  """Number of batches of an evaluation, the padded last one included."""
  return -(-size // batch_size)


def train_batch(photos: Source | Screen, spec: TrainSpec, seed: int, step: int,
                *, shard: tuple[int, int] = (0, 1)) -> Batch:
  """The training batch of a step, a function of its arguments.

  Photographs that the screen leaves out are replaced by the next one in the
  source, so there is no padding.

  Args:
    photos: where photographs come from; a Source is one where a bad
      photograph is an error.
    spec: sizes and augmentation.
    seed: of the order and the augmentation, at least 0.
    step: at least 0.
    shard: (which, of how many): the contiguous part of the global batch that
      is wanted, for example (jax.process_index(), jax.process_count()).

  Returns:
    Batch of batch_size / shards photographs.

  Raises:
    UnreadablePhoto: a photograph cannot be read and the screen does not skip.
    SourceError: no photograph can be used.
    ValueError: sizes or shards that do not fit.
  """
  return engines.load_batch(_train_plan(photos, spec, seed, step, None, shard),
                            step)


def train_stream(photos: Source | Screen, spec: TrainSpec, seed: int, *,
                 start_step: int = 0, num_steps: int | None = None,
                 shard: tuple[int, int] = (0, 1), engine: str = 'auto',
                 num_threads: int | None = None, prefetch: int = 2
                 ) -> BatchStream:
  """`train_batch` of step start_step, start_step + 1, ..., loaded ahead.

  Args:
    photos: as in `train_batch`.
    spec: as in `train_batch`.
    seed: as in `train_batch`.
    start_step: first step; nothing before it is read.
    num_steps: number of batches, None for an endless stream.
    shard: as in `train_batch`.
    engine: 'threads', 'tf.data' or 'auto' (see engines.stream); all the same.
    num_threads: photographs decoded at the same time, by default one a
      processor.
    prefetch: batches loaded ahead.

  Returns:
    The stream, to be closed.
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
  """Every photograph once, in the order of the source; or some of them.

  The last batch is filled up with padding, and where the screen leaves a
  photograph out its row is padding: zeros, mask 0, index -1.

  Args:
    photos: as in `train_batch`.
    batch_size: rows in the global batch, over all shards.
    image_size: side of the squares, in pixels.
    fit: 'crop' or 'squash', see augment.fit_square.
    regions: where 'region' comes from, None for batches without it; a
      photograph has the same region in every evaluation.
    indices: numbers in the source of those that are wanted, in this order;
      None for all.
    shard: as in `train_batch`.
    engine: as in `train_stream`.
    num_threads: as in `train_stream`.
    prefetch: as in `train_stream`.

  Returns:
    A stream of `num_eval_batches` batches, to be closed; 'index' is the number
    in the source, whichever were asked for. It raises what
    `train_batch` raises, but SourceError.
  """
  if fit not in augment_lib.FITS:
    raise ValueError(f'fit is one of {augment_lib.FITS}, got {fit!r}')
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
        pixels, index, augment_lib.fitted_view(height, width, fit), turn=index,
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
  if seed < 0 or start < 0:
    raise ValueError(f'seed and step are at least 0, got {seed} and {start}')
  screen = _screen(photos)
  local_size, number_of = _sharding(spec.batch_size, spec.image_size, shard)
  index_of = order.index_lookup(seed, screen.source.size)
  make_row = _row_maker(screen.source, spec.image_size, spec.regions)

  def load(number):
    example = number_of(number)
    index, pixels = screen.read_from(index_of(example))
    height, width = pixels.shape[:2]
    view = augment_lib.random_view(
        height, width, spec.augment,
        order.uniforms(seed, example, augment_lib.NUM_DRAWS))
    # Epoch plus index: a batch holds all patterns, and in as many epochs as
    # there are patterns a photograph comes with each of them once.
    return make_row(
        pixels, index, view, turn=index + example // screen.source.size,
        draws=functools.partial(order.region_uniforms, seed, example))

  return engines.Plan(
      load=load, padding=_padding(spec.image_size, spec.regions),
      batch_size=local_size, start=start, stop=stop)


def _row_maker(source: Source, image_size: int,
               regions: region_sources.RegionSource | None
               ) -> Callable[..., Row]:
  """`(pixels, index, view, *, turn, draws) -> row`; see Example."""
  make_region = regions.open(source) if regions else None

  def make_row(pixels, index, view, *, turn, draws):
    square = augment_lib.cut(pixels, view, image_size)
    row = {'image': square, 'index': np.array(index, np.int32)}
    if make_region:
      region = make_region(region_sources.Example(
          pixels=square, index=index, photo_shape=pixels.shape[:2], view=view,
          turn=turn, draws=draws))
      row['region'] = region[..., None].astype(np.float32)
    return row

  return make_row


def _padding(image_size: int, regions: region_sources.RegionSource | None
             ) -> Row:
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
  """Size of a shard's batch, and `number in the shard -> number in all`."""
  which, shards = shard
  if batch_size < 1 or image_size < 1:
    raise ValueError(f'batch_size and image_size are at least 1, got '
                     f'{batch_size} and {image_size}')
  if not 0 <= which < shards:
    raise ValueError(f'there is no shard {which} of {shards}')
  if batch_size % shards:
    raise ValueError(f'batch_size {batch_size} cannot be split over {shards} '
                     f'hosts evenly; make it a multiple of {shards}')
  local_size = batch_size // shards

  def number_in_all(number):
    batch, row = divmod(number, local_size)
    return batch * batch_size + which * local_size + row

  return local_size, number_in_all
