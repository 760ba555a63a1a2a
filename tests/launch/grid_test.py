"""Sets of values, as people write them."""

import itertools
import math

import pytest

from colorjax.errors import UserError
from launch import grid


def _runs(*sets, **more):
  return grid.product(grid.axes(sets, **more))


def test_lists_are_multiplied():
  assert _runs('a=1,2', 'b=x,y') == [
      {'a': '1', 'b': 'x'}, {'a': '1', 'b': 'y'},
      {'a': '2', 'b': 'x'}, {'a': '2', 'b': 'y'}]


def test_no_set_is_one_run():
  assert _runs() == [{}]


def test_doubles_stand_once():
  assert _runs('a=1,1,2') == [{'a': '1'}, {'a': '2'}]


def test_commas_inside_brackets_do_not_separate():
  assert _runs('loss=mse,huber(delta=1,by=2)') == [
      {'loss': 'mse'}, {'loss': 'huber(delta=1,by=2)'}]
  assert _runs('filters=[32,64],[64,128]') == [
      {'filters': ['32', '64']}, {'filters': ['64', '128']}]
  # Brackets inside a value are its own.
  assert _runs('data=tfds:a:train[:98%],bundled') == [
      {'data': 'tfds:a:train[:98%]'}, {'data': 'bundled'}]


def test_evenly_spaced():
  assert [run['a'] for run in _runs('a=linear:0:1:5')] == [
      0, 0.25, 0.5, 0.75, 1]
  values = [run['a'] for run in _runs('a=log:1e-4:1e-2:5')]
  assert (values[0], values[-1]) == (1e-4, 1e-2)
  ratios = [b / a for a, b in itertools.pairwise(values)]
  assert ratios == pytest.approx([math.sqrt(10)] * 4, rel=1e-3)
  assert [run['a'] for run in _runs('a=log:3:9:1')] == [3]


def test_random_values_are_drawn_together_and_seeded():
  sets = ('a=uniform:2:3', 'b=loguniform:1e-4:1e-2', 'c=choice:x,y')
  runs = _runs(*sets, num_samples=40)
  assert len(runs) == 40
  assert all(2 <= run['a'] <= 3 and 1e-4 <= run['b'] <= 1e-2 for run in runs)
  assert {run['c'] for run in runs} == {'x', 'y'}
  # Half of the draws of a log scale are below its middle.
  assert 10 <= sum(run['b'] < 1e-3 for run in runs) <= 30
  # More samples add runs.
  assert _runs(*sets, num_samples=60)[:40] == runs
  assert _runs(*sets, num_samples=40, sample_seed=1) != runs
  # A flag's draws do not depend on which others are random.
  assert [run['a'] for run in _runs(sets[0], num_samples=40)] == [
      run['a'] for run in runs]


def test_listed_values_go_together():
  listed = [{'size': '64', 'batch': '32'}, {'size': '128', 'batch': '8'}]
  assert _runs('seed=0,1', listed=listed) == [
      {'seed': seed, **values} for seed in '01' for values in listed]


@pytest.mark.parametrize(('sets', 'more', 'message'), [
    (['a'], {}, 'FLAG=VALUES is meant'), (['a='], {}, 'FLAG=VALUES is meant'),
    (['=1'], {}, 'FLAG=VALUES is meant'),
    (['a=1', 'a=2'], {}, '--set=a=...: given twice'),
    (['a=1'], {'listed': [{'a': '2'}]}, 'given twice'),
    (['a=log:1:2'], {}, 'log:LOW:HIGH:NUMBER is meant'),
    (['a=log:0:2:3'], {}, 'LOW above 0'),
    (['a=linear:2:1:3'], {}, 'LOW at most HIGH'),
    (['a=linear:1:nan:3'], {}, 'LOW at most HIGH'),
    (['a=linear:1:x:3'], {}, 'linear:LOW:HIGH:NUMBER is meant'),
    (['a=uniform:0:1'], {}, 'need --num_samples'),
    (['a=uniform:0'], {'num_samples': 2}, 'uniform:LOW:HIGH is meant'),
    (['a=1'], {'num_samples': 2}, 'no --set is random')])
def test_wrong_sets_are_refused(sets, more, message):
  with pytest.raises(UserError, match=message.replace('(', r'\(')):
    grid.axes(sets, **more)
