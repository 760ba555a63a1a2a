"""Trains a conditional variational autoencoder of ab fields.

    python -m experiments.latent \\
        --flagfile=launch/flags/latent_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/latent
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags()
network_flags.define_known_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_NUM_COMPONENTS = flags.DEFINE_integer(
    'num_components', 8, 'Number of components of the prior, which is also the '
    'largest number of proposals.', lower_bound=1)
_LATENT_SIZE = flags.DEFINE_integer(
    'latent_size', 64, 'Length of the latent vector of a photograph.',
    lower_bound=1)
_LATENT_STRIDES = flags.DEFINE_multi_integer(
    'latent_strides', [0], 'Ratio of the sides of the photograph to those of '
    'a grid of further latent vectors; repeat the flag for several grids. 0 '
    'for none.')
_LATENT_CHANNELS = flags.DEFINE_integer(
    'latent_channels', 4, 'Length of the latent vectors of grids.',
    lower_bound=1)
_FAMILY = flags.DEFINE_enum(
    'family', 'discretized_logistic', ['discretized_logistic', 'gaussian'],
    'Density of a value, given the latent variables.')
_WIDTH = flags.DEFINE_integer(
    'width', 64, 'Channels of the networks beside --network, a multiple of '
    '16.', lower_bound=1)
_KL_WARMUP_STEPS = flags.DEFINE_integer(
    'kl_warmup_steps', 0, 'Steps in which the weight of the KL divergence '
    'rises from 0 to 1.', lower_bound=0)
_FREE_BITS = flags.DEFINE_float(
    'free_bits', 0.0, 'KL divergence of each level of a photograph that '
    'training does not reduce further, in nats.', lower_bound=0)

METHOD = 'colorjax.methods.latent'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'num_components': _NUM_COMPONENTS.value,
      'latent_size': _LATENT_SIZE.value,
      'latent_strides': _LATENT_STRIDES.value,
      'latent_channels': _LATENT_CHANNELS.value,
      'family': _FAMILY.value,
      'width': _WIDTH.value,
      'kl_warmup_steps': _KL_WARMUP_STEPS.value,
      'free_bits': _FREE_BITS.value,
      **network_flags.network_settings(),
      **network_flags.known_settings(),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
