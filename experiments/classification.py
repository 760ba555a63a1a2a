"""Trains colorization as classification (Zhang, Isola and Efros 2016).

    python -m experiments.classification --data=folder:PHOTOS \\
        --rebalance=0.5 --workdir=runs/classification

--rebalance gives rare colors more weight. How rare they are is measured on the
training photographs first, and kept in WORKDIR/prior.json; --prior takes what
experiments.measure_prior wrote instead. Without both all pixels count alike.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common

common.define_training_flags()
common.define_encoder_flags()
common.define_rebalancing_flags()
flags.adopt_module_key_flags(common)

_NETWORK = flags.DEFINE_string(
    'network', 'published', 'Architecture: published, unet, or encoder (a '
    'pretrained one).')
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


# Pixels of the photograph a side, for one of the network's output.
_BLOCK_SIZES = {'published': 4, 'unet': 2}  # an encoder's is a flag


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  settings = {
      'network': _NETWORK.value,
      'filters': _FILTERS.value,
      'num_neighbors': _NUM_NEIGHBORS.value,
      'sigma': _SIGMA.value,
      'dtype': flags.FLAGS.dtype,
      **common.encoder_settings(_NETWORK.value),
  }
  asking = {
      'readout': _READOUT.value,
      'temperature': _TEMPERATURE.value,
      'sampling': _SAMPLING.value,
  }
  encoder = settings.get('trunk_settings', {})
  block_size = encoder.get('stride', _BLOCK_SIZES.get(_NETWORK.value, 1))
  colors = common.rebalancing(
      METHOD, settings, block_size=block_size,
      num_neighbors=_NUM_NEIGHBORS.value, sigma=_SIGMA.value)
  return common.train(METHOD, {**colors, **settings}, asking=asking)


if __name__ == '__main__':
  common.run(main)
