"""Trains a mixture density network over whole-image colorings.

    python -m experiments.mbm --flagfile=launch/flags/quickstart.flags \\
        --workdir=runs/quickstart
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags(
    choices='published, unet, encoder (a pretrained one)')
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_NUM_COMPONENTS = flags.DEFINE_integer(
    'num_components', 8, 'Number K of mixture components, whole-image '
    'colorings.',
    lower_bound=1)
_FAMILY = flags.DEFINE_string(
    'family', 'continuous_bernoulli', 'Distribution of each component: '
    'bernoulli (as published), continuous_bernoulli, gaussian, '
    'discretized_logistic, or one that you have added.')
_PATCH_SIZE = flags.DEFINE_integer(
    'patch_size', 0, 'Side of the squares that choose a component each, in '
    'pixels; 0: the whole photograph chooses one.', lower_bound=0)
_RANK = flags.DEFINE_integer(
    'rank', 0, 'Number of ways in which the values of a component vary '
    'together, with --family=gaussian; 0: they are independent.',
    lower_bound=0)
_PRIOR_WIDTH = flags.DEFINE_integer(
    'prior_width', 128, 'Units of the dense layer before the mixture weights.',
    lower_bound=1)
_BATCH_NORM = flags.DEFINE_bool(
    'batch_norm', False, 'Use batch normalization in the published network.')
_DROPOUT = flags.DEFINE_float(
    'dropout', 0.5, "Dropout rate before the U-Net's mixture weights.", 0, 1)

METHOD = 'colorjax.methods.mbm'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'num_components': _NUM_COMPONENTS.value,
      'family': _FAMILY.value,
      'patch_size': _PATCH_SIZE.value,
      'rank': _RANK.value,
      'prior_width': _PRIOR_WIDTH.value,
      'batch_norm': _BATCH_NORM.value,
      'dropout': _DROPOUT.value,
      **network_flags.network_settings(),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
