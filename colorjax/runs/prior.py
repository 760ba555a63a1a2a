"""How often colors occur in a data set: measured, kept in a file, read again.

Methods that give rare colors more weight take its numbers as settings, so that
a checkpoint does not need the file.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import tqdm

from colorjax import color, files, hosts, quantize, resample
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.runs import photographs
from colorjax.runs.photographs import PhotoOptions

FILE = 'prior.json'
"""Name of the file that a run measures itself, in its work directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior:
  """How often colors occur in a data set.

  Attributes:
    data: the data set, as it was named.
    photos: number of photographs counted.
    image_size: side of the squares that photographs were cut to, in pixels.
    block_size: side of the blocks whose mean color was counted, in pixels.
    num_neighbors: bins that each color was spread over.
    sigma: width of that spread, ab units.
    bins: centers [a, b], Lab units.
    prior: probability of each bin.
  """
  data: str
  photos: int
  image_size: int
  block_size: int
  num_neighbors: int
  sigma: float
  bins: list[list[float]]
  prior: list[float]

  def write(self, path: pathlib.Path) -> None:
    """Writes the file whole or not at all; UserError where it cannot be."""
    files.write_json(path, dataclasses.asdict(self), indent=None)

  def settings(self) -> dict[str, Any]:
    """`bins` and `prior` for the `build` of a method."""
    return {'bins': self.bins, 'prior': self.prior}


def measure(
    data: str,
    photos: PhotoOptions,
    *,
    image_size: int = 64,
    block_size: int = 4,
    bins: Literal['published', 'derived'] = 'published',
    num_neighbors: int = quantize.NUM_NEIGHBORS,
    sigma: float = quantize.SIGMA,
    batch_size: int = 32,
) -> Prior:
  """Measures how often colors occur (Zhang, Isola and Efros 2016).

  Each photograph counts once and alike: its center square is brought to
  `image_size`, its colors are averaged over blocks as a network's targets are,
  and each is spread over its nearest bins by a Gaussian.

  Args:
    data: the photographs, as `data.sources.parse` understands it.
    photos: how they are read.
    image_size: side of the squares, in pixels.
    block_size: side of the blocks whose mean color counts, in pixels; it
      divides `image_size`.
    bins: 'published' for the 313 bins of the paper, 'derived' for those in
      which the data have a color, found by reading the data once more.
    num_neighbors: bins that a color is spread over.
    sigma: width of that spread, ab units.
    batch_size: photographs held at a time.

  Returns:
    The prior; photographs that were left out are printed.

  Raises:
    UserError: the numbers do not fit each other, or no photograph is readable.
  """
  if image_size % block_size:
    raise UserError(f'image_size={image_size} is not a multiple of '
                    f'block_size={block_size}')
  screen = photographs.open_photos(data, photos, train=True)

  def mean_of(histogram: Callable, what: str) -> tuple[np.ndarray, int]:
    return _mean_over_photos(
        screen, photos, histogram, what, image_size=image_size,
        block_size=block_size, batch_size=batch_size)

  if bins == 'published':
    centers = quantize.published_bins()
  else:
    histogram, _ = mean_of(quantize.grid_histogram, 'bins')
    centers = quantize.occurring_bins(histogram)
  if num_neighbors > len(centers):
    raise UserError(f'num_neighbors={num_neighbors}: there are {len(centers)} '
                    'bins')
  shares, count = mean_of(
      lambda ab: quantize.soft_histogram(
          ab, centers, num_neighbors=num_neighbors, sigma=sigma), 'prior')
  photographs.say_exclusions(screen, data)
  return Prior(
      data=data, photos=count, image_size=image_size, block_size=block_size,
      num_neighbors=num_neighbors, sigma=sigma, bins=centers.tolist(),
      prior=shares.tolist())


