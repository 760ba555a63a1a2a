"""Runs with replicas: training, report, loading, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_method
from PIL import Image

from colorjax import records, saved
from colorjax.colorizer import FROZEN
from colorjax.errors import UserError
from colorjax.methods import regression
from colorjax.runs import colorize, feeds, plan, replica_options, train
from colorjax.runs import options as options_lib
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.runs.subject import EvaluateOptions, open_subject

pytestmark = pytest.mark.usefixtures('compiles_quickly')

METHOD = 'colorjax.methods.mbm'
SETTINGS = {'num_components': 2, 'filters': (16, 16), 'prior_width': 8,
            'dropout': 0.5}
SWEPT = {'vmap': {'seed': [5, 6], 'learning_rate': [0.01, 0.02]}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three photographs."""
  path = tmp_path_factory.mktemp('photos')
  for i in range(3):
    pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path / f'{i}.png')
  return path


def _options(folder, workdir, **changes):
  return TrainOptions(**{
      'workdir': workdir, 'data': f'folder:{folder}',
      'eval_data': f'folder:{folder}', 'image_size': 16, 'batch_size': 2,
      'num_steps': 3, 'eval_every': 3, 'log_every': 1, 'checkpoint_every': 3,
      'report_photos': 2, 'num_proposals': 2, 'report': False,
      'optimizing': Optimizing(
          optimizer='sgd', momentum=0, learning_rate=0.01, schedule='constant',
          warmup_steps=0)} | changes)


def _lines(workdir):
  return [json.loads(line) for line
          in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def seeds(folder, tmp_path_factory):
  """The work directory of a run of two replicas, with its report."""
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  train.train(METHOD, SETTINGS, _options(
      folder, workdir, seed=5, report=True, **SWEPT))
  return workdir


def test_a_replica_is_the_run_of_its_values(seeds, folder, tmp_path):
  options = _options(folder, tmp_path, seed=6, data_seed=5)
  train.train(METHOD, SETTINGS, dataclasses.replace(
      options, optimizing=dataclasses.replace(
          options.optimizing, learning_rate=0.02)))
  _, expected, _ = saved.load(tmp_path)
  _, found, size = saved.load(seeds, replica=1)
  assert size == 16
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               found, expected)
  for line, alone in zip(_lines(seeds), _lines(tmp_path), strict=True):
    for name, value in alone.items():
      column = name if name in ('step', 'split') else f'{name}/replica1'
      assert line[column] == pytest.approx(value, abs=1e-5)
  # What a run of one model stores does not know of replicas.
  assert 'replicas' not in json.loads((tmp_path / records.FILE).read_text())
  names = {line.partition('=')[0] for line
           in (tmp_path / 'flags.txt').read_text().splitlines()}
  assert not names & {'replicas', 'vmap'}
  _, other, _ = saved.load(seeds, replica=0)
  assert np.abs(jax.tree.leaves(other)[-1]
                - jax.tree.leaves(found)[-1]).max() > 1e-3


def test_seeds_of_replicas_and_of_data(folder, tmp_path):
  options = _options(folder, tmp_path, seed=5, replicas=3)
  assert replica_options.differences(options) == [
      {'seed': 5}, {'seed': 6}, {'seed': 7}]
  for data_seed, expected in ((None, 5), (2, 2)):
    opened = feeds.open_feeds(
        dataclasses.replace(options, data_seed=data_seed), None, None)
    assert opened.train.seed == expected
  assert 'data_seed' not in options_lib.text_of(options, {})


def test_the_report_has_mean_and_interval_over_replicas(seeds):
  each = json.loads((seeds / 'report/replicas.json').read_text())
  assert [(one['replica'], one['seed']) for one in each] == [(0, 5), (1, 6)]
  metrics = json.loads((seeds / 'report/metrics.json').read_text())
  for name in ('ab_distance', 'bits_per_dim'):
    values = [one['metrics'][name]['mean'] for one in each]
    assert values[0] != values[1]
    half = 12.7062 * np.std(values, ddof=1) / np.sqrt(2)  # Student's t
    assert metrics[name] == {
        'mean': pytest.approx(np.mean(values)), 'n': 2,
        'low': pytest.approx(np.mean(values) - half, rel=1e-4),
        'high': pytest.approx(np.mean(values) + half, rel=1e-4)}
  page = (seeds / 'report/index.html').read_text().replace('<wbr />', '')
  assert 'over 2 replicas' in page
  assert 'replica 1, seed=6, learning_rate=0.02' in page


def test_a_replica_is_chosen_by_number(seeds, folder, tmp_path):
  with pytest.raises(UserError, match=r'has 2 replicas.* replica=0 to 1'):
    saved.load(seeds)
  with pytest.raises(UserError, match=r'^replica=2: .* replica=0 to 1'):
    saved.load(seeds, replica=2)
  tiny_method.write_run(tmp_path / 'one')
  with pytest.raises(UserError, match=r'^replica=0: .* has no replicas'):
    saved.load(tmp_path / 'one', replica=0)
  subject = open_subject(EvaluateOptions(
      checkpoint=str(seeds), replica=1, workdir='.'))
  _, expected, _ = saved.load(seeds, replica=1)
  jax.tree.map(np.testing.assert_array_equal, subject.variables, expected)
  assert subject.name.endswith('run, replica 1')
  for i in (0, 1):
    colorize.colorize_all(seeds, folder / '0.png', tmp_path / str(i), replica=i)
  a, b = ((tmp_path / name / '0.png').read_bytes() for name in '01')
  assert a != b
  saved.pack(seeds, tmp_path / 'm.safetensors', dtype='float32', replica=1)
  _, packed, _ = saved.load(tmp_path / 'm.safetensors')
  jax.tree.map(np.testing.assert_array_equal, packed, expected)


