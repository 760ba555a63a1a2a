"""Photographs, inputs and keys with which tests call methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import skimage.color


@functools.cache
def compiled(function, **settings):
  """A function with these keyword arguments; compiled once in all tests."""
  return jax.jit(functools.partial(function, **settings))


def keys(number, seed=0):
  """A key for each photograph, [number]."""
  return jax.random.split(jax.random.key(seed), number)


def batch_of(n=3, seed=0):
  """Photographs of 16 x 16 pixels: squares of 4 x 4 in random colors."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
  return {'image': jnp.asarray(coarse.repeat(4, 1).repeat(4, 2)),
          'padding_mask': jnp.ones(n)}


def lab_of(batch):
  """Lightness, and ab in float64, by another library."""
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.asarray(lab[..., :1], jnp.float32), lab[..., 1:]


def grey(lightness):
  """Inputs that hold the lightness alone."""
  return {'lightness': lightness}


def grey_inputs(n=3):
  """The lightness of `batch_of`."""
  return grey(lab_of(batch_of(n))[0])


def hinted(n=3):
  """The lightness of `batch_of` with a region and hints.

  The first hint covers 4 x 4 pixels, the second half a block of 2 x 2 and a
  quarter of another one, and the third is outside the region.
  """
  hint_mask = jnp.zeros((n, 16, 16, 1)).at[:, :4, 4:8].set(1).at[
      :, 9, 1:4].set(1).at[:, 14, 14].set(1)
  region = jnp.ones((n, 16, 16, 1)).at[:, 13:].set(0)
  ab = jax.random.uniform(jax.random.key(4), (n, 16, 16, 2), minval=-50.,
                          maxval=50.)
  return {**grey_inputs(n), 'hint_ab': ab * hint_mask, 'hint_mask': hint_mask,
          'region': region}
