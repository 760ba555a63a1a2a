"""Trains colorization as classification (Zhang, Isola and Efros 2016).

    python -m experiments.measure_prior --data=folder:PHOTOS --output=prior.json
    python -m experiments.classification --data=folder:PHOTOS \\
        --prior=prior.json --rebalance=0.5 --workdir=runs/classification

The first command measures the colors of the training photographs, with which
the second gives rare ones more weight. Without --prior and --rebalance all
pixels count alike.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, prior_file

common.define_training_flags()
prior_file.define_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(prior_file)

_NETWORK = flags.DEFINE_string(
    'network', 'published', 'Architecture: published, or unet.')
_FILTERS = flags.DEFINE_multi_integer(
    'filters', [64, 128, 256, 512], 'Channels: of conv1, conv2, conv3 and 8, '
    'conv4 to 7 of the published network, of each scale of the U-Net; repeat '
    'the flag for each.')
_READOUT = flags.DEFINE_string(
    'readout', 'annealed_mean', 'Color read from the distribution of a '
    'pixel: annealed_mean, mean, or mode.')
_TEMPERATURE = flags.DEFINE_float(
    'temperature', 0.38, 'T of the annealed mean: 1 is the mean, towards 0 it '
    'is the mode.')
_SAMPLING = flags.DEFINE_string(
    'sampling', 'independent', 'Noise of samples: independent for each pixel, '
    'as the model has it, or shared by all pixels of a photograph, which '
    'keeps the distribution of each pixel.')
_NUM_NEIGHBORS = flags.DEFINE_integer(
    'num_neighbors', 5, 'Bins that a target is spread over.', lower_bound=1)
_SIGMA = flags.DEFINE_float(
    'sigma', 5.0, 'Width of that spread, ab units.', lower_bound=1e-3)

METHOD = 'colorjax.methods.classification'


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  colors = prior_file.settings(
      num_neighbors=_NUM_NEIGHBORS.value, sigma=_SIGMA.value)
  # These import JAX, which --help does not wait for.
  from experiments import runner

  return runner.train('colorjax.methods.classification', {
      **colors,
      'network': _NETWORK.value,
      'filters': _FILTERS.value,
      'readout': _READOUT.value,
      'temperature': _TEMPERATURE.value,
      'sampling': _SAMPLING.value,
      'num_neighbors': _NUM_NEIGHBORS.value,
      'sigma': _SIGMA.value,
      'dtype': flags.FLAGS.dtype,
  })


if __name__ == '__main__':
  common.run(main)
