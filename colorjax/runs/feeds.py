"""The photographs of a training run: opened, batched and embedded."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from colorjax import hosts, parallel
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import region_sources
from colorjax.data.screening import Screen
from colorjax.data.source import SourceError
from colorjax.errors import UserError
from colorjax.runs import photographs
from colorjax.runs.options import TrainOptions
from colorjax.runs.photographs import Feed

EmbedPhotos = Callable[[Colorizer, Variables, Screen, str, pathlib.Path],
                       np.ndarray]
"""`(colorizer, variables, photos, data, workdir) -> float32 [N, E]`: the
embeddings of all N photographs. `data` is the text that names them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFeeds:
  """The batches of a run.

  Attributes:
    train: training photographs.
    validation: held-out photographs for the validation loss.
    test: held-out photographs for the final metrics.
  """
  train: Feed
  validation: Feed
  test: Feed


def open_feeds(options: TrainOptions,
               regions: region_sources.RegionSource | None,
               eval_regions: region_sources.RegionSource | None) -> RunFeeds:
  """Opens all photographs of a run.

  Args:
    options: of the run.
    regions: source of batch['region'] of training batches; None for none.
    eval_regions: the same for held-out batches; None for `regions`.

  Raises:
    UserError: the batch cannot be divided among the devices, a set of
      photographs cannot be opened, or none of its photographs can be used;
      the message names the option.
  """
  parallel.check_batch_size(options.batch_size)

  def opened(name: str, *, train: bool) -> Screen:
    photos = photographs.open_photos(
        getattr(options, name), options.photos, train=train)
    try:
      photos.read_from(0)  # Fail now, and not when training is over.
    except SourceError as error:
      raise UserError(f'{name}={error}') from error
    return photos

  seed = options.seed if options.data_seed is None else options.data_seed

  def feed(photos: Screen, regions: region_sources.RegionSource | None) -> Feed:
    return Feed(photos=photos, options=options.photos, regions=regions,
                batch_size=options.batch_size, image_size=options.image_size,
                seed=seed, crop_scale=options.crop_scale,
                shard=hosts.shard())

  train = feed(opened('data', train=True), regions)
  validation = feed(opened('eval_data', train=False), eval_regions or regions)
  if options.test_data is None:
    return RunFeeds(train=train, validation=validation, test=validation)
  test = opened('test_data', train=False)
  return RunFeeds(train=train, validation=validation,
                  test=dataclasses.replace(validation, photos=test))


def with_embeddings(feeds: RunFeeds, embed_photos: EmbedPhotos,
                    colorizer: Colorizer, variables: Variables,
                    options: TrainOptions) -> RunFeeds:
  """Adds embeddings to the batches that the loss reads, train and validation.

  Args:
    feeds: what `open_feeds` returned.
    embed_photos: computes or reads the embeddings.
    colorizer: the method.
    variables: its variables, with the frozen network of the run.
    options: of the run.
  """
  def embedded(feed: Feed, data: str) -> Feed:
    return dataclasses.replace(feed, embeddings=hosts.main_first(
        lambda: embed_photos(colorizer, variables, feed.photos, data,
                             options.directory)))

  return dataclasses.replace(
      feeds, train=embedded(feeds.train, options.data),
      validation=embedded(feeds.validation, options.eval_data))


def say_exclusions(feeds: RunFeeds) -> None:
  """Prints which photographs were left out, once for each set."""
  done: list[Screen] = []
  for field in dataclasses.fields(feeds):
    photos = getattr(feeds, field.name).photos
    if not any(photos is other for other in done):
      photographs.gather_exclusions(photos)
      photographs.say_exclusions(photos, field.name)
      done.append(photos)
