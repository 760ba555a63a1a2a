"""Photographs of the test set that the training set holds too.

A photograph is told by a perceptual hash, 64 bits that hardly change when it is
resized, compressed again, made a little brighter or made grey. Two photographs
whose hashes differ in few bits are candidates; they count as near-duplicates if
their thumbnails are alike as well. Mirrored copies are found too, because
training mirrors photographs; other crops and rotations are not.

Flat pictures (a blank page, fog, an even sky) have nothing that a hash could
hold on to: its bits are then those of noise or of the compression, and agree by
chance or by construction. They are left out of the comparison and counted.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from PIL import Image

from colorjax.data import engines
from colorjax.data.progress import Progress
from colorjax.data.screening import Screen
from colorjax.data.source import Source

MAX_DISTANCE = 6
"""Pairs that differ in at most so many bits are looked at.

All hashes have 31 bits set, so distances are even. Of 234 ImageNet photographs
99 % keep within 6 bits what they lose as a JPEG of quality 30, at 64 x 64, made
brighter by 15 % or grey. Other photographs come as near by chance: of 3 * 10^8
pairs of Tiny ImageNet 3 differ in 6 bits, 28 in 8.
"""

MIN_CORRELATION = 0.8
"""Pairs whose thumbnails correlate less are another motif, near by chance.

