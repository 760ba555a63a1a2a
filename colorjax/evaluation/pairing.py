"""Pairs photographs with the pictures that another program made of them.

A picture belongs to the photograph with the same relative path, ignoring the
suffix. If there is none, it belongs to the photograph with the same base name,
provided that the base name is unique.
"""

import collections
import concurrent.futures
import copy
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color
from colorjax.data import augment, folders
from colorjax.data.engines import Batch, BatchStream
from colorjax.data.screening import Screen
from colorjax.data.source import Source, SourceError
from colorjax.errors import UserError
from colorjax.evaluation import listing

_BATCHES_AHEAD = 2

_FITS = ('crop', 'squash')
_NUM_CHECKED = 16  # pairs to read again if the lightness differs

# Thresholds for the mean |L - L'|. Rounding causes 0.2, JPEG about 1.
_MAX_FITTING = 1.5
_MAX_DOUBTFUL = 5.0
_MAX_SINGLE = 12.0  # for a single picture


@dataclasses.dataclass(frozen=True)
class PairedOutputs:
  """Photographs and the pictures that another program made of them.

  Attributes:
    photos: the photographs. This screen remembers the shapes of photographs
      that it has read, so that `attach` does not read them again.
    outputs: the picture of each photograph, with the same index. Reading the
      picture of a photograph that has none raises SourceError.
    unused: names of pictures that belong to no photograph.
    shape_of: `index -> (H, W)`, the shape of a photograph.
    stamp: `indices -> text` that changes if the name, size or modification
      time of one of their picture files changes.
  """
  photos: Screen
  outputs: Source
  unused: tuple[str, ...]
  shape_of: Callable[[int], tuple[int, int]]
  stamp: Callable[[Iterable[int]], str]


def pair(photos: Source | Screen, folder: str | os.PathLike, *,
         report: Callable[[str], None] = print) -> PairedOutputs:
  """Finds the picture of each photograph in a folder.

  Args:
    photos: the photographs. Those that the screen leaves out need no picture.
    folder: folder of pictures in any format that `photo` reads; subfolders are
      searched too.
    report: called with a line about pictures that belong to no photograph.

  Returns:
    The pairs.

  Raises:
    UserError: the folder does not exist; a photograph has no picture or
      several; a picture belongs to several photographs.
    UnreadablePhoto: a photograph without a picture cannot be read itself.
  """
  screen, shape_of = _remembering_shapes(
      photos if isinstance(photos, Screen) else Screen(photos))
  found = folders.folder(folder)
  labels = [screen.source.label(i) for i in range(screen.source.size)]
  names = [found.label(i) for i in range(found.size)]
  partners = _match(labels, names)
  missing = [i for i, partner in enumerate(partners) if partner is None]
  # If all are missing, the folder is wrong: do not read any photograph.
  if len(missing) < len(partners):
    missing = [i for i in missing if screen.read(i) is not None]
  if missing:
    raise UserError(
        f'{found.name} has no picture for {len(missing)} of {len(labels)} '
        f'photographs: {listing.examples([labels[i] for i in missing])}; '
        'name each picture as its photograph, with any suffix')
  unused = tuple(sorted(set(names) - {
      names[partner] for partner in partners if partner is not None}))
  if unused:
    report(f'{found.name}: {len(unused)} of {len(names)} pictures belong to no '
           f'photograph of {screen.source.name}: {listing.examples(unused)}')

  def read(index):
    partner = partners[index]
    if partner is None:
      raise SourceError(f'{found.name} has no picture of {labels[index]}')
    return found.read(partner)

  def label(index):
    partner = partners[index]
    return labels[index] if partner is None else names[partner]

  def stamp(indices):
    stamps = [' '.join(found.stamp(partner)) for index in indices
              if (partner := partners[index]) is not None]
    return hashlib.sha256('\n'.join(stamps).encode(
        errors='backslashreplace')).hexdigest()

  outputs = Source(name=found.name, size=len(labels), read=read, label=label)
  return PairedOutputs(screen, outputs, unused, shape_of, stamp)


