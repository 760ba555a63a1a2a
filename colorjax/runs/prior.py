"""Measures how often colors occur in a data set, and stores that in a file.

Methods that give rare colors more weight take the numbers as settings, so that
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
"""Name of the file in a work directory, for a run that measures the prior."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior:
  """How often colors occur in a data set.

  Attributes:
    data: the text that names the data set.
    photos: number of photographs counted.
    image_size: side of the squares that photographs were cut to, in pixels.
    block_size: side of the blocks whose mean color was counted, in pixels.
    num_neighbors: number of bins that each color was spread over.
    sigma: standard deviation of that spread, ab units.
    bins: centers [a, b] of the bins, Lab units.
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
    """Writes the file completely or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    files.write_json(path, dataclasses.asdict(self), indent=None)

  def settings(self) -> dict[str, Any]:
    """The arguments `bins` and `prior` for the `build` of a method."""
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

  All photographs have the same weight. The center square of each is resized to
  `image_size`, its colors are averaged over blocks, as the targets of a network
  are, and each mean color is spread over its nearest bins by a Gaussian.
  Photographs that are left out are printed.

  Args:
    data: the photographs, in the form of `data.sources.parse`.
    photos: how they are read.
    image_size: side of the squares, in pixels.
    block_size: side of the blocks whose mean color is counted, in pixels; it
      divides `image_size`.
    bins: 'published' for the 313 bins of the paper, 'derived' for the bins that
      occur in the data, which are found by reading the data once more.
    num_neighbors: number of bins that a color is spread over.
    sigma: standard deviation of that spread, ab units.
    batch_size: photographs per batch.

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
    raise UserError(f'num_neighbors={num_neighbors}: there are only '
                    f'{len(centers)} bins; choose a smaller number')
  shares, count = mean_of(
      lambda ab: quantize.soft_histogram(
          ab, centers, num_neighbors=num_neighbors, sigma=sigma), 'prior')
  photographs.say_exclusions(screen, data)
  return Prior(
      data=data, photos=count, image_size=image_size, block_size=block_size,
      num_neighbors=num_neighbors, sigma=sigma, bins=centers.tolist(),
      prior=shares.tolist())


def read(path: pathlib.Path) -> Prior:
  """Reads the file of a prior.

  Raises:
    UserError: the file does not exist, or holds no prior.
  """
  if not path.is_file():
    raise UserError(f'prior={path}: there is no such file; '
                    'experiments.measure_prior writes one')
  try:
    found = Prior(**files.read_json(path))
    numbers = [*found.prior, *(x for center in found.bins for x in center)]
    if not all(math.isfinite(x) for x in numbers):
      raise ValueError('a number is not finite')
    if len(found.bins) != len(found.prior):
      raise ValueError(f'{len(found.prior)} probabilities do not fit '
                       f'{len(found.bins)} bins')
  except (TypeError, ValueError) as error:
    raise UserError(f'prior={path}: not a prior written by '
                    f'experiments.measure_prior: {error}') from error
  return found


def read_or_measure(path: pathlib.Path, data: str, photos: PhotoOptions,
                    **arguments: Any) -> Prior:
  """Reads a prior from a file; measures and writes it if there is no file.

  If several processes are connected, all must call this function; the main one
  measures.

  Args:
    path: the file.
    data: as in `measure`.
    photos: as in `measure`.
    **arguments: further arguments of `measure`.

  Raises:
    UserError: as `measure`; or the file exists and was measured with other
      arguments.
  """
  return Prior(**hosts.on_main(
      lambda: dataclasses.asdict(_kept(path, data, photos, **arguments))))


def _kept(path: pathlib.Path, data: str, photos: PhotoOptions,
          **arguments: Any) -> Prior:
  if path.exists():
    found = read(path)
    differing = differences(found, data=data, **arguments)
    if differing:
      raise UserError(f'prior={path}: it was measured with '
                      f'{", ".join(differing)}: delete the file to measure '
                      'it again')
    return found
  print(f'measuring how often colors occur in {data}')
  found = measure(data, photos, **arguments)
  found.write(path)
  print(f'{path}: {len(found.bins)} bins in {found.photos} photographs')
  return found


def differences(found: Prior, **wanted: Any) -> list[str]:
  """Compares how a prior was measured with how it should be.

  Args:
    found: the prior.
    **wanted: expected values of its fields. Names that are not fields of a
      prior and values that are None are not compared.

  Returns:
    'NAME=VALUE instead of WANTED' for each field that differs. Two resolutions
    count as equal if a photograph has the same number of blocks.
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

  Sums are float64, which is exact enough for millions of photographs.
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
