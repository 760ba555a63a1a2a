"""A source of photographs: a record of functions of an index.

Photographs may come from arrays, files or TFDS. The pipeline sees only numbered
photographs that can be read in any order. This random access makes a batch a
function of (seed, step).
"""

import bisect
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from colorjax import photo
from colorjax.errors import UserError


class SourceError(UserError):
  """The requested photographs are not available; one line, says what to do."""


class Stamp(NamedTuple):
  """What is known of a photograph without reading its pixels.

  Attributes:
    content: a text that changes when the photograph is replaced by another one,
      for example its name and the size of its file.
    modified: when its file was last modified. A copy of the same photograph may
      have another time. Empty if unknown.
  """
  content: str = ''
  modified: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Numbered photographs.

  Attributes:
    name: name of the source in messages, for example `folder:photos`.
    size: number of photographs, including unreadable ones; at least 1.
    read: `index -> uint8 sRGB [H, W, 3]`, 0 <= index < size. Raises
      photo.UnreadablePhoto. It is called from many threads; callers must not
      modify the result.
    read_reduced: `(index, reduce) -> photo.Reduced`, the photograph at a
      resolution that may be lower, see `photo.read_reduced`; None if the source
      has only full resolution.
    label: `index -> str`, the name of the photograph's file or a substitute.
    stamp: `index -> Stamp`, to detect changes. It must be quick and read no
      pixels.
    first: `index -> int`, the first index of the same photograph; another one
      than `index` only if the source repeats photographs.
    prefers_tf_data: whether `engine='auto'` uses tf.data.

  Raises:
    SourceError: `size` is below 1.
  """
  name: str
  size: int
  read: Callable[[int], np.ndarray]
  label: Callable[[int], str]
  read_reduced: Callable[[int, photo.Reduce], photo.Reduced] | None = None
  stamp: Callable[[int], Stamp] = lambda index: Stamp()
  first: Callable[[int], int] = lambda index: index
  prefers_tf_data: bool = False

  def __post_init__(self):
    """Checks the size."""
    if self.size < 1:
      raise SourceError(f'{self.name} holds no photographs')


def from_arrays(images: np.ndarray | Sequence[np.ndarray], *,
                labels: Sequence[str] | None = None, name: str = 'arrays'
                ) -> Source:
  """Makes a source of photographs in memory, without copying them.

  Args:
    images: uint8 sRGB, [N, H, W, 3] or N arrays [H, W, 3] of any sizes.
    labels: N names, by default `name[i]`.
    name: name of the source in messages.

  Returns:
    The source.

  Raises:
    SourceError: an image has another dtype or shape, there are no images, or
      the number of labels is not N.
  """
  for i, image in enumerate(images):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 \
        or not image.size:
      raise SourceError(
          f'{name}[{i}] must be uint8 [H, W, 3], got {image.dtype} '
          f'{list(image.shape)}')
  if labels is not None and len(labels) != len(images):
    raise SourceError(f'{name}: {len(labels)} labels for {len(images)} images')

  def label(index):
    return f'{name}[{index}]' if labels is None else labels[index]

  def stamp(index):
    return Stamp(hashlib.sha256(images[index].tobytes()).hexdigest())

  return Source(name=name, size=len(images), read=lambda i: images[i],
                label=label, stamp=stamp)


def concatenate(sources: Sequence[Source], *,
                repeats: Sequence[int] | None = None) -> Source:
  """Joins several sources, so that one run trains on all of them.

  Repeating a small source makes its photographs more frequent: an epoch shows
  each of them as often as it is repeated.

  Args:
    sources: the sources, at least one.
    repeats: how often each source occurs, at least 1 each; by default once.

  Returns:
    A source with the photographs of the first source, as often as it is
    repeated, then those of the second, and so on. Their labels stay.

  Raises:
    ValueError: there are no sources, a number of repeats is below 1, or there
      are not as many as sources.
  """
  repeats = [1] * len(sources) if repeats is None else list(repeats)
  if not sources or len(repeats) != len(sources) or min(repeats) < 1:
    raise ValueError(f'{len(sources)} sources cannot be repeated {repeats} '
                     'times')
  ends = np.cumsum([source.size * times for source, times
                    in zip(sources, repeats, strict=True)]).tolist()

  def find(index):
    which = bisect.bisect_right(ends, index)
    start = ends[which - 1] if which else 0
    return sources[which], (index - start) % sources[which].size, start

  def read(index):
    source, inner, _ = find(index)
    return source.read(inner)

  def read_reduced(index, reduce):
    source, inner, _ = find(index)
    if source.read_reduced:
      return source.read_reduced(inner, reduce)
    pixels = source.read(inner)
    return photo.Reduced(pixels, pixels.shape[:2])

  def label(index):
    source, inner, _ = find(index)
    return source.label(inner)

  def stamp(index):
    source, inner, _ = find(index)
    return source.stamp(inner)

  def first(index):
    source, inner, start = find(index)
    return start + source.first(inner)

  name = ','.join(
      source.name if times == 1 else f'{times}*{source.name}'
      for source, times in zip(sources, repeats, strict=True))
  return Source(name=name, size=ends[-1], read=read, label=label, stamp=stamp,
                first=first, read_reduced=read_reduced,
                prefers_tf_data=all(s.prefers_tf_data for s in sources))


def stamp_of_file(path: str | os.PathLike) -> Stamp:
  """Size and modification time of a file, or the error message of `stat`."""
  try:
    status = os.stat(path)
  except OSError as error:
    return Stamp(error.strerror or type(error).__name__)
  return Stamp(f'{status.st_size} bytes', f'{status.st_mtime_ns} ns')


def in_memory(source: Source, *, max_bytes: int = 2**30) -> Source:
  """Caches the decoded photographs of a source in memory.

  For small data sets: photographs that no longer fit into `max_bytes` are
  decoded each time.

  Args:
    source: any source.
    max_bytes: memory for pixels; the default is 1 GiB.

  Returns:
    A source whose `read` returns the same pixels.
  """
  cached: dict[int, np.ndarray] = {}
  lock = threading.Lock()
  free_bytes = max_bytes

  def read(index):
    nonlocal free_bytes
    index = source.first(index)
    pixels = cached.get(index)
    if pixels is None:
      pixels = source.read(index)
      with lock:
        if index not in cached and pixels.nbytes <= free_bytes:
          free_bytes -= pixels.nbytes
          cached[index] = pixels
    return pixels

  return dataclasses.replace(source, read=read, read_reduced=None)
