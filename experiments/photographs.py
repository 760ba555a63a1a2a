"""Photographs as the flags name them, and the batches that are made of them.

Every script that reads photographs does it here, so that `--data`, `--fit`,
`--min_chroma` and the like mean the same everywhere. `common` defines the
flags.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import flags

from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.data import augment, embeddings, masks, pipeline, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.evaluation import catalogue, measuring, region_figures
from colorjax.evaluation.answers import AnswerFn
from colorjax.metrics.bootstrap import Interval

FLAGS = flags.FLAGS

_SOME_PHOTOS = 1024  # enough for the mean of a few numbers


def open_photos(text: str, *, train: bool) -> Screen:
  """The photographs that a `--data` flag names.

  Args:
    text: value of the flag.
    train: whether the training part is meant where none is named.

  Returns:
    The photographs, held in memory if they fit. UserError where there are
    none.
  """
  source = sources.parse(text, train=train, data_dir=FLAGS.data_dir)
  return Screen(sources.in_memory(source), min_chroma=FLAGS.min_chroma,
                on_bad_image=FLAGS.on_bad_image)


def say_exclusions(photos: Screen, name: str) -> None:
  """Prints how many of the photographs were left out, and which."""
  if photos.exclusions:
    print(f'{name}: {len(photos.exclusions)} photographs left out')
    print('\n'.join(photos.exclusions.lines(most=20)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
  """Batches of one set of photographs, with all that a method asks for.

  Attributes:
    photos: the photographs.
    regions: where batch['region'] comes from, None for batches without it.
    embeddings: a row for each of the photographs, float32 [N, E], where
      batch['embedding'] comes from; None for batches without it.
  """
  photos: Screen
  regions: masks.MaskSource | None = None
  embeddings: np.ndarray | None = None

  def train(self, start: int, num_steps: int) -> BatchStream:
    """Augmented batches of step `start` and those after it; to be closed."""
    spec = pipeline.TrainSpec(
        batch_size=FLAGS.batch_size, image_size=FLAGS.image_size,
        augment=augment.Augment(scale=(FLAGS.crop_scale, 1.0)),
        regions=self.regions)
    return self._with_embeddings(pipeline.train_stream(
        self.photos, spec, FLAGS.seed, start_step=start, num_steps=num_steps,
        engine=FLAGS.engine, num_threads=FLAGS.num_threads))

  def held_out(self) -> BatchStream:
    """Every photograph once, the last batch padded; to be closed."""
    return self._with_embeddings(pipeline.eval_stream(
        self.photos, batch_size=FLAGS.batch_size,
        image_size=FLAGS.image_size, fit=FLAGS.fit,
        regions=self.regions, engine=FLAGS.engine,
        num_threads=FLAGS.num_threads))

  def _with_embeddings(self, stream: BatchStream) -> BatchStream:
    if self.embeddings is None:
      return stream
    return embeddings.attach(stream, self.embeddings)

  def mean_colour(self) -> np.ndarray:
    """Mean ab [2] of about a thousand augmented photographs, Lab units."""
    return measuring.mean_colour(self._some())

  def mean_of(self, statistic: Callable[[jax.Array], jax.Array]) -> np.ndarray:
    """`measuring.mean_of` about a thousand augmented photographs."""
    return measuring.mean_of(statistic, self._some())

  def _some(self) -> Iterator[Batch]:
    some = min(self.photos.source.size, _SOME_PHOTOS)
    with self.train(0, -(-some // FLAGS.batch_size)) as stream:
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
        {name: batch[name] for name in ('image', 'mask', 'index')}
        for batch in stream)))


def measure_regions(colorizer: Colorizer, variables: Variables, feed: Feed,
                    spec: str) -> dict[str, Interval]:
  """How a method heeds regions, on held-out photographs.

  Args:
    colorizer: a method with `predict_within`.
    variables: its checkpoint.
    feed: the held-out photographs.
    spec: the regions, as `masks.parse` understands them.

  Returns:
    By the names of `region_figures.REGION_FIGURES`.
  """
  figures = jax.jit(region_figures.per_region(colorizer))
  feed = dataclasses.replace(feed, regions=masks.parse(spec))
  with feed.held_out() as stream:
    return region_figures.summarize(measuring.collect(
        lambda batch: figures(variables, {
            name: batch[name] for name in ('image', 'mask', 'region')}),
        stream))


def some_images(photos: Screen, wanted: int, image_size: int) -> np.ndarray:
  """Some photographs, spread over the source, as uint8 squares.

  Args:
    photos: the photographs.
    wanted: how many; fewer if there are no more.
    image_size: side of the squares.
  """
  wanted = min(wanted, photos.source.size)
  # A folder is sorted by class: its head alone would be one kind of thing.
  chosen = np.linspace(0, photos.source.size - 1, wanted).round().astype(int)
  return np.stack([
      augment.fit_square(pixels, image_size, FLAGS.fit)
      for index in chosen if (pixels := photos.read(int(index))) is not None])
