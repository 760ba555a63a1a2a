"""Trains colorization as classification (Zhang, Isola and Efros 2016).

    python -m experiments.classification --data=folder:PHOTOS \\
        --rebalance=0.5 --workdir=runs/classification

--rebalance gives rare colors more weight. First, how often each color occurs is
measured on the training photographs and stored in WORKDIR/prior.json; --prior
uses a file of experiments.measure_prior instead. Without both flags all pixels
have the same weight.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, rebalancing, script

common.define_training_flags()
network_flags.define_network_flags(
    [64, 128, 256, 512], network='published',
    choices='published, unet, encoder (a pretrained one)',
    filters_help='Numbers of channels; repeat the flag for each. published: of '
    'conv1, conv2, conv3 and conv8, conv4 to conv7; unet: of each scale.')
common.define_rebalancing_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_READOUT = flags.DEFINE_string(
    'readout', 'annealed_mean', 'How a color is chosen from the distribution '
    'of a pixel: annealed_mean, mean, or mode.')
_TEMPERATURE = flags.DEFINE_float(
    'temperature', 0.38, 'T of the annealed mean: 1 gives the mean, and the '
    'limit 0 gives the mode.')
_SAMPLING = flags.DEFINE_string(
    'sampling', 'independent', 'Noise of samples. independent: each pixel has '
    'its own, as in the model; shared: all pixels of a photograph have the '
    'same, which does not change the distribution of each pixel.')
_NUM_NEIGHBORS = flags.DEFINE_integer(
    'num_neighbors', 5, 'Number of bins that a target is spread over.',
    lower_bound=1)
_SIGMA = flags.DEFINE_float(
    'sigma', 5.0, 'Standard deviation of that spread, ab units.',
    lower_bound=1e-3)

METHOD = 'colorjax.methods.classification'

# Side, in pixels of the photograph, of one pixel of the network's output. For
# the encoder it is a flag.
_BLOCK_SIZES = {'published': 4, 'unet': 2}


def training() -> common.Training:
  """Returns the training that the flags describe."""
  settings = {
      'num_neighbors': _NUM_NEIGHBORS.value,
      'sigma': _SIGMA.value,
      **network_flags.network_settings(),
  }
  asking = {
      'readout': _READOUT.value,
      'temperature': _TEMPERATURE.value,
      'sampling': _SAMPLING.value,
  }
  encoder = settings.get('trunk_settings', {})
  block_size = encoder.get('stride', _BLOCK_SIZES.get(flags.FLAGS.network, 1))
  colors = rebalancing.settings_of(
      METHOD, settings, block_size=block_size,
      num_neighbors=_NUM_NEIGHBORS.value, sigma=_SIGMA.value)
  return common.Training(METHOD, {**colors, **settings},
                         more={'asking': asking})


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
