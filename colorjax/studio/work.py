"""What the studio computes for its page: pictures, swatches, maps, files.

These functions take long and run in worker threads.
"""

import hashlib
import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from colorjax import composing, full_size, photo
from colorjax.choices import Area, Choices, Pick
from colorjax.composing import Method, Subject
from colorjax.photo import painting, square

ENDINGS = {'JPEG': '.jpg', 'MPO': '.jpg', 'PNG': '.png', 'TIFF': '.tiff',
           'WEBP': '.webp', 'BMP': '.bmp'}
"""The file name ending of a coloring in the photograph's own format; .png for
other formats."""

STRENGTHS = (1.0, 0.6, 1.4, 1.8)
"""Factors of the saturation that are offered for a model with one coloring."""

_QUALITY = 92
_SMALL_TILE = 256
_SAME_COLOR = 12.0  # Lab units between colors that are one swatch
_MAX_SWATCHES = 6
_MAX_DEVIATION = 30.0  # Lab units; the strongest tone of the uncertainty map


def read(path: pathlib.Path, *, max_pixels: int, name: str) -> photo.Photo:
  """Reads an uploaded file.

  Args:
    path: the file.
    max_pixels: as in `photo.read`.
    name: what error messages call it.

  Returns:
    The photograph.

  Raises:
    UnreadablePhoto: it is not a photograph that can be read.
  """
  return photo.read_bytes(path.read_bytes(), name, max_pixels=max_pixels)


def facts_of(picture: photo.Photo, data_digest: str) -> dict[str, Any]:
  """What the page is told of a photograph."""
  height, width = picture.pixels.shape[:2]
  return {'width': width, 'height': height,
          'bits': 8 * picture.pixels.itemsize, 'format': picture.format,
          'ending': ENDINGS.get(picture.format, '.png'),
          'pictures': picture.pictures, 'digest': data_digest}


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file in hexadecimal digits."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def picture_of(subject: Subject, method: Method, choices: Choices,
               reference: np.ndarray | None, longest: int) -> bytes:
  """Makes the picture that was chosen, at most `longest` pixels, as JPEG."""
  lightness, tile = subject.lightness, None
  if longest < max(lightness.shape):
    lightness = full_size.lightness_of(
        composing.reduced(subject.preview, longest))
  if max(lightness.shape) <= _SMALL_TILE:
    tile = _SMALL_TILE
  return _jpeg(composing.render(
      subject, lightness, method, choices, reference=reference, tile=tile))


def original_of(subject: Subject, longest: int) -> bytes:
  """The photograph as it came, at most `longest` pixels, as JPEG."""
  return _jpeg(composing.reduced(subject.preview, longest))


def colorings_of(subject: Subject, method: Method, choices: Choices,
                 reference: np.ndarray | None, seed: int | None
                 ) -> list[dict[str, Any]]:
  """The colorings that are offered for a photograph.

  Returns:
    For each, its entry `coloring` of `choices`, and its probability, None if
    the method has none. A method with a single coloring offers strengths of it.
  """
  if method.num_colorings == 1:
    return [{'coloring': {'index': 0, 'seed': seed, 'strength': strength},
             'probability': None} for strength in STRENGTHS]
  region = composing.region_of(subject.grid, choices, subject.lightness)
  found = subject.predict(method, choices, Pick(seed=seed), region=region,
                          reference=reference)
  return [{'coloring': {'index': i, 'seed': seed, 'strength': 1.0},
           'probability': None if found.probability is None
           else float(found.probability[i])} for i in range(len(found.ab))]


def swatches_of(subject: Subject, method: Method, choices: Choices,
                reference: np.ndarray | None, x: float, y: float
                ) -> dict[str, Any]:
  """The colors that the model finds likely at a pixel.

  Colors of the proposals that are alike are one swatch with the sum of their
  probabilities.

  Returns:
    `lightness` of the pixel, and `swatches`, the most probable first, each with
    `color` as '#rrggbb' and `probability`, None if the method has none.
  """
  height, width = subject.shape
  rows, columns = subject.lightness.shape
  lightness = float(subject.lightness[
      min(int(y * rows / height), rows - 1),
      min(int(x * columns / width), columns - 1)])
  # Hints are the person's colors, not the model's.
  asked = Choices(model=choices.model, saturation=choices.saturation,
                  reference=choices.reference)
  seeds = [choices.coloring.seed]
  if choices.coloring.seed is not None:
    seeds.append(None)
  colors: list[np.ndarray] = []
  shares: list[float] = []
  for seed in seeds:
    found = subject.predict(method, asked, Pick(seed=seed), reference=reference)
    size = len(found.guide)
    ab = found.ab[:, min(int(y * size / height), size - 1),
                  min(int(x * size / width), size - 1)]
    colors.extend(ab)
    shares.extend(found.shares if found.probability is None
                  else found.probability)
  has_probability = len(seeds) == 1 and found.probability is not None
  groups: list[list] = []
  for ab, share in sorted(zip(colors, shares, strict=True),
                          key=lambda pair: -pair[1]):
    for group in groups:
      if np.linalg.norm(group[0] - ab) < _SAME_COLOR:
        group[1] += share
        break
    else:
      groups.append([ab, float(share)])
  groups.sort(key=lambda group: -group[1])
  del groups[_MAX_SWATCHES:]
  pixels = np.asarray(_colors(
      jnp.full((_MAX_SWATCHES, 1), lightness), jnp.asarray(np.stack(
          [group[0] for group in groups]
          + [np.zeros(2)] * (_MAX_SWATCHES - len(groups))))))
  return {'lightness': round(lightness, 2), 'swatches': [
      {'color': '#' + bytes(pixel.tolist()).hex(),
       'probability': float(group[1]) if has_probability else None}
      for group, pixel in zip(groups, pixels, strict=False)]}


