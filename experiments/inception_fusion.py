"""S5: trains the fusion network on Inception-ResNet-v2.

    python -m experiments.inception_fusion \\
        --flagfile=launch/flags/inception_fusion.flags --workdir=runs/inception

The flags, whose defaults are as published, are those of `experiments.fusion`.
"""

from collections.abc import Sequence

from absl import flags

from experiments import common, fusion

fusion.define_flags()
for _module in (common, fusion, fusion.prior_file):
  flags.adopt_module_key_flags(_module)

METHOD = 'colorjax.methods.fusion'


def main(argv: Sequence[str]) -> int:
  """Trains, evaluates and reports; goes on where an earlier run stopped."""
  del argv
  return fusion.train('inception_resnet_v2')


if __name__ == '__main__':
  common.run(main)
