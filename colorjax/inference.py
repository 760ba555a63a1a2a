"""Colors photographs of any size and bit depth.

The network sees the photograph's lightness, resized to a square (`seen`). Its
ab field is upsampled to the photograph's resolution along the photograph's
edges (`resample`), moved into the sRGB gamut at constant lightness and hue, and
rounded such that every pixel keeps its lightness (`photo.painting`).
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, photo, resample, saved, zoo
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.fallbacks import with_fallbacks
from colorjax.full_size import lightness_of, paint
from colorjax.photo import square, strokes

Answer = Callable[..., tuple[jax.Array, jax.Array | None]]
"""`(variables, inputs) -> (ab [k, B, H, W, 2], probability [k, B] or None)`."""

Predict = Callable[..., tuple[jax.Array, jax.Array | None]]
"""`(variables, inputs, *, seed=None, saturation=None)`, results of Answer."""


@dataclasses.dataclass(frozen=True)
class Coloring:
  """One coloring of a photograph.

  Attributes:
    pixels: sRGB, uint8 or uint16 [H, W, 3], at the photograph's resolution.
    probability: its probability under the method; None if the method has none.
  """
  pixels: np.ndarray
  probability: float | None


@dataclasses.dataclass(frozen=True)
class Colored:
  """The result of `colorjax.colorize`.

  Attributes:
    pixels: the best single coloring, sRGB, uint8 or uint16 [H, W, 3].
    proposals: pixels of different colorings, most probable first; [] if none
      were requested.
    probabilities: probabilities of the proposals; None if the method has none
      or no proposals were requested.
  """
  pixels: np.ndarray
  proposals: list[np.ndarray]
  probabilities: list[float] | None


def colorize_image(
    image: str | os.PathLike | np.ndarray, *,
    model: str | None = None,
    checkpoint: str | os.PathLike | tuple[Colorizer, Variables, int]
    | None = None, proposals: int = 0, region: np.ndarray | None = None,
    hints: str | os.PathLike | None = None,
    reference: str | os.PathLike | np.ndarray | None = None,
    seed: int | None = None, bits: int | None = None, **options: Any,
) -> Colored:
  """Colors one photograph; available as `colorjax.colorize`.

  The network is compiled at every call. For many photographs, call `saved.load`
  and `answers` once, then `colorize` for each photograph.

  Args:
    image: a file, or sRGB pixels, uint8 or uint16, [H, W] or [H, W, 3].
    model: a model that comes with colorjax, one of zoo.MODELS; by default the
      first of them.
    checkpoint: a trained method in place of `model`: the work directory of a
      run, a model file, or the result of `saved.load`.
    proposals: number of different colorings to return beside the best.
    region: the pixels to color, bool [H, W]; the rest stays grey.
    hints: a file with hints, see `strokes.read`.
    reference: a photograph whose palette the colorings get: a file, or pixels
      like `image`.
    seed: as in `answers`.
    bits: bit depth of the colorings, 8 or 16; None for that of the photograph.
    **options: options of the method, see `Colorizer.options`.

  Returns:
    The colorings.

  Raises:
    UserError: the image, the checkpoint, the region, the hints, the reference
      or an option cannot be used.
  """
  picture = as_photo(image)
  colorizer, variables, image_size = _load(model, checkpoint)
  colorizer = colorizer.ask(**options)
  given = None
  if hints is not None:
    given = strokes.read(os.path.expanduser(hints), picture, image_size)
  if region is not None and region.shape != picture.pixels.shape[:2]:
    raise UserError(
        f'region is {list(region.shape)}, but the photograph is '
        f'{list(picture.pixels.shape[:2])}: use a region of the same size')

  def predict(num_proposals):
    return list(colorize(
        answers(colorizer, num_proposals=num_proposals, seed=seed),
        variables, picture, image_size=image_size, bits=bits, region=region,
        hints=given, reference=None if reference is None else photo.to_rgb8(
            as_photo(reference))))

  (best,) = predict(0)
  proposed = predict(proposals) if proposals else []
  probabilities = [one.probability for one in proposed
                   if one.probability is not None]
  return Colored(pixels=best.pixels, proposals=[one.pixels for one in proposed],
                 probabilities=probabilities or None)


def _load(model: str | None,
          checkpoint: str | os.PathLike | tuple[Colorizer, Variables, int]
          | None) -> tuple[Colorizer, Variables, int]:
  """Loads the method that the arguments of `colorize_image` select."""
  if checkpoint is not None and model is not None:
    raise UserError(f'model={model}: a checkpoint is given too; give only one')
  if isinstance(checkpoint, tuple):
    return checkpoint
  if checkpoint is None:
    return saved.load(zoo.path(zoo.MODELS[0] if model is None else model))
  return saved.load(pathlib.Path(os.path.expanduser(checkpoint)))


def as_photo(image: str | os.PathLike | np.ndarray) -> photo.Photo:
  """Makes a photograph from a file or from pixels.

  Args:
    image: a file, or sRGB pixels, uint8 or uint16, [H, W] or [H, W, 3].

  Returns:
    The photograph.

  Raises:
    UserError: the file cannot be read, or the array has another dtype or shape.
  """
  if not isinstance(image, np.ndarray):
    return photo.read(os.path.expanduser(image))
  if image.dtype not in (np.uint8, np.uint16) or not image.size or not (
      image.ndim == 2 or image.shape[2:] == (3,)):
    raise UserError('image must be a path, or uint8 or uint16 pixels [H, W] '
                    f'or [H, W, 3], got {image.dtype} {list(image.shape)}')
  return photo.Photo(pixels=image, alpha=None, icc_profile=None, exif=None,
                     format='', path='image')


def answers(colorizer: Colorizer, *, num_proposals: int = 0,
            seed: int | None = None) -> Answer:
  """Makes a compiled prediction function that can be used for many photographs.

  Args:
    colorizer: the method.
    num_proposals: 0 for the best single coloring (`predict`), else the number
      of proposals, most probable first.
    seed: draws random colorings in place of the most probable ones, the same
      for each photograph with this seed; None does not.

  Returns:
    The function. It is compiled once for each image size and each set of
    inputs. It accepts a region, hints and a reference with every method, and
    raises UserError for other inputs that the method does not accept.

  Raises:
    UserError: a seed is given, but the method has a single coloring.
  """
  if seed is not None and colorizer.is_deterministic:
    raise UserError(f'seed={seed}: this method has a single coloring; use one '
                    'with several, such as mbm')
  predict = predictor(colorizer, num_proposals=num_proposals)
  return lambda variables, inputs: predict(variables, inputs, seed=seed)


def predictor(colorizer: Colorizer, *, num_proposals: int = 0) -> Predict:
  """Makes what `answers` makes, with seed and saturation chosen at each call.

  Args:
    colorizer: the method.
    num_proposals: as in `answers`.

  Returns:
    The function. All seeds share one compiled program, and so do all values of
    the saturation; the default is that of the method.
  """
  complete = with_fallbacks(colorizer)
  default = colorizer.options.get('saturation')

  @jax.jit
  def compiled(variables, inputs, key, options):
    method = complete.ask(**options)
    if 'region' not in colorizer.accepts:
      # `paint` applies the region at the photograph's resolution, which is
      # sharper than the network's square.
      inputs = {name: x for name, x in inputs.items() if name != 'region'}
    if key is not None:
      keys = jnp.broadcast_to(key, len(inputs['lightness']))
      return method.sample(variables, inputs, keys, num_proposals or 1), None
    if num_proposals:
      return method.propose(variables, inputs, num_proposals)
    return method.predict(variables, inputs)[None], None

  def predict(variables, inputs, *, seed=None, saturation=None):
    if saturation is None:
      saturation = default
    return compiled(variables, inputs,
                    None if seed is None else jax.random.key(seed),
                    {} if saturation is None else {'saturation': saturation})

  return predict


def colorize(
    answer: Answer, variables: Variables, picture: photo.Photo, *,
    image_size: int, bits: int | None = None,
    region: np.ndarray | None = None,
    hints: tuple[np.ndarray, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
) -> Iterator[Coloring]:
  """Colors a photograph; yields one coloring after the other.

  Only the lightness of the photograph is used, and any colors are ignored.
  Pixels are processed in tiles, so that the memory beyond the photograph and
  one coloring is 4 bytes per pixel.

  Args:
    answer: the prediction function that `answers` returned.
    variables: the network's variables.
    picture: the photograph.
    image_size: side of the network's square input, in pixels.
    bits: bit depth of the colorings, 8 or 16; None for that of the photograph.
    region: the pixels to color, bool [H, W]; the rest is exactly grey, with
      every method. None for the whole photograph.
    hints: hint_ab and hint_mask that `strokes.of_strokes` returned for
      `image_size`, or None.
    reference: a photograph whose palette the colorings get, uint8 sRGB
      [h, w, 3], or None.

  Yields:
    The colorings, most probable first.

  Raises:
    UserError: the method does not accept one of these inputs.
  """
  inputs = inputs_of(picture, image_size=image_size, region=region, hints=hints,
                     reference=reference)
  ab, probability = answer(
      variables, {name: jnp.asarray(x)[None] for name, x in inputs.items()})
  yield from finish(
      picture, inputs, ab[:, 0],
      None if probability is None else probability[:, 0], bits=bits,
      region=region)


def inputs_of(
    picture: photo.Photo, *, image_size: int,
    region: np.ndarray | None = None,
    hints: tuple[np.ndarray, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Computes what a method sees of a photograph.

  The arguments are those of `colorize`.

  Returns:
    The inputs of `colorjax.colorizer`, without the batch axis.
  """
  return inputs_from(seen(picture.pixels, image_size), region=region,
                     hints=hints, reference=reference)


