"""Compares the speed of a training step with that of PyTorch.

    python -m experiments.benchmarks.pytorch --torch_python=PYTHON \
        [--image_size=64 --batch_size=32]

The step is that of `experiments.benchmarks.training`: the default MBM network
on random images. PYTHON is an interpreter with PyTorch; it does not need
colorjax. The two take turns, each in a process of its own, so that a busy
machine slows both down equally. Both have large memory pages, see
`script.use_large_pages`. A turn is the median of its steps; the best turn of
each counts.
"""

import pathlib
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from colorjax.errors import UserError
from experiments import script
from experiments.benchmarks import training

_TORCH_PYTHON = flags.DEFINE_string(
    'torch_python', sys.executable, 'Python interpreter that has PyTorch.')

_PROGRAM = pathlib.Path(__file__).with_name('unet_in_pytorch.py')


def main(argv: Sequence[str]) -> int:
  """Prints the table of both speeds."""
  del argv
  if flags.FLAGS.dtype != 'float32':
    raise UserError(f'--dtype={flags.FLAGS.dtype}: only float32 can be '
                    'compared with PyTorch')
  parameters = _count_parameters()
  ours, theirs = [], []
  for _ in range(flags.FLAGS.turns):
    version, speed, their_parameters = _measure_pytorch()
    theirs.append(speed)
    if their_parameters != parameters:
      raise UserError(f'the network has {parameters} parameters here and '
                      f'{their_parameters} in {_PROGRAM.name}: the speeds '
                      'cannot be compared')
    ours.append(training.in_a_process())
  print('| | images/s, best turn | all turns |\n|---|--:|---|')
  for name, speeds in (('colorjax', ours), (f'PyTorch {version}', theirs)):
    turns = ', '.join(f'{speed:.1f}' for speed in speeds)
    print(f'| {name} | {max(speeds):.1f} | {turns} |')
  print(f'\ncolorjax / PyTorch: {max(ours) / max(theirs):.2f}')
  return 0


def _count_parameters() -> int:
  import jax

  from colorjax.methods import mbm

  variables = jax.eval_shape(lambda key: mbm.build().init(key, (16, 16)),
                             jax.random.key(0))
  return sum(x.size for x in jax.tree.leaves(variables['params']))


def _measure_pytorch() -> tuple[str, float, int]:
  """Version of PyTorch, images per second, and number of parameters."""
  done = subprocess.run(
      [_TORCH_PYTHON.value, str(_PROGRAM), *training.step_flags()],
      capture_output=True, text=True, check=False)
  if done.returncode:
    reason = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise UserError(f'--torch_python={_TORCH_PYTHON.value}: {reason}; give an '
                    'interpreter that can import torch')
  version, speed, parameters = done.stdout.split()
  return version, float(speed), int(parameters)


if __name__ == '__main__':
  script.run(main)