@pytest.mark.parametrize(('base', 'vmap'), [
    ({'optimizer': 'adamw'}, {'learning_rate': [0.1, 0.02],
                              'weight_decay': [0.0, 0.3]}),
    ({'optimizer': 'sgd', 'schedule': 'halving', 'halve_every': 1},
     {'learning_rate': [0.1, 0.02], 'clip_norm': [0.0, 0.5]}),
    ({'optimizer': 'sgd', 'schedule': 'constant', 'encoder_learning_rate': 0.1},
     {'encoder_learning_rate': [0.3, 0.02]})])
def test_a_swept_number_acts_like_a_fixed_one(base, vmap):
  """The same gradients give the same updates."""
  colorizer = regression.build(network='unet', filters=(16,))
  options = TrainOptions(workdir='.', vmap=vmap, num_steps=9, optimizing=(
      Optimizing(warmup_steps=2, **base)))
  differing = replica_options.differences(options)
  params = {'pretrained_encoder': {'kernel': jnp.ones((2, 2))},
            'dense': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.ones(2)}}
  grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape),
                       params)

  def updated(values):
    optimizer, schedule = plan.optimizers_of(
        colorizer, replica_options.with_values(options, values))
    state, now = optimizer.init(params), params
    for _ in range(4):
      updates, state = optimizer.update(grads, state, now)
      now = optax.apply_updates(now, updates)
    return now, schedule(3)

  both = jax.jit(jax.vmap(updated))(replica_options.arrays(differing))
  for i, values in enumerate(differing):
    alone = jax.jit(lambda values=values: updated(values))()
    jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(
        a[i], b, rtol=2e-6), both, alone)
  assert len({float(x) for x in both[0]['pretrained_encoder']['kernel'][:, 0, 0]
              }) == 2


@pytest.mark.parametrize(('changes', 'message'), [
    ({'vmap': {'num_steps': [1, 2]}}, '^vmap=num_steps=1,2: .* learning_rate, '
     'weight_decay, clip_norm, encoder_learning_rate, seed; .*launch.sweep'),
    ({'vmap': {'seed': [1, 2.5]}}, '^vmap=seed=1,2.5: 2.5 is not an integer'),
    ({'vmap': {'learning_rate': [-1.0]}}, '-1.0 is not a number of at least 0'),
    ({'vmap': {'learning_rate': []}}, '^vmap=learning_rate=: give a value'),
    ({'vmap': {'seed': [1, 2], 'clip_norm': [1]}},
     '^vmap: seed has 2, clip_norm has 1 values'),
    ({'vmap': {'seed': [1, 2]}, 'replicas': 3}, '^replicas=3: vmap gives 2'),
    ({'vmap': {'encoder_learning_rate': [0.1]}},
     '^vmap=encoder_learning_rate=0.1: 0 would freeze'),
    ({'vmap': {'learning_rate': [0.1]},
      'player_optimizing': {'discriminator': Optimizing()}},
     '^vmap=learning_rate=0.1: discriminator has an optimizer'),
    ({'replicas': 0}, '^replicas=0: must be at least 1')])
def test_what_replicas_cannot_do_is_refused(folder, tmp_path, changes, message):
  with pytest.raises(UserError, match=message) as error:
    train.train(METHOD, SETTINGS, _options(folder, tmp_path / 'x', **changes))
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'x').exists()


def test_seeds_may_be_any_integer():
  found = replica_options.arrays([{'seed': 2**40 + 7}, {'seed': -3}])['seed']
  for i, seed in enumerate((2**40 + 7, -3)):
    assert np.array_equal(jax.random.key_data(jax.random.key(found[i])),
                          jax.random.key_data(jax.random.key(seed)))


def test_frozen_networks_must_be_equal():
  starts = [{'params': {}, 'model_state': {FROZEN: {'v': jnp.float32(i)}}}
            for i in (1, 2)]
  plan._check_frozen([starts[0], starts[0]])
  with pytest.raises(UserError, match=r'^backbone_weights=random: replicas'):
    plan._check_frozen(starts)


def test_a_run_of_replicas_is_not_resumed_with_others(seeds, folder):
  options = _options(folder, seeds, seed=5, report=True, **SWEPT)
  assert train.train(METHOD, SETTINGS, options).status == 'was_finished'
  with pytest.raises(UserError, match=r'vmap was .*5, 6.*, is .*5, 7'):
    train.train(METHOD, SETTINGS, dataclasses.replace(
        options, vmap=SWEPT['vmap'] | {'seed': [5, 7]}))
