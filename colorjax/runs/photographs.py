"""Sets of photographs by name, and the batches that are made of them.

Every run that reads photographs does it here, so that a set's name and the
options of reading mean the same everywhere.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import numpy as np

from colorjax import hosts
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.data import augment, embeddings, pipeline, region_sources, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Exclusion, Screen
from colorjax.evaluation import catalogue, measuring, region_metrics
from colorjax.evaluation.answers import AnswerFn
from colorjax.metrics.bootstrap import Interval

_SOME_PHOTOS = 1024  # enough for the mean of a few numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoOptions:
  """How photographs are read.

  Attributes:
    data_dir: where TFDS keeps prepared data sets; None for its own default.
    fit: how a held-out photograph becomes a square: 'crop' takes its center,
      'squash' changes its proportions.
    on_bad_image: 'skip' leaves out files that cannot be read and counts them,
      'fail' stops at the first one.
    min_chroma: photographs whose chroma stays below this are left out, in Lab
      units; 0 keeps all.
    engine: of the input pipeline: 'auto', 'threads' or 'tf.data'.
    num_threads: threads that read photographs; None for one a processor.
  """
  data_dir: str | None = None
  fit: Literal['crop', 'squash'] = 'crop'
  on_bad_image: Literal['skip', 'fail'] = 'skip'
  min_chroma: float = 0.0
  engine: Literal['auto', 'threads', 'tf.data'] = 'auto'
  num_threads: int | None = None


def open_photos(text: str, options: PhotoOptions, *, train: bool) -> Screen:
  """Opens a set of photographs.

  Args:
    text: which photographs, as `sources.parse` understands it.
    options: how they are read.
    train: whether the training part is meant where none is named.

  Returns:
    The photographs, held in memory if they fit.

  Raises:
    UserError: there are none.
  """
  source = sources.parse(text, train=train, data_dir=options.data_dir)
  return Screen(sources.in_memory(source), min_chroma=options.min_chroma,
                on_bad_image=options.on_bad_image)


def say_exclusions(photos: Screen, name: str) -> None:
  """Prints how many of the photographs were left out, and which."""
  if photos.exclusions:
    print(f'{name}: {len(photos.exclusions)} photographs left out')
    print('\n'.join(photos.exclusions.lines(most=20)))


def gather_exclusions(photos: Screen) -> None:
  """Tells each process what the others have left out; all have to call it.

  Each has read only its share.
  """
  for found in hosts.gather([
      [number, dataclasses.astuple(one)]
      for number, one in photos.exclusions.by_index().items()]):
    for number, values in found:
      photos.exclusions.add(number, Exclusion(*values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
  """Batches of one set of photographs, with all that a method asks for.

  Attributes:
    photos: the photographs.
    options: how they are read.
    batch_size: photographs a batch, over all devices.
    image_size: side of the squares, in pixels.
    seed: of the order and the crops of training batches.
    crop_scale: least share of the area that a random training crop takes.
    regions: where batch['region'] comes from, None for batches without it.
    shard: (which, of how many): the part of each batch that this process
      reads.
    embeddings: a row for each of the photographs, float32 [N, E], where
      batch['embedding'] comes from; None for batches without it.
  """
  photos: Screen
  options: PhotoOptions
  batch_size: int
  image_size: int
  seed: int = 0
  crop_scale: float = 0.5
  regions: region_sources.RegionSource | None = None
  embeddings: np.ndarray | None = None
  shard: tuple[int, int] = (0, 1)

  def whole(self) -> 'Feed':
    """The same with whole batches on this process."""
    return dataclasses.replace(self, shard=(0, 1))

  def train(self, start: int, num_steps: int) -> BatchStream:
    """Augmented batches of step `start` and those after it; to be closed."""
    spec = pipeline.TrainSpec(
        batch_size=self.batch_size, image_size=self.image_size,
        augment=augment.Augment(scale=(self.crop_scale, 1.0)),
        regions=self.regions)
    return self._with_embeddings(pipeline.train_stream(
        self.photos, spec, self.seed, start_step=start, num_steps=num_steps,
        shard=self.shard, engine=self.options.engine,
        num_threads=self.options.num_threads))

  def held_out(self) -> BatchStream:
    """Every photograph once, the last batch padded; to be closed."""
    return self._with_embeddings(pipeline.eval_stream(
        self.photos, batch_size=self.batch_size,
        image_size=self.image_size, fit=self.options.fit,
        regions=self.regions, shard=self.shard, engine=self.options.engine,
        num_threads=self.options.num_threads))

  def _with_embeddings(self, stream: BatchStream) -> BatchStream:
    if self.embeddings is None:
      return stream
    return embeddings.attach(stream, self.embeddings)

  def mean_color(self) -> np.ndarray:
    """Mean ab [2] of about a thousand augmented photographs, Lab units."""
    return measuring.mean_color(self._some())

  def mean_of(self, statistic: Callable[[jax.Array], jax.Array]) -> np.ndarray:
    """`measuring.mean_of` about a thousand augmented photographs."""
    return measuring.mean_of(statistic, self._some())

  def _some(self) -> Iterator[Batch]:
    some = min(self.photos.source.size, _SOME_PHOTOS)
    with self.whole().train(0, -(-some // self.batch_size)) as stream:
      yield from stream


def measure(answer: AnswerFn, variables: Variables, feed: Feed
            ) -> dict[str, Interval]:
  """Held-out figures with their intervals.

  Args:
    answer: what is judged, see `evaluation.answers`.
    variables: its checkpoint.
    feed: the held-out photographs.

  Returns:
    By the names of `catalogue.METRICS`.
  """
  run = measuring.compiled(answer, variables)
  with feed.held_out() as stream:
    return catalogue.summarize(measuring.collect(run, (
        {name: batch[name] for name in ('image', 'padding_mask', 'index')}
        for batch in stream), shared=feed.shard[1] > 1))


def measure_regions(colorizer: Colorizer, variables: Variables, feed: Feed,
                    spec: str) -> dict[str, Interval]:
  """How a method heeds regions, on held-out photographs.

  Args:
    colorizer: a method with `predict_within`.
    variables: its checkpoint.
    feed: the held-out photographs.
    spec: the regions, as `region_sources.parse` understands them.

  Returns:
    By the names of `region_metrics.REGION_FIGURES`.
  """
  figures = jax.jit(region_metrics.per_region(colorizer))
  feed = dataclasses.replace(feed, regions=region_sources.parse(spec))
  with feed.held_out() as stream:
    return region_metrics.summarize(measuring.collect(
        lambda batch: figures(variables, {
            name: batch[name] for name in ('image', 'padding_mask', 'region')}),
        stream))


def some_images(photos: Screen, wanted: int, image_size: int, fit: str
                ) -> np.ndarray:
  """Some photographs, spread over the source, as uint8 squares.

  Args:
    photos: the photographs.
    wanted: how many; fewer if there are no more. In the place of one that is
      left out stands the next that is not.
    image_size: side of the squares.
    fit: see PhotoOptions.

  Raises:
    UserError: all photographs are left out.
  """
  wanted = min(wanted, photos.source.size)
  # A folder is sorted by class: its head alone would be one kind of thing.
  chosen = np.linspace(0, photos.source.size - 1, wanted).round().astype(int)
  found = dict(photos.read_from(int(index)) for index in chosen)
  return np.stack([augment.fit_square(pixels, image_size, fit)
                   for _, pixels in sorted(found.items(), key=lambda x: x[0])])
