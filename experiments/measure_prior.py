"""Measures how often colors occur in a data set: bins and their prior.

    python -m experiments.measure_prior --data=folder:PHOTOS --output=prior.json

Each photograph counts once and alike: its center square is brought to
--image_size, its colors are averaged over blocks as a network's targets are,
and each is spread over its nearest bins by a Gaussian (Zhang, Isola and Efros
2016). Experiments take the file by --prior.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

from absl import flags

from colorjax.errors import UserError
from experiments import common, prior_file

common.define_photo_flags()
flags.adopt_module_key_flags(common)

_DATA = flags.DEFINE_string(
    'data', 'bundled', f'Training photographs: {common.DATA_FORM}')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'File to write; one that is there is replaced.',
    required=True)
_BINS = flags.DEFINE_enum(
    'bins', 'published', ['published', 'derived'], 'published: the 313 bins '
    'of Zhang et al. 2016. derived: those in which the data have a color, '
    'found by reading the data once more.')
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 64, 'Side of the squares, in pixels.', lower_bound=8)
_BLOCK_SIZE = flags.DEFINE_integer(
    'block_size', 4, 'Side of the blocks whose mean color counts, in pixels: '
    '4 for the targets of --network=published, 2 for those of unet.',
    lower_bound=1)
_NUM_NEIGHBORS = flags.DEFINE_integer(
    'num_neighbors', 5, 'Bins that a color is spread over.', lower_bound=1)
_SIGMA = flags.DEFINE_float(
    'sigma', 5.0, 'Width of that spread, ab units.', lower_bound=1e-3)
flags.DEFINE_integer('batch_size', 32, 'Photographs held at a time.',
                     lower_bound=1)


def main(argv: Sequence[str]) -> int:
  """Measures, writes the file, and says what was counted."""
  del argv
  if _IMAGE_SIZE.value % _BLOCK_SIZE.value:
    raise UserError(f'--image_size={_IMAGE_SIZE.value} is no multiple of '
                    f'--block_size={_BLOCK_SIZE.value}')
  output = pathlib.Path(_OUTPUT.value)
  # Found out now and not after a day of reading photographs.
  if output.is_dir() or not os.access(output.parent, os.W_OK):
    raise UserError(f'--output={output}: cannot be written there; name a file '
                    'in a folder that exists')
  # These import JAX, which --help does not wait for.
  from colorjax import quantize
  from colorjax.runs import photographs

  photos = photographs.open_photos(
      _DATA.value, common.photo_options(), train=True)
  if _BINS.value == 'published':
    bins = quantize.published_bins()
  else:
    histogram, _ = _mean_over_photos(photos, quantize.grid_histogram, 'bins')
    bins = quantize.occurring_bins(histogram)
  if _NUM_NEIGHBORS.value > len(bins):
    raise UserError(f'--num_neighbors={_NUM_NEIGHBORS.value}: there are '
                    f'{len(bins)} bins')
  prior, count = _mean_over_photos(
      photos, lambda ab: quantize.soft_histogram(
          ab, bins, num_neighbors=_NUM_NEIGHBORS.value, sigma=_SIGMA.value),
      'prior')
  prior_file.PriorFile(
      data=_DATA.value, photos=count, image_size=_IMAGE_SIZE.value,
      block_size=_BLOCK_SIZE.value, num_neighbors=_NUM_NEIGHBORS.value,
      sigma=_SIGMA.value, bins=bins.tolist(), prior=prior.tolist()
  ).write(output)
  print(f'{output}: {len(bins)} bins, {(prior == 0).sum()} of which '
        f'never occur, in {count} photographs')
  photographs.say_exclusions(photos, _DATA.value)
  return 0


def _mean_over_photos(photos, histogram: Callable, what: str):
  """Mean of `histogram(ab) -> [B, ...]` over all photographs, and their number.

  Sums are float64: of a million photographs none is lost.
  """
  import jax
  import numpy as np
  import tqdm

  from colorjax import color, resample
  from colorjax.runs import photographs

  @jax.jit
  def measure(image):
    _, ab = color.split_lightness(image)
    return histogram(resample.mean_pool(ab, _BLOCK_SIZE.value))

  total, count = 0, 0
  with photographs.Feed(
      photos=photos, options=common.photo_options(),
      batch_size=flags.FLAGS.batch_size,
      image_size=flags.FLAGS.image_size).held_out() as batches, tqdm.tqdm(
      desc=what, total=photos.source.size, unit='photo', disable=None) as bar:
    for batch in batches:
      is_photo = batch['mask'] > 0
      values = np.asarray(measure(batch['image']), np.float64)
      total = total + values[is_photo].sum(0)
      count += int(is_photo.sum())
      bar.update(len(is_photo))
  if not count:
    raise UserError(f'--data={_DATA.value}: no photograph can be read')
  return total / count, count


if __name__ == '__main__':
  common.run(main)
