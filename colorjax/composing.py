"""Composes the coloring of a photograph from what a person chose.

The studio's pictures on the screen and its downloads are made here. A download
has the pixels that `inference.colorize` gives for the same choices: with a
single coloring everywhere, and with several ones wherever only one is seen.
"""

import collections
import dataclasses
import threading
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from colorjax import full_size, inference, photo, regions, resample
from colorjax.choices import Choices, Pick
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.photo import square, strokes

PROPOSALS = 8
"""Number of proposals of a method with several colorings."""

_KEPT = 12
"""Number of predictions of one photograph that are kept."""

_ROWS = 512  # rows of a region that are computed together


class Method:
  """A loaded method, compiled for photographs one at a time.

  Attributes:
    image_size: side of the network's square input, in pixels.
    num_colorings: number of its proposals; 1 for a deterministic method.
    is_deterministic: whether it has a single coloring.
    saturation: the default of its saturation.
    accepts_region: whether its network sees where to color.
  """

  def __init__(self, colorizer: Colorizer, variables: Variables,
               image_size: int):
    """Takes what `saved.load` returned."""
    self.image_size = image_size
    self.is_deterministic = colorizer.is_deterministic
    self.num_colorings = (
        1 if colorizer.max_proposals == 1
        else colorizer.num_proposals(PROPOSALS))
    self.saturation = float(colorizer.options.get('saturation', 1.0))
    self._has_saturation = 'saturation' in colorizer.options
    self.accepts_region = 'region' in colorizer.accepts
    self._variables = variables
    self._predict = inference.predictor(
        colorizer,
        num_proposals=0 if self.num_colorings == 1 else self.num_colorings)

  def check(self, pick: Pick) -> None:
    """Raises UserError if the method does not have this coloring."""
    if pick.index >= self.num_colorings:
      raise UserError(f'index={pick.index}: this model has '
                      f'{self.num_colorings} colorings')
    if pick.seed is not None and self.is_deterministic:
      raise UserError(f'seed={pick.seed}: this model has a single coloring')

  def predict(self, inputs: Mapping[str, np.ndarray], seed: int | None,
              saturation: float) -> 'Prediction':
    """Computes all colorings of one photograph.

    Args:
      inputs: what `inference.inputs_of` returns.
      seed: as in `inference.answers`.
      saturation: factor of the chroma.

    Returns:
      The colorings at the network's resolution.
    """
    ab, probability = self._predict(
        self._variables,
        {name: jnp.asarray(x)[None] for name, x in inputs.items()},
        seed=seed, saturation=saturation if self._has_saturation else None)
    return Prediction(
        inputs['lightness'][..., 0], np.asarray(ab[:, 0]),
        None if probability is None else np.asarray(probability[:, 0]))


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Colorings of a photograph at the network's resolution.

  Attributes:
    guide: L in [0, 100], [S, S].
    ab: Lab units, [k, S, S, 2].
    probability: [k], or None if the method has none.
  """
  guide: np.ndarray
  ab: np.ndarray
  probability: np.ndarray | None

  @property
  def shares(self) -> np.ndarray:
    """Probabilities that sum to 1; equal ones if the method has none."""
    if self.probability is None:
      return np.full(len(self.ab), 1 / len(self.ab))
    return self.probability / max(float(self.probability.sum()), 1e-9)

  @property
  def deviation(self) -> np.ndarray:
    """Standard deviation of ab over the colorings, Lab units, [S, S]."""
    shares = self.shares[:, None, None, None]
    mean = (shares * self.ab).sum(0)
    return np.sqrt((shares * (self.ab - mean)**2).sum((0, -1)))


class Subject:
  """A photograph without its pixels: what is needed to color it on a screen.

  Attributes:
    grid: the photograph on the grid of regions.
    preview: the photograph at screen size, uint8 sRGB.
    lightness: L in [0, 100] of the preview, float32 [h, w].
    shape: rows and columns of the photograph.
  """

  def __init__(self, picture: photo.Photo, *, longest: int,
               sizes: Sequence[int]):
    """Reduces a photograph.

    Args:
      picture: the photograph.
      longest: longest side of the preview, in pixels.
      sizes: sides of the inputs of networks that may color it.
    """
    height, width = picture.pixels.shape[:2]
    self.shape = height, width
    self.grid = regions.Grid(picture.pixels)
    self.preview = reduced(photo.with_depth(picture.pixels, 8), longest)
    self.lightness = full_size.lightness_of(self.preview)
    self._seen = {size: inference.seen(picture.pixels, size) for size in sizes}
    self._kept: collections.OrderedDict[tuple, Prediction] = (
        collections.OrderedDict())
    self._lock = threading.Lock()

  @property
  def num_bytes(self) -> int:
    """Bytes in memory."""
    return (self.preview.nbytes + self.lightness.nbytes + self.grid.num_bytes
            + sum(x.nbytes for x in self._seen.values())
            + sum(one.ab.nbytes for one in list(self._kept.values())))

  def forget(self) -> None:
    """Frees the predictions; they are computed again when they are needed."""
    with self._lock:
      self._kept.clear()

  def predict(self, method: Method, choices: Choices, pick: Pick, *,
              region: np.ndarray | None = None,
              reference: np.ndarray | None = None) -> Prediction:
    """Computes the colorings to which one belongs, or takes them from memory.

    Args:
      method: the method.
      choices: the hints, the mask and the saturation.
      pick: the coloring; its seed and strength matter.
      region: what `region_of` returned for the mask, at any resolution.
      reference: pixels of the reference, uint8 sRGB [h, w, 3], or None.

    Returns:
      The colorings.

    Raises:
      UserError: the method does not have this coloring.
    """
    method.check(pick)
    saturation = pick.strength * (
        method.saturation if choices.saturation is None else choices.saturation)
    key: tuple = (id(method), pick.seed, saturation, repr(choices.hints),
                  choices.reference)
    if region is not None and method.accepts_region:
      key += (region.shape, choices.mask_start, choices.mask)
    else:
      region = None
    with self._lock:
      if key not in self._kept:
        hints = strokes.of_json(
            list(choices.hints), self.shape, method.image_size
        ) if choices.hints else None
        self._kept[key] = method.predict(inference.inputs_from(
            self._seen[method.image_size], region=region, hints=hints,
            reference=reference), pick.seed, saturation)
      self._kept.move_to_end(key)
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
      return self._kept[key]


def region_of(grid: regions.Grid, choices: Choices, lightness: np.ndarray
              ) -> np.ndarray | None:
  """Computes where a picture of a photograph is to be colored.

  Args:
    grid: the photograph on the grid of regions.
    choices: the mask.
    lightness: L in [0, 100] of the picture, of any size, float32 [H, W].

  Returns:
    bool [H, W]; None without a mask.
  """
  if not choices.has_mask:
    return None
  labels = grid.draw([(int(not grey), area) for grey, area in choices.mask],
                     start=int(choices.mask_start == 'color'))
  weights = regions.Weights(grid, labels, 2)
  height, width = lightness.shape
  region = np.empty((height, width), bool)
  for top in range(0, height, _ROWS):
    rows = slice(top, min(top + _ROWS, height))
    share = weights.of(lightness, rows, slice(0, width))
    region[rows] = bool(share) if isinstance(share, int) else (
        share[..., 1] > 0.5)
  return region


def render(subject: Subject, lightness: np.ndarray, method: Method,
           choices: Choices, *, bits: int = 8,
           reference: np.ndarray | None = None, tile: int | None = None
           ) -> np.ndarray:
  """Makes the picture that was chosen.

  Args:
    subject: the photograph.
    lightness: L in [0, 100] of a picture of it, float32 [H, W]: of the
      photograph itself for a download, else of a smaller copy.
    method: the method.
    choices: what was chosen.
    bits: bit depth of the picture, 8 or 16.
    reference: pixels of the reference, uint8 sRGB [h, w, 3], or None.
    tile: as in `full_size.paint_mixture`.

  Returns:
    sRGB, uint8 or uint16 [H, W, 3].

  Raises:
    UserError: the method does not have a coloring that was chosen.
  """
  region = region_of(subject.grid, choices, lightness)
  picks = choices.picks
  fields = []
  for pick in picks:
    found = subject.predict(method, choices, pick, region=region,
                            reference=reference)
    fields.append(resample.fit_locally(found.guide, found.ab[pick.index]))
  if len(fields) == 1:
    return full_size.paint_mixture(
        lightness, fields, lambda rows, columns: 0, bits=bits, region=region,
        tile=tile)
  labels = subject.grid.draw([(picks.index(pick), area)
                              for pick, area in choices.regions])
  weights = regions.Weights(subject.grid, labels, len(fields))
  return full_size.paint_mixture(
      lightness, fields,
      lambda rows, columns: weights.of(lightness, rows, columns),
      bits=bits, region=region, tile=tile)


def reduced(pixels: np.ndarray, longest: int) -> np.ndarray:
  """Reduces a picture to a longest side; a smaller one is returned as it is.

  Args:
    pixels: uint8 sRGB, [H, W] or [H, W, 3].
    longest: in pixels.

  Returns:
    uint8 [h, w] or [h, w, 3].
  """
  height, width = pixels.shape[:2]
  shape = regions.fitted(height, width, longest)
  return pixels if shape == pixels.shape[:2] else square.resize(pixels, *shape)
