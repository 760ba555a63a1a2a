"""colorjax.quantize against scipy, values by hand and the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import skimage.color

from colorjax import quantize

BINS = quantize.published_bins()


def _gamut(n=20_000, seed=0):
  rgb = np.random.default_rng(seed).random((n, 3))
  return skimage.color.rgb2lab(rgb)[:, 1:].astype(np.float32)


def test_published_bins():
  assert BINS.shape == (313, 2)
  np.testing.assert_array_equal(BINS[[0, 1, -1]],
                                [[-90, 50], [-90, 60], [100, 0]])
  assert sorted(map(tuple, BINS)) == list(map(tuple, BINS))  # a, then b
  axis = np.arange(-120, 121, 10)
  points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
  hull = scipy.spatial.Delaunay(BINS)
  inside = points[hull.find_simplex(points) >= 0]
  assert {*map(tuple, inside)} == {*map(tuple, BINS.astype(int))}


def test_published_bins_cover_the_gamut():
  """Checked on the faces of the sRGB cube, where ab is most extreme."""
  t = np.linspace(0, 1, 64)
  faces = [np.insert(np.stack(np.meshgrid(t, t), -1).reshape(-1, 2), i, v, 1)
           for i in range(3) for v in (0, 1)]
  ab = skimage.color.rgb2lab(np.concatenate(faces))[:, 1:]
  gap = np.abs(ab[:, None] - BINS).max(-1).min(-1)
  assert gap.max() <= 5


def test_occurring_bins():
  ab = np.zeros((2, 3, 1, 2), np.float32)
  ab[0, 0, 0] = [14.9, -24.9]
  ab[1, 1, 0] = [-105.1, 107]
  histogram = quantize.grid_histogram(jnp.asarray(ab))
  np.testing.assert_allclose(histogram.sum((1, 2)), 1, rtol=1e-6)
  np.testing.assert_allclose(histogram[:, 11, 11], 2 / 3, rtol=1e-6)
  bins = quantize.occurring_bins(np.asarray(histogram.sum(0)))
  np.testing.assert_array_equal(bins, [[-110, 110], [0, 0], [10, -20]])
  with pytest.raises(ValueError, match='not empty, got'):
    quantize.occurring_bins(np.zeros((23, 23)))


@pytest.mark.parametrize('k', [1, 5, 10])
@pytest.mark.parametrize('which', ['published', 'scattered'])
def test_soft_codes_are_over_the_nearest_bins(which, k):
  rng = np.random.default_rng(k)
  bins = BINS if which == 'published' else rng.permutation(BINS)[:12]
  square = rng.uniform(-110, 110, (4000, 2)).astype(np.float32)
  ab = np.concatenate([square, _gamut(4000)]).reshape(20, 400, 2)
  code = jax.jit(lambda x: quantize.soft_encode(
      x, bins, num_neighbors=k, sigma=7.0))(ab)
  distance, nearest = scipy.spatial.cKDTree(bins).query(ab, list(range(1, k+1)))
  expected = np.exp(-distance**2 / (2 * 7.0**2))
  expected /= expected.sum(-1, keepdims=True)
  np.testing.assert_allclose(code.weights, expected, atol=2e-5)
  # Bins at almost equal distance may be exchanged in float32.
  found = np.linalg.norm(bins[code.indices] - ab[..., None, :], axis=-1)
  np.testing.assert_allclose(found, distance, atol=2e-4)
  assert (np.asarray(code.indices) == nearest).mean() > 0.999
  if k == 1:
    np.testing.assert_array_equal(
        quantize.nearest_bin(ab, bins), code.indices[..., 0])


def test_colors_beyond_the_ab_square_are_clipped():
  far, border = (quantize.soft_encode(jnp.asarray([x]), BINS)
                 for x in ([300., -111.], [110., -110.]))
  np.testing.assert_array_equal(far.indices, border.indices)


def test_prior_is_the_mean_of_the_soft_codes():
  ab = _gamut(600).reshape(2, 30, 10, 2)
  distance, nearest = scipy.spatial.cKDTree(BINS).query(ab, 5)
  weights = np.exp(-distance**2 / 50)
  weights /= weights.sum(-1, keepdims=True)
  expected = np.zeros((2, 313))
  for photo in range(2):
    np.add.at(expected[photo], nearest[photo], weights[photo] / 300)
  found = quantize.soft_histogram(jnp.asarray(ab), BINS)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_class_weights_by_hand():
  prior = [0.5, 0.5, 0, 0]
  # Mixed half and half with the uniform distribution: 3/8, 3/8, 1/8, 1/8.
  np.testing.assert_allclose(
      quantize.class_weights(prior, 0.5), [1, 1, 3, 3], rtol=1e-6)
  np.testing.assert_allclose(quantize.class_weights(prior, 1), 1, rtol=1e-6)
  rng = np.random.default_rng(0)
  prior = rng.dirichlet(np.ones(50))
  weights = quantize.class_weights(prior, 0.3)
  np.testing.assert_allclose((prior * weights).sum(), 1, rtol=1e-6)
  products = np.asarray(weights) * (0.7 * prior + 0.3 / 50)
  np.testing.assert_allclose(products, products[0], rtol=1e-6)


@pytest.mark.parametrize(('prior', 'share', 'message'), [
    ([0.5, 0.4], 0.5, 'sum to 1'), ([1.5, -0.5], 0.5, 'sum to 1'),
    ([np.nan, 1], 0.5, 'sum to 1'),
    ([0.5, 0.5], 1.5, r'in \[0, 1\], got 1.5'), ([1, 0], 0, 'lambda is 0')])
def test_invalid_priors_are_refused(prior, share, message):
  with pytest.raises(ValueError, match=message):
    quantize.class_weights(prior, share)


@pytest.mark.parametrize(('bins', 'message'), [
    ([0, 10], r'\[Q, 2\], got \[2\]'), (np.zeros((0, 2)), r'got \[0, 2\]'),
    ([[0, 5]], 'multiples of 10'), ([[0, 120]], 'within'),
    ([[np.nan, 0]], 'multiples of 10'),
    ([[0, 10], [0, 10]], 'twice')])
def test_invalid_bins_are_refused(bins, message):
  with pytest.raises(ValueError, match=message):
    quantize.check_bins(bins)


def test_too_many_neighbors_are_refused():
  with pytest.raises(ValueError, match=r'must be in 1 to 2, .* got 5'):
    quantize.soft_encode(jnp.zeros((1, 2)), BINS[:2])


def test_annealed_mean():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(7, 313)) * 3
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

  def found(t, scale=1.0):
    return quantize.annealed_mean(jnp.asarray(logits * scale), BINS,
                                  temperature=t)

  np.testing.assert_allclose(found(1.0), p @ BINS, atol=1e-3)
  # As in the paper: probabilities to the power of 1 / T, normalized.
  power = p**(1 / 0.38)
  np.testing.assert_allclose(
      found(0.38), power @ BINS / power.sum(-1, keepdims=True), atol=1e-3)
  np.testing.assert_array_equal(found(0), BINS[p.argmax(-1)])
  np.testing.assert_allclose(found(1e-4), found(0), atol=1e-3)
  assert np.isfinite(found(0.01, scale=1e4)).all()
  with pytest.raises(ValueError, match='at least 0'):
    found(-1)


def test_density_integrates_to_one():
  """A Riemann sum over the ab square, inside and outside the bins."""
  bins = np.array([[0, 0], [0, 10], [-50, 30]], np.float32)
  logits = jnp.log(jnp.asarray([0.2, 0.5, 0.3])) + 7
  axis = np.arange(-110, 110, 0.5) + 0.25
  ab = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing='ij'), -1))

  @jax.jit
  def log_density(ab):
    return quantize.log_density(
        jnp.broadcast_to(logits, (*ab.shape[:-1], 3)), ab, bins)

  nats = log_density(ab)
  np.testing.assert_allclose(jnp.exp(nats).sum() * 0.25, 1, rtol=1e-4)
  at = log_density(jnp.asarray([[-46., 26.], [-44., 26.], [90., 90.]]))
  inside, outside = 0.999 * 0.3 / 100, 0.001 / 220**2
  np.testing.assert_allclose(
      jnp.exp(at), [inside + outside, outside, outside], rtol=1e-4)


def test_draws_follow_the_density():
  """Checks the shares of the bins, uniformity within a bin, and the rest."""
  bins = np.array([[0, 0], [0, 10], [-50, 30]], np.float32)
  logits = jnp.broadcast_to(jnp.log(jnp.asarray([0.2, 0.5, 0.3])) + 7,
                            (200_000, 3))
  ab = np.asarray(quantize.draw(jax.random.key(0), logits, bins))
  inside = np.abs(ab[:, None] - bins).max(-1) < 5
  np.testing.assert_allclose(
      inside.mean(0), 0.999 * np.array([0.2, 0.5, 0.3]), atol=0.005)
  assert 0.0005 < (~inside.any(1)).mean() < 0.0015
  for channel in range(2):
    offsets = (ab[inside[:, 1]] - bins[1])[:, channel]
    assert scipy.stats.kstest(offsets, 'uniform', (-5, 10)).pvalue > 1e-3
