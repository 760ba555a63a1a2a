"""Trains flow matching: a velocity field that carries noise to colors.

    python -m experiments.flow_matching \\
        --flagfile=launch/flags/flow_matching_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/flow_matching
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags()
network_flags.define_known_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_OBJECTIVE = flags.DEFINE_enum(
    'objective', 'flow', ['flow', 'mean_flow'], 'What the network learns. '
    'flow: the velocity, for samples in many steps; mean_flow: mean velocities '
    'over any time, for samples in one step or in several.')
_WIDTH = flags.DEFINE_integer(
    'width', 128, 'Length of the vector that encodes times.', lower_bound=1)
_AB_SCALE = flags.DEFINE_float(
    'ab_scale', 20.0, 'About the standard deviation of ab in the photographs, '
    'Lab units.', lower_bound=1e-3)
_LIGHTNESS_DROPOUT = flags.DEFINE_float(
    'lightness_dropout', 0.1, 'Share of training photographs whose lightness '
    'the network does not see; --ask=guidance=... needs it.', 0, 1)
_SAMPLER_STEPS = flags.DEFINE_integer(
    'sampler_steps', 16, 'Number of steps of a sample; --ask=num_steps=... '
    'changes it after training.', lower_bound=1)

METHOD = 'colorjax.methods.flow_matching'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'objective': _OBJECTIVE.value,
      'width': _WIDTH.value,
      'ab_scale': _AB_SCALE.value,
      'lightness_dropout': _LIGHTNESS_DROPOUT.value,
      **network_flags.network_settings(),
      **network_flags.known_settings(),
  }, more={'asking': {'num_steps': _SAMPLER_STEPS.value}})


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
