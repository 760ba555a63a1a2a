"""A run without JAX: counts steps, saves, goes on, and fails as it is told.

Tests copy it into a folder of their own and launch it as `mine.toy`.
"""

import json
import os
import pathlib
import signal
import sys
import time

from absl import app, flags

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory.', required=True)
_STEPS = flags.DEFINE_integer('num_steps', 3, 'Steps.', lower_bound=1)
_RATE = flags.DEFINE_float('rate', 0.5, 'A number.', 0, 10)
_MODE = flags.DEFINE_enum('mode', 'good', [
    'good', 'nan', 'crash', 'crash_once', 'kill', 'long'], 'How it goes.')
_WIDTHS = flags.DEFINE_multi_integer('width', [1, 2], 'Several numbers.')
_TAGS = flags.DEFINE_list('tags', [], 'A list.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of noise.')
_FLIP = flags.DEFINE_bool('flip', False, 'A switch.')
flags.register_validator('rate', lambda rate: rate != 7, 'seven is unlucky')


def main(argv):
  workdir = pathlib.Path(_WORKDIR.value)
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'flags.txt').write_text(f'--num_steps={_STEPS.value}\n')
  (workdir / 'place').write_text(json.dumps({
      'gpu': os.environ.get('CUDA_VISIBLE_DEVICES'),
      'memory': os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION'),
      'cores': sorted(os.sched_getaffinity(0)), 'cwd': os.getcwd(),
      'widths': _WIDTHS.value, 'tags': _TAGS.value,
      'procid': os.environ.get('SLURM_PROCID')}))
  asked = []
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: asked.append(number))
  metrics = workdir / 'metrics.jsonl'
  begun = metrics.read_text().count('\n') if metrics.exists() else 0
  print('going on from step', begun, flush=True)
  if _MODE.value == 'nan':
    print('error: step 2: loss nan', file=sys.stderr)
    return 2
  if _MODE.value == 'crash' or (
      _MODE.value == 'crash_once' and not (workdir / 'crashed').exists()):
    (workdir / 'crashed').touch()
    raise RuntimeError('the device is gone')
  if _MODE.value == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
  for step in range(begun + 1, _STEPS.value + 1):
    with metrics.open('a') as file:
      print(json.dumps({'step': step, 'split': 'validation',
                        'loss': _RATE.value + _SEED.value / step}), file=file)
    if _MODE.value == 'long':
      time.sleep(0.05)
    if asked:
      (workdir / 'saved').touch()
      print('saved at step', step)
      return 128 + asked[0]
  (workdir / 'report').mkdir(exist_ok=True)
  (workdir / 'report' / 'metrics.json').write_text(json.dumps({
      'psnr': {'mean': 20 + _RATE.value + _SEED.value, 'low': 1, 'high': 2},
      'count': 3}))
  return 0


if __name__ == '__main__':
  app.run(main)
