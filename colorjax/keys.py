"""Random keys by name: one key for one purpose.

Every random number of a run is a function of the seed, the step, a purpose and
the photograph's place in the global batch (or, outside training, of the
photograph alone). It never depends on the device, the process, the microbatch
or the batch size, so a run draws the same numbers however it is divided.

Two rules keep it so. A key is used once: either numbers are drawn from it, or
keys are derived from it. And keys for different purposes are derived with
`named`, never by `split` and never by a count, so that a new purpose does not
change the numbers of the others.
"""

import zlib

import jax

# The other implementations of JAX draw other numbers for a key under `vmap`.
_IMPLEMENTATION = 'threefry2x32'


def named(key: jax.Array, purpose: str) -> jax.Array:
  """The key for a purpose.

  Args:
    key: typed key, or keys of any shape.
    purpose: what the key is for. Its CRC-32 is folded into each key, which is
      the same in every process and Python version.

  Returns:
    Typed keys of the same shape.
  """
  number = zlib.crc32(purpose.encode())

  def fold(key: jax.Array) -> jax.Array:
    return jax.random.fold_in(key, number)

  for _ in range(key.ndim):
    fold = jax.vmap(fold)
  return fold(key)


def of_run(seed: int, purpose: str) -> jax.Array:
  """The key for something that a run does once, such as 'init'."""
  return named(jax.random.key(seed, impl=_IMPLEMENTATION), purpose)


def of_step(seed: int, step: jax.typing.ArrayLike, purpose: str) -> jax.Array:
  """The key of a training step.

  Args:
    seed: of the run.
    step: number of the step, from 0; may be traced.
    purpose: what is done in the step, for example the player's name.
  """
  return jax.random.fold_in(of_run(seed, f'step: {purpose}'), step)


def of_examples(key: jax.Array, places: jax.Array) -> jax.Array:
  """A key for each photograph of a batch.

  Args:
    key: one typed key.
    places: int [B], the photographs' places in the global batch.

  Returns:
    Typed keys [B].
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def of_photographs(seed: int, purpose: str, index: jax.Array) -> jax.Array:
  """A key for each photograph that depends on nothing but the photograph.

  Args:
    seed: of the purpose; held-out losses use 0 whatever the run's seed.
    purpose: what the keys are for.
    index: int [B], the photographs' numbers in their source.

  Returns:
    Typed keys [B].
  """
  return of_examples(of_run(seed, f'photograph: {purpose}'), index)
