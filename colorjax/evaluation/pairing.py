"""The pictures of another program, beside the photographs that they color.

A picture belongs to the photograph of the same relative path, suffix left
aside, or where there is none to that of the same base name, if no other has it.
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
_SOME = 16  # pairs that are read again where the lightness does not fit

# Mean |L - L'|: rounding gives 0.2, JPEG about 1.
_FITTING = 1.5
_DIFFERENT = 5.0
_VERY_DIFFERENT = 12.0  # of a single picture


@dataclasses.dataclass(frozen=True)
class PairedOutputs:
  """Photographs and their pictures by another program.

  Attributes:
    photos: the photographs. They remember their sizes as they are read: batches
      that are made of them spare `attach` a second reading.
    outputs: a picture for each photograph, of the same number. Reading that of
      a photograph which is left out raises SourceError.
    unused: names of the pictures that belong to no photograph.
    shape_of: `number -> (H, W)` of the photograph.
    stamp: `numbers -> text` that changes with the name, the size or the time
      of any of their pictures' files.
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
    photos: the originals. One that the screen leaves out needs no picture.
    folder: pictures of any format that `photo` reads, in folders or not.
    report: is told of pictures that belong to no photograph.

  Returns:
    The pairs.

  Raises:
    UserError: no such folder; photographs without a picture; several pictures
      for a photograph, or several photographs for a picture.
    UnreadablePhoto: a photograph has no picture and cannot be read itself.
  """
  screen, shape_of = _remembering_shapes(
      photos if isinstance(photos, Screen) else Screen(photos))
  found = folders.folder(folder)
  labels = [screen.source.label(i) for i in range(screen.source.size)]
  names = [found.label(i) for i in range(found.size)]
  partners = _match(labels, names)
  missing = [i for i, partner in enumerate(partners) if partner is None]
  if len(missing) < len(partners):  # Else a wrong folder: not worth a reading.
    missing = [i for i in missing if screen.read(i) is not None]
  if missing:
    raise UserError(
        f'{found.name} lacks the coloring of {len(missing)} of {len(labels)} '
        f'photographs: {listing.examples([labels[i] for i in missing])}; it '
        'has to have the name of its photograph, with any suffix')
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
    stamps = [found.stamp(partner) for index in indices
              if (partner := partners[index]) is not None]
    return hashlib.sha256('\n'.join(stamps).encode(
        errors='backslashreplace')).hexdigest()

  outputs = Source(name=found.name, size=len(labels), read=read, label=label)
  return PairedOutputs(screen, outputs, unused, shape_of, stamp)


def output_square(pixels: np.ndarray, shape: tuple[int, int], image_size: int,
                  fit: str, *, name: str = 'the picture') -> np.ndarray:
  """A picture made square in the way of its photograph.

  Args:
    pixels: uint8 sRGB [h, w, 3], of the photograph's size or square already.
    shape: height and width of the photograph.
    image_size: side of the squares, in pixels.
    fit: what made the photograph square, see augment.fit_square.
    name: what errors call the picture.

  Returns:
    uint8 [image_size, image_size, 3]: cut like the photograph, or as it is.

  Raises:
    UserError: the picture has neither size.
  """
  size = pixels.shape[:2]
  if size == tuple(shape):
    return augment.fit_square(pixels, image_size, fit)
  if size == (image_size, image_size):
    return pixels
  turned = ('; it seems to lie on its side: the photograph is one that EXIF '
            'turns' if size == tuple(shape[::-1]) else '')
  raise UserError(
      f'{name} is {_as_text(size)} pixels, its photograph {_as_text(shape)}; '
      f'write it in the size of the photograph or as the square of '
      f'{image_size} that is evaluated{turned}')


def lightness_difference(picture: jax.Array, image: jax.Array) -> jax.Array:
  """How far the lightness of pictures is from that of their photographs.

  Args:
    picture: uint8 sRGB [B, S, S, 3].
    image: the photographs, alike.

  Returns:
    Mean of |L - L'| over the pixels, [B]; L is 0 to 100.
  """
  lightness, of_photo = (color.split_lightness(x)[0] for x in (picture, image))
  return jnp.abs(lightness - of_photo).mean((1, 2, 3))


def doubts(paired: PairedOutputs, index: np.ndarray, differences: np.ndarray, *,
           image_size: int, fit: str) -> list[str]:
  """Why pictures may not be colorings of their photographs.

  A coloring keeps the lightness of its photograph. Where it does not, the
  picture was often made square in another way than the photograph.

  Args:
    paired: the pairs.
    index: numbers of the photographs that were judged, [N].
    differences: `lightness_difference` of each, [N].
    image_size: side of the squares that were judged, in pixels.
    fit: how photographs became squares.

  Returns:
    A line for each doubt; none where lightness fits.
  """
  mean = float(differences.mean())
  if mean > _FITTING:
    other, other_mean = _better_fit(paired, index, image_size, fit)
    said = (f'the lightness of the pictures differs by {mean:.1f} on average '
            f'from that of the photographs cut by fit={fit}')
    if other_mean < mean / 2:
      return [f'{said}, and by {other_mean:.1f} cut by fit={other}: evaluate '
              f'with fit={other}']
    if mean > _DIFFERENT:
      return [f'{said} (a coloring keeps it to about 1): see whether they are '
              'colorings of these photographs, cut in the same way']
  odd = np.flatnonzero(differences > _VERY_DIFFERENT)
  if not odd.size:
    return []
  names = listing.examples([paired.outputs.label(int(index[i])) for i in odd])
  return [f'{odd.size} of {len(index)} pictures do not have the lightness of '
          f'their photographs, it differs by up to {differences.max():.1f}: '
          f'{names}']


def _better_fit(paired: PairedOutputs, index: np.ndarray, image_size: int,
                fit: str) -> tuple[str, float]:
  """The other way to cut, and the difference with it, over some pairs."""
  other = next(one for one in _FITS if one != fit)
  chosen = index[np.linspace(0, len(index) - 1, min(len(index), _SOME)
                             ).round().astype(int)]
  differences = []
  for i in map(int, chosen):
    pixels = paired.photos.read(i)
    assert pixels is not None, 'photographs that were judged can be read'
    pair = [output_square(paired.outputs.read(i), pixels.shape[:2], image_size,
                          other, name=paired.outputs.label(i)),
            augment.fit_square(pixels, image_size, other)]
    picture, image = (jnp.asarray(x)[None] for x in pair)
    differences.append(float(lightness_difference(picture, image)[0]))
  return other, float(np.mean(differences))


def attach(stream: BatchStream, paired: PairedOutputs, *, fit: str = 'crop',
           num_threads: int | None = None) -> BatchStream:
  """The same batches with 'picture'.

  Args:
    stream: batches of `paired.photos` with 'image' and 'index'; closed with
      the result.
    paired: the pairs.
    fit: that of the stream.
    num_threads: pictures decoded at the same time, by default a few more than
      there are processors.

  Returns:
    Batches with 'picture' uint8 [B, S, S, 3] besides, 0 for padding. It raises
    UnreadablePhoto or UserError at the batch of a picture that cannot be read
    or has another size.
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
  """The same screen, and the (H, W) of its photographs, read once if read."""
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

  # A shallow copy: both share the memory of what is left out.
  remembering = copy.copy(screen)
  remembering.source = dataclasses.replace(source, read=read)
  return remembering, shape_of


def _match(labels: Sequence[str], names: Sequence[str]) -> list[int | None]:
  """For each photograph the number of its picture, None where there is none."""
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
                      f'{names[candidates[1]]}; keep one')
    if not candidates:
      partners.append(None)
      continue
    partner, = candidates
    if partner in owners:
      raise UserError(f'{names[partner]} may be the picture of '
                      f'{owners[partner]} or of {label}; give them names that '
                      'differ in more than the suffix')
    owners[partner] = label
    partners.append(partner)
  return partners


def _grouped(labels: Sequence[str], key: Callable[[str], str]
             ) -> dict[str, list[int]]:
  groups: dict[str, list[int]] = {}
  for i, label in enumerate(labels):
    groups.setdefault(key(label), []).append(i)
  return groups


def _as_text(shape: Sequence[int]) -> str:
  """(height, width) as people write sizes: 'width x height'."""
  return f'{shape[1]} x {shape[0]}'
