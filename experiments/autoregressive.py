"""Trains the autoregressive method: coarse color symbols, then colors.

    python -m experiments.autoregressive \\
        --flagfile=launch/flags/autoregressive_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/autoregressive
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags()
network_flags.define_known_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_SYMBOL_STRIDE = flags.DEFINE_integer(
    'symbol_stride', 4, 'Side of the blocks with one color symbol, in pixels.',
    lower_bound=1)
_BIN_SPACING = flags.DEFINE_integer(
    'bin_spacing', 10, 'Distance between the colors of symbols, Lab units; a '
    'multiple of 10.', lower_bound=10)
_WIDTH = flags.DEFINE_integer(
    'width', 128, 'Channels of the transformer.', lower_bound=1)
_DEPTH = flags.DEFINE_integer(
    'depth', 4, 'Layers of the transformer.', lower_bound=1)
_NUM_HEADS = flags.DEFINE_integer(
    'num_heads', 4, 'Attention heads; a divisor of --width.', lower_bound=1)
_UPSAMPLER_WIDTH = flags.DEFINE_integer(
    'upsampler_width', 32, 'Channels of the upsampler.', lower_bound=1)
_SYMBOL_WEIGHT = flags.DEFINE_float(
    'symbol_weight', 1.0, 'Weight of the symbols in the loss.', lower_bound=0)
_UPSAMPLER_WEIGHT = flags.DEFINE_float(
    'upsampler_weight', 1.0, 'Weight of the colors, given the symbols, in the '
    'loss.', lower_bound=0)

METHOD = 'colorjax.methods.autoregressive'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'symbol_stride': _SYMBOL_STRIDE.value,
      'bin_spacing': _BIN_SPACING.value,
      'width': _WIDTH.value,
      'depth': _DEPTH.value,
      'num_heads': _NUM_HEADS.value,
      'upsampler_width': _UPSAMPLER_WIDTH.value,
      'symbol_weight': _SYMBOL_WEIGHT.value,
      'upsampler_weight': _UPSAMPLER_WEIGHT.value,
      **network_flags.network_settings(),
      **network_flags.known_settings(),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
