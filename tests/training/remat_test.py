"""Rematerialization changes the memory of a step and not its result."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colorjax.colorizer import masked_mean
from colorjax.methods import classification, mask_gan, mbm
from colorjax.training import steps
from colorjax.training.state import create_state

pytestmark = pytest.mark.usefixtures('compiles_quickly')

TESTS = pathlib.Path(__file__).parents[1]

METHODS = {
    'mbm': lambda: mbm.build(num_components=2, filters=(16,), prior_width=8),
    'classification': lambda: classification.build(
        network='published', filters=(4, 4, 4, 4)),
    'mask_gan': lambda: mask_gan.build(widths=(4, 8), noise=2),
}
SIDE = 8


def test_parameters_are_those_without_it_on_two_devices():
  """With batch norm, padding, microbatches and replicas; under SGD."""
  done = subprocess.run(
      [sys.executable, '-W', 'error', 'training/remat_problem.py', '2'],
      cwd=TESTS, text=True, capture_output=True, check=False,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu',
           'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') +
                        ' --xla_force_host_platform_device_count=2',
           'PYTHONPATH': f'{TESTS.parent}:{TESTS}'})
  assert done.returncode == 0, done.stderr
  found = {name: (float(apart), float(change)) for name, apart, change in (
      line.rsplit(maxsplit=2) for line in done.stdout.splitlines())}
  assert set(found) == {'batch', 'microbatches', 'replicas'}
  for name, (apart, change) in found.items():
    assert apart <= 1e-6, name
    assert change > 1e-3, name


@pytest.mark.parametrize('name', METHODS)
def test_parameters_of_methods_are_those_without_it(name):
  """With dropout, batch norm and players; under SGD."""
  colorizer = METHODS[name]()
  rng = np.random.default_rng(0)
  batch = {'image': rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8),
           'padding_mask': np.ones(2, np.float32)}
  # Compiling the initialization would take longer than these numbers.
  variables = jax.tree.map(
      lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), x.dtype),
      jax.eval_shape(lambda key: colorizer.init(key, (SIDE, SIDE)),
                     jax.random.key(0)))
  sgd = optax.sgd(0.1)
  optimizer = dict.fromkeys(colorizer.players, sgd) or sgd
  start = create_state(variables, optimizer, players=colorizer.players)
  ends = []
  for remat in (False, True):
    step = jax.jit(steps.make_train_step(
        colorizer.players or colorizer.loss, optimizer, seed=0, remat=remat))
    state, _ = step(start, batch)
    assert not state.failed
    ends.append(jax.tree.leaves((state.params, state.model_state)))
  for x, y in zip(*ends, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
  assert any(np.abs(x - y).max() > 1e-4 for x, y in zip(
      ends[0], jax.tree.leaves((start.params, start.model_state)),
      strict=True))


def test_only_cheap_operations_run_twice():
  """The gradient has another tanh for each layer, and no other product."""
  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    x = batch['image'].astype(jnp.float32).mean((1, 2))
    for kernel in params:
      x = jnp.tanh(x @ kernel)
    return masked_mean({'loss': x.sum(-1)}, batch['padding_mask'], model_state)

  params = [jnp.ones((3, 3))] * 4
  optimizer = optax.sgd(0.1)
  state = create_state({'params': params, 'model_state': {}}, optimizer)
  batch = {'image': np.ones((2, 4, 4, 3), np.uint8),
           'padding_mask': np.ones(2, np.float32)}
  plain, remat = (str(jax.make_jaxpr(steps.make_train_step(
      loss, optimizer, seed=0, remat=remat))(state, batch))
                  for remat in (False, True))
  assert plain.count(' tanh ') == 4
  assert remat.count(' tanh ') == 8
  assert plain.count('dot_general[') == remat.count('dot_general[') == 11
