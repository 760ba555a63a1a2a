"""S2: trains the residual autoencoder on VGG-19, one coloring by regression.

    python -m experiments.residual_autoencoder \\
        --flagfile=launch/flags/residual_autoencoder.flags \\
        --workdir=runs/residual_autoencoder

By default it trains as published: 224 x 224, mean squared error, Adam from 1e-4
with a learning rate that is halved. How many steps three epochs have, after
which that happens, depends on the data: --halve_every and --num_steps.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common

common.define_training_flags()
common.define_backbone_flags()
flags.adopt_module_key_flags(common)

for _name, _published in {
    'image_size': 224, 'optimizer': 'adam', 'learning_rate': 1e-4,
    'schedule': 'halving', 'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0,
}.items():
  flags.FLAGS.set_default(_name, _published)

_LOSS = flags.DEFINE_string(
    'loss', 'mse', common.LOSS_HELP + ' As published: mse.')
_ENLARGEMENT = flags.DEFINE_enum(
    'enlargement', 'bilinear', ['bilinear', 'edges'], 'How the ab field, a '
    "quarter of the photograph's sides, is brought to its size: bilinear as "
    'published, or along the edges of lightness.')

METHOD = 'colorjax.methods.residual_autoencoder'


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  return common.train('colorjax.methods.residual_autoencoder', {
      'loss': _LOSS.value,
      'enlargement': _ENLARGEMENT.value,
      'dtype': flags.FLAGS.dtype,
  })


if __name__ == '__main__':
  common.run(main)
