"""Regions of photographs: which part a method is asked to color.

A mask source makes one region for each example of a batch. A region is a
function of the photograph, of its number, and of random numbers that are
functions of (seed, example), so a batch with regions is as reproducible as one
without them.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import skimage.segmentation

from colorjax import photo
from colorjax.data import companions, region_patterns
from colorjax.data.augment import View
from colorjax.data.region_patterns import Draws
from colorjax.data.source import Source
from colorjax.errors import UserError

SPECS = ('published', 'halves', *region_patterns.PUBLISHED, 'random',
         *region_patterns.RANDOM, 'superpixels', 'segments', 'all',
         'folder:PATH')
"""What `parse` understands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """One example of a batch, as a mask source sees it.

  Attributes:
    pixels: what the network will see, uint8 sRGB [H, W, 3].
    index: number of the photograph in its source.
    photo_shape: rows and columns of the whole photograph.
    view: the part of the photograph that `pixels` shows.
    turn: goes up by one each time that a photograph comes; different
      photographs start at different numbers. Sources that go through a list
      take entry `turn` of it, so every photograph meets every entry.
    draws: random numbers of this example.
  """
  pixels: np.ndarray
  index: int
  photo_shape: tuple[int, int]
  view: View
  turn: int
  draws: Draws


MakeRegion = Callable[[Example], np.ndarray]
"""`example -> bool [H, W]`, True inside; a pure function."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionSource:
  """Where regions come from.

  Attributes:
    name: what flags and messages call it.
    open: `photographs -> MakeRegion` for the examples of these photographs.
      UserError where they and the regions do not fit together.
  """
  name: str
  open: Callable[[Source], MakeRegion]


def parse(spec: str) -> RegionSource:
  """The mask source that a text speaks of: the value of a `--masks` flag.

    published              the ten published patterns, one after the other
    halves                 the four halves among them
    left, checkerboard ... one of them (region_patterns.PUBLISHED)
    random                 stripes, boxes, blobs and noise, one after the other
    stripes, boxes ...     one kind of them (region_patterns.RANDOM)
    superpixels            some superpixels of the photograph (`superpixels`)
    segments               some segments of the photograph (`segments`)
    all                    everything is inside
    folder:PATH            mask images by the names of the photographs

  Args:
    spec: one of these, or several with commas between them, which then take
      turns; what follows `folder:` is all path, so that comes last.

  Returns:
    The source.

  Raises:
    UserError: there is no such thing, or the folder cannot be used.
  """
  listed, has_folder, path = spec.partition('folder:')
  names = [name.strip() for name in listed.split(',')]
  if has_folder and names.pop():
    raise UserError(f'masks {spec!r}: a comma has to stand before folder:')
  sources = [_named(name) for name in names]
  if has_folder:
    sources.append(folder(path))
  return sources[0] if len(sources) == 1 else in_turn(sources, name=spec)


def _named(name: str) -> RegionSource:
  if name == 'published':
    return _patterns(name, tuple(region_patterns.PUBLISHED))
  if name == 'halves':
    return _patterns(name, region_patterns.HALVES)
  if name in region_patterns.PUBLISHED:
    return _patterns(name, (name,))
  if name == 'random':
    return in_turn([_random(kind) for kind in region_patterns.RANDOM],
                   name=name)
  if name in region_patterns.RANDOM:
    return _random(name)
  if name in _FROM_PHOTOGRAPH:
    return RegionSource(name=name, open=lambda _: _FROM_PHOTOGRAPH[name])
  raise UserError(f'masks {name!r} is not one of {", ".join(SPECS)}')


def in_turn(sources: Sequence[RegionSource], *, name: str) -> RegionSource:
  """Several sources that take turns: a photograph meets one after the other.

  Args:
    sources: at least one.
    name: what messages call the whole.

  Returns:
    The source. Each of `sources` sees its own turns go up by one.
  """
  def open_all(photos: Source) -> MakeRegion:
    makes = [source.open(photos) for source in sources]

    def make(example: Example) -> np.ndarray:
      turn, which = divmod(example.turn, len(makes))
      return makes[which](dataclasses.replace(example, turn=turn))

    return make

  return RegionSource(name=name, open=open_all)


def _patterns(name: str, names: Sequence[str]) -> RegionSource:

  def make(example: Example) -> np.ndarray:
    height, width = example.pixels.shape[:2]
    pattern = region_patterns.PUBLISHED[names[example.turn % len(names)]]
    return pattern(height, width)

  return RegionSource(name=name, open=lambda _: make)


def _random(name: str) -> RegionSource:

  def make(example: Example) -> np.ndarray:
    height, width = example.pixels.shape[:2]
    return region_patterns.RANDOM[name](height, width, example.draws)

  return RegionSource(name=name, open=lambda _: make)


def everything(example: Example) -> np.ndarray:
  """A region that holds the whole picture: bool [H, W], all True."""
  return np.ones(example.pixels.shape[:2], bool)


def superpixels(example: Example) -> np.ndarray:
  """Some of about 24 superpixels (SLIC, Achanta et al. 2012): bool [H, W]."""
  labels = skimage.segmentation.slic(
      np.ascontiguousarray(example.pixels), n_segments=24, compactness=10,
      start_label=0, channel_axis=-1)
  return _some_labels(labels, example.draws)


def segments(example: Example) -> np.ndarray:
  """Some segments of Felzenszwalb and Huttenlocher (2004): bool [H, W].

  None is smaller than a 64th of the picture. Segments follow the edges of
  things and may be of any shape, which no superpixel is.
  """
  height, width = example.pixels.shape[:2]
  labels = skimage.segmentation.felzenszwalb(
      np.ascontiguousarray(example.pixels), scale=100, sigma=0.8,
      min_size=max(1, height * width // 64))
  return _some_labels(labels, example.draws)


def _some_labels(labels: np.ndarray, draws: Draws) -> np.ndarray:
  """A random number of random labels; neither none nor all, if two exist."""
  names, where = np.unique(labels, return_inverse=True)
  share, *order = draws(1 + len(names))
  count = 1 + int(share * (len(names) - 1))
  is_inside = np.zeros(len(names), bool)
  is_inside[np.argsort(order, kind='stable')[:count]] = True
  return is_inside[where.reshape(labels.shape)]


_FROM_PHOTOGRAPH: dict[str, MakeRegion] = {
    'all': everything, 'superpixels': superpixels, 'segments': segments}


def folder(path: str | os.PathLike) -> RegionSource:
  """Mask images, one for each photograph, paired by name.

  They are paired as `companions` has it. A mask's size may differ from that of
  its photograph: it is laid over the whole of it, and the nearest pixel counts.
  Inside is what is lighter than mid-grey; an image that holds nothing but 0 and
  1 is taken at its word.

  Args:
    path: the folder.

  Returns:
    The source. Its `open` raises a UserError that counts and names the
    photographs that have no mask.

  Raises:
    UserError: no such folder, no images in it, or two for one name.
  """
  paths_of = companions.folder(path, 'mask')

  def open_pairs(photos: Source) -> MakeRegion:
    labels = [photos.label(index) for index in range(photos.size)]
    paths = paths_of(labels, photos.name)
    return lambda example: _view_of_mask(read(paths[example.index]), example)

  return RegionSource(name=f'folder:{path}', open=open_pairs)


def read(path: str | os.PathLike) -> np.ndarray:
  """A mask image as bool [h, w]; see `folder` for what is inside.

  Raises:
    UnreadablePhoto: it cannot be read.
  """
  grey = photo.to_rgb8(photo.read(pathlib.Path(path))).max(-1)
  return grey > (0 if grey.max() <= 1 else 127)


def laid_over(mask: np.ndarray, height: int, width: int) -> np.ndarray:
  """A mask [h, w] at the size of its photograph, nearest: [height, width]."""
  return mask[np.ix_(_nearest(0, height, height, height, mask.shape[0]),
                     _nearest(0, width, width, width, mask.shape[1]))]


def _view_of_mask(mask: np.ndarray, example: Example) -> np.ndarray:
  """What of a photograph's mask [h, w] belongs to the example: bool [H, W]."""
  view = example.view
  height, width = example.pixels.shape[:2]
  rows = _nearest(view.top, view.rows, height, example.photo_shape[0],
                  mask.shape[0])
  columns = _nearest(view.left, view.columns, width, example.photo_shape[1],
                     mask.shape[1])
  inside = mask[np.ix_(rows, columns)]
  return inside[:, ::-1] if view.is_mirrored else inside


def _nearest(start: int, length: int, count: int, whole: int, mask_size: int
             ) -> np.ndarray:
  """Mask pixels under the middles of `count` pixels of a stretch: [count].

  The stretch starts at `start` and is `length` long in a photograph whose side
  is `whole`. Whole numbers throughout: a mask of the photograph's size has to
  be met exactly.
  """
  middle = 2 * start * count + (2 * np.arange(count) + 1) * length
  return middle * mask_size // (2 * count * whole)
