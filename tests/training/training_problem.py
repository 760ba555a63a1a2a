"""A tiny problem for the tests of training, and a script that trains on it.

    python tests/training_problem.py WORKDIR NUM_STEPS

It keeps to the contract of `colorjax.colorizer` and knows no method: a linear
map from the mean color of an image to two numbers, with noise from the key,
so that a wrong key, batch or resumed moment changes every figure.
"""

import functools
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import parallel
from colorjax.colorizer import Aux
from colorjax.training import loop, optimizers, steps, totals
from colorjax.training.state import create_state

BATCH_SIZE = 8


def loss(params, model_state, batch, keys, *, step, train):
  """Squared error of a noisy linear map; counts the training steps."""
  del step
  x = (batch['image'].astype(jnp.float32) / 255).mean((1, 2))
  if train:
    x = x + 0.1 * jax.vmap(
        lambda key: jax.random.normal(key, x.shape[1:]))(keys)
    model_state = {'seen': model_state['seen'] + 1}
  error = jnp.square(x @ params['w'] + params['b'] - 1).sum(-1)
  mask = batch['padding_mask']
  total, count = (error * mask).sum(), mask.sum()
  ballast = 1e-3 * jnp.square(params.get('ballast', jnp.zeros(1))).mean()
  return total / count + ballast, Aux(
      model_state=model_state, metrics={'loss': (total, count)})


def variables(ballast=1):
  """Initial variables; `ballast` floats make saving take a while."""
  rng = np.random.default_rng(0)
  return {
      'params': {
          'w': jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
          'b': jnp.zeros(2),
          'ballast': jnp.ones(ballast),
      },
      'model_state': {'seen': jnp.zeros(())},
  }


def batch(step, size=BATCH_SIZE):
  """The host batch of a step: a function of its number."""
  rng = np.random.default_rng(step)
  return {
      'image': rng.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8),
      'padding_mask': np.ones(size, np.float32),
      'index': np.arange(step * size, (step + 1) * size, dtype=np.int32),
  }


def batches(start, seconds=0.0):
  """The endless stream from a step on."""
  while True:
    time.sleep(seconds)
    yield batch(start)
    start += 1


@functools.cache
def _program(loss):
  """The optimizer and the compiled steps: compiled once for all tests."""
  schedule = optimizers.make_schedule(
      'cosine', learning_rate=1e-2, num_steps=1000, warmup_steps=5)
  optimizer = optimizers.make_optimizer(
      'adamw', learning_rate=schedule, clip_norm=1.0)
  step = parallel.pmap_step(steps.make_train_step(
      loss, optimizer, seed=0, schedule=schedule, ema_decay=0.99))
  eval_step = parallel.pmap_step(steps.make_eval_step(loss), donate=False)
  return optimizer, step, eval_step


def train(workdir, num_steps, *, loss=loss, ballast=1, seconds=0.0,
          validation_loss=None, **settings):
  """Runs `loop.train` on the problem; `settings` go to it or to its Cadence."""
  optimizer, step, eval_step = _program(loss)

  def validate(state):
    if validation_loss:
      return {'loss': validation_loss(int(state.step))}
    return totals.evaluate(eval_step, state.variables, [batch(10**6)])

  cadence = {name: settings.pop(name) for name in list(settings)
             if name in loop.Cadence.__dataclass_fields__}
  settings = {'batches': lambda start: batches(start, seconds)} | settings
  return loop.train(
      create_state(variables(ballast), optimizer, ema=True), step,
      workdir=pathlib.Path(workdir), evaluations={'validation': validate},
      cadence=loop.Cadence(num_steps=num_steps, **{
          'log_every': 5, 'eval_every': 10, 'checkpoint_every': 10} | cadence),
      **settings)


def lines(workdir):
  """The objects of metrics.jsonl."""
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


if __name__ == '__main__':
  result = train(
      sys.argv[1], int(sys.argv[2]), ballast=500_000, seconds=0.004,
      log_every=3, eval_every=20, checkpoint_every=7)
  np.savez(pathlib.Path(sys.argv[1]) / 'final.npz',
           **{str(i): np.asarray(x)
              for i, x in enumerate(jax.tree.leaves(result.state))})
  sys.exit(result.exit_code)