def output_square(pixels: np.ndarray, shape: tuple[int, int], image_size: int,
                  fit: str, *, name: str = 'the picture') -> np.ndarray:
  """Makes a picture square in the same way as its photograph.

  Args:
    pixels: the picture, uint8 sRGB [h, w, 3], either with the shape of the
      photograph or already [image_size, image_size, 3].
    shape: height and width of the photograph, in pixels.
    image_size: side of the square, in pixels.
    fit: how the photograph was made square, see `augment.fit_square`.
    name: name of the picture in errors.

  Returns:
    uint8 sRGB [image_size, image_size, 3].

  Raises:
    UserError: the picture has another shape.
  """
  size = pixels.shape[:2]
  if size == tuple(shape):
    return augment.fit_square(pixels, image_size, fit)
  if size == (image_size, image_size):
    return pixels
  rotated = ('; it may be rotated: apply the EXIF orientation of the '
             'photograph' if size == tuple(shape[::-1]) else '')
  raise UserError(
      f'{name} has {_as_text(size)} pixels, but its photograph has '
      f'{_as_text(shape)}; write it in the size of the photograph or as a '
      f'square of side {image_size}{rotated}')


def lightness_difference(picture: jax.Array, image: jax.Array) -> jax.Array:
  """Mean absolute difference in lightness between pictures and photographs.

  Args:
    picture: uint8 sRGB [B, S, S, 3].
    image: the photographs, same shape.

  Returns:
    Mean of |L - L'| over the pixels, in [0, 100], shape [B].
  """
  lightness, of_photo = (color.split_lightness(x)[0] for x in (picture, image))
  return jnp.abs(lightness - of_photo).mean((1, 2, 3))


def doubts(paired: PairedOutputs, index: np.ndarray, differences: np.ndarray, *,
           image_size: int, fit: str) -> list[str]:
  """Reasons why pictures may not be colorings of their photographs.

  A coloring keeps the lightness of its photograph. If it does not, the picture
  was often made square in another way than the photograph.

  Args:
    paired: the pairs.
    index: indices of the evaluated photographs, [N].
    differences: `lightness_difference` of each, [N].
    image_size: side of the evaluated squares, in pixels.
    fit: how photographs were made square.

  Returns:
    A line for each reason; empty if the lightness agrees.
  """
  mean = float(differences.mean())
  if mean > _MAX_FITTING:
    other, other_mean = _other_fit(paired, index, image_size, fit)
    text = (f'the lightness of the pictures differs by {mean:.1f} on average '
            f'from that of the photographs with fit={fit}')
    if other_mean < mean / 2:
      return [f'{text}, but only by {other_mean:.1f} with fit={other}: '
              f'evaluate with fit={other}']
    if mean > _MAX_DOUBTFUL:
      return [f'{text} (about 1 is normal for a coloring): check that they are '
              'colorings of these photographs with the same crop']
  odd = np.flatnonzero(differences > _MAX_SINGLE)
  if not odd.size:
    return []
  names = listing.examples([paired.outputs.label(int(index[i])) for i in odd])
  return [f'the lightness of {odd.size} of {len(index)} pictures differs from '
          f'that of their photographs, by up to {differences.max():.1f}: '
          f'{names}']


def _other_fit(paired: PairedOutputs, index: np.ndarray, image_size: int,
               fit: str) -> tuple[str, float]:
  """The other fit, and the mean lightness difference with it over a few pairs.
  """
  other = next(one for one in _FITS if one != fit)
  chosen = index[np.linspace(0, len(index) - 1, min(len(index), _NUM_CHECKED)
                             ).round().astype(int)]
  differences = []
  for i in map(int, chosen):
    pixels = paired.photos.read(i)
    assert pixels is not None, 'evaluated photographs are readable'
    pair = [output_square(paired.outputs.read(i), pixels.shape[:2], image_size,
                          other, name=paired.outputs.label(i)),
            augment.fit_square(pixels, image_size, other)]
    picture, image = (jnp.asarray(x)[None] for x in pair)
    differences.append(float(lightness_difference(picture, image)[0]))
  return other, float(np.mean(differences))


