"""Embeddings of a run's photographs: cached on disk, and shown as classes."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from colorjax import backbones, color
from colorjax.colorizer import FROZEN, Colorizer, Variables
from colorjax.data import embeddings
from colorjax.data.screening import Screen
from colorjax.methods.fusion import BACKBONE
from colorjax.runs import run_report
from colorjax.runs.photographs import PhotoOptions

_NUM_CLASSES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedEmbeddings:
  """Reads embeddings from a cache, or computes and stores them.

  It is the argument `embed_photos` of `train.train`.

  Attributes:
    network: settings that the embeddings depend on, in addition to the
      backbone's weights; JSON values.
    photos: how photographs are read.
    image_size: side of the squares that are embedded, in pixels.
    batch_size: photographs per batch.
    directory: the cache. None: a folder beside the photographs, or one in the
      work directory if that cannot be written.
  """
  network: Mapping[str, Any]
  photos: PhotoOptions
  image_size: int
  batch_size: int
  directory: pathlib.Path | None = None

  def __call__(self, colorizer: Colorizer, variables: Variables,
               photos: Screen, data: str, workdir: pathlib.Path) -> np.ndarray:
    """Returns the embeddings of all photographs.

    Args:
      colorizer: a method with `embed`.
      variables: its variables, with the frozen network of the run.
      photos: the photographs.
      data: the text that names them.
      workdir: work directory of the run.

    Returns:
      float32 [N, E], see `embeddings.compute`.
    """
    assert colorizer.embed is not None
    embed = colorizer.embed
    side = self.image_size
    frozen = variables['model_state'][FROZEN][BACKBONE]
    state = {'model_state': {FROZEN: {BACKBONE: frozen}}}

    @jax.jit
    def embed_images(state, images):
      return embed(state, color.split_lightness(images)[0])

    channels = jax.eval_shape(embed, state, jax.ShapeDtypeStruct(
        (1, side, side, 1), np.float32)).shape[1]
    weights = embeddings.fingerprint(frozen)
    return embeddings.compute(
        photos, lambda batch: np.asarray(embed_images(state, batch['image'])),
        channels=channels, network={**self.network, 'weights': weights},
        directory=self._directory(data, workdir), batch_size=self.batch_size,
        image_size=side, fit=self.photos.fit, engine=self.photos.engine,
        num_threads=self.photos.num_threads)

  def _directory(self, data: str, workdir: pathlib.Path) -> pathlib.Path:
    if self.directory is not None:
      return self.directory
    beside = embeddings.beside(data, data_dir=self.photos.data_dir)
    if beside is not None and embeddings.is_writable(beside):
      return beside
    return workdir / 'embeddings'


def class_titles(kind: str, class_names: pathlib.Path | None
                 ) -> run_report.RowTitles | None:
  """Makes the row titles of a report: the most probable classes.

  Args:
    kind: kind of the embedding, one of `methods.fusion.EMBEDDINGS`.
    class_names: file with Keras's table of the classes.

  Returns:
    `(colorizer, variables, images) -> titles`, 'daisy 81 %, bee 6 %, ...' for
    each photograph. None without a table, or if the embedding holds no class
    probabilities.

  Raises:
    UserError: the file is not such a table.
  """
  if class_names is None or kind not in ('logits', 'probabilities'):
    return None
  names = backbones.read_class_names(class_names)
  return functools.partial(_titles, kind, names)


def _titles(kind: str, names: Sequence[str], colorizer: Colorizer,
            variables: Variables, images: np.ndarray) -> list[str]:
  assert colorizer.embed is not None
  embedding = colorizer.embed(
      variables, color.split_lightness(jax.numpy.asarray(images))[0])
  if kind == 'logits':
    embedding = jax.nn.softmax(embedding)
  return top_classes(np.asarray(embedding), names)


def top_classes(probabilities: np.ndarray, names: Sequence[str]) -> list[str]:
  """Formats the five most probable classes of each photograph.

  Args:
    probabilities: [B, Q].
    names: names of the Q classes.

  Returns:
    'daisy 81 %, bee 6 %, ...' for each photograph.
  """
  order = np.argsort(-probabilities, axis=-1, kind='stable')[:, :_NUM_CLASSES]
  return [', '.join(f'{names[k].replace("_", " ")} {100 * row[k]:.0f} %'
                    for k in best)
          for row, best in zip(probabilities, order, strict=True)]
