"""Region metrics compared with boolean indexing and values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.metrics import regions

RNG = np.random.default_rng(0)
AB = RNG.normal(0, 30, (3, 5, 7, 2)).astype(np.float32)
OTHER = RNG.normal(0, 30, (3, 5, 7, 2)).astype(np.float32)
REGION = RNG.integers(0, 2, (3, 5, 7, 1)).astype(np.float32)


def test_metrics_agree_with_boolean_indexing():
  for i in range(3):
    inside = REGION[i, ..., 0] == 1
    assert regions.chroma_outside(AB, REGION)[i] == pytest.approx(
        np.linalg.norm(AB[i][~inside], axis=-1).mean(), rel=1e-5)
    assert regions.difference_inside(AB, OTHER, REGION)[i] == pytest.approx(
        np.linalg.norm((AB - OTHER)[i][inside], axis=-1).mean(), rel=1e-5)


def test_empty_regions_give_zero():
  np.testing.assert_array_equal(
      regions.chroma_outside(AB, np.ones_like(REGION)), 0)
  np.testing.assert_array_equal(
      regions.difference_inside(AB, OTHER, np.zeros_like(REGION)), 0)


def test_gradients_are_finite_at_grey():
  grey = jnp.zeros_like(AB)
  for function in (
      lambda ab: regions.chroma_outside(ab, REGION).sum(),
      lambda ab: regions.difference_inside(ab, grey, REGION).sum()):
    assert jnp.isfinite(jax.grad(function)(grey)).all()
