"""A minimal method, for tests of code that works with any method.

Proposal i has the hue of i / num_components of a turn; its chroma is
proportional to the lightness.
"""

import jax.numpy as jnp

from colorjax.colorizer import Colorizer
from colorjax.errors import UserError


def build(*, num_components=4):
  """Builds the method; params {'chroma': scalar}."""

  def init(key, image_shape):
    del key, image_shape
    return {'params': {'chroma': jnp.float32(40)}, 'model_state': {}}

  def propose(variables, inputs, k):
    lightness = inputs['lightness']
    if k > num_components:
      raise UserError(
          f'{k} proposals asked of a method of {num_components}')
    angle = jnp.arange(k) * (2 * jnp.pi / num_components)
    hue = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    ab = (variables['params']['chroma'] * hue[:, None, None, None, :]
          * lightness / 100)
    weight = 0.5 ** (1 + jnp.arange(k, dtype=jnp.float32))
    return ab, jnp.broadcast_to(weight[:, None], (k, len(lightness)))

  def sample(variables, inputs, keys, n):
    del keys
    return propose(variables, inputs, n)[0]

  return Colorizer(
      init=init, loss=None, sample=sample, propose=propose,
      predict=lambda variables, inputs: propose(variables, inputs, 1)[0][0])


def write_run(workdir, image_size=32, method='tiny_method', **settings):
  """Writes the work directory of a training run of this or another method."""
  import jax

  from colorjax import records
  from colorjax.training.checkpoint import DIRECTORY, Checkpoints

  record = records.Record(
      method=method, settings=settings, image_size=image_size)
  with Checkpoints(workdir / DIRECTORY) as checkpoints:
    variables = record.build().init(jax.random.key(0), (32, 32))
    # With the step, as in a TrainState, since a method may have no parameters.
    checkpoints.save(1, {**variables, 'step': jax.numpy.int32(1)}, {})
  record.save(workdir / records.FILE)
