"""S4: trains the fusion network on Xception.

    python -m experiments.xception_fusion \\
        --flagfile=launch/flags/xception_fusion.flags --workdir=runs/xception

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
  return fusion.train('xception')


if __name__ == '__main__':
  common.run(main)
