"""Trains the fusion network with Inception-ResNet-v2 as its backbone.

    python -m experiments.inception_fusion \\
        --flagfile=launch/flags/inception_fusion.flags --workdir=runs/inception

It is `experiments.fusion` with --backbone=inception_resnet_v2.
"""

from absl import flags

from experiments import common, fusion, script

for _module in (common, fusion):
  flags.adopt_module_key_flags(_module)
flags.FLAGS.set_default('backbone', 'inception_resnet_v2')

METHOD = 'colorjax.methods.fusion'

training = fusion.training


if __name__ == '__main__':
  script.run(fusion.main)
