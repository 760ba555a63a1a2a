"""Random keys, each for one named purpose.

Every random number of a training run is a function of the seed, the step, a
purpose and the photograph's position in the global batch. Outside training it
is a function of the seed, a purpose and the photograph. It never depends on the
device, the process, the microbatch or the batch size. So a run draws the same
numbers on any number of devices.

Two rules ensure this. First, each key is used once, either to draw numbers or
to derive other keys. Second, keys for different purposes are derived with
`named` and not with `split` or a counter, so that a new purpose does not change
the numbers of the others.
"""

import zlib

import jax
import jax.numpy as jnp

# With JAX's other implementations, the numbers depend on `vmap`.
_IMPLEMENTATION = 'threefry2x32'


def named(key: jax.Array, purpose: str) -> jax.Array:
  """Derives the key for a purpose.

  Args:
    key: typed key, or keys of any shape.
    purpose: what the key is for. Its CRC-32 is folded into the key; unlike a
      hash, this number is the same in all processes and Python versions.

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
  """Makes the key for something that a run does once, such as 'init'.

  Args:
    seed: seed of the run.
    purpose: what the key is for.

  Returns:
    A typed key.
  """
  return named(jax.random.key(seed, impl=_IMPLEMENTATION), purpose)


def of_step(seed: int, step: jax.typing.ArrayLike, purpose: str) -> jax.Array:
  """Makes the key for one purpose in a training step.

  Args:
    seed: seed of the run.
    step: number of the step, from 0; may be traced.
    purpose: what the key is for, for example the name of a player.

  Returns:
    A typed key.
  """
  return jax.random.fold_in(of_run(seed, f'step: {purpose}'), step)


def of_examples(key: jax.Array, places: jax.Array) -> jax.Array:
  """Derives a key for each photograph of a batch.

  Args:
    key: one typed key.
    places: int [B], the positions of the photographs in the global batch.

  Returns:
    Typed keys [B].
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def of_photographs(seed: int, purpose: str, index: jax.Array) -> jax.Array:
  """Makes a key for each photograph, independent of its batch.

  Args:
    seed: seed of the purpose; held-out losses always use 0.
    purpose: what the keys are for.
    index: int [B], the photographs' indices in their source.

  Returns:
    Typed keys [B].
  """
  return of_examples(of_run(seed, f'photograph: {purpose}'), index)


def of_answers(keys: jax.Array, n: int) -> jax.Array:
  """Derives keys for n samples of each photograph.

  The key of sample i does not depend on n, so a larger n only adds samples.

  Args:
    keys: a key for each photograph, [B].
    n: number of samples.

  Returns:
    Keys, [n, B].
  """
  return jax.vmap(lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i))(
      jnp.arange(n))
