"""Photographs as the flags name them, and the batches that are made of them.

Every script that reads photographs does it here, so that `--data`, `--fit`,
`--min_chroma` and the like mean the same everywhere. `common` defines the
flags.
"""

import dataclasses

from absl import flags

from colorjax.data import augment, masks, pipeline, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen

FLAGS = flags.FLAGS


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
  """
  photos: Screen
  regions: masks.MaskSource | None = None

  def train(self, start: int, num_steps: int) -> BatchStream:
    """Augmented batches of step `start` and those after it; to be closed."""
    spec = pipeline.TrainSpec(
        batch_size=FLAGS.batch_size, image_size=FLAGS.image_size,
        augment=augment.Augment(scale=(FLAGS.crop_scale, 1.0)),
        regions=self.regions)
    return pipeline.train_stream(
        self.photos, spec, FLAGS.seed, start_step=start, num_steps=num_steps,
        engine=FLAGS.engine, num_threads=FLAGS.num_threads)

  def held_out(self) -> BatchStream:
    """Every photograph once, the last batch padded; to be closed."""
    return pipeline.eval_stream(
        self.photos, batch_size=FLAGS.batch_size, image_size=FLAGS.image_size,
        fit=FLAGS.fit, regions=self.regions, engine=FLAGS.engine,
        num_threads=FLAGS.num_threads)
