"""Training with and without remat on several devices; prints the differences.

    python tests/training/remat_problem.py DEVICES

Run with XLA_FLAGS=--xla_force_host_platform_device_count=DEVICES. Each line
holds a name, the largest difference of a parameter or statistic
between the two runs and the largest change of a parameter in training.
"""

import sys

import jax
import numpy as np
import parallel_problem as problem

from colorjax import keys, parallel
from colorjax.training import replicas
from colorjax.training.state import create_state
from colorjax.training.steps import make_train_step

STEPS = 2


def _largest(a, b):
  return max(float(np.abs(np.asarray(x) - np.asarray(y)).max())
             for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b),
                             strict=True))


def _differences(make_step, start):
  ends = []
  for remat in (False, True):
    step, state = parallel.pmap_step(make_step(remat)), start
    state = parallel.replicate(state)
    for n in range(STEPS):
      state, metrics = step(state, problem.batch(n))
      assert not np.any(metrics['non_finite'][0])
    ends.append(jax.device_get((state.params, state.model_state)))
  return _largest(*ends), _largest(ends[0][0], start.params)


if __name__ == '__main__':
  assert jax.local_device_count() == int(sys.argv[1])
  init, loss, optimizer = problem.statistics()
  state = create_state(
      init(keys.of_run(0, 'init'), (problem.SIDE, problem.SIDE)), optimizer)

  def make_step(remat, seed=0, accumulate=2):
    return make_train_step(loss, optimizer, seed=seed, remat=remat,
                           accumulate=accumulate)

  print('batch', *_differences(
      lambda remat: make_step(remat, accumulate=1), state))
  print('microbatches', *_differences(make_step, state))
  print('replicas', *_differences(
      lambda remat: replicas.make_train_step(
          lambda values: make_step(remat, values['seed']),
          {'seed': np.array([3, 4], np.int32)}),
      replicas.stack([state, state])))
