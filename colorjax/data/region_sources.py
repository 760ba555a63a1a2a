"""Regions of photographs: the part that a method is asked to color.

A region source makes one region for each example of a batch. A region is a
function of the photograph, its index, and random numbers that are functions of
(seed, example number). So a batch with regions is as reproducible as one
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
"""The texts that `parse` accepts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """One example of a batch, as a region source sees it.

  Attributes:
    pixels: the network's input image, uint8 sRGB [H, W, 3].
    index: index of the photograph in its source.
    photo_shape: rows and columns of the whole photograph.
    view: the part of the photograph that `pixels` shows.
    turn: a counter that goes up by one each time the photograph is used;
      different photographs start at different values. Sources with several
      patterns use it to choose one, so every photograph gets every pattern.
    draws: random numbers of this example.
  """
  pixels: np.ndarray
  index: int
  photo_shape: tuple[int, int]
  view: View
  turn: int
  draws: Draws


MakeRegion = Callable[[Example], np.ndarray]
"""`example -> bool [H, W]`, True inside the region; a pure function."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionSource:
  """A source of regions.

  Attributes:
    name: its name in flags and messages.
    open: `photographs -> MakeRegion`, for examples of these photographs. Raises
      UserError if the source does not fit the photographs.
  """
  name: str
  open: Callable[[Source], MakeRegion]


def parse(spec: str) -> RegionSource:
  """Opens the region source that a text describes (the flag `--masks`).

    published              the ten published patterns in turn
    halves                 the four published halves in turn
    left, checkerboard ... one published pattern (region_patterns.PUBLISHED)
    random                 stripes, boxes, blobs and noise in turn
    stripes, boxes ...     one kind of random pattern (region_patterns.RANDOM)
    superpixels            some superpixels of the photograph (`superpixels`)
    segments               some segments of the photograph (`segments`)
    all                    the whole photograph
    folder:PATH            mask images, paired with photographs by name

  Args:
    spec: one of these, or several separated by commas, which are used in turn.
      `folder:` must come last, since a path may contain commas.

  Returns:
    The source.

  Raises:
    UserError: the text is not one of these, or the folder cannot be used.
  """
  listed, has_folder, path = spec.partition('folder:')
  names = [name.strip() for name in listed.split(',')]
  if has_folder and names.pop():
    raise UserError(f'masks {spec!r}: put a comma before folder:')
  sources = [_named(name) for name in names]
  if has_folder:
    sources.append(folder(path))
  return sources[0] if len(sources) == 1 else in_turn(sources, name=spec)


def _named(name: str) -> RegionSource:
  """The region source of one entry of SPECS, `folder:PATH` apart."""
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
  raise UserError(f'masks {name!r} is unknown; use one of {", ".join(SPECS)}')


def in_turn(sources: Sequence[RegionSource], *, name: str) -> RegionSource:
  """Uses several sources in turn: each photograph gets one after the other.

  Args:
    sources: at least one.
    name: the name of the result in messages.

  Returns:
    The source. Each of `sources` still sees a `turn` that goes up by one.
  """
  def open_all(photos: Source) -> MakeRegion:
    makes = [source.open(photos) for source in sources]

    def make(example: Example) -> np.ndarray:
      turn, which = divmod(example.turn, len(makes))
      return makes[which](dataclasses.replace(example, turn=turn))

    return make

  return RegionSource(name=name, open=open_all)


def _patterns(name: str, names: Sequence[str]) -> RegionSource:
  """Some of the published patterns in turn."""

  def make(example: Example) -> np.ndarray:
    height, width = example.pixels.shape[:2]
    pattern = region_patterns.PUBLISHED[names[example.turn % len(names)]]
    return pattern(height, width)

  return RegionSource(name=name, open=lambda _: make)


def _random(name: str) -> RegionSource:
  """One kind of random pattern."""

  def make(example: Example) -> np.ndarray:
    height, width = example.pixels.shape[:2]
    return region_patterns.RANDOM[name](height, width, example.draws)

  return RegionSource(name=name, open=lambda _: make)


def everything(example: Example) -> np.ndarray:
  """The whole picture: bool [H, W], all True."""
  return np.ones(example.pixels.shape[:2], bool)


def superpixels(example: Example) -> np.ndarray:
  """A random choice of about 24 SLIC superpixels: bool [H, W].

  SLIC is the method of Achanta et al. 2012.
  """
  labels = skimage.segmentation.slic(
      np.ascontiguousarray(example.pixels), n_segments=24, compactness=10,
      start_label=0, channel_axis=-1)
  return _some_labels(labels, example.draws)


def segments(example: Example) -> np.ndarray:
  """A random choice of segments (Felzenszwalb, Huttenlocher 2004): bool [H, W].

  Each segment covers at least 1/64 of the picture. Segments follow the edges of
  objects and, unlike superpixels, have any shape and size.
  """
  height, width = example.pixels.shape[:2]
  labels = skimage.segmentation.felzenszwalb(
      np.ascontiguousarray(example.pixels), scale=100, sigma=0.8,
      min_size=max(1, height * width // 64))
  return _some_labels(labels, example.draws)


def _some_labels(labels: np.ndarray, draws: Draws) -> np.ndarray:
  """The pixels of a random number of random labels: bool [H, W].

  At least one label is inside, and at least one outside if there are two.
  """
  names, where = np.unique(labels, return_inverse=True)
  share, *order = draws(1 + len(names))
  count = 1 + int(share * (len(names) - 1))
  is_inside = np.zeros(len(names), bool)
  is_inside[np.argsort(order, kind='stable')[:count]] = True
  return is_inside[where.reshape(labels.shape)]


_FROM_PHOTOGRAPH: dict[str, MakeRegion] = {
    'all': everything, 'superpixels': superpixels, 'segments': segments}


def folder(path: str | os.PathLike) -> RegionSource:
  """Mask images, one for each photograph, paired by name (see `companions`).

  A mask is stretched over the whole photograph by nearest-neighbor sampling, so
  it may have another size. Pixels above 127 of 255 are inside. In an image that
  holds only 0 and 1, pixels of value 1 are inside.

  Args:
    path: the folder.

  Returns:
    The source. Its `open` raises UserError if photographs have no mask, with
    their number and the first names.

  Raises:
    UserError: the folder does not exist, cannot be read, holds no images, or
      holds two masks for one photograph.
  """
  paths_of = companions.folder(path, 'mask')

  def open_pairs(photos: Source) -> MakeRegion:
    labels = [photos.label(index) for index in range(photos.size)]
    paths = paths_of(labels, photos.name)
    return lambda example: _view_of_mask(read(paths[example.index]), example)

  return RegionSource(name=f'folder:{path}', open=open_pairs)


def read(path: str | os.PathLike) -> np.ndarray:
  """Reads a mask image as bool [h, w], by the rules of `folder`.

  Raises:
    UnreadablePhoto: the file cannot be read.
  """
  grey = photo.to_rgb8(photo.read(pathlib.Path(path))).max(-1)
  return grey > (0 if grey.max() <= 1 else 127)


def laid_over(mask: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes a mask [h, w] to a photograph's size by nearest-neighbor sampling.

  Args:
    mask: bool [h, w].
    height: rows of the photograph.
    width: columns of the photograph.

  Returns:
    bool [height, width].
  """
  return mask[np.ix_(_nearest(0, height, height, height, mask.shape[0]),
                     _nearest(0, width, width, width, mask.shape[1]))]


def _view_of_mask(mask: np.ndarray, example: Example) -> np.ndarray:
  """The part of a photograph's mask [h, w] that an example shows: [H, W]."""
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
  """The mask pixels nearest to the pixels of a resized view, along one axis.

  It computes with integers, so that a mask of the photograph's size is sampled
  exactly.

  Args:
    start: first pixel of the view in the photograph.
    length: number of pixels of the view in the photograph.
    count: number of pixels of the view after resizing.
    whole: side of the photograph.
    mask_size: side of the mask.

  Returns:
    int [count].
  """
  center = 2 * start * count + (2 * np.arange(count) + 1) * length
  return center * mask_size // (2 * count * whole)
