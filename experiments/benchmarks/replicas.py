"""Measures the cost of replicas in one program against separate runs.

    python -m experiments.benchmarks.replicas [--replicas=2 --replicas=8]

The step is that of the MBM network on random images: forward pass, backward
pass, AdamW, moving average. For each network it is timed for one model and for
R replicas under vmap, in turns, so that a busy machine slows both down equally.
`cost` is the time of the step of R replicas divided by that of R steps of one
model: below 1, replicas are faster than R runs one after the other. Reading
photographs, which replicas do once and runs do R times, is not included.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from experiments import script

_NETWORKS = flags.DEFINE_multi_string(
    'network', ['16,16', '32,64,128,256'], 'Channels of each stage of a '
    'U-Net, separated by commas; repeat the flag for several networks.')
_REPLICAS = flags.DEFINE_multi_integer(
    'replicas', [2, 8], 'Number of replicas; repeat the flag for several.',
    lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 32, 'Images per step.', lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 64, 'Side of the images, in pixels.', lower_bound=16)
_TURNS = flags.DEFINE_integer(
    'turns', 5, 'Number of turns; the fastest step of each counts.',
    lower_bound=1)


def _batch() -> dict[str, Any]:
  import numpy as np

  size, count = _IMAGE_SIZE.value, _BATCH_SIZE.value
  images = np.random.default_rng(0).integers(
      0, 256, (count, size, size, 3), np.uint8)
  return {'image': images, 'padding_mask': np.ones(count, np.float32)}


def _stepper(filters: Sequence[int], replicas: int | None
             ) -> Callable[[], float]:
  """A function that makes one step and returns its seconds.

  Args:
    filters: channels of each stage.
    replicas: number of replicas; None for one model without that axis.
  """
  import jax
  import numpy as np

  from colorjax import keys, parallel
  from colorjax.methods import mbm
  from colorjax.training import optimizers
  from colorjax.training import replicas as replicas_lib
  from colorjax.training.state import create_state
  from colorjax.training.steps import make_train_step

  colorizer = mbm.build(filters=tuple(filters))
  optimizer = optimizers.make_optimizer(
      'adamw', learning_rate=1e-3, clip_norm=1.0, weight_decay=0.01)
  init = jax.jit(colorizer.init, static_argnums=1)

  def start(seed):
    return create_state(
        init(keys.of_run(seed, 'init'), (_IMAGE_SIZE.value,) * 2), optimizer,
        ema=True)

  def make_step(seed):
    return make_train_step(colorizer.loss, optimizer, seed=seed,
                           ema_decay=0.995)

  if replicas is None:
    state, step = start(0), make_step(0)
  else:
    state = replicas_lib.stack([start(seed) for seed in range(replicas)])
    step = replicas_lib.make_train_step(
        lambda values: make_step(values['seed']),
        {'seed': np.arange(replicas, dtype=np.int32)})
  mapped, batch = parallel.pmap_step(step), _batch()
  held = [parallel.replicate(state)]

  def seconds() -> float:
    begin = time.perf_counter()
    held[0], metrics = mapped(held[0], batch)
    jax.block_until_ready(metrics)
    return time.perf_counter() - begin

  return seconds


def main(argv: Sequence[str]) -> int:
  """Prints the table."""
  del argv
  print(f'Batches of {_BATCH_SIZE.value} images of {_IMAGE_SIZE.value} pixels; '
        f'fastest of {_TURNS.value} steps in turns.\n\n'
        '| network | replicas | ms of one model | ms of all replicas | cost | '
        's to compile one | s to compile all |\n|---|--:|--:|--:|--:|--:|--:|')
  for network in _NETWORKS.value:
    filters = [int(text) for text in network.split(',')]
    counts: list[int | None] = [None, *_REPLICAS.value]
    steppers = {count: _stepper(filters, count) for count in counts}
    first = {count: step() for count, step in steppers.items()}
    best = dict.fromkeys(counts, float('inf'))
    for _ in range(_TURNS.value):
      for count, step in steppers.items():
        best[count] = min(best[count], step())
    for count in _REPLICAS.value:
      print(f'| {network} | {count} | {1e3 * best[None]:.1f} | '
            f'{1e3 * best[count]:.1f} | '
            f'{best[count] / (count * best[None]):.2f} | {first[None]:.0f} | '
            f'{first[count]:.0f} |', flush=True)
  return 0


if __name__ == '__main__':
  script.run(main)
