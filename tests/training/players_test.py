"""Steps with several players, and frozen networks beside them, by hand."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax import parallel
from colorjax.colorizer import FROZEN, Aux
from colorjax.errors import UserError
from colorjax.training import checkpoint, state, steps
from colorjax.training.checkpoint import CheckpointError, Checkpoints

RATE = 0.1
SGD = optax.sgd(RATE)


def _player(name, other, metric, sign=1.0):
  """Half the squared distance between the players, mean over photographs.

  The batch's values are added to the distance; the model state counts calls.
  """
  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    gap = params[name] - params[other] + batch['x']
    value = sign * 0.5 * jnp.square(gap) * batch['padding_mask']
    count = batch['padding_mask'].sum()
    model_state = model_state | {'calls': model_state['calls'] + 1}
    return value.sum() / jnp.maximum(count, 1), Aux(
        model_state=model_state, metrics={metric: (value.sum(), count)})

  return loss


PLAYERS = {'critic': _player('critic', 'painter', 'critic/loss', -1.0),
           'painter': _player('painter', 'critic', 'loss')}


def _variables(painter=1.0, critic=3.0, frozen=None):
  model_state = {'calls': jnp.zeros(())}
  if frozen is not None:
    model_state[FROZEN] = frozen
  return {'params': {'painter': jnp.float32(painter),
                     'critic': jnp.float32(critic)},
          'model_state': model_state}


def _state(**kwargs):
  return state.create_state(_variables(**kwargs), SGD, players=PLAYERS)


def _batch(x, mask=None):
  x = np.asarray(x, np.float32)
  return {'x': x, 'padding_mask': np.ones_like(x) if mask is None else
          np.asarray(mask, np.float32)}


def test_each_player_sees_the_update_of_the_one_before():
  step = jax.jit(steps.make_train_step(PLAYERS, SGD, seed=0))
  new, metrics = step(_state(), _batch([0.5, 1.5]))
  # critic: gap = 3 - 1 + 1 = 3, ascends to 3 + 0.1 * 3
  critic = 3 + RATE * 3
  # painter: gap = 1 - 3.3 + 1, descends
  painter = 1 - RATE * (1 - critic + 1)
  np.testing.assert_allclose(new.params['critic'], critic, rtol=1e-6)
  np.testing.assert_allclose(new.params['painter'], painter, rtol=1e-6)
  assert new.model_state['calls'] == 2
  assert new.step == 1
  np.testing.assert_allclose(metrics['grad_norm/critic'][0], 3, rtol=1e-6)
  np.testing.assert_allclose(
      metrics['grad_norm'][0], np.hypot(3, 1 - critic + 1), rtol=1e-6)
  assert {'loss', 'critic/loss'} <= metrics.keys()


def test_parts_of_a_batch_are_the_batch():
  batch = _batch([0.5, 1.5, -2.0, 7.0], [1, 1, 1, 0])
  one, _ = steps.make_train_step(PLAYERS, SGD, seed=0)(_state(), batch)
  two, _ = steps.make_train_step(
      PLAYERS, SGD, seed=0, accumulate=2)(_state(), batch)
  devices = parallel.pmap_step(steps.make_train_step(
      PLAYERS, SGD, seed=0))
  many, _ = devices(parallel.replicate(_state()), batch)
  for other in (two, many):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                 other.params, one.params)


def test_a_player_that_fails_stops_the_others():
  bad = dict(PLAYERS, painter=lambda params, *rest, **settings: (
      jnp.log(params['painter'] * 0 - 1),
      PLAYERS['painter'](params, *rest, **settings)[1]))
  new, metrics = steps.make_train_step(bad, SGD, seed=0)(
      _state(), _batch([0.5]))
  assert metrics[steps.NON_FINITE][0] == 1
  assert new.params == _state().params


def test_two_metrics_of_one_name_are_refused():
  same = {'critic': _player('critic', 'painter', 'loss'),
          'painter': PLAYERS['painter']}
  with pytest.raises(ValueError, match="metric named 'loss'"):
    steps.make_train_step(same, SGD, seed=0)(_state(), _batch([0.5]))


def test_players_have_optimizer_states_of_their_own():
  adam = optax.adam(RATE)
  made = state.create_state(_variables(), adam, players=PLAYERS)
  assert made.opt_state.keys() == PLAYERS.keys()
  new, _ = steps.make_train_step(PLAYERS, adam, seed=0)(made, _batch([0.5]))
  assert new.opt_state['critic'][0].count == 1
  # Adam's first step has the length of the rate, whatever the gradient.
  np.testing.assert_allclose(new.params['critic'], 3 + RATE, rtol=1e-5)


def test_each_player_may_have_an_optimizer_of_its_own():
  rates = {'critic': 0.5, 'painter': 0.01}
  optimizers = {name: optax.sgd(rate) for name, rate in rates.items()}
  made = state.create_state(_variables(), optimizers, players=PLAYERS)
  step = jax.jit(steps.make_train_step(PLAYERS, optimizers, seed=0, schedule={
      name: optax.constant_schedule(rate) for name, rate in rates.items()}))
  new, metrics = step(made, _batch([1.0]))
  critic = 3 + 0.5 * 3
  np.testing.assert_allclose(new.params['critic'], critic, rtol=1e-6)
  np.testing.assert_allclose(
      new.params['painter'], 1 - 0.01 * (1 - critic + 1), rtol=1e-6)
  np.testing.assert_allclose(metrics['learning_rate/critic'][0], 0.5)
  np.testing.assert_allclose(metrics['learning_rate/painter'][0], 0.01)


@pytest.mark.parametrize('names', [(), ('critic',),
                                   ('critic', 'painter', 'judge')])
def test_optimizers_must_have_the_names_of_the_players(names):
  optimizers = dict.fromkeys(names, SGD)
  for make in (
      lambda: steps.make_train_step(PLAYERS, optimizers, seed=0),
      lambda: state.create_state(_variables(), optimizers, players=PLAYERS)):
    with pytest.raises(UserError, match='one for each of critic, painter'):
      make()


def test_optimizers_by_player_need_players():
  with pytest.raises(UserError, match='no players; give one optimizer'):
    steps.make_train_step(PLAYERS['critic'], {'critic': SGD}, seed=0)


def test_a_frozen_network_is_used_and_never_changed():
  frozen = {'w': jnp.float32(2.0), 'bad': jnp.float32(jnp.nan)}

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    value = (params['painter'] * model_state[FROZEN]['w']
             * batch['padding_mask'].sum())
    changed = model_state | {FROZEN: {'w': jnp.zeros(()), 'bad': 0.0}}
    return value, Aux(model_state=changed, metrics={'loss': (value, 1.0)})

  made = state.create_state(_variables(frozen=frozen), SGD)
  new, metrics = steps.make_train_step(loss, SGD, seed=0)(made, _batch([0.0]))
  np.testing.assert_allclose(new.params['painter'], 1 - RATE * 2)
  assert new.model_state[FROZEN]['w'] == 2
  assert metrics[steps.NON_FINITE][0] == 0  # the frozen NaN is not checked


FROZEN_TREE = {'net': {'kernel': np.arange(40_000, dtype=np.float32)}}


def _save(workdir, last=2):
  with Checkpoints(workdir / checkpoint.DIRECTORY) as checkpoints:
    for n in range(1, last + 1):
      checkpoints.save(n, _state(painter=n, frozen=FROZEN_TREE), {})
  return workdir / checkpoint.DIRECTORY


def _size(folder):
  return sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())


def test_frozen_networks_are_written_once(tmp_path):
  directory = _save(tmp_path)
  assert _size(directory / FROZEN) > _size(directory / '1')
  assert _size(directory / '2') < 40_000
  like = jax.tree.map(jnp.zeros_like, _state(frozen=FROZEN_TREE))
  with Checkpoints(directory) as checkpoints:
    restored, _ = checkpoints.restore_latest(like)
    checkpoints.save(3, restored.replace(  # a resumed run
        params=restored.params | {'painter': jnp.float32(3)}), {})
  assert restored.params['painter'] == 2
  jax.tree.map(np.testing.assert_array_equal,
               restored.model_state[FROZEN], FROZEN_TREE)
  for like_variables in (None, {'params': like.params,
                                'model_state': like.model_state}):
    variables = checkpoint.restore_variables(tmp_path, like=like_variables)
    assert variables['params']['painter'] == 3
    jax.tree.map(np.testing.assert_array_equal,
                 variables['model_state'][FROZEN], FROZEN_TREE)


def test_weights_of_a_run_without_a_checkpoint_are_replaced(tmp_path):
  """Killed between its frozen weights and its first checkpoint."""
  directory = _save(tmp_path, last=1)
  shutil.rmtree(directory / '1')
  other = {'net': {'kernel': FROZEN_TREE['net']['kernel'] + 1}}
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, _state(frozen=other), {})
  with Checkpoints(directory) as checkpoints:
    restored, _ = checkpoints.restore_latest(_state(frozen=FROZEN_TREE))
  jax.tree.map(np.testing.assert_array_equal,
               restored.model_state[FROZEN], other)
  shutil.rmtree(directory / '1')
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, _state(), {})
  variables = checkpoint.restore_variables(tmp_path)
  assert FROZEN not in variables['model_state']


def test_other_frozen_weights_are_refused(tmp_path):
  directory = _save(tmp_path / 'a')
  other = {'net': {'kernel': FROZEN_TREE['net']['kernel'] + 1}}
  with Checkpoints(directory) as checkpoints, pytest.raises(
      CheckpointError, match='were trained with other frozen weights'):
    checkpoints.save(3, _state(frozen=other), {})
  with Checkpoints(tmp_path / 'b' / checkpoint.DIRECTORY) as checkpoints:
    checkpoints.save(1, _state(frozen=other), {})
  shutil.rmtree(directory / FROZEN)
  shutil.copytree(
      tmp_path / 'b' / checkpoint.DIRECTORY / FROZEN, directory / FROZEN)
  with Checkpoints(directory) as checkpoints, pytest.raises(
      CheckpointError, match='not the frozen weights that'):
    checkpoints.restore_latest(_state(frozen=FROZEN_TREE))
  with pytest.raises(CheckpointError, match='not the frozen weights that'):
    checkpoint.restore_variables(tmp_path / 'a')


def test_a_damaged_frozen_network_is_named(tmp_path):
  directory = _save(tmp_path)
  data = max((p for p in (directory / FROZEN).rglob('*') if p.is_file()),
             key=lambda p: p.stat().st_size)
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  with Checkpoints(directory) as checkpoints, pytest.raises(
      CheckpointError, match=f'damaged .*{FROZEN}.*new workdir'):
    checkpoints.restore_latest(_state(frozen=FROZEN_TREE))
  with pytest.raises(CheckpointError, match=FROZEN):
    checkpoint.restore_variables(tmp_path)
