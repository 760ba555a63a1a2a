"""A photograph of any size and depth to its colorings.

The network sees the photograph's lightness in its square (`seen`); the ab
field that it answers is brought up to the photograph's resolution along the
photograph's own edges (`upsampling`), fitted into the sRGB gamut at constant
lightness and hue, and rounded such that every pixel keeps its lightness
(`painting`).
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, photo, resample, saved
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.fallbacks import with_fallbacks
from colorjax.photo import chunks, painting, square, strokes

Answer = Callable[..., tuple[jax.Array, jax.Array | None]]
"""`(variables, inputs) -> (ab [k, B, H, W, 2], probability [k, B] or None)`."""

_TILE = 512


@dataclasses.dataclass(frozen=True)
class Coloring:
  """One coloring of a photograph.

  Attributes:
    pixels: sRGB, uint8 or uint16 [H, W, 3], in the photograph's resolution.
    probability: that the method gives it; None where it gives none.
  """
  pixels: np.ndarray
  probability: float | None


@dataclasses.dataclass(frozen=True)
class Colored:
  """What `colorjax.colorize` returns.

  Attributes:
    pixels: the best single coloring, sRGB, uint8 or uint16 [H, W, 3].
    proposals: different colorings alike, most probable first; [] if none were
      asked for.
    probabilities: of the proposals; None where the method has none, or none
      were asked for.
  """
  pixels: np.ndarray
  proposals: list[np.ndarray]
  probabilities: list[float] | None


def colorize_image(
    image: str | os.PathLike | np.ndarray, *,
    checkpoint: str | os.PathLike | tuple[Colorizer, Variables, int],
    proposals: int = 0, region: np.ndarray | None = None,
    hints: str | os.PathLike | None = None,
    reference: str | os.PathLike | np.ndarray | None = None,
    bits: int | None = None, **options: Any,
) -> Colored:
  """Colors one photograph; offered as `colorjax.colorize`.

  The network is compiled at every call. For many photographs use `saved.load`
  and `answers` once, and `colorize` for each.

  Args:
    image: a file, or sRGB pixels, uint8 or uint16, [H, W] or [H, W, 3].
    checkpoint: the work directory of a training run, or what `saved.load`
      returned.
    proposals: how many different colorings to give beside the best.
    region: where color is wanted, bool [H, W]; the rest stays grey.
    hints: a file with painted strokes, see `strokes.of_strokes`.
    reference: a photograph whose colors are wanted, for methods that accept
      one: a file, or pixels like `image`.
    bits: depth of the colorings, 8 or 16; the photograph's own if None.
    **options: what the method lets be chosen when it is asked, see
      `Colorizer.options`.

  Returns:
    The colorings.

  Raises:
    UserError: the image, the checkpoint or the hints cannot be used.
  """
  picture = image_of(image)
  loaded = (checkpoint if isinstance(checkpoint, tuple) else
            saved.load(pathlib.Path(os.path.expanduser(checkpoint))))
  colorizer, variables, image_size = loaded
  colorizer = colorizer.ask(**options)
  given = None
  if hints is not None:
    given = strokes.of_strokes(
        photo.read(os.path.expanduser(hints)), picture, image_size)
  if region is not None and region.shape != picture.pixels.shape[:2]:
    raise UserError(f'region is {list(region.shape)}, the photograph '
                    f'{list(picture.pixels.shape[:2])}: give one of its size')

  def ask(number):
    return list(colorize(
        answers(colorizer, num_proposals=number), variables, picture,
        image_size=image_size, bits=bits, region=region, hints=given,
        reference=None if reference is None else photo.to_rgb8(
            image_of(reference))))

  (best,) = ask(0)
  further = ask(proposals) if proposals else []
  probabilities = [one.probability for one in further
                   if one.probability is not None]
  return Colored(pixels=best.pixels, proposals=[one.pixels for one in further],
                 probabilities=probabilities or None)


def image_of(image: str | os.PathLike | np.ndarray) -> photo.Photo:
  """A photograph from a file or from pixels.

  Args:
    image: a path, or sRGB uint8 or uint16, [H, W] or [H, W, 3].

  Returns:
    The photograph.

  Raises:
    UserError: the file cannot be read, or the array is of another kind.
  """
  if not isinstance(image, np.ndarray):
    return photo.read(os.path.expanduser(image))
  if image.dtype not in (np.uint8, np.uint16) or not image.size or not (
      image.ndim == 2 or image.shape[2:] == (3,)):
    raise UserError('image has to be a path, or uint8 or uint16 pixels [H, W] '
                    f'or [H, W, 3], got {image.dtype} {list(image.shape)}')
  return photo.Photo(pixels=image, alpha=None, icc_profile=None, exif=None,
                     format='', path='image')


def answers(colorizer: Colorizer, *, num_proposals: int = 0) -> Answer:
  """A method's answers as one compiled function, to be used for many photos.

  Args:
    colorizer: the method.
    num_proposals: 0 for the best single answer (`predict`), else the number of
      proposals, most probable first.

  Returns:
    The function; it is compiled once for each image size and each set of
    inputs. Its inputs may hold a region and hints with every method; UserError
    for others that the method does not accept.
  """
  complete = with_fallbacks(colorizer)

  def answer(variables, inputs):
    if 'region' not in colorizer.accepts:
      # `paint` leaves the rest grey at the photograph's own resolution, which
      # is sharper than the network's square.
      inputs = {name: x for name, x in inputs.items() if name != 'region'}
    if num_proposals:
      return complete.propose(variables, inputs, num_proposals)
    return complete.predict(variables, inputs)[None], None

  return jax.jit(answer)


def colorize(
    answer: Answer, variables: Variables, picture: photo.Photo, *,
    image_size: int, bits: int | None = None,
    region: np.ndarray | None = None,
    hints: tuple[np.ndarray, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
) -> Iterator[Coloring]:
  """Colors a photograph, one answer after the other.

  Colors that the photograph may have are not looked at: it is taken as its
  lightness. Beside the photograph and one coloring, 4 bytes a pixel are held:
  large photographs are worked on in tiles.

  Args:
    answer: what `answers` returned.
    variables: the network's variables.
    picture: the photograph.
    image_size: side of the network's square input, in pixels.
    bits: depth of the colorings, 8 or 16; the photograph's own if None.
    region: where color is wanted, bool [H, W]; the rest is exactly grey, with
      every method. None: everywhere.
    hints: colors that a person gives, as `hints.of_strokes` returns them at
      `image_size`; None: none.
    reference: photograph whose colors are wanted, for a method that accepts
      one, uint8 sRGB [h, w, 3]; None: none.

  Yields:
    The colorings, most probable first.
  """
  guide = seen(picture.pixels, image_size)
  lightness = lightness_of(picture.pixels)
  inputs = {'lightness': guide[..., None]}
  if region is not None:
    inputs['region'] = _region_seen(region, image_size)[..., None]
  if hints is not None:
    inputs['hint_ab'], inputs['hint_mask'] = map(np.asarray, hints)
  if reference is not None:
    inputs['reference'] = square.squash(reference, image_size)
  ab, probability = answer(
      variables, {name: jnp.asarray(x)[None] for name, x in inputs.items()})
  probabilities = (len(ab) * [None] if probability is None
                   else np.asarray(probability[:, 0]).tolist())
  for one_ab, one_probability in zip(ab[:, 0], probabilities, strict=True):
    field = resample.fit_locally(guide, one_ab)
    yield Coloring(
        pixels=paint(lightness, field, region=region,
                     bits=bits or 8 * picture.pixels.itemsize),
        probability=one_probability)


def lightness_of(pixels: np.ndarray) -> np.ndarray:
  """Lab lightness of a photograph.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].

  Returns:
    float32 [H, W], L in [0, 100].
  """
  flat = pixels if pixels.ndim == 3 else pixels[..., None]
  return chunks.by_chunks(_lightness_of_chunk, flat)[..., 0]


def seen(pixels: np.ndarray, size: int) -> np.ndarray:
  """The lightness that a network sees of a photograph.

  The same as in training with fit='squash': see `photo.square`.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].
    size: side of the square in pixels.

  Returns:
    float32 [size, size], L in [0, 100].
  """
  return np.asarray(_seen(square.squash(pixels, size)))


def _region_seen(region: np.ndarray, size: int) -> np.ndarray:
  """A region bool [H, W] at the network's size: float32 [size, size], 0 or 1.

  A pixel is inside if more than half of what it stands for is.
  """
  levels = square.resize(region.astype(np.uint8) * np.uint8(255), size, size)
  return (levels > 127).astype(np.float32)


def paint(lightness: np.ndarray, field: resample.Field, *, bits: int,
          region: np.ndarray | None = None) -> np.ndarray:
  """Lightness and a color field to sRGB pixels of that lightness.

  Args:
    lightness: L in [0, 100], float32 [H, W].
    field: the colors at low resolution, as `resample.fit_locally` returns them.
    bits: depth of the pixels, 8 or 16.
    region: bool [H, W], False where the pixel is left grey; None: nowhere.

  Returns:
    uint8 or uint16 [H, W, 3].
  """
  height, width = lightness.shape
  pixels = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
  for rows, columns in _tiles(height, width):
    painted = _paint_tile(
        _padded(lightness[rows, columns]),
        None if region is None else _padded(region[rows, columns]), field,
        resample.positions(rows.start, _TILE, height),
        resample.positions(columns.start, _TILE, width), bits=bits)
    pixels[rows, columns] = _cut(painted, rows, columns)
  return pixels


@functools.partial(jax.jit, static_argnames='bits')
def _paint_tile(lightness, region, field, y, x, *, bits):
  ab = resample.evaluate(field, lightness, y, x)
  if region is not None:
    ab = jnp.where(region[..., None], ab, 0)
  return painting.picture(lightness[..., None], ab, bits=bits)


@jax.jit
def _seen(pixels):
  return color.split_lightness(pixels)[0][..., 0]


def _lightness_of_chunk(pixels: np.ndarray) -> jax.Array:
  """Lightness [n, 1] of sRGB uint8 or uint16, [n, 1] grey or [n, 3].

  One program serves grey and color, 8 and 16 bits.
  """
  rgb = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
  return _lightness(np.broadcast_to(rgb, (len(rgb), 3)))


@jax.jit
def _lightness(rgb):
  return color.rgb_to_lab(rgb)[..., :1]


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
  """Tiles that cover a picture; those at its ends are smaller."""
  for top in range(0, height, _TILE):
    for left in range(0, width, _TILE):
      yield (slice(top, min(top + _TILE, height)),
             slice(left, min(left + _TILE, width)))


def _padded(tile: np.ndarray) -> np.ndarray:
  """A tile at full size, so that all tiles share one compiled program."""
  pad = [(0, _TILE - side) for side in tile.shape[:2]]
  return np.pad(tile, pad + [(0, 0)] * (tile.ndim - 2))


def _cut(tile: jax.Array, rows: slice, columns: slice) -> np.ndarray:
  return np.asarray(tile)[:rows.stop - rows.start,
                          :columns.stop - columns.start]
