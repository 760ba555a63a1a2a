"""Writes a trained method to a file that other programs can run.

    python -m experiments.export --model=general --output=general.stablehlo
    python -m experiments.export --checkpoint=runs/mine --output=mine.onnx

A file that ends in .stablehlo is run by JAX alone, one that ends in .onnx by
ONNX Runtime and other programs. ONNX needs the package jax2onnx.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import model_flags, replica_flags, script

model_flags.define_checkpoint_flags()
model_flags.define_ask_flag()
replica_flags.define_replica_flag()
flags.adopt_module_key_flags(replica_flags)
flags.adopt_module_key_flags(model_flags)

_OUTPUT = flags.DEFINE_string(
    'output', None, 'The file; its name ends in .stablehlo or .onnx. An '
    'existing file is replaced.', required=True)
_PROPOSALS = flags.DEFINE_integer(
    'proposals', 0, 'Number of proposals that the function returns; 0 for the '
    'best coloring.', lower_bound=0)
_INPUTS = flags.DEFINE_list(
    'inputs', ['lightness'], 'The inputs of the function: lightness, and those '
    'of region, hint_ab and hint_mask that the method itself accepts.')
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', None, 'Side of the square that the function takes, in '
    'pixels; if not given, that of the method.', lower_bound=8)


def main(argv: Sequence[str]) -> None:
  """Writes the file."""
  del argv
  # Imported late, so that --help and wrong flags do not wait for it.
  from colorjax import export, files, saved, zoo
  from colorjax.errors import UserError

  path = pathlib.Path(_OUTPUT.value)
  writers = {'.stablehlo': export.stablehlo, '.onnx': export.onnx}
  if path.suffix not in writers:
    raise UserError(f'--output={path}: the name of the file must end in '
                    f'{" or ".join(writers)}')
  colorizer, variables, image_size = saved.load(
      pathlib.Path(model_flags.checkpoint() or zoo.path(zoo.MODELS[0])),
      replica=flags.FLAGS.replica)
  size = _IMAGE_SIZE.value or image_size
  data = writers[path.suffix](
      colorizer.ask(**model_flags.ask_options()), variables, size,
      num_proposals=_PROPOSALS.value, inputs=_INPUTS.value)
  files.write_bytes(path, data)
  print(f'{path}: {len(data) / 1e6:.1f} MB. Inputs, float32: '
        + ', '.join(f'{name} [B, {size}, {size}, {export.CHANNELS[name]}]'
                    for name in _INPUTS.value))


if __name__ == '__main__':
  script.run(main)
