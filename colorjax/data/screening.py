"""Photographs left out: those that cannot be read and those that are grey.

Whether a photograph is left out is a function of its file alone, so it changes
nothing in the promise that a batch is a function of (seed, step).
"""

import collections
import dataclasses
import threading

import numpy as np
import skimage.color

from colorjax.data.source import Source, SourceError
from colorjax.photo import UnreadablePhoto
from colorjax.photo.square import resize

ON_BAD_IMAGE = ('fail', 'skip')
"""What to do with an unreadable photograph: stop with its error, or go on."""

_THUMBNAIL = 32


@dataclasses.dataclass(frozen=True)
class Exclusion:
  """A photograph that was left out.

  Attributes:
    label: its name.
    kind: 'unreadable' or 'grey'.
    reason: one line.
  """
  label: str
  kind: str
  reason: str


class Exclusions:
  """Which photographs of a source were left out, each once; thread-safe."""

  def __init__(self):
    """Nothing is left out yet."""
    self._by_index: dict[int, Exclusion] = {}
    self._lock = threading.Lock()

  def add(self, index: int, exclusion: Exclusion) -> None:
    """Notes that photograph `index` is left out; a second time is ignored."""
    with self._lock:
      self._by_index.setdefault(index, exclusion)

  def __len__(self) -> int:
    """How many were left out."""
    return len(self._by_index)

  def __contains__(self, index: int) -> bool:
    """Whether photograph `index` was left out."""
    return index in self._by_index

  def by_index(self) -> dict[int, Exclusion]:
    """A copy of the record in the order of the source."""
    with self._lock:
      return dict(sorted(self._by_index.items()))

  def counts(self) -> dict[str, int]:
    """How many were left out of each kind that occurred."""
    return dict(collections.Counter(
        e.kind for e in self.by_index().values()))

  def lines(self, *, most: int | None = None) -> list[str]:
    """The record for people: a line of numbers, then a line a photograph.

    Args:
      most: how many photographs to list at most, None for all of them.

    Returns:
      Lines; none if nothing was left out.
    """
    excluded = list(self.by_index().values())
    if not excluded:
      return []
    numbers = ', '.join(f'{n} {kind}' for kind, n in self.counts().items())
    listed = [f'  {e.kind}: {e.reason}' for e in excluded[:most]]
    if len(excluded) > len(listed):
      listed.append(f'  and {len(excluded) - len(listed)} more')
    return [f'photographs left out: {numbers}', *listed]


def chroma(pixels: np.ndarray) -> float:
  """How colored a photograph is: the 95th percentile of its chroma.

  Taken on a thumbnail of 32 pixels, which averages the noise of JPEG away. A
  grey photograph has about 0, a sepia print that of its paper (10 to 25: it
  does not count as grey); a percentile rather than the mean, so that a red
  boat on a grey sea counts as colored.

  Args:
    pixels: uint8 sRGB [H, W, 3].

  Returns:
    sqrt(a^2 + b^2) in Lab units.
  """
  height, width = (min(_THUMBNAIL, side) for side in pixels.shape[:2])
  ab = skimage.color.rgb2lab(resize(pixels, height, width))[..., 1:]
  return float(np.percentile(np.hypot(ab[..., 0], ab[..., 1]), 95))


class Screen:
  """A source, and the memory of which of its photographs are left out.

  Keep one for as long as the source is used: a bad file is then decoded once,
  not in every epoch and evaluation.

  Attributes:
    source: the source.
    exclusions: what has been left out so far.
  """

  def __init__(self, source: Source, *, on_bad_image: str = 'fail',
               min_chroma: float = 0.0):
    """No photograph has been looked at yet.

    Args:
      source: the photographs.
      on_bad_image: 'fail' raises the UnreadablePhoto of a photograph that
        cannot be read, 'skip' leaves it out.
      min_chroma: photographs whose `chroma` is lower are left out; 0 keeps
        all, 2 leaves out grey ones (in a sample of ImageNet 18 of 700 have
        less than 0.01, and the next has 2.3).
    """
    if on_bad_image not in ON_BAD_IMAGE:
      raise ValueError(
          f'on_bad_image is one of {ON_BAD_IMAGE}, got {on_bad_image!r}')
    self.source = source
    self.exclusions = Exclusions()
    self._skips = on_bad_image == 'skip'
    self._min_chroma = min_chroma
    self._is_colored = np.zeros(source.size, bool)

  def read(self, index: int) -> np.ndarray | None:
    """Reads a photograph.

    Args:
      index: its number in the source.

    Returns:
      uint8 [H, W, 3], or None where it is left out.

    Raises:
      UnreadablePhoto: it cannot be read and `on_bad_image` is 'fail'.
    """
    if index in self.exclusions:
      return None
    try:
      pixels = self.source.read(index)
    except UnreadablePhoto as error:
      if not self._skips:
        raise
      self._exclude(index, 'unreadable', str(error))
      return None
    if self._min_chroma > 0 and not self._is_colored[index]:
      measured = chroma(pixels)
      if measured < self._min_chroma:
        label = self.source.label(index)
        self._exclude(index, 'grey', f'{label}: chroma {measured:.1f}')
        return None
      self._is_colored[index] = True
    return pixels

  def read_from(self, index: int) -> tuple[int, np.ndarray]:
    """Reads a photograph, or in its place the next one that is not left out.

    Args:
      index: number in the source.

    Returns:
      The number of the photograph that was read, and its pixels.

    Raises:
      UnreadablePhoto: as `read`.
      SourceError: all photographs of the source are left out.
    """
    for i in range(self.source.size):
      candidate = (index + i) % self.source.size
      pixels = self.read(candidate)
      if pixels is not None:
        return candidate, pixels
    first = next(iter(self.exclusions.by_index().values()))
    raise SourceError(
        f'{self.source.name}: all {self.source.size} photographs are left out, '
        f'the first because it is {first.kind}: {first.reason}')

  def _exclude(self, index: int, kind: str, reason: str) -> None:
    label = self.source.label(index)
    self.exclusions.add(index, Exclusion(label, kind, reason))
