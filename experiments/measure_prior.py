"""Measures how often colors occur in a data set: color bins and their prior.

    python -m experiments.measure_prior --data=folder:PHOTOS --output=prior.json

All photographs have the same weight. The center square of each is resized to
--image_size, its colors are averaged over blocks, as the targets of a network
are, and each mean color is spread over its nearest bins by a Gaussian (Zhang,
Isola and Efros 2016). Experiments read the file with --prior.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from colorjax.errors import UserError
from experiments import common, script

common.define_photo_flags()
flags.adopt_module_key_flags(common)

_DATA = flags.DEFINE_string(
    'data', 'bundled', f'Training photographs: {common.DATA_FORM}')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'File to write; an existing file is replaced.',
    required=True)
_BINS = flags.DEFINE_enum(
    'bins', 'published', ['published', 'derived'], 'published: the 313 bins '
    'of Zhang et al. 2016. derived: the bins that occur in the data, which are '
    'found by reading the data once more.')
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 64, 'Side of the squares, in pixels.', lower_bound=8)
_BLOCK_SIZE = flags.DEFINE_integer(
    'block_size', 4, 'Side of the blocks whose mean color is counted, in '
    'pixels: 4 for the targets of --network=published, 2 for those of unet.',
    lower_bound=1)
_NUM_NEIGHBORS = flags.DEFINE_integer(
    'num_neighbors', 5, 'Number of bins that a color is spread over.',
    lower_bound=1)
_SIGMA = flags.DEFINE_float(
    'sigma', 5.0, 'Standard deviation of that spread, ab units.',
    lower_bound=1e-3)
flags.DEFINE_integer('batch_size', 32, 'Photographs per batch.', lower_bound=1)


def main(argv: Sequence[str]) -> int:
  """Measures, writes the file, and prints a summary."""
  del argv
  if _IMAGE_SIZE.value % _BLOCK_SIZE.value:
    raise UserError(f'--image_size={_IMAGE_SIZE.value} is not a multiple of '
                    f'--block_size={_BLOCK_SIZE.value}')
  output = pathlib.Path(_OUTPUT.value)
  # Checked now, and not after a day of reading photographs.
  if output.is_dir() or not os.access(output.parent, os.W_OK):
    raise UserError(f'--output={output}: cannot be written; give a file in an '
                    'existing folder')
  # This imports JAX, which --help must not wait for.
  from colorjax.runs import prior

  found = prior.measure(
      _DATA.value, common.photo_options(), image_size=_IMAGE_SIZE.value,
      block_size=_BLOCK_SIZE.value, bins=_BINS.value,  # type: ignore[arg-type]
      num_neighbors=_NUM_NEIGHBORS.value, sigma=_SIGMA.value,
      batch_size=flags.FLAGS.batch_size)
  found.write(output)
  print(f'{output}: {len(found.bins)} bins in {found.photos} photographs; '
        f'{found.prior.count(0)} of the bins never occur')
  return 0


if __name__ == '__main__':
  script.run(main)
