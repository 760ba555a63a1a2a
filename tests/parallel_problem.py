"""Short training runs whose results must not depend on the number of devices.

    python tests/parallel_problem.py FOLDER DEVICES

It writes FOLDER/<DEVICES>.npz, parameters and metrics by the name of the
problem. The run on one device also saves checkpoints, from which the others
continue.
"""

import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from colorjax import keys as key_lib
from colorjax import parallel
from colorjax.colorizer import masked_mean
from colorjax.methods import (
    autoregressive,
    flow_matching,
    latent,
    mask_gan,
    mbm,
)
from colorjax.training import checkpoint_files, steps, totals
from colorjax.training.checkpoint import Checkpoints
from colorjax.training.state import create_state

BATCH_SIZE, SIDE, STEPS = 32, 8, 3

ON_TWO = ('autoregressive', 'flow_matching', 'latent')
"""Problems that take long to compile; one and two devices are enough."""

BRIEF = ('autoregressive', 'latent')
"""Problems with neither another seed nor, on one device, microbatches."""


def batch(step):
  """Photographs with padding, including devices with nothing but padding."""
  rng = np.random.default_rng(step)
  mask = (rng.random(BATCH_SIZE) < 0.6).astype(np.float32)
  mask[:5] = 0, 0, 0, 0, 1
  image = rng.integers(0, 256, (BATCH_SIZE, 4, 4, 3), dtype=np.uint8)
  return {'image': image.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2),
          'padding_mask': mask, 'index': np.arange(BATCH_SIZE, dtype=np.int32)}


class Net(nn.Module):
  """A network with batch normalization."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(4, (3, 3))(x)
    x = nn.BatchNorm(use_running_average=not train,
                     axis_name=parallel.axis())(x)
    return nn.Dense(2)(nn.relu(x).mean((1, 2)))


def statistics():
  """`init`, loss and optimizer of that network."""
  net = Net()

  def init(key, shape):
    variables = dict(net.init(key, jnp.zeros((1, *shape, 3)), False))
    return {'params': variables.pop('params'), 'model_state': variables}

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step
    x = batch['image'].astype(jnp.float32) / 255
    y, new = net.apply({'params': params, **model_state}, x, train,
                       mutable=list(model_state))
    error = jnp.square(y - x.max((1, 2))[:, :2]).sum(-1)
    return masked_mean({'loss': error}, batch['padding_mask'], new)

  return init, loss, optax.sgd(0.1, momentum=0.9)


def problems():
  """`init`, loss (or losses by player) and optimizer by name."""
  mixture = mbm.build(num_components=2, filters=(16,), prior_width=8)
  gan = mask_gan.build(
      widths=(4, 8), noise=2, regression_weight=1.0)
  flow = flow_matching.build(
      objective='mean_flow', filters=(16,), width=4, hint_share=0.5,
      region_share=0.5)
  autoencoder = latent.build(
      num_components=2, latent_size=2, latent_strides=(2,), filters=(16,),
      width=16, hint_share=0.5, region_share=0.5)
  symbols = autoregressive.build(
      filters=(16,), width=8, depth=1, num_heads=2, upsampler_width=16,
      hint_share=0.5, region_share=0.5)
  return {
      'statistics': statistics(),
      'latent': (autoencoder.init, autoencoder.loss, optax.sgd(0.01)),
      'autoregressive': (symbols.init, symbols.loss, optax.sgd(0.1)),
      'flow_matching': (flow.init, flow.loss, optax.sgd(0.1)),
      'mbm': (mixture.init, mixture.loss, optax.sgd(0.1)),
      'mask_gan': (gan.init, gan.players, {
          'discriminator': optax.sgd(0.01), 'generator': optax.sgd(0.01)})}


def snapshot(state, metrics):
  """The arrays to compare."""
  return checkpoint_files.snapshot({
      'params': state.params, 'model_state': state.model_state,
      'metrics': metrics})


def run(name, init, losses, optimizer, folder):
  """Runs with 1 and 4 microbatches, resumed, and with another seed."""
  players = losses if isinstance(losses, dict) else ()
  variables = jax.jit(init, static_argnums=1)(
      key_lib.of_run(0, 'init'), (SIDE, SIDE))
  start = create_state(variables, optimizer, players=players)
  found, is_one = {}, jax.local_device_count() == 1

  def advance(step, state, first):
    for n in range(first, STEPS):
      before = state
      state, metrics = step(state, batch(n))
      assert all(x.is_deleted() for x in jax.tree.leaves(before)), 'donated'
      if first == 0 and n == 1 and is_one:
        yield state
    assert jax.tree.leaves(state.params)[0].sharding.is_fully_replicated
    found[label] = snapshot(state, metrics)

  for label, seed, accumulate in (
      (f'{name} 1', 0, 1), (f'{name} 4', 0, 4), (f'{name} seed', 1, 1)):
    if label.endswith('seed') and (not is_one or name == 'statistics'):
      continue
    if name in BRIEF and is_one and not label.endswith(' 1'):
      continue
    step = parallel.pmap_step(steps.make_train_step(
        losses, optimizer, seed=seed, accumulate=accumulate))
    saves = label.endswith(' 1') and name != 'statistics'
    for state in advance(step, parallel.replicate(start), 0):
      if saves:
        with Checkpoints(folder / name) as checkpoints:
          checkpoints.save(2, state, {})
    if saves and not is_one:
      label = f'{name} resumed'
      with Checkpoints(folder / name) as checkpoints:
        state, _ = checkpoints.restore_latest(start)
      list(advance(step, parallel.replicate(state), 2))
  return found


def validation():
  """The mean of a stochastic held-out loss for several batch sizes."""
  def loss(params, model_state, batch, keys, *, step, train):
    assert step is None
    assert not train
    noise = jax.vmap(jax.random.normal)(keys)
    x = batch['image'].astype(jnp.float32).mean((1, 2, 3)) / 255
    return masked_mean({'loss': params * x * noise}, batch['padding_mask'],
                       model_state)

  step = parallel.pmap_step(steps.make_eval_step(loss), donate=False)
  variables = {'params': jnp.float32(2), 'model_state': {}}
  whole = batch(0)
  return {f'validation {size}': totals.evaluate(step, variables, [
      {name: x[i:i + size] for name, x in whole.items()}
      for i in range(0, BATCH_SIZE, size)])['loss']
          for size in (8, 4, 2) if size >= jax.local_device_count()}


def padding():
  """One step on log(w x), where x is 0 in all rows but one."""
  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    return masked_mean({'loss': jnp.log(params['w'] * batch['x'])},
                       batch['padding_mask'], model_state)

  optimizer = optax.sgd(1.0)
  state = create_state({'params': {'w': jnp.float32(2)}, 'model_state': {}},
                       optimizer)
  step = parallel.pmap_step(steps.make_train_step(loss, optimizer, seed=0))
  here = np.arange(8) == 5
  state, _ = step(parallel.replicate(state), {
      'x': here.astype(np.float32), 'padding_mask': here.astype(np.float32)})
  return {'padding': np.asarray(state.params['w'])}


def main(folder, devices):
  """Runs all problems."""
  assert jax.local_device_count() == devices
  arrays = validation() | padding()
  for name, problem in problems().items():
    # They take long to compile; two devices are enough.
    if (name in ('flow_matching', 'autoregressive')
        and jax.local_device_count() > 2):
      continue
    for label, leaves in run(name, *problem, folder).items():
      arrays |= {f'{label} {path}': x for path, x in leaves.items()}
  np.savez(folder / f'{devices}.npz', **arrays)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
