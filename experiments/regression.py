"""Trains plain regression: any trunk, any sum of losses, one coloring.

    python -m experiments.regression --loss='huber(delta=0.01)+0.1*ssim' \\
        --workdir=runs/regression
"""

from collections.abc import Sequence

from absl import flags

from experiments import common

common.define_training_flags()
common.define_encoder_flags()
flags.adopt_module_key_flags(common)

_LOSS = flags.DEFINE_string('loss', 'huber', common.LOSS_HELP)
_NETWORK = flags.DEFINE_string(
    'network', 'unet', 'Architecture: unet, encoder (a pretrained one), or '
    'one that you have added.')
_FILTERS = flags.DEFINE_multi_integer(
    'filters', [32, 64, 128, 256], 'Channels of each scale; repeat the flag '
    'for each.')

METHOD = 'colorjax.methods.regression'


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  return common.train(METHOD, {
      'loss': _LOSS.value,
      'network': _NETWORK.value,
      'filters': _FILTERS.value,
      'dtype': flags.FLAGS.dtype,
      **common.encoder_settings(_NETWORK.value),
  })


if __name__ == '__main__':
  common.run(main)
