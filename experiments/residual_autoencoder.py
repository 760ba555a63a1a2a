"""Trains the residual autoencoder on VGG-19, a regression method.

    python -m experiments.residual_autoencoder \\
        --flagfile=launch/flags/residual_autoencoder.flags \\
        --workdir=runs/residual_autoencoder

The defaults are as published: 224 x 224 pixels, mean squared error, Adam with a
learning rate of 1e-4, halved every three epochs. How many steps three epochs
have depends on the data: set --halve_every and --num_steps.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, network_flags, script

common.define_training_flags()
network_flags.define_backbone_flags()
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(network_flags)

for _name, _published in {
    'image_size': 224, 'optimizer': 'adam', 'learning_rate': 1e-4,
    'schedule': 'halving', 'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0,
}.items():
  flags.FLAGS.set_default(_name, _published)

_LOSS = flags.DEFINE_string(
    'loss', 'mse', common.LOSS_HELP + ' As published: mse.')
_ENLARGEMENT = flags.DEFINE_enum(
    'enlargement', 'bilinear', ['bilinear', 'edges'], 'How the predicted ab '
    'field, which has a quarter of the sides of the photograph, is upsampled: '
    'bilinear, as published, or along the edges of the lightness.')

METHOD = 'colorjax.methods.residual_autoencoder'


def training() -> common.Training:
  """Returns the training that the flags describe."""
  return common.Training(METHOD, {
      'loss': _LOSS.value,
      'enlargement': _ENLARGEMENT.value,
      'dtype': flags.FLAGS.dtype,
  })


def main(argv: Sequence[str]) -> int:
  """Trains, measures and reports; resumes an earlier run."""
  del argv
  return common.train(training())


if __name__ == '__main__':
  script.run(main)
