"""Measures images per second of a training step, with and without an XLA flag.

    python -m experiments.benchmarks.training [--image_size=64 --batch_size=32]

The step is that of the default MBM network on random images: forward pass,
backward pass, AdamW, moving average. It is timed in separate processes with the
defaults of XLA and with the flag of `script.prepare_xla`. The two settings take
turns, so that a busy machine slows both down equally. On an accelerator the
flag has no effect; --measure prints a single speed.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import flags

from experiments import script

_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 32, 'Images per step.', lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 64, 'Side of the images, in pixels.', lower_bound=16)
_STEPS = flags.DEFINE_integer(
    'steps', 10, 'Number of steps timed in each turn.', lower_bound=1)
_TURNS = flags.DEFINE_integer(
    'turns', 3, 'Number of processes for each setting.', lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'], 'Compute type.')
_MEASURE = flags.DEFINE_bool(
    'measure', False, 'Time only this process and print its images per second.')

# The user's flags: `script.run` adds to them before main starts.
_XLA_FLAGS = os.environ.get('XLA_FLAGS', '')


def images_per_second() -> float:
  """Returns the median speed over the timed steps of this process."""
  import jax
  import numpy as np

  from colorjax import parallel
  from colorjax.methods import mbm
  from colorjax.training import optimizers
  from colorjax.training.state import create_state
  from colorjax.training.steps import make_train_step

  size, batch_size = _IMAGE_SIZE.value, _BATCH_SIZE.value
  colorizer = mbm.build(dtype=_DTYPE.value)
  optimizer = optimizers.make_optimizer(
      'adamw', learning_rate=1e-3, clip_norm=1.0, weight_decay=0.01)
  variables = jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(0), (size, size))
  state = parallel.replicate(create_state(variables, optimizer, ema=True))
  step = parallel.pmap_step(make_train_step(
      colorizer.loss, optimizer, seed=0, ema_decay=0.995))
  images = np.random.default_rng(0).integers(
      0, 256, (batch_size, size, size, 3), np.uint8)
  batch = {'image': images, 'padding_mask': np.ones(batch_size, np.float32)}
  times = []
  for _ in range(_STEPS.value + 2):  # the first two compile and touch memory
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    times.append(time.perf_counter() - start)
  return batch_size / statistics.median(times[2:])


def step_flags() -> list[str]:
  """The flags that describe the step, and how many of them are timed."""
  return [f'--{flag.name}={flag.value}'
          for flag in (_BATCH_SIZE, _IMAGE_SIZE, _STEPS)]


def in_a_process(*settings: str) -> float:
  """The speed that a new process measures with further flags."""
  command = [sys.executable, '-m', 'experiments.benchmarks.training',
             *step_flags(), f'--dtype={_DTYPE.value}', '--measure', *settings]
  done = subprocess.run(
      command, env=os.environ | {'XLA_FLAGS': _XLA_FLAGS},
      stdout=subprocess.PIPE, text=True, check=True)
  return float(done.stdout)


def main(argv: Sequence[str]) -> int:
  """Prints one speed (--measure), or the table of both settings."""
  del argv
  if _MEASURE.value:
    print(images_per_second())
    return 0
  settings = {'XLA default': '--notune_xla', 'set to nothing': '--tune_xla'}
  speeds: dict[str, list[float]] = {name: [] for name in settings}
  for _ in range(_TURNS.value):
    for name, setting in settings.items():
      speeds[name].append(in_a_process(setting))
  print(f'| XLA flag {script.YNN_FLAG} | images/s, median of {_TURNS.value} |\n'
        '|---|--:|')
  for name, values in speeds.items():
    print(f'| {name} | {statistics.median(values):.1f} |')
  ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
  print(f'\nspeed-up, turn by turn: {", ".join(f"{r:.2f}" for r in ratios)}')
  return 0


if __name__ == '__main__':
  script.run(main)