@jax.jit
def _colors(lightness, ab):
  return painting.picture(lightness, ab)


def uncertainty_of(subject: Subject, method: Method, choices: Choices,
                   reference: np.ndarray | None) -> bytes:
  """A map of how much the colorings differ, as PNG, dark to bright.

  The value of a pixel is the standard deviation of ab over the colorings,
  weighted by their probabilities; white stands for 30 Lab units and more.
  """
  found = subject.predict(
      method, Choices(model=choices.model, saturation=choices.saturation),
      Pick(seed=choices.coloring.seed), reference=reference)
  height, width = subject.lightness.shape
  levels = np.clip(found.deviation / _MAX_DEVIATION, 0, 1)
  return photo.encode('map.png', square.resize(
      np.rint(levels * 255).astype(np.uint8), height, width))


def segments_of(subject: Subject, size: str) -> bytes:
  """The number of each cell's segment as PNG: red + 256 green."""
  segments = subject.grid.segments(size)
  return photo.encode('segments.png', np.stack(
      [segments % 256, segments // 256, np.zeros_like(segments)],
      -1).astype(np.uint8))


def file_of(picture: photo.Photo, subject: Subject, method: Method,
            choices: Choices, reference: np.ndarray | None, *, ending: str,
            bits: int | None) -> bytes:
  """Makes the file that a person downloads.

  Args:
    picture: the photograph at full resolution.
    subject: the same, reduced.
    method: the method.
    choices: what was chosen.
    reference: pixels of the reference, or None.
    ending: the file name ending of the format, such as '.png'.
    bits: bit depth, 8 or 16; None for that of the photograph. It is reduced to
      what the format can store.

  Returns:
    The bytes of the file.

  Raises:
    UserError: it cannot be made, for instance as this format.
  """
  name = f'coloring{ending}'
  photo.check_fits(name, picture.pixels.shape[1], picture.pixels.shape[0])
  bits = min(bits or 8 * picture.pixels.itemsize,
             photo.output_format(name).bits)
  pixels = composing.render(
      subject, full_size.lightness_of(picture.pixels), method, choices,
      bits=bits, reference=reference)
  return photo.encode(name, pixels, like=picture)


def _jpeg(pixels: np.ndarray) -> bytes:
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, 'JPEG', quality=_QUALITY, subsampling=0)
  return out.getvalue()


def warm_up(method: Method) -> None:
  """Compiles what the first pictures need."""
  subject = _grey_subject(method)
  for tile in (None, _SMALL_TILE):
    composing.render(subject, subject.lightness, method, Choices(), tile=tile)


def warm_up_more(method: Method) -> None:
  """Compiles what hints, regions, a mask, a reference and seeds need."""
  subject = _grey_subject(method)
  side = method.image_size
  hint = {'color': '#ff0000', 'points': [[0, 0]], 'width': 1}
  other = (Pick(strength=0.5), Area(points=((0, 0),), width=1))
  asked = [
      Choices(hints=(hint,)), Choices(regions=(other,)),
      Choices(mask=((True, other[1]),)), Choices(reference='grey')]
  if not method.is_deterministic:
    asked.append(Choices(coloring=Pick(seed=0)))
  for choices in asked:
    composing.render(
        subject, subject.lightness, method, choices,
        reference=np.full((side, side, 3), 128, np.uint8)
        if choices.reference else None)
  swatches_of(subject, method, Choices(), None, 0, 0)


def _grey_subject(method: Method) -> Subject:
  return Subject(
      photo.Photo(pixels=np.full((4, 4), 128, np.uint8), alpha=None,
                  icc_profile=None, exif=None, format='PNG', path='grey'),
      longest=4, sizes=[method.image_size])
