"""The Levin baseline: the contract, against `propagation.fill`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import grey

from colorjax import propagation
from colorjax.errors import UserError
from colorjax.methods.baselines import levin


def _photo(height=9, width=11, seed=0):
  """Lightness with an edge and texture, and true ab."""
  rng = np.random.default_rng(seed)
  lightness = np.where(np.arange(width) < width // 2, 25., 75.)
  lightness = lightness + rng.normal(0, 3, (height, width))
  return lightness, rng.uniform(-80, 80, (height, width, 2))


def _hints(ab, n, seed=1):
  mask = np.zeros(ab.shape[:2])
  places = np.random.default_rng(seed).choice(mask.size, n, replace=False)
  mask.reshape(-1)[places] = 1
  return ab * mask[..., None], mask


def test_within_jit_and_vmap():
  """Batches give the same results as one photograph at a time."""
  colorizer = levin.build(form='equations')
  variables = colorizer.init(jax.random.key(0), (9, 11))
  photos = [_photo(seed=seed) for seed in range(4)]
  hints = [_hints(ab, 6, seed=7 + i) for i, (_, ab) in enumerate(photos)]
  lightness = jnp.float32([p[0] for p in photos])[..., None]
  hint_ab, mask = (
      jnp.float32([h[0] for h in hints]),
      jnp.float32([h[1] for h in hints])[..., None])
  inputs = {'lightness': lightness, 'hint_ab': hint_ab, 'hint_mask': mask}
  found = jax.jit(colorizer.predict)(variables, inputs)
  assert found.shape == (4, 9, 11, 2)
  for i in range(4):
    np.testing.assert_allclose(found[i], propagation.fill(
        np.asarray(lightness[i, ..., 0]), np.asarray(hint_ab[i]),
        np.asarray(mask[i, ..., 0]), form='equations'), rtol=1e-5, atol=1e-5)

  def pairs(x):
    return x.reshape(2, 2, *x.shape[1:])

  mapped = jax.jit(jax.vmap(colorizer.predict, in_axes=(None, 0)))(
      variables, jax.tree.map(pairs, inputs))
  np.testing.assert_array_equal(mapped.reshape(found.shape), found)
  axes = {'lightness': None, 'hint_ab': 0, 'hint_mask': 0}
  one_lightness = jax.vmap(colorizer.predict, in_axes=(None, axes))(
      variables, {**jax.tree.map(pairs, inputs), 'lightness': lightness[:2]})
  np.testing.assert_array_equal(one_lightness[0], found[:2])
  assert (one_lightness[1] != found[2:]).any()
  np.testing.assert_array_equal(
      colorizer.predict(variables, grey(lightness)), np.zeros_like(found))


def test_unknown_form():
  with pytest.raises(UserError, match='levin_form=fast: choose one of'):
    levin.build(form='fast')
