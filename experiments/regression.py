"""Trains plain regression, with any network and any weighted sum of losses.

    python -m experiments.regression --loss='huber(delta=0.01)+0.1*ssim' \\
        --workdir=runs/regression
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_LOSS = flags.DEFINE_string('loss', 'huber', common.LOSS_HELP)

METHOD = 'colorjax.methods.regression'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'loss': _LOSS.value,
      **network_flags.network_settings(),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
