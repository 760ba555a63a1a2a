"""What tests ask methods with: inputs of lightness alone, and keys."""

import jax


def grey(lightness):
  """The inputs of a photograph that nothing but its lightness is known of."""
  return {'lightness': lightness}


def keys(number, seed=0):
  """A key for each of some photographs."""
  return jax.random.split(jax.random.key(seed), number)
