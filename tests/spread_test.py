"""Choosing colorings out of samples: all choices, known groups, batches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax import spread
from colorjax.errors import UserError

pytestmark = pytest.mark.usefixtures('compiles_quickly')

GROUP = jax.jit(spread.group, static_argnums=1)
CHOOSE = jax.jit(spread.choose, static_argnums=1)


def _distances(points):
  """Distances [M, M, B] of points [M, B, D]."""
  return np.linalg.norm(points[:, None] - points[None], axis=-1).astype(
      np.float32)


def _sum(distance, chosen):
  """The sum of distances [M, M] to the nearest chosen sample."""
  return distance[list(chosen)].min(0).sum()


def _best(distance, k):
  """The smallest sum, and its choice, of all choices of k samples."""
  return min((_sum(distance, chosen), chosen) for chosen in
             itertools.combinations(range(len(distance)), k))


@pytest.mark.parametrize(('samples', 'k'), [(6, 1), (8, 2), (9, 3), (10, 4)])
def test_no_choice_is_much_better(samples, k):
  rng = np.random.default_rng(samples)
  points = rng.normal(size=(samples, 90, 8))
  # A third of the problems in the plane, and a third with far samples.
  points[:, :30, 2:] = 0
  points[:, 30:60] *= rng.exponential(size=(samples, 30, 1))
  distance = _distances(points)
  medoids, shares = map(np.asarray, GROUP(distance, k))
  assert medoids.shape == shares.shape == (k, 90)
  ratios = []
  for i in range(90):
    mine, chosen = distance[..., i], medoids[:, i]
    assert len(set(chosen)) == k
    ratios.append(_sum(mine, chosen) / _best(mine, k)[0])
    nearest = mine[chosen].argmin(0)
    np.testing.assert_allclose(
        shares[:, i], np.bincount(nearest, minlength=k) / samples, rtol=1e-6)
  assert max(ratios) < 1.2
  assert np.mean(ratios) < 1.01
  assert (np.diff(shares, axis=0) <= 0).all(), 'most probable first'


def test_well_separated_groups_have_the_best_medoids():
  rng = np.random.default_rng(1)
  # No pairs, of which either is the best.
  centers = 50 * np.stack([np.eye(3)[i % 3] for i in range(11)])
  points = np.stack([rng.permutation(centers) for _ in range(20)], 1)
  distance = _distances(points + rng.normal(size=points.shape))
  medoids, shares = GROUP(distance, 3)
  for i in range(20):
    assert set(np.asarray(medoids[:, i])) == set(_best(distance[..., i], 3)[1])
  np.testing.assert_allclose(
      shares, np.broadcast_to(np.asarray([[4], [4], [3]]) / 11, (3, 20)),
      rtol=1e-6)


def _of_modes(modes, shares, samples, size):
  """Noisy samples [M, H, W, 2] of uniform colors in random order."""
  rng = np.random.default_rng(2)
  counts = np.round(np.asarray(shares) * samples).astype(int)
  colors = rng.permutation(np.repeat(np.asarray(modes, float), counts, 0))
  return (colors[:, None, None] + rng.normal(
      size=(samples, *size, 2))).astype(np.float32)


def test_samples_of_a_mixture_give_its_modes_and_probabilities():
  modes = [[[40, 0], [-30, 20], [0, -50]], [[5, 60], [-60, 5], [30, 30]]]
  shares = [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]
  ab = np.stack([_of_modes(m, s, 40, (40, 64)) for m, s in
                 zip(modes, shares, strict=True)], 1)
  chosen, probability = map(np.asarray, CHOOSE(ab, 3))
  for i in range(2):
    order = np.argsort(shares[i])[::-1]
    np.testing.assert_allclose(
        probability[:, i], np.asarray(shares[i])[order], rtol=1e-6)
    np.testing.assert_allclose(chosen[:, i].mean((1, 2)),
                               np.asarray(modes[i])[order], atol=0.2)
    for one in chosen[:, i]:
      assert (one == ab[:, i]).all((1, 2, 3)).any(), 'a sample, not a mean'


def test_a_choice_does_not_depend_on_the_batch():
  ab = 20 * np.random.default_rng(3).normal(size=(12, 5, 6, 8, 2)).astype(
      np.float32)
  chosen, probability = CHOOSE(ab, 4)
  again, shares = CHOOSE(ab[:, ::-1], 4)
  np.testing.assert_array_equal(again[:, ::-1], chosen)
  np.testing.assert_array_equal(shares[:, ::-1], probability)
  for i in range(5):
    one, share = CHOOSE(ab[:, i:i + 1], 4)
    np.testing.assert_array_equal(one[:, 0], chosen[:, i])
    np.testing.assert_array_equal(share[:, 0], probability[:, i])


def test_distances_are_means_over_pixels():
  ab = np.random.default_rng(4).normal(size=(3, 2, 4, 6, 2)).astype(np.float32)
  np.testing.assert_allclose(
      spread.distances(ab),
      np.linalg.norm(ab[:, None] - ab, axis=-1).mean((-2, -1)), rtol=1e-5)


def test_large_colorings_are_reduced():
  colors = np.asarray([[3, 4], [0, 0], [-6, 8]], np.float32)
  ab = np.broadcast_to(colors[:, None, None, None], (3, 1, 50, 100, 2))
  found = spread.distances(ab)[..., 0]
  np.testing.assert_allclose(
      found, np.linalg.norm(colors[:, None] - colors, axis=-1), atol=1e-4)
  # The noise of single pixels hardly counts.
  noise = np.random.default_rng(5).normal(size=ab.shape).astype(np.float32)
  np.testing.assert_allclose(
      spread.distances(ab + noise)[..., 0], found, atol=0.6)
  jaxpr = jax.make_jaxpr(spread.distances)(ab)
  (loop,) = [x for x in jaxpr.eqns if x.primitive.name == 'scan']
  assert (16, 32) in {x.aval.shape[-3:-1] for x in loop.invars}


def test_equal_samples_are_one_group():
  ab = jnp.zeros((5, 2, 4, 4, 2)).at[1, 1].set(30)
  chosen, probability = CHOOSE(ab, 3)
  np.testing.assert_allclose(probability, [[1, 0.8], [0, 0.2], [0, 0]])
  assert (chosen[:, 0] == 0).all()
  assert (chosen[1, 1] == 30).all()
  medoids = GROUP(spread.distances(ab), 3).medoids
  assert len(set(np.asarray(medoids[:, 0]))) == 3


def test_of_any_batch_it_can_be_exported():
  ab = np.random.default_rng(6).normal(size=(7, 3, 4, 4, 2)).astype(np.float32)
  (batch,) = jax.export.symbolic_shape('B')
  exported = jax.export.export(jax.jit(functools.partial(spread.choose, k=2)))(
      jax.ShapeDtypeStruct((7, batch, 4, 4, 2), jnp.float32))
  for found, expected in zip(exported.call(ab), CHOOSE(ab, 2), strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('k', [0, 4])
def test_wrong_numbers_are_refused(k):
  with pytest.raises(ValueError, match=f'k={k}: choose 1 to 3'):
    spread.choose(jnp.zeros((3, 1, 2, 2, 2)), k)


@pytest.mark.parametrize('candidates', [3, -1, 'many', 8.0])
def test_wrong_candidates_are_refused(candidates):
  with pytest.raises(UserError, match=f'candidates={candidates}: use a whole '
                                      'number of at least 4'):
    spread.check_candidates(candidates, 4)
  for right in (0, 4, 5):
    spread.check_candidates(right, 4)
