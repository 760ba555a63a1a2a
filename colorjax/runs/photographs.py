"""Opens sets of photographs by name and makes batches of them.

All runs read photographs through this module, so that the name of a set and the
options of reading mean the same everywhere.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
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

_SAMPLE_SIZE = 1024  # photographs; enough for a mean color or histogram


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoOptions:
  """How photographs are read.

  Attributes:
    data_dir: folder of prepared TFDS data sets; None for the default of TFDS.
    fit: how a held-out photograph becomes a square: 'crop' takes its center,
      'squash' changes its aspect ratio.
    on_bad_image: 'skip' leaves out files that cannot be read and counts them,
      'fail' stops at the first one.
    min_chroma: photographs whose `data.screening.chroma` is lower are left
      out, in Lab units; 0 keeps all.
    engine: engine of the input pipeline: 'auto', 'threads' or 'tf.data'.
    num_threads: number of threads that read photographs; None for one per
      processor.
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
    text: which photographs, in the form of `sources.parse`.
    options: how they are read.
    train: whether to use the training part if `text` names no part.

  Returns:
    The photographs, kept in memory if they fit.

  Raises:
    UserError: the set does not exist or is empty.
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
  """Tells each process which photographs the others left out.

  Each process has read only its own share. All processes must call this.
  """
  for found in hosts.gather([
      [number, dataclasses.astuple(one)]
      for number, one in photos.exclusions.by_index().items()]):
    for number, values in found:
      photos.exclusions.add(number, Exclusion(*values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
  """Batches of one set of photographs, with the inputs that a method accepts.

  Attributes:
    photos: the photographs.
    options: how they are read.
    batch_size: photographs per batch, over all devices.
    image_size: side of the squares, in pixels.
    seed: seed of the order and the crops of training batches.
    crop_scale: smallest fraction of the area that a random training crop
      covers.
    regions: source of batch['region']; None for batches without it.
    shard: (index, count) of the shares of a batch; this process reads share
      `index`.
    embeddings: source of batch['embedding'], a row for each photograph,
      float32 [N, E]; None for batches without it.
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
    """The same feed, with whole batches in this process."""
    return dataclasses.replace(self, shard=(0, 1))

  def train(self, start: int, num_steps: int) -> BatchStream:
    """Returns a stream of augmented training batches; the caller closes it.

    Args:
      start: step of the first batch, counted from 0.
      num_steps: number of batches.
    """
    spec = pipeline.TrainSpec(
        batch_size=self.batch_size, image_size=self.image_size,
        augment=augment.Augment(scale=(self.crop_scale, 1.0)),
        regions=self.regions)
    return self._with_embeddings(pipeline.train_stream(
        self.photos, spec, self.seed, start_step=start, num_steps=num_steps,
        shard=self.shard, engine=self.options.engine,
        num_threads=self.options.num_threads))

  def held_out(self) -> BatchStream:
    """Returns a stream with every photograph once; the caller closes it.

    The last batch is padded.
    """
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
    """Mean ab [2] of about 1000 augmented photographs, Lab units."""
    return measuring.mean_color(self._sample())

  def mean_of(self, statistic: Callable[[jax.Array], jax.Array]) -> np.ndarray:
    """Mean of a statistic over about 1000 augmented photographs.

    Args:
      statistic: as in `measuring.mean_of`.
    """
    return measuring.mean_of(statistic, self._sample())

  def _sample(self) -> Iterator[Batch]:
    size = min(self.photos.source.size, _SAMPLE_SIZE)
    with self.whole().train(0, -(-size // self.batch_size)) as stream:
      yield from stream


def measure(answer: AnswerFn, models: Sequence[Variables], feed: Feed
            ) -> list[dict[str, Interval]]:
  """Measures models of one method on held-out photographs.

  Args:
    answer: computes the method's colorings, see `evaluation.answers`.
    models: variables of each model.
    feed: the held-out photographs.

  Returns:
    For each model, mean and interval of each metric, by the names of
    `catalogue.METRICS`.
  """
  summaries = []
  for run in measuring.compiled_each(answer, models):
    with feed.held_out() as stream:
      summaries.append(catalogue.summarize(measuring.collect(run, (
          {name: batch[name] for name in ('image', 'padding_mask', 'index')}
          for batch in stream), shared=feed.shard[1] > 1)))
  return summaries


def measure_regions(colorizer: Colorizer, models: Sequence[Variables],
                    feed: Feed, spec: str) -> list[dict[str, Interval]]:
  """Measures how well models respect regions, on held-out photographs.

  Args:
    colorizer: a method that accepts 'region'.
    models: variables of each model.
    feed: the held-out photographs.
    spec: the regions, in the form of `region_sources.parse`.

  Returns:
    For each model, mean and interval of each metric, by the names of
    `region_metrics.REGION_METRICS`.
  """
  metrics = jax.jit(region_metrics.per_region(colorizer))
  feed = dataclasses.replace(feed, regions=region_sources.parse(spec))

  def of_model(variables: Variables) -> dict[str, Interval]:
    with feed.held_out() as stream:
      return region_metrics.summarize(measuring.collect(
          lambda batch: metrics(variables, {
              name: batch[name]
              for name in ('image', 'padding_mask', 'region')}),
          stream))

  return [of_model(variables) for variables in models]


def some_images(photos: Screen, count: int, image_size: int, fit: str
                ) -> np.ndarray:
  """Reads a few photographs, spread evenly over the source.

  Args:
    photos: the photographs.
    count: how many; fewer if there are no more. A photograph that is left out
      is replaced by the next one that is not.
    image_size: side S of the squares, in pixels.
    fit: as in PhotoOptions.

  Returns:
    uint8 sRGB [N, S, S, 3].

  Raises:
    UserError: all photographs are left out.
  """
  count = min(count, photos.source.size)
  # Folders are sorted by class, so the first few would all be of one class.
  chosen = np.linspace(0, photos.source.size - 1, count).round().astype(int)
  found = dict(photos.read_from(int(index)) for index in chosen)
  return np.stack([augment.fit_square(pixels, image_size, fit)
                   for _, pixels in sorted(found.items(), key=lambda x: x[0])])
