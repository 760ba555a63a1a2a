"""Inputs and keys with which tests call methods."""

import jax


def grey(lightness):
  """Inputs that hold the lightness alone."""
  return {'lightness': lightness}


def keys(number, seed=0):
  """A key for each photograph, [number]."""
  return jax.random.split(jax.random.key(seed), number)
