"""Finds photographs of the test set that are also in the training set.

Each photograph gets a perceptual hash: 64 bits that hardly change when it is
resized, compressed again, made slightly brighter or made grey. Two photographs
whose hashes differ in only a few bits are candidates. They are near-duplicates
if their thumbnails are similar as well. Mirrored copies are found too, because
training mirrors photographs. Other crops and rotations are not found.

Flat photographs (a blank page, fog, an even sky) have too little structure for
a hash: its bits depend on noise or compression, and may agree by chance. Flat
photographs are not compared, only counted.
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
"""Largest number of different bits for a pair to be a candidate.

All hashes have 31 bits set, so distances are even. JPEG compression at quality
30, resizing to 64 x 64, 15 % more brightness or removing color changes at most
6 bits for 99 % of 234 ImageNet photographs. Different photographs are as close
only rarely: of 3 * 10^8 pairs of Tiny ImageNet, 3 differ in 6 bits and 28 in 8.
"""

MIN_CORRELATION = 0.8
"""Smallest correlation of the thumbnails of near-duplicates.

Among inspected pairs, copies with a frame or a narrower crop have 0.84 or more.
Different photographs with hashes up to 8 bits apart have 0.73 or less.
"""

MIN_CONTRAST = 4.0
"""Photographs with less `contrast` are flat.

These are 2 of 24,982 photographs of Tiny ImageNet. The lowest contrast of 234
ImageNet photographs is 9.5.
"""

_SIDE = 32  # of the thumbnail, in pixels
_LOWEST = 8  # frequencies of the hash in each direction
_HASHES_AT_A_TIME = 256
_COMPARISONS_AT_A_TIME = 2**22


@dataclasses.dataclass(frozen=True)
class Hashes:
  """The hashes of the photographs of a source.

  Attributes:
    photos: the photographs.
    index: indices in the source of the photographs to compare, int32 [M].
    plain: hash of each photograph, uint64 [M].
    mirrored: hash of the mirror image of each photograph, uint64 [M].
    flat: indices of flat photographs, which are not compared, int32 [F].
  """
  photos: Screen
  index: np.ndarray
  plain: np.ndarray
  mirrored: np.ndarray
  flat: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
  """A test photograph and a near-duplicate of it in the training set.

  Attributes:
    test_index: index in the test set.
    test_label: name in the test set.
    train_index: index in the training set.
    train_label: name in the training set.
    distance: number of bits in which the hashes differ.
    correlation: correlation of the luma of the thumbnails, at most 1.
    is_mirrored: whether one is the mirror image of the other.
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

  Luma is reduced to 32 x 32 and transformed by the orthonormal DCT-II. Each of
  the 8 x 8 lowest frequencies gives a bit: whether its coefficient is above the
  median of all but the constant one. The constant coefficient only measures
  brightness, so its bit is always 0.

  Args:
    pixels: uint8 sRGB [H, W, 3].

  Returns:
    64 bits in row-major order, vertical frequencies in rows. The first
    frequency is the highest bit.
  """
  return _bits(_spectrum(pixels))


def contrast(pixels: np.ndarray) -> float:
  """Contrast of a photograph in the frequencies of `perceptual_hash`.

  Args:
    pixels: uint8 sRGB [H, W, 3].

  Returns:
    Standard deviation of the luma in these frequencies, on the scale 0..255: 0
    for an even picture, typically 20 to 60 for a photograph.
  """
  return _contrast(_spectrum(pixels))


def compute(photos: Source | Screen, *, num_threads: int | None = None,
            report: Callable[[str], None] = print) -> Hashes:
  """Computes the hashes of all photographs.

  Args:
    photos: the photographs. Those that the screen leaves out get no hash.
    num_threads: number of photographs to decode in parallel; by default the
      number of processors.
    report: called with each line of progress.

  Returns:
    The hashes.

  Raises:
    UnreadablePhoto: a photograph cannot be read, and the screen does not skip
      unreadable photographs.
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
  """Finds pairs of near-duplicates.

  Compares all hashes of one set with all of the other, in chunks of bounded
  size. The photographs of candidates are read again for their thumbnails.

  Args:
    test: hashes of the test set.
    train: hashes of the training set.
    max_distance: largest number of different bits, 0 to 64.
    min_correlation: smallest correlation of the thumbnails.

  Returns:
    The pairs, in the order of the test set and then by distance.

  Raises:
    ValueError: max_distance is out of range.
  """
  if not 0 <= max_distance <= 64:
    raise ValueError(f'max_distance must be 0 to 64 bits, got {max_distance}')

  # The cache can be small, because candidates are sorted by test photograph.
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
  """Finds near-duplicates in two sets: `compute` for both, then `compare`.

  Args:
    test: photographs of the test set.
    train: photographs of the training set.
    max_distance: as in `compare`.
    num_threads: as in `compute`.
    report: called with each line of progress and of the result.

  Returns:
    The pairs, as in `compare`.

  Raises:
    UnreadablePhoto: as in `compute`.
  """
  hashes = [compute(photos, num_threads=num_threads, report=report)
            for photos in (test, train)]
  pairs = compare(*hashes, max_distance=max_distance)
  for line in lines(pairs, *hashes):
    report(line)
  return pairs


def lines(pairs: Sequence[Pair], test: Hashes, train: Hashes, *,
          most: int | None = 10) -> list[str]:
  """Describes the result: a line with counts, then a line for each pair.

  Args:
    pairs: the pairs that `compare` found.
    test: hashes of the test set.
    train: hashes of the training set.
    most: largest number of pairs to list; None for all.

  Returns:
    The lines.
  """
  count = len({pair.test_index for pair in pairs})
  total = len(test.index) + len(test.flat)
  text = [f'{count} of {total} photographs of {test.photos.source.name} have a '
          f'near-duplicate in {train.photos.source.name}; '
          f'{len(test.flat)} and {len(train.flat)} flat photographs were not '
          'compared']
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
  """The hashes and the contrast of a photograph; padding if there is none."""
  pixels = screen.read(number) if number < screen.source.size else None
  if pixels is None:
    return _PADDING
  spectrum = _spectrum(pixels)
  # Mirroring negates the coefficients of odd horizontal frequencies.
  signs = np.where(np.arange(_LOWEST) % 2, -1, 1)
  return {'index': np.array(number, np.int32),
          'plain': np.array(_bits(spectrum)),
          'mirrored': np.array(_bits(spectrum * signs)),
          'contrast': np.array(_contrast(spectrum), np.float32)}


def _candidates(test: Hashes, train: Hashes, max_distance: int
                ) -> list[tuple[int, int, int, bool]]:
  """Pairs of close hashes: (test index, distance, train index, is_mirrored)."""
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
  """DCT of the luma, lowest frequencies, float64 [8, 8]."""
  spectrum = scipy.fft.dctn(_thumbnail(pixels), norm='ortho')
  return spectrum[:_LOWEST, :_LOWEST]


def _bits(spectrum: np.ndarray) -> np.uint64:
  """The hash of a spectrum, see `perceptual_hash`."""
  flat = spectrum.ravel()
  is_above = flat > np.median(flat[1:])
  is_above[0] = False
  return np.packbits(is_above).view('>u8').astype(np.uint64)[0]


def _contrast(spectrum: np.ndarray) -> float:
  # Parseval: the sum of squares over frequencies equals that over pixels.
  return float(np.sqrt((spectrum.ravel()[1:]**2).sum()) / _SIDE)
