"""Packs a trained method into a single file.

    python -m experiments.pack --checkpoint=runs/mine --output=mine.safetensors

The file holds the weights and how the method was built. `colorize`, `evaluate`
and `colorjax.colorize` accept it wherever they accept a work directory:
--checkpoint=mine.safetensors. A frozen pretrained encoder is not stored if it
is the public one that is installed with colorjax.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import model_flags, replica_flags, script

model_flags.define_ask_flag()
replica_flags.define_replica_flag()
flags.adopt_module_key_flags(replica_flags)
flags.adopt_module_key_flags(model_flags)

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Work directory of a finished run.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, 'The file; its name ends in .safetensors. An existing file '
    'is replaced.', required=True)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'float16', ['float16', 'float32'], 'Type in which the weights are '
    'stored. float16 halves the size, and rounds them to three digits.')
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', None, 'Side of the square that the network will see, in '
    'pixels; if not given, that of the training.', lower_bound=8)


def main(argv: Sequence[str]) -> None:
  """Writes the file."""
  del argv
  # Imported late, so that --help and wrong flags do not wait for it.
  from colorjax import saved

  output = pathlib.Path(_OUTPUT.value)
  omitted = saved.pack(
      pathlib.Path(_CHECKPOINT.value), output, dtype=_DTYPE.value,
      image_size=_IMAGE_SIZE.value, asking=model_flags.ask_options(),
      replica=flags.FLAGS.replica)
  print(f'{output}: {os.path.getsize(output) / 1e6:.1f} MB'
        + ''.join(f', without the public weights of {name}'
                  for name in omitted))


if __name__ == '__main__':
  script.run(main)
