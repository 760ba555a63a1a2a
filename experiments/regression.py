"""Trains plain regression, with any network and any weighted sum of losses.

    python -m experiments.regression --loss='huber(delta=0.01)+0.1*ssim' \\
        --workdir=runs/regression
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, script

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


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'loss': _LOSS.value,
      'network': _NETWORK.value,
      'filters': _FILTERS.value,
      'dtype': flags.FLAGS.dtype,
      **common.encoder_settings(_NETWORK.value),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
