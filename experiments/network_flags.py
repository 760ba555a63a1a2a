"""Flags of the network of a method, and the settings that they describe.

Nothing here imports JAX at import time, because `--help` must print at once.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from colorjax.errors import UserError


def define_network_flags(
    filters: Sequence[int] = (32, 64, 128, 256), *, network: str = 'unet',
    choices: str = 'unet, encoder (a pretrained one)',
    filters_help: str = 'Channels of each scale; repeat the flag for each.',
) -> None:
  """Defines --network, --filters, and the flags of --network=encoder.

  Args:
    filters: default of --filters.
    network: default of --network.
    choices: the networks of the method, for the help of --network.
    filters_help: help of --filters.
  """
  flags.DEFINE_string(
      'network', network,
      f'Architecture: {choices}, or one that you have added.')
  flags.DEFINE_multi_integer('filters', list(filters), filters_help)
  define_backbone_flags()
  flags.DEFINE_float(
      'encoder_learning_rate', None, 'Peak learning rate of the pretrained '
      'encoder, with --network=encoder; if not given or 0, the encoder is not '
      'trained.', lower_bound=0)
  flags.DEFINE_enum(
      'decoder_stride', None, ['2', '4'], 'Ratio of the sides of the '
      "photograph to those of the decoder's output, with --network=encoder; if "
      'not given, 4.')


def define_backbone_flags() -> None:
  """Defines the source of the weights of pretrained networks."""
  flags.DEFINE_string(
      'backbone_weights', None, 'Weights of the pretrained network inside the '
      'method: a FILE of Keras (.h5, .weights.h5) or of PyTorch (.safetensors, '
      '.pth), or random for random weights. If there are several networks '
      '(--loss=mse+0.1*perceptual adds one), NAME=FILE,NAME=FILE. If a network '
      'has no file, the public Keras file is downloaded once; that of '
      'EfficientNet-Lite0 is installed with colorjax.')


def define_known_flags() -> None:
  """Defines how often training shows the network hints and regions."""
  flags.DEFINE_float(
      'hint_share', 0.25, 'Share of training photographs with random hints.',
      0, 1)
  flags.DEFINE_float(
      'region_share', 0.1, 'Share of training photographs with a random '
      'region.', 0, 1)


def network_settings() -> dict[str, Any]:
  """Returns the settings from the flags of `define_network_flags`, and dtype.

  Returns:
    `network`, `filters`, `dtype`, and with an encoder `trunk_settings`.

  Raises:
    UserError: a flag of the encoder is given, but the network has no encoder.
  """
  network = flags.FLAGS.network
  settings = {'network': network, 'filters': flags.FLAGS.filters,
              'dtype': flags.FLAGS.dtype}
  given = {name: flags.FLAGS[name].value
           for name in ('encoder_learning_rate', 'decoder_stride')}
  if network == 'encoder':
    return {**settings, 'trunk_settings': {
        'stride': int(given['decoder_stride'] or 4),
        'frozen': not given['encoder_learning_rate']}}
  for name, value in given.items():
    if value is not None:
      raise UserError(f'{name}={value}: network={network} has no pretrained '
                      'encoder; set network=encoder')
  return settings


def known_settings() -> dict[str, float]:
  """Returns the settings from the flags of `define_known_flags`."""
  return {'hint_share': flags.FLAGS.hint_share,
          'region_share': flags.FLAGS.region_share}
