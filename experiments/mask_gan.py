"""Trains the mask-conditioned colorization GAN.

    python -m experiments.mask_gan \\
        --flagfile=launch/flags/mask_gan_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/mask_gan
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, script

common.define_training_flags()
flags.adopt_module_key_flags(common)

_REGIONS_FORM = (
    'published, halves, left (or another published pattern), random, stripes, '
    'boxes, blobs, noise, superpixels, segments, all, folder:PATH; several, '
    'separated by commas, are used in turn.')
_MASKS = flags.DEFINE_string(
    'masks', 'published', f'Regions of training photographs: {_REGIONS_FORM}')
_EVAL_MASKS = flags.DEFINE_string(
    'eval_masks', None, 'Regions of held-out photographs; if not given, those '
    f'of --masks: {_REGIONS_FORM}')
_LOSS = flags.DEFINE_string(
    'adversarial_loss', 'bce', 'Loss of generator and discriminator: bce, as '
    'published, least_squares, hinge, or one that you have added.')
_DISCRIMINATOR = flags.DEFINE_enum(
    'discriminator', 'image', ['image', 'patch'], 'One output of the '
    'discriminator for the whole image, as published, or one for each patch.')
_REAL_PICTURES = flags.DEFINE_enum(
    'real_pictures', 'whole', ['whole', 'within'], 'Real pictures for the '
    'discriminator: photographs with all colors, as published, or with colors '
    'within the region only.')
_OUTSIDE = flags.DEFINE_enum(
    'outside', 'grey', ['grey', 'free'], 'Target of the regression loss '
    'outside the region: grey, as published; free: no loss there.')
_ADVERSARIAL_WEIGHT = flags.DEFINE_float(
    'adversarial_weight', 1.0, "Weight of the generator's adversarial loss.",
    lower_bound=0)
_REGRESSION_WEIGHT = flags.DEFINE_float(
    'regression_weight', 1000.0, 'Weight of the squared error.', lower_bound=0)
_NOISE = flags.DEFINE_integer(
    'noise', 0, 'Number of noise channels that every layer of the encoder '
    'receives; 0 makes the method deterministic.', lower_bound=0)
_WIDTHS = flags.DEFINE_multi_integer(
    'widths', [64, 128, 256, 512, 512], 'Channels of the stride-2 '
    'convolutions; repeat the flag for each.', lower_bound=1)
_DISCRIMINATOR_RATE = flags.DEFINE_float(
    'discriminator_learning_rate', None, 'Peak learning rate of the '
    'discriminator; if not given, --learning_rate.', lower_bound=0)
_DISCRIMINATOR_OPTIMIZER = flags.DEFINE_enum(
    'discriminator_optimizer', None, ['adamw', 'adam', 'sgd'], 'Optimizer of '
    'the discriminator; if not given, --optimizer.')

METHOD = 'colorjax.methods.mask_gan'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  # This imports JAX, which --help must not wait for.
  from colorjax.data import region_sources

  own = {name: value for name, value in (
      ('optimizer', _DISCRIMINATOR_OPTIMIZER.value),
      ('learning_rate', _DISCRIMINATOR_RATE.value)) if value is not None}
  return common.Training(METHOD, {
      'adversarial_loss': _LOSS.value,
      'discriminator': _DISCRIMINATOR.value,
      'real_pictures': _REAL_PICTURES.value,
      'outside': _OUTSIDE.value,
      'adversarial_weight': _ADVERSARIAL_WEIGHT.value,
      'regression_weight': _REGRESSION_WEIGHT.value,
      'noise': _NOISE.value,
      'widths': _WIDTHS.value,
      'dtype': flags.FLAGS.dtype,
  }, player_optimizing={'discriminator': own} if own else {}, more={
      'regions': region_sources.parse(_MASKS.value),
      'eval_regions': region_sources.parse(_EVAL_MASKS.value or _MASKS.value),
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
