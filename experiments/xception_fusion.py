"""S4: trains the fusion network on Xception.

    python -m experiments.xception_fusion \\
        --flagfile=launch/flags/xception_fusion.flags --workdir=runs/xception

It is `experiments.fusion` with --backbone=xception.
"""

from absl import flags

from experiments import common, fusion

for _module in (common, fusion):
  flags.adopt_module_key_flags(_module)
flags.FLAGS.set_default('backbone', 'xception')

METHOD = 'colorjax.methods.fusion'


if __name__ == '__main__':
  common.run(fusion.main)
