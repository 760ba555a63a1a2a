"""Trains the fusion network with Xception as its backbone.

    python -m experiments.xception_fusion \\
        --flagfile=launch/flags/xception_fusion.flags --workdir=runs/xception

It is `experiments.fusion` with --backbone=xception.
"""

from absl import flags

from experiments import common, fusion, script

for _module in (common, fusion):
  flags.adopt_module_key_flags(_module)
flags.FLAGS.set_default('backbone', 'xception')

METHOD = 'colorjax.methods.fusion'

training = fusion.training


if __name__ == '__main__':
  script.run(fusion.main)
