"""The models of a studio, loaded once and shared by all sessions."""

import pathlib
import threading
from collections.abc import Mapping

from colorjax import composing, saved, zoo
from colorjax.choices import Choices
from colorjax.errors import UserError

CHECKPOINT = 'checkpoint'
"""Name of the model that the person's own checkpoint is."""


class Models:
  """Models by name; they are loaded at the first use, or by `load`."""

  def __init__(self, paths: Mapping[str, pathlib.Path], *,
               replica: int | None = None):
    """Takes the files of the models, see `saved.load`; the first is default."""
    self._paths = dict(paths)
    self._replica = replica
    self._loaded: dict[str, composing.Method] = {}
    self._lock = threading.Lock()

  @property
  def names(self) -> list[str]:
    """The names, the default first."""
    return list(self._paths)

  @property
  def is_loaded(self) -> bool:
    """Whether all models are loaded."""
    return len(self._loaded) == len(self._paths)

  @property
  def sizes(self) -> list[int]:
    """Sides of the inputs of the networks."""
    return sorted({one.image_size for one in self._loaded.values()})

  def load(self) -> None:
    """Loads all models.

    Raises:
      UserError: one cannot be loaded.
    """
    with self._lock:
      for name, path in self._paths.items():
        if name not in self._loaded:
          replica = self._replica if name == CHECKPOINT else None
          self._loaded[name] = composing.Method(
              *saved.load(path, replica=replica))

  def of(self, choices: Choices) -> composing.Method:
    """Returns the model of some choices.

    Raises:
      UserError: there is no model of this name.
    """
    name = choices.model or self.names[0]
    if name not in self._paths:
      raise UserError(
          f'model={name}: choose one of {", ".join(self._paths)}')
    if name not in self._loaded:
      self.load()
    return self._loaded[name]

  def describe(self) -> list[dict]:
    """What a page is told of the models, in JSON."""
    return [{'name': name, 'num_colorings': one.num_colorings,
             'has_seeds': not one.is_deterministic,
             'saturation': one.saturation}
            for name, one in ((name, self._loaded[name])
                              for name in self.names if name in self._loaded)]


def find(checkpoint: pathlib.Path | None = None, model: str | None = None, *,
         replica: int | None = None) -> Models:
  """Chooses the models of a studio.

  Args:
    checkpoint: a trained method of the person's own; None for those that come
      with colorjax.
    model: the only one of zoo.MODELS; None for all of them.
    replica: as in `saved.load`, for the checkpoint.

  Returns:
    The models, not loaded yet.
  """
  if checkpoint is not None:
    return Models({CHECKPOINT: checkpoint}, replica=replica)
  names = zoo.MODELS if model is None else [model]
  return Models({name: zoo.path(name) for name in names})