Among the pairs that were looked at, copies with a frame or a narrower crop have
0.84 or more, chance neighbors up to 8 bits at most 0.73.
"""

MIN_CONTRAST = 4.0
"""Photographs below it are flat (see `contrast`): 2 of Tiny ImageNet's 24,982;
the least of 234 photographs of ImageNet is 9.5."""

_SIDE = 32
_LOWEST = 8
_HASHES_AT_A_TIME = 256
_COMPARISONS_AT_A_TIME = 2**22


@dataclasses.dataclass(frozen=True)
class Hashes:
  """The hashes of a source's photographs.

  Attributes:
    photos: the photographs.
    index: int32 [M], numbers in the source of those that are compared.
    plain: uint64 [M], the hash of each.
    mirrored: uint64 [M], the hash of its mirror image.
    flat: int32 [F], numbers of the flat ones, which are not compared.
  """
  photos: Screen
  index: np.ndarray
  plain: np.ndarray
  mirrored: np.ndarray
  flat: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
  """A photograph of the test set and one of the training set, nearly equal.

  Attributes:
    test_index: number in the test set.
    test_label: its name.
    train_index: number in the training set.
    train_label: its name.
    distance: bits in which their hashes differ.
    correlation: of their thumbnails' luma, at most 1.
    is_mirrored: whether the one is the other's mirror image.
  """
  test_index: int
  test_label: str
  train_index: int
  train_label: str
  distance: int
  correlation: float
  is_mirrored: bool


def perceptual_hash(pixels: np.ndarray) -> np.uint64:
  """The DCT hash of a photograph ("pHash"; Zauner 2010).

  Luma is reduced to 32 x 32, transformed by the orthonormal DCT-II, and each of
  the 8 x 8 lowest frequencies gives a bit: whether it is above the median of
  the 63 without the constant one. The constant one tells brightness alone, so
  its bit is 0 and it does not take part in the median.

  Args:
    pixels: uint8 sRGB [H, W, 3].

  Returns:
    64 bits, vertical frequencies outermost, the first in the highest bit.
  """
  return _bits(_spectrum(pixels))


def contrast(pixels: np.ndarray) -> float:
  """How much there is for `perceptual_hash` to hold on to.

  Args:
    pixels: uint8 sRGB [H, W, 3].

  Returns:
    Standard deviation of what the hash's frequencies show, in grey levels of
    255: 0 for an even picture, typically 20 to 60 for a photograph.
  """
  return _contrast(_spectrum(pixels))


def compute(photos: Source | Screen, *, num_threads: int | None = None,
            report: Callable[[str], None] = print) -> Hashes:
  """The hashes of all photographs.

  Args:
    photos: the photographs; those that the screen leaves out have none.
    num_threads: photographs decoded at the same time, by default one a
      processor.
    report: is told of progress, a line at a time.

  Returns:
    The hashes.

  Raises:
    UnreadablePhoto: a photograph cannot be read and the screen does not skip.
  """
  screen = photos if isinstance(photos, Screen) else Screen(photos)
  size = screen.source.size
  plan = engines.Plan(
      load=functools.partial(_row, screen), padding=_PADDING,
      batch_size=_HASHES_AT_A_TIME, start=0, stop=-(-size // _HASHES_AT_A_TIME))
  progress = Progress(screen.source.name, size, 'hashes', report)
  batches = []
  with engines.stream(plan, engine='threads', num_threads=num_threads) as rows:
    for batch in rows:
      batches.append(batch)
      progress.add(_HASHES_AT_A_TIME)
  columns = {name: np.concatenate([batch[name] for batch in batches])
             for name in _PADDING}
  is_photo = columns['index'] >= 0
  is_flat = is_photo & (columns['contrast'] < MIN_CONTRAST)
  is_compared = is_photo & ~is_flat
  progress.finish(int(is_photo.sum()))
  return Hashes(
      screen, columns['index'][is_compared], columns['plain'][is_compared],
      columns['mirrored'][is_compared], columns['index'][is_flat])


def compare(test: Hashes, train: Hashes, *, max_distance: int = MAX_DISTANCE,
            min_correlation: float = MIN_CORRELATION) -> list[Pair]:
  """Pairs of photographs that are nearly equal.

  Compares each hash with each, a bounded number at a time: memory is that of
  the hashes and of the pairs that are found. The photographs of these are read
  once more.

  Args:
    test: of the test set.
    train: of the training set.
    max_distance: most bits in which the hashes may differ, 0 to 64.
    min_correlation: least correlation of the thumbnails.

  Returns:
    The pairs in the order of the test set, the nearest first where a
    photograph has several.
  """
  if not 0 <= max_distance <= 64:
    raise ValueError(f'max_distance is 0 to 64 bits, got {max_distance}')

  # Candidates come sorted by the photograph of the test set.
  @functools.lru_cache(maxsize=64)
  def thumbnail(photos: Screen, index: int) -> np.ndarray:
    return _thumbnail(photos.source.read(index))

  pairs = []
  for i, distance, j, is_mirrored in sorted(
      _candidates(test, train, max_distance)):
    image = thumbnail(test.photos, i)
    correlation = np.corrcoef(
        (image[:, ::-1] if is_mirrored else image).ravel(),
        thumbnail(train.photos, j).ravel())[0, 1]
    if correlation >= min_correlation:
      pairs.append(Pair(
          i, test.photos.source.label(i), j, train.photos.source.label(j),
          distance, float(correlation), is_mirrored))
  return pairs


def find(test: Source | Screen, train: Source | Screen, *,
         max_distance: int = MAX_DISTANCE, num_threads: int | None = None,
         report: Callable[[str], None] = print) -> list[Pair]:
  """Near-duplicates between two sets: `compute` of both, then `compare`.

  Args:
    test: photographs of the test set.
    train: photographs of the training set.
    max_distance: as in `compare`.
    num_threads: as in `compute`.
    report: is told of progress and, at the end, what was found.

  Returns:
    The pairs, as `compare` gives them.

  Raises:
    UnreadablePhoto: as `compute`.
  """
  hashes = [compute(photos, num_threads=num_threads, report=report)
            for photos in (test, train)]
  pairs = compare(*hashes, max_distance=max_distance)
  for line in lines(pairs, *hashes):
    report(line)
  return pairs


def lines(pairs: Sequence[Pair], test: Hashes, train: Hashes, *,
          most: int | None = 10) -> list[str]:
  """What was found, for people: a line of numbers, then a line a pair.

  Args:
    pairs: what `compare` found.
    test: of the test set.
    train: of the training set.
    most: how many pairs to list at most, None for all of them.

  Returns:
    Lines.
  """
  count = len({pair.test_index for pair in pairs})
  total = len(test.index) + len(test.flat)
  text = [f'{count} of {total} photographs of {test.photos.source.name} have a '
          f'near-duplicate in {train.photos.source.name}; not compared because '
          f'they are flat: {len(test.flat)} and {len(train.flat)}']
  text += [f'  {pair.test_label} and {pair.train_label}: '
           f'{pair.distance} bits' + ', mirrored' * pair.is_mirrored
           for pair in pairs[:most]]
  if len(pairs) > len(text) - 1:
    text.append(f'  and {len(pairs) - len(text) + 1} more')
  return text


_PADDING: engines.Row = {
    'index': np.array(-1, np.int32), 'plain': np.array(0, np.uint64),
    'mirrored': np.array(0, np.uint64), 'contrast': np.array(0, np.float32)}


def _row(screen: Screen, number: int) -> engines.Row:
  pixels = screen.read(number) if number < screen.source.size else None
  if pixels is None:
    return _PADDING
  spectrum = _spectrum(pixels)
  # Mirroring negates the frequencies that are odd in the horizontal.
  signs = np.where(np.arange(_LOWEST) % 2, -1, 1)
  return {'index': np.array(number, np.int32),
          'plain': np.array(_bits(spectrum)),
          'mirrored': np.array(_bits(spectrum * signs)),
          'contrast': np.array(_contrast(spectrum), np.float32)}


def _candidates(test: Hashes, train: Hashes, max_distance: int
                ) -> list[tuple[int, int, int, bool]]:
  """(number in test, distance, number in train, is mirrored) of near hashes."""
  found = []
  rows = max(1, _COMPARISONS_AT_A_TIME // max(1, len(test.index)))
  for start in range(0, len(train.index), rows):
    others = train.plain[None, start:start + rows]
    plain = np.bitwise_count(test.plain[:, None] ^ others)
    mirrored = np.bitwise_count(test.mirrored[:, None] ^ others)
    distance = np.minimum(plain, mirrored)
    for i, j in zip(*np.nonzero(distance <= max_distance), strict=True):
      found.append((int(test.index[i]), int(distance[i, j]),
                    int(train.index[start + j]),
                    bool(mirrored[i, j] < plain[i, j])))
  return found


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
  """Luma of the whole photograph, float64 [32, 32] in [0, 255]."""
  luma = Image.fromarray(np.ascontiguousarray(pixels)).convert('L')
  return np.asarray(
      luma.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)


def _spectrum(pixels: np.ndarray) -> np.ndarray:
  """Lowest frequencies of the luma, float64 [8, 8], the constant one first."""
  spectrum = scipy.fft.dctn(_thumbnail(pixels), norm='ortho')
  return spectrum[:_LOWEST, :_LOWEST]


def _bits(spectrum: np.ndarray) -> np.uint64:
  flat = spectrum.ravel()
  is_above = flat > np.median(flat[1:])
  is_above[0] = False
  return np.packbits(is_above).view('>u8').astype(np.uint64)[0]


def _contrast(spectrum: np.ndarray) -> float:
  # Parseval: the sum over frequencies is that over the 32 x 32 pixels.
  return float(np.sqrt((spectrum.ravel()[1:]**2).sum()) / _SIDE)
