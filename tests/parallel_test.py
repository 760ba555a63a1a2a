"""The same run on 1, 2, 4 and 8 simulated CPU devices, with SGD.

Adam would hide a wrong scale of the gradient.
"""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import parallel_problem
import pytest

from colorjax import parallel
from colorjax.errors import UserError

DEVICES = (1, 2, 4, 8)

PROBLEMS = {'statistics': DEVICES, 'mbm': DEVICES, 'mask_gan': DEVICES,
            **dict.fromkeys(parallel_problem.ON_TWO, DEVICES[:2])}
"""The methods, and the numbers of devices on which each is trained."""


def _pairs(*names, devices=DEVICES):
  """(number of devices, problem) for some problems."""
  return [(n, name) for name in names for n in PROBLEMS[name] if n in devices]

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """The results of `parallel_problem.py` by number of devices."""
  folder = tmp_path_factory.mktemp('devices')

  def start(devices):
    flags = (os.environ.get('XLA_FLAGS', '')
             + f' --xla_force_host_platform_device_count={devices}')
    return subprocess.Popen(
        [sys.executable, '-W', 'error', 'tests/parallel_problem.py',
         str(folder), str(devices)],
        env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu',
             'PYTHONPATH': str(ROOT)}, cwd=ROOT)

  # The others continue from a checkpoint of the first.
  assert start(1).wait() == 0
  assert [process.wait() for process in map(start, DEVICES[1:])] == [0, 0, 0]
  return {n: _load(folder / f'{n}.npz') for n in DEVICES}


def _load(path):
  with np.load(path) as arrays:
    return dict(arrays)


def _part(run, prefix):
  found = {name.removeprefix(prefix): x for name, x in run.items()
           if name.startswith(prefix)}
  assert found, prefix
  return found


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    # A variance is a difference of two means, which loses more digits.
    tolerance = 1e-6 if name.startswith(('params', '/')) else 1e-5
    scale = max(1.0, float(np.abs(x).max()))
    np.testing.assert_allclose(
        found[name], x, atol=tolerance * scale, rtol=0, err_msg=name)


@pytest.mark.parametrize(('devices', 'problem', 'accumulate'), [
    (*pair, accumulate) for pair in _pairs(*PROBLEMS, devices=DEVICES[1:])
    for accumulate in ((1,) if pair[1] in parallel_problem.BRIEF else (1, 4))])
def test_any_number_of_devices_gives_the_parameters_of_one(
    runs, devices, problem, accumulate):
  prefix = f'{problem} {accumulate} '
  _assert_same(_part(runs[devices], prefix), _part(runs[1], prefix))


@pytest.mark.parametrize(
    ('devices', 'problem'), [
        pair for pair in _pairs('mbm', *parallel_problem.ON_TWO)
        if pair[0] > 1 or pair[1] not in parallel_problem.BRIEF])
def test_microbatches_give_the_parameters_of_the_whole_batch(
    runs, devices, problem):
  """Includes dropout, but not batch statistics, which are per microbatch."""
  run = runs[devices]
  _assert_same(_part(run, f'{problem} 4 params'),
               _part(run, f'{problem} 1 params'))


@pytest.mark.parametrize(
    ('devices', 'problem'),
    _pairs('mbm', 'mask_gan', *parallel_problem.ON_TWO,
           devices=DEVICES[1:]))
def test_a_run_resumes_on_another_number_of_devices(
    runs, devices, problem):
  _assert_same(_part(runs[devices], f'{problem} resumed '),
               _part(runs[1], f'{problem} 1 '))


def test_noise_matters(runs):
  """Without effect of the noise, the tests above would prove nothing."""
  for problem in ('mbm', 'mask_gan', 'flow_matching'):
    one = _part(runs[1], f'{problem} 1 params')
    other = _part(runs[1], f'{problem} seed params')
    gap = max(float(np.abs(one[name] - other[name]).max()) for name in one)
    assert gap > 1e-5, problem


def test_held_out_losses_do_not_depend_on_batches_and_devices(runs):
  losses = [float(x) for run in runs.values()
            for x in _part(run, 'validation ').values()]
  assert len(losses) == 3 + 3 + 2 + 1
  np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


@pytest.mark.parametrize('devices', DEVICES)
def test_padding_cannot_make_a_gradient_infinite(runs, devices):
  """The loss is log(w x), and most devices hold only padding with x = 0."""
  np.testing.assert_allclose(
      runs[devices]['padding'], 2 - 1 / 2, rtol=1e-6)


def test_axis_and_places():
  assert parallel.axis() is None
  np.testing.assert_array_equal(parallel.positions(3), [0, 1, 2])

  def inside(x):
    assert parallel.axis() == parallel.AXIS
    assert jax.jit(lambda _: parallel.axis() == parallel.AXIS)(x)
    return parallel.positions(3), parallel.first_row({'x': x}, x > 4)['x']

  mapped = jax.vmap(inside, axis_name=parallel.AXIS)
  places, first = mapped(jnp.arange(6).reshape(2, 3))
  np.testing.assert_array_equal(places, [[0, 1, 2], [3, 4, 5]])
  np.testing.assert_array_equal(first, [5, 5])
  _, first = mapped(jnp.zeros((2, 3), jnp.uint8))
  np.testing.assert_array_equal(first, [0, 0])
  assert first.dtype == jnp.uint8


def test_batch_norm_works_inside_and_outside_a_mapped_step():
  from colorjax.models.classifier import PublishedClassifier

  net = PublishedClassifier(num_bins=2, filters=(2, 2, 2, 2))
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
  variables = jax.jit(lambda key: net.init(key, x, train=False))(
      jax.random.key(1))

  def statistics(x):
    return net.apply(variables, x, train=True, mutable=['batch_stats'])[1]

  alone = jax.jit(statistics)(x)
  mapped = jax.jit(jax.vmap(statistics, axis_name=parallel.AXIS))(
      x.reshape(2, 2, 8, 8, 1))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b[0], atol=1e-6), alone, mapped)


def test_replicate_copies_every_leaf():
  x = np.ones(4, np.float32)
  on_device = jax.numpy.asarray(x)
  copies = parallel.replicate({'a': on_device, 'b': on_device, 'c': x})
  jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree),
          donate_argnums=0)(copies)
  np.testing.assert_array_equal(on_device, 1)
  np.testing.assert_array_equal(x, 1)


def test_indivisible_batch_is_refused(monkeypatch):
  monkeypatch.setattr(jax, 'local_device_count', lambda: 8)
  with pytest.raises(UserError, match=r'batch_size=12 .* 8 devices'):
    parallel.shard_batch({'padding_mask': np.ones(12)})
