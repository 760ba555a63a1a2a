"""One device against eight, on fake CPU devices and under SGD.

Adam divides by the gradient's size and would hide a wrong scale.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from colorjax import parallel
from colorjax.errors import UserError

SCRIPT = '''
import sys
import flax.linen as nn
import jax, jax.numpy as jnp, numpy as np, optax
from colorjax.colorizer import Aux
from colorjax.training import checkpoint_files, parallel, steps
from colorjax.training.state import create_state


class Net(nn.Module):

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(4, (3, 3))(x)
    x = nn.BatchNorm(
        use_running_average=not train, axis_name=parallel.AXIS)(x)
    return nn.Dense(2)(nn.relu(x).mean((1, 2)))


def run(accumulate):
  net = Net()

  def loss(params, model_state, batch, key, *, train):
    x = batch['image'].astype(jnp.float32) / 255
    y, new = net.apply({'params': params, **model_state}, x, train,
                       mutable=list(model_state))
    error = jnp.square(y - x.max((1, 2))[:, :2]).sum(-1)
    mask = batch['mask']
    total, count = (error * mask).sum(), mask.sum()
    return total / jnp.maximum(count, 1), Aux(model_state=new, metrics={
        'loss': (total, count)})

  optimizer = optax.sgd(0.1, momentum=0.9)
  state = dict(jax.jit(net.init, static_argnums=2)(
      jax.random.key(0), jnp.zeros((1, 6, 6, 3)), False))
  state = parallel.replicate(create_state(
      {'params': state.pop('params'), 'model_state': state}, optimizer))
  step = parallel.pmap_step(steps.make_train_step(
      loss, optimizer, seed=0, accumulate=accumulate,
      axis_name=parallel.AXIS))
  rng = np.random.default_rng(0)
  for _ in range(5):
    mask = (rng.random(32) < 0.6).astype(np.float32)
    mask[:5] = 0, 0, 0, 0, 1  # a whole device of padding, then unequal ones
    before = state
    state, metrics = step(state, {
        'image': rng.integers(0, 256, (32, 6, 6, 3), dtype=np.uint8),
        'mask': mask})
    assert all(x.is_deleted() for x in jax.tree.leaves(before)), 'donated'
  assert jax.tree.leaves(state.params)[0].sharding.is_fully_replicated
  return checkpoint_files.snapshot({
      'params': state.params, 'model_state': state.model_state,
      'metrics': metrics})


devices = int(sys.argv[2])
assert jax.local_device_count() == devices
np.savez(sys.argv[1], **{
    f'{accumulate} {name}': x
    for accumulate in (1, 2) for name, x in run(accumulate).items()})
'''


def _load(path):
  with np.load(path) as arrays:
    return dict(arrays)


def test_eight_devices_give_the_parameters_of_one(tmp_path):
  running = []
  for devices in (1, 8):
    flags = f'--xla_force_host_platform_device_count={devices}'
    running.append(subprocess.Popen(
        [sys.executable, '-W', 'error', '-c', SCRIPT,
         str(tmp_path / f'{devices}.npz'), str(devices)],
        # The tolerance is that of XLA as it is.
        env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu',
             'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'},
        cwd=pathlib.Path(__file__).parent.parent))
  assert [process.wait() for process in running] == [0, 0]
  one, eight = (_load(tmp_path / f'{n}.npz') for n in (1, 8))
  assert one.keys() == eight.keys()
  assert any('mean' in name for name in one), 'batch statistics'
  for name in one:
    scale = max(1.0, float(np.abs(one[name]).max()))
    np.testing.assert_allclose(
        eight[name], one[name], atol=1e-6 * scale, rtol=0, err_msg=name)


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
  with pytest.raises(UserError, match=r'--batch_size=12 .* 8 devices'):
    parallel.shard_batch({'mask': np.ones(12)})
