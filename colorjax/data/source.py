"""A source of photographs: a record of functions over indices.

Whatever photographs come from (arrays, files, TFDS), the pipeline sees numbered
photographs that can be read in any order: random access is what makes a batch
a function of (seed, step).
"""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np

from colorjax.errors import UserError


class SourceError(UserError):
  """Photographs that cannot be had as asked; one line that says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Numbered photographs.

  Attributes:
    name: what messages call the whole, for example `folder:photos`.
    size: number of photographs, at least 1; those that turn out unreadable
      are counted too.
    read: `index -> uint8 sRGB [H, W, 3]`, 0 <= index < size; the result is not
      to be written to. Raises photo.UnreadablePhoto. Called from many threads.
    label: `index -> str`, the file's name or what comes nearest to it.
    stamp: `index -> str` that changes when the photograph of this number does:
      its name and the size and time of its file, for example. It must be quick
      and reads no pixels. Empty where nothing is known.
    prefers_tf_data: whether `engine='auto'` feeds it through tf.data.
  """
  name: str
  size: int
  read: Callable[[int], np.ndarray]
  label: Callable[[int], str]
  stamp: Callable[[int], str] = lambda index: ''
  prefers_tf_data: bool = False

  def __post_init__(self):
    """Refuses an empty source."""
    if self.size < 1:
      raise SourceError(f'{self.name} holds no photographs')


def from_arrays(images: np.ndarray | Sequence[np.ndarray], *,
                labels: Sequence[str] | None = None, name: str = 'arrays'
                ) -> Source:
  """A source over photographs in memory; they are not copied.

  Args:
    images: uint8 sRGB, [N, H, W, 3] or N arrays [H, W, 3] of any sizes.
    labels: N names, by default `name[i]`.
    name: what messages call the whole.

  Returns:
    The source.

  Raises:
    SourceError: another dtype or shape, no images, or other than N labels.
  """
  for i, image in enumerate(images):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 \
        or not image.size:
      raise SourceError(
          f'{name}[{i}] has to be uint8 [H, W, 3], got {image.dtype} '
          f'{list(image.shape)}')
  if labels is not None and len(labels) != len(images):
    raise SourceError(f'{name}: {len(labels)} labels for {len(images)} images')

  def label(index):
    return f'{name}[{index}]' if labels is None else labels[index]

  def stamp(index):
    return hashlib.sha256(images[index].tobytes()).hexdigest()

  return Source(name=name, size=len(images), read=lambda i: images[i],
                label=label, stamp=stamp)


def stamp_of_file(path: str | os.PathLike) -> str:
  """Size and time of a file; why they cannot be had where they cannot."""
  try:
    status = os.stat(path)
  except OSError as error:
    return error.strerror or type(error).__name__
  return f'{status.st_size} bytes, {status.st_mtime_ns} ns'


def in_memory(source: Source, *, max_bytes: int = 2**30) -> Source:
  """The same source, keeping decoded photographs in memory.

  For small sets: photographs are kept as they are read until the budget is
  full, later ones are decoded each time.

  Args:
    source: any source.
    max_bytes: budget for pixels; the default is 1 GiB.

  Returns:
    A source whose `read` gives the same pixels.
  """
  kept: dict[int, np.ndarray] = {}
  lock = threading.Lock()
  room = max_bytes

  def read(index):
    nonlocal room
    pixels = kept.get(index)
    if pixels is None:
      pixels = source.read(index)
      with lock:
        if index not in kept and pixels.nbytes <= room:
          room -= pixels.nbytes
          kept[index] = pixels
    return pixels

  return dataclasses.replace(source, read=read)
