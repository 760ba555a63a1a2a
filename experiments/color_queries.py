"""Trains color queries: a transformer that decodes colors (DDColor).

    python -m experiments.color_queries \\
        --flagfile=launch/flags/color_queries_small.flags \\
        --data=folder:flowers17/train --eval_data=folder:flowers17/test \\
        --workdir=runs/color_queries
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_network_flags(
    [64, 96, 128, 128], network='encoder',
    choices='encoder (a pretrained one), unet')
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

_NUM_QUERIES = flags.DEFINE_integer(
    'num_queries', 100, 'Number of color queries.', lower_bound=1)
_NUM_BLOCKS = flags.DEFINE_integer(
    'num_blocks', 9, 'Number of blocks of the color decoder.', lower_bound=1)
_WIDTH = flags.DEFINE_integer(
    'width', 256, 'Length of a query; a multiple of 4 and of --num_heads.',
    lower_bound=4)
_NUM_HEADS = flags.DEFINE_integer(
    'num_heads', 8, 'Number of heads of each attention.', lower_bound=1)
_MLP_WIDTH = flags.DEFINE_integer(
    'mlp_width', 2048, 'Number of channels between the two dense layers of a '
    'block.', lower_bound=1)
_PIXEL_WEIGHT = flags.DEFINE_float(
    'pixel_weight', 0.1, 'Weight of the mean absolute error of ab, in Lab '
    'units.', lower_bound=0)
_PERCEPTUAL_WEIGHT = flags.DEFINE_float(
    'perceptual_weight', 5.0, 'Weight of the distance in the features of a '
    'pretrained network.', lower_bound=0)
_ADVERSARIAL_WEIGHT = flags.DEFINE_float(
    'adversarial_weight', 1.0, 'Weight of the adversarial loss; 0 trains '
    'without a discriminator.', lower_bound=0)
_COLORFULNESS_WEIGHT = flags.DEFINE_float(
    'colorfulness_weight', 0.5, 'Weight of the penalty for dull colors.',
    lower_bound=0)
_PERCEPTUAL_NETWORK = flags.DEFINE_enum(
    'perceptual_network', 'efficientnet_lite0',
    ['efficientnet_lite0', 'vgg16', 'vgg19'], 'Network of the perceptual loss. '
    'The weights of the first are installed with colorjax.')
_ADVERSARIAL_LOSS = flags.DEFINE_string(
    'adversarial_loss', 'bce', 'Loss of network and discriminator: bce, as '
    'published, least_squares, hinge, or one that you have added.')
_DISCRIMINATOR_WIDTHS = flags.DEFINE_multi_integer(
    'discriminator_widths', [64, 128, 256, 512], 'Channels of the '
    "discriminator's convolutions; repeat the flag for each.", lower_bound=1)
_DISCRIMINATOR_RATE = flags.DEFINE_float(
    'discriminator_learning_rate', None, 'Peak learning rate of the '
    'discriminator; if not given, --learning_rate.', lower_bound=0)
_HINT_SHARE = flags.DEFINE_float(
    'hint_share', 0.0, 'Share of training photographs with random hints; with '
    '0, hints are spread along lightness.', 0, 1)

METHOD = 'colorjax.methods.color_queries'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  own = ({} if _DISCRIMINATOR_RATE.value is None
         else {'learning_rate': _DISCRIMINATOR_RATE.value})
  return common.Training(METHOD, {
      'num_queries': _NUM_QUERIES.value,
      'num_blocks': _NUM_BLOCKS.value,
      'width': _WIDTH.value,
      'num_heads': _NUM_HEADS.value,
      'mlp_width': _MLP_WIDTH.value,
      'pixel_weight': _PIXEL_WEIGHT.value,
      'perceptual_weight': _PERCEPTUAL_WEIGHT.value,
      'adversarial_weight': _ADVERSARIAL_WEIGHT.value,
      'colorfulness_weight': _COLORFULNESS_WEIGHT.value,
      'perceptual_network': _PERCEPTUAL_NETWORK.value,
      'adversarial_loss': _ADVERSARIAL_LOSS.value,
      'discriminator_widths': _DISCRIMINATOR_WIDTHS.value,
      'hint_share': _HINT_SHARE.value,
      **network_flags.network_settings(),
  }, player_optimizing={'discriminator': own} if own else {})


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
