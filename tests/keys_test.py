"""Keys have stable values, and different purposes give different keys."""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import keys


def _data(key):
  return np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist()


def test_keys_are_the_same_in_every_version():
  """Runs are resumed by other processes, so these numbers must not change."""
  assert _data(keys.of_run(3, 'init')) == _data(jax.random.fold_in(
      jax.random.key(3), 3_329_549_428))


def test_names_of_a_run_steps_players_and_photographs_give_different_keys():
  index = jnp.arange(4)
  found = [
      keys.of_run(0, 'init'), keys.of_run(1, 'init'), keys.of_run(0, 'loss'),
      *(keys.of_step(0, step, name)
        for step in (0, 1) for name in ('loss', 'init', 'generator')),
      keys.of_photographs(0, 'loss', index),
      keys.of_examples(keys.of_step(0, 0, 'loss'), index),
      keys.named(keys.of_examples(keys.of_step(0, 0, 'loss'), index), 'noise')]
  flat = [tuple(pair) for key in found for pair in _data(key)]
  assert len(flat) == len(set(flat)) == 9 + 3 * 4


def test_the_key_of_a_photograph_does_not_depend_on_its_batch():
  index = jnp.asarray([7, -1, 2, 7])
  whole = keys.of_photographs(0, 'loss', index)
  assert _data(whole[2:]) == _data(keys.of_photographs(0, 'loss', index[2:]))
  assert _data(whole[0]) == _data(whole[3])
  named = keys.named(whole.reshape(2, 2), 'noise')
  assert _data(named[1, 0]) == _data(keys.named(whole[2], 'noise'))


def test_the_step_may_be_traced():
  traced = jax.jit(lambda step: jax.random.key_data(
      keys.of_step(0, step, 'loss')))(jnp.int32(5))
  assert [traced.tolist()] == _data(keys.of_step(0, 5, 'loss'))


def test_keys_ignore_the_default_implementation():
  """Under `vmap`, the numbers of rbg depend on the position in the batch."""
  with jax.default_prng_impl('rbg'):
    key = keys.of_run(0, 'init')
  assert _data(key) == _data(keys.of_run(0, 'init'))
