"""Replicas: equal to single models, on any devices; failing alone; resumed."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_problem as problem

from colorjax import parallel
from colorjax.colorizer import FROZEN
from colorjax.training import checkpoint, loop, replicas, steps, totals
from colorjax.training import checkpoint_files as files
from colorjax.training.failure import NonFiniteLoss
from colorjax.training.state import create_state

TESTS = pathlib.Path(__file__).parents[1]


def test_a_replica_is_its_single_run_on_two_devices():
  """With dropout, batch norm, padding, microbatches and players; under SGD."""
  done = subprocess.run(
      [sys.executable, '-W', 'error', 'training/replicas_problem.py',
       '2'], cwd=TESTS, text=True, capture_output=True, check=False,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu',
           'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') +
                        ' --xla_force_host_platform_device_count=2',
           'PYTHONPATH': f'{TESTS.parent}:{TESTS}'})
  assert done.returncode == 0, done.stderr
  found = {name: (float(largest), float(apart)) for name, largest, apart in map(
      str.split, done.stdout.splitlines())}
  assert set(found) == {
      'statistics', 'mbm', 'mask_gan', 'flow_matching', 'held_out'}
  for name, (largest, apart) in found.items():
    assert largest <= 1e-5, name
    assert apart > 1e-3, name


RATES = (1e-2, 1e-1, 1e-3)


def _optimizer(rate):
  return optax.sgd(rate, momentum=0.9)


def _loss(params, model_state, batch, keys, *, step, train):
  """That of the problem; NaN for large parameters if a pixel is 13."""
  value, aux = problem.loss(
      params, {'seen': model_state['seen']}, batch, keys, step=step,
      train=train)
  is_bad = (batch['image'][0, 0, 0, 0] == 13) & train
  poison = jnp.where(is_bad & (params['limit'] > 0), jnp.nan, 0.0)
  return value + poison, aux.replace(
      model_state={**model_state, **aux.model_state})


def _state(limits=(0, 0, 0)):
  """Three replicas with a frozen network; a positive limit allows NaN."""
  def one(limit):
    variables = problem.variables()
    return create_state({
        'params': {**variables['params'], 'limit': jnp.float32(limit)},
        'model_state': {**variables['model_state'],
                        FROZEN: {'v': jnp.arange(2.0)}}},
        _optimizer(0.1), ema=True)

  return replicas.stack([one(limit) for limit in limits])


def _step():
  return replicas.make_train_step(
      lambda values: steps.make_train_step(
          _loss, _optimizer(values['rate']), seed=0, ema_decay=0.9),
      {'rate': np.array(RATES, np.float32)})


_EVAL = replicas.make_eval_step(steps.make_eval_step(_loss))


def _train(workdir, num_steps, step, *, limits=(0, 0, 0), poisoned=None,
           interrupted=None, **more):
  def batches(start):
    for n, batch in enumerate(problem.batches(start), start + 1):
      if n == interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
      if n == poisoned:
        batch['image'][0, 0, 0, 0] = 13
      yield batch

  eval_step = parallel.pmap_step(_EVAL, donate=False)
  return loop.train(
      _state(limits), step, batches, workdir=workdir, evaluations={
          'validation': lambda state: totals.evaluate(
              eval_step, replicas.variables_of(state), [problem.batch(99)])},
      cadence=loop.Cadence(num_steps=num_steps, log_every=2, eval_every=4,
                           checkpoint_every=3, **more.pop('cadence', {})),
      **more)


@pytest.fixture(scope='module')
def step():
  return parallel.pmap_step(_step())


def test_swept_values_are_those_of_single_runs(step, tmp_path):
  both = _train(tmp_path, 6, step).state
  assert both.step.shape == ()
  assert both.model_state[FROZEN]['v'].shape == (2,)
  assert both.failed.shape == (3,)
  for i, rate in enumerate(RATES):
    alone = jax.jit(steps.make_train_step(
        _loss, _optimizer(rate), seed=0, ema_decay=0.9))
    variables = problem.variables()
    state = create_state({
        'params': {**variables['params'], 'limit': jnp.float32(0)},
        'model_state': {**variables['model_state'],
                        FROZEN: {'v': jnp.arange(2.0)}}},
        _optimizer(rate), ema=True)
    for n in range(6):
      state, _ = alone(state, problem.batch(n))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
                 replicas.pick(both.variables, i), state.variables)


def test_a_resumed_run_is_the_same_to_the_last_bit(step, tmp_path):
  limits = (0, 1, 0)
  whole = _train(tmp_path / 'a', 8, step, limits=limits, poisoned=2).state
  first = _train(tmp_path / 'b', 8, step, limits=limits, poisoned=2,
                 interrupted=5)
  assert first.status == 'interrupted'
  again = _train(tmp_path / 'b', 8, step, limits=limits, poisoned=2).state
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert problem.lines(tmp_path / 'b') == problem.lines(tmp_path / 'a')


@pytest.fixture(autouse=True)
def _directories(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()


def test_a_replica_that_fails_stops_alone(step, tmp_path):
  said = []
  state = _train(tmp_path, 6, step, limits=(0, 1, 0), poisoned=4,
                 say=said.append).state
  assert said == ['step 4: replica 1 has stopped, because a loss, gradient or '
                  'state was not finite; the others go on']
  assert state.failed.tolist() == [False, True, False]
  assert int(state.step) == 6
  lines = problem.lines(tmp_path)
  for line in lines:
    names = {name for name in line if name.startswith('loss/')}
    stops = line['step'] > 4 or line['split'] == 'validation'
    assert names == {f'loss/replica{i}' for i in ((0, 2) if stops
                                                  else (0, 1, 2))}
    assert np.isfinite(line['loss'])
    if stops:
      assert line['loss'] == pytest.approx(
          (line['loss/replica0'] + line['loss/replica2']) / 2)
  # It keeps the state before the step; the others are not affected.
  before = _train(tmp_path / 'a', 3, step, limits=(0, 1, 0)).state
  sound = _train(tmp_path / 'b', 6, step, poisoned=4).state
  for found, expected, i in ((state, before, 1), (state, sound, 0),
                             (state, sound, 2)):
    jax.tree.map(np.testing.assert_array_equal,
                 replicas.pick(found.variables, i)['params'] | {'limit': 0},
                 replicas.pick(expected.variables, i)['params'] | {'limit': 0})


def test_a_run_ends_when_all_replicas_have_failed(step, tmp_path):
  with pytest.raises(NonFiniteLoss, match=r'step 4: loss .* not finite'):
    _train(tmp_path, 6, step, limits=(1, 1, 1), poisoned=4)
  assert checkpoint.steps(tmp_path / 'checkpoints') == [3]


def test_patience_looks_at_the_mean(step, tmp_path):
  result = _train(tmp_path, 400, step, cadence={'patience': 2})
  assert result.status == 'stopped'
  values = [line['loss'] for line in problem.lines(tmp_path)
            if line['split'] == 'validation']
  assert min(values[-2:]) >= min(values) == result.best_value


def test_the_checkpoint_of_replicas_has_an_axis_more(step, tmp_path):
  _train(tmp_path, 3, step)
  about = files.read_about(tmp_path / 'checkpoints' / '3')
  shapes = {name: leaf['shape'] for name, leaf in about['leaves'].items()}
  assert shapes['step'] == []
  assert shapes['params/w'] == [3, 3, 2]
  assert shapes['ema/params/b'] == [3, 2]
  variables = jax.eval_shape(lambda: replicas.pick(_state().variables, 0))
  stored = checkpoint.restore_variables(
      tmp_path, which='latest', like=replicas.shapes(variables, 3))
  assert stored['model_state'][FROZEN]['v'].shape == (2,)


def test_columns_of_replicas():
  found = totals.Totals()
  pair = np.array([1, 4], np.float32), np.array([2, 2], np.float32)
  found.add({'loss': pair, 'speed': (3.0, 2.0)})
  assert found.means() == {'loss': 1.25, 'loss/replica0': 0.5,
                           'loss/replica1': 2.0, 'speed': 1.5}
  again = totals.Totals(found.pairs())
  again.add({'loss': (np.array([1, 0]), np.array([2, 0]))})
  assert again.means()['loss/replica0'] == 0.5
  assert again.means()['loss/replica1'] == 2.0
  assert again.means()['loss'] == 1.0