def read(path: pathlib.Path) -> Prior:
  """Reads what `Prior.write` wrote; UserError, one line, for all else."""
  if not path.is_file():
    raise UserError(f'prior={path}: there is no such file; '
                    'experiments.measure_prior writes it')
  try:
    found = Prior(**files.read_json(path))
    numbers = [*found.prior, *(x for center in found.bins for x in center)]
    if not all(math.isfinite(x) for x in numbers):
      raise ValueError('a number is not finite')
    if len(found.bins) != len(found.prior):
      raise ValueError(f'{len(found.prior)} probabilities do not fit '
                       f'{len(found.bins)} bins')
  except (TypeError, ValueError) as error:
    raise UserError(f'prior={path}: not a prior that experiments.measure_prior '
                    f'wrote: {error}') from error
  return found


def kept(path: pathlib.Path, data: str, photos: PhotoOptions, **how: Any
         ) -> Prior:
  """The prior in a file; it is measured and written where it is not there.

  Several processes all have to call it; the main one measures.

  Args:
    path: the file.
    data: see `measure`.
    photos: see `measure`.
    **how: further arguments of `measure`.

  Raises:
    UserError: as `measure`; or the file is there and was measured otherwise.
  """
  return Prior(**hosts.on_main(
      lambda: dataclasses.asdict(_kept(path, data, photos, **how))))


def _kept(path: pathlib.Path, data: str, photos: PhotoOptions, **how: Any
          ) -> Prior:
  if path.exists():
    found = read(path)
    differing = differences(found, data=data, **how)
    if differing:
      raise UserError(f'prior={path}: it was measured with '
                      f'{", ".join(differing)}: remove the file, and it is '
                      'measured again')
    return found
  print(f'measuring the prior of colors of {data}')
  found = measure(data, photos, **how)
  found.write(path)
  print(f'{path}: {len(found.bins)} bins in {found.photos} photographs')
  return found


def differences(found: Prior, **wanted: Any) -> list[str]:
  """How a prior was measured otherwise than is wanted.

  Args:
    found: the prior.
    **wanted: values of its fields; `data` is compared as text. Fields that a
      prior does not have are not compared, nor are those that are None.

  Returns:
    'NAME=VALUE instead of WANTED' for each field that differs. Two resolutions
    are the same where as many blocks make up a photograph.
  """
  fields = {field.name for field in dataclasses.fields(found)} - {'bins'}
  wanted = {name: value for name, value in wanted.items()
            if name in fields and value is not None}
  if {'image_size', 'block_size'} <= wanted.keys():
    ratio = found.image_size * wanted['block_size']
    if ratio == found.block_size * wanted['image_size']:
      del wanted['image_size'], wanted['block_size']
  return [f'{name}={getattr(found, name)} instead of {value}'
          for name, value in wanted.items() if getattr(found, name) != value]


def _mean_over_photos(
    screen: Screen, options: PhotoOptions, histogram: Callable, what: str, *,
    image_size: int, block_size: int, batch_size: int
) -> tuple[np.ndarray, int]:
  """Mean of `histogram(ab) -> [B, ...]` over all photographs, and their number.

  Sums are float64: of a million photographs none is lost.
  """
  @jax.jit
  def measure_batch(image):
    _, ab = color.split_lightness(image)
    return histogram(resample.mean_pool(ab, block_size))

  total: Any = 0
  count = 0
  feed = photographs.Feed(photos=screen, options=options,
                          batch_size=batch_size, image_size=image_size)
  with feed.held_out() as batches, tqdm.tqdm(
      desc=what, total=screen.source.size, unit='photo', disable=None) as bar:
    for batch in batches:
      is_photo = batch['padding_mask'] > 0
      values = np.asarray(measure_batch(batch['image']), np.float64)
      total = total + values[is_photo].sum(0)
      count += int(is_photo.sum())
      bar.update(len(is_photo))
  if not count:
    raise UserError(f'data={screen.source.name}: no photograph can be read')
  return total / count, count