def inputs_from(
    lightness: np.ndarray, *, region: np.ndarray | None = None,
    hints: tuple[np.ndarray, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Does what `inputs_of` does, for a photograph that was reduced already.

  Args:
    lightness: what `seen` returned for the photograph, [S, S].
    region: as in `inputs_of`, at any resolution.
    hints: as in `inputs_of`.
    reference: as in `inputs_of`.

  Returns:
    As `inputs_of`.
  """
  image_size = len(lightness)
  inputs = {'lightness': lightness[..., None]}
  if region is not None:
    inputs['region'] = _region_seen(region, image_size)[..., None]
  if hints is not None:
    inputs['hint_ab'], inputs['hint_mask'] = map(np.asarray, hints)
  if reference is not None:
    inputs['reference'] = square.squash(reference, image_size)
  return inputs


def finish(
    picture: photo.Photo, inputs: Mapping[str, np.ndarray], ab: jax.Array,
    probability: jax.Array | None, *, bits: int | None = None,
    region: np.ndarray | None = None,
) -> Iterator[Coloring]:
  """Paints the colorings of a method at the photograph's resolution.

  Args:
    picture: as in `colorize`.
    inputs: what `inputs_of` returned for it.
    ab: k colorings, Lab units, [k, S, S, 2].
    probability: [k], or None if the method has none.
    bits: as in `colorize`.
    region: as in `colorize`.

  Yields:
    The colorings in the same order.
  """
  guide = inputs['lightness'][..., 0]
  lightness = lightness_of(picture.pixels)
  probabilities = (len(ab) * [None] if probability is None
                   else np.asarray(probability).tolist())
  for i, (one_ab, one_probability) in enumerate(
      zip(ab, probabilities, strict=True), start=1):
    pixels = paint(lightness, resample.fit_locally(guide, one_ab),
                   region=region, bits=bits or 8 * picture.pixels.itemsize)
    if i == len(probabilities):
      # Of 100 megapixels, this is 400 MB, which are freed before the last
      # coloring is written.
      del lightness
    yield Coloring(pixels=pixels, probability=one_probability)


def seen(pixels: np.ndarray, size: int) -> np.ndarray:
  """Computes the lightness that a network sees of a photograph.

  It is the same as in training with fit='squash', see `photo.square`.

  Args:
    pixels: sRGB, uint8 or uint16, [H, W] grey or [H, W, 3].
    size: side of the square in pixels.

  Returns:
    float32 [size, size], L in [0, 100].
  """
  return np.asarray(_seen(square.squash(pixels, size)))


def _region_seen(region: np.ndarray, size: int) -> np.ndarray:
  """Resizes a region bool [H, W] to the network's input.

  A pixel is inside if more than half of its area is.

  Returns:
    float32 [size, size], 0 or 1.
  """
  levels = square.resize(region.astype(np.uint8) * np.uint8(255), size, size)
  return (levels > 127).astype(np.float32)


@jax.jit
def _seen(pixels):
  return color.split_lightness(pixels)[0][..., 0]