def attach(stream: BatchStream, paired: PairedOutputs, *, fit: str = 'crop',
           num_threads: int | None = None) -> BatchStream:
  """Adds 'picture' to the batches of a stream.

  Args:
    stream: batches of `paired.photos` with 'image' and 'index'. Closing the
      result closes the stream.
    paired: the pairs.
    fit: how the stream makes photographs square.
    num_threads: number of pictures to decode in parallel; by default slightly
      more than the number of processors.

  Returns:
    Batches with 'picture', uint8 sRGB [B, S, S, 3], 0 for padding. Iterating
    raises UnreadablePhoto or UserError at the batch of a picture that cannot
    be read or has another shape.
  """
  def square(index, size):
    return output_square(
        paired.outputs.read(index), paired.shape_of(index), size, fit,
        name=paired.outputs.label(index))

  def complete(batch: Batch, futures: dict) -> Batch:
    pictures = np.zeros_like(batch['image'])
    for row, future in futures.items():
      pictures[row] = future.result()
    return {**batch, 'picture': pictures}

  def batches():
    pool = concurrent.futures.ThreadPoolExecutor(
        num_threads, thread_name_prefix='colorjax-pairs')
    pending: collections.deque = collections.deque()
    try:
      with stream:
        for batch in stream:
          size = batch['image'].shape[1]
          pending.append((batch, {
              row: pool.submit(square, int(index), size)
              for row, index in enumerate(batch['index']) if index >= 0}))
          if len(pending) > _BATCHES_AHEAD:
            yield complete(*pending.popleft())
        while pending:
          yield complete(*pending.popleft())
    finally:
      pool.shutdown(wait=True, cancel_futures=True)

  return BatchStream(batches())


def _remembering_shapes(screen: Screen) -> tuple[
    Screen, Callable[[int], tuple[int, int]]]:
  """The screen, with a function for the shape (H, W) of its photographs.

  The returned screen stores the shape of each photograph that it reads.
  """
  source = screen.source
  shapes: dict[int, tuple[int, int]] = {}

  def read(index):
    pixels = source.read(index)
    shapes[index] = pixels.shape[:2]
    return pixels

  def shape_of(index):
    if index not in shapes:
      read(index)
    return shapes[index]

  # A shallow copy: both screens share the list of exclusions.
  remembering = copy.copy(screen)
  remembering.source = dataclasses.replace(source, read=read)
  return remembering, shape_of


def _match(labels: Sequence[str], names: Sequence[str]) -> list[int | None]:
  """Index of the picture of each photograph, or None if it has no picture.

  Args:
    labels: names of the photographs.
    names: names of the pictures.

  Raises:
    UserError: a photograph has two pictures, or a picture two photographs.
  """
  by_path, by_stem = (_grouped(names, key) for key in (
      listing.without_suffix, listing.stem))
  stems = _grouped(labels, listing.stem)
  partners: list[int | None] = []
  owners: dict[int, str] = {}
  for label in labels:
    candidates = by_path.get(listing.without_suffix(label), [])
    if not candidates and len(stems[listing.stem(label)]) == 1:
      candidates = by_stem.get(listing.stem(label), [])
    if len(candidates) > 1:
      raise UserError(f'{label} has two pictures, {names[candidates[0]]} and '
                      f'{names[candidates[1]]}; remove one')
    if not candidates:
      partners.append(None)
      continue
    partner, = candidates
    if partner in owners:
      raise UserError(f'{names[partner]} matches both {owners[partner]} and '
                      f'{label}; give the photographs names that differ in '
                      'more than the suffix')
    owners[partner] = label
    partners.append(partner)
  return partners


def _grouped(labels: Sequence[str], key: Callable[[str], str]
             ) -> dict[str, list[int]]:
  """Indices of the labels, grouped by `key(label)`."""
  groups: dict[str, list[int]] = {}
  for i, label in enumerate(labels):
    groups.setdefault(key(label), []).append(i)
  return groups


def _as_text(shape: Sequence[int]) -> str:
  """The shape (height, width) as 'width x height'."""
  return f'{shape[1]} x {shape[0]}'
