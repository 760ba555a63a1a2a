"""Replicas and single models on several devices; prints how far they differ.

    python tests/training/replicas_problem.py DEVICES

Run with XLA_FLAGS=--xla_force_host_platform_device_count=DEVICES. Each line
holds the name of a problem, the largest difference of a parameter, a statistic
or a metric between a replica and its single run, and the largest difference
between the parameters of two replicas.
"""

import sys

import jax
import numpy as np
import parallel_problem as problem

from colorjax import keys, parallel
from colorjax.training import replicas, totals
from colorjax.training.state import create_state
from colorjax.training.steps import make_eval_step, make_train_step

SEEDS, STEPS = (3, 4), 2


def _differences(name, losses, init, optimizer):
  players = losses if isinstance(losses, dict) else ()
  accumulate = 2 if name == 'mbm' else 1

  def start(seed):
    variables = jax.jit(init, static_argnums=1)(
        keys.of_run(seed, 'init'), (problem.SIDE, problem.SIDE))
    return create_state(variables, optimizer, players=players)

  def train(state, step):
    step = parallel.pmap_step(step)
    state = parallel.replicate(state)
    found = totals.Totals()
    for n in range(STEPS):
      state, metrics = step(state, problem.batch(n))
      metrics = jax.device_get(metrics)
      metrics.pop('non_finite')
      found.add(metrics)
    return jax.device_get(state.variables), found.means()

  both, columns = train(
      replicas.stack([start(seed) for seed in SEEDS]),
      replicas.make_train_step(
          lambda values: make_train_step(
              losses, optimizer, seed=values['seed'], accumulate=accumulate),
          {'seed': np.array(SEEDS, np.int32)}))
  # Of one replica only, because each single run is another program.
  alone, means = train(start(SEEDS[1]), make_train_step(
      losses, optimizer, seed=SEEDS[1], accumulate=accumulate))
  largest = max(_largest(replicas.pick(both, 1), alone), *(
      abs(columns[f'{name}/replica1'] - mean) / max(1, abs(mean))
      for name, mean in means.items()))
  apart = _largest(*(replicas.pick(both, i)['params'] for i in (0, 1)))
  return largest, apart


def _held_out(loss, init):
  """The same for the held-out loss."""
  variables = [jax.jit(init, static_argnums=1)(
      keys.of_run(seed, 'init'), (problem.SIDE, problem.SIDE))
               for seed in SEEDS]
  both = replicas.stack([create_state(x, problem.statistics()[2])
                         for x in variables])
  step = parallel.pmap_step(
      replicas.make_eval_step(make_eval_step(loss)), donate=False)
  alone = parallel.pmap_step(make_eval_step(loss), donate=False)
  batches = [problem.batch(9)]
  found = totals.evaluate(step, replicas.variables_of(both), batches)
  expected = [totals.evaluate(alone, x, batches)['loss'] for x in variables]
  return (max(abs(found[f'loss/replica{i}'] - x)
              for i, x in enumerate(expected)), abs(expected[0] - expected[1]))


def _largest(a, b):
  return max(float(np.abs(np.asarray(x) - np.asarray(y)).max())
             for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b),
                             strict=True))


if __name__ == '__main__':
  assert jax.local_device_count() == int(sys.argv[1])
  for name, (init, losses, optimizer) in problem.problems().items():
    if name in ('autoregressive', 'latent'):
      continue  # They take long to compile, and show nothing new.
    print(name, *_differences(name, losses, init, optimizer))
  init, loss, _ = problem.problems()['mbm']
  print('held_out', *_held_out(loss, init))
