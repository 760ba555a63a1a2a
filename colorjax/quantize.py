"""Colors as classes: bins of ab, soft encoding, class weights and decoding.

After Zhang, Isola and Efros, "Colorful Image Colorization" (ECCV 2016). The ab
plane is divided into squares of 10 x 10 units around the points of a grid. A
color is encoded as a distribution over its nearest bins. A distribution over
bins is decoded to a color by its annealed mean.

Bins are a NumPy array [Q, 2] of the centers of squares in Lab units. They are
distinct multiples of GRID within the ab square of `colorjax.color`. They are
constants when a function is traced, so that a color is compared only with the
few bins that may be near it and not with all Q.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color

GRID = 10.0
"""Side of a bin in Lab units."""

NUM_NEIGHBORS = 5
"""Number of bins of a soft code, as published."""

SIGMA = 5.0
"""Standard deviation of the Gaussian weights of a soft code, in Lab units, as
published."""

TEMPERATURE = 0.38
"""Temperature of the annealed mean, as published."""

UNIFORM_SHARE = 1e-3
"""Share of the uniform distribution over the ab square in `log_density`."""

_REACH = int(color.AB_SCALE // GRID)  # grid points on each side of grey
SIDE = 2 * _REACH + 1
"""Number of squares of the grid along each axis."""

# The bins of the published network: for each a, the lowest and highest b.
_PUBLISHED = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90),
    -50: (-30, 100), -40: (-40, 100), -30: (-50, 100), -20: (-50, 100),
    -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90),
    30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80),
    70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}

_STEP = 2.5  # side of the cells of the table that `_candidates` makes


class SoftCode(NamedTuple):
  """Colors as sparse distributions over bins.

  Attributes:
    indices: indices of the k nearest bins, int32 [..., k], nearest first.
    weights: probabilities of these bins, float32 [..., k]; they sum to 1.
  """
  indices: jax.Array
  weights: jax.Array


def published_bins() -> np.ndarray:
  """Returns the 313 bins of the published network.

  They cover the whole sRGB gamut.

  Returns:
    float32 [313, 2], in ascending order of a, then b.
  """
  return np.array([(a, b) for a, (low, high) in _PUBLISHED.items()
                   for b in range(low, high + 1, int(GRID))], np.float32)


def occurring_bins(histogram: np.ndarray) -> np.ndarray:
  """Returns the bins that contain colors of a data set.

  Args:
    histogram: sum of `grid_histogram` over the photographs, [23, 23].

  Returns:
    float32 [Q, 2], in ascending order of a, then b.

  Raises:
    ValueError: the histogram has another shape or is empty.
  """
  if histogram.shape != (SIDE, SIDE) or not (histogram > 0).any():
    raise ValueError(
        f'histogram must be [{SIDE}, {SIDE}] and not empty, got '
        f'{list(histogram.shape)} with sum {histogram.sum()}')
  places = np.argwhere(histogram > 0) - _REACH
  return (places * GRID).astype(np.float32)


def check_bins(bins: np.typing.ArrayLike) -> np.ndarray:
  """Checks bins and converts them to float32.

  Args:
    bins: [Q, 2], see the module's docstring.

  Returns:
    float32 [Q, 2].

  Raises:
    ValueError: the shape is wrong, a bin is not on the grid, or two are equal.
  """
  bins = np.asarray(bins, np.float32)
  if bins.ndim != 2 or bins.shape[1] != 2 or not len(bins):
    raise ValueError(f'bins must be points [Q, 2], got {list(bins.shape)}')
  places = bins / GRID
  if (places != places.round()).any() or (np.abs(places) > _REACH).any():
    raise ValueError(f'bins must lie at multiples of {GRID:g} within '
                     f'+-{_REACH * GRID:g}')
  if len(np.unique(bins, axis=0)) < len(bins):
    raise ValueError('bins must be distinct, but one occurs twice')
  return bins


def grid_place(ab: jax.Array) -> jax.Array:
  """Computes the number of the grid square that contains each color.

  Args:
    ab: Lab units, [..., 2]; clipped to the ab square.

  Returns:
    int32 [...] in 0 to 528. The square with the center (a, b) has the number
    23 (a / 10 + 11) + (b / 10 + 11), the order of `grid_histogram`.
  """
  place = jnp.floor(ab / GRID + 0.5).astype(jnp.int32) + _REACH
  place = jnp.clip(place, 0, SIDE - 1)
  return place[..., 0] * SIDE + place[..., 1]


def grid_histogram(ab: jax.Array) -> jax.Array:
  """Computes a histogram of the colors of each photograph over the grid.

  Args:
    ab: Lab units, [B, H, W, 2].

  Returns:
    [B, 23, 23]; each histogram sums to 1. The axes are a and b, from -110 to
    110.
  """
  place = grid_place(ab).reshape(len(ab), -1)
  rows = jnp.arange(len(ab))[:, None]
  counts = jnp.zeros((len(ab), SIDE**2)).at[rows, place].add(1)
  return counts.reshape(-1, SIDE, SIDE) / place.shape[1]


def soft_encode(
    ab: jax.Array, bins: np.ndarray, *, num_neighbors: int = NUM_NEIGHBORS,
    sigma: float = SIGMA) -> SoftCode:
  """Encodes colors as distributions over their k nearest bins.

  The weight of a bin at distance d is proportional to exp(-d^2 / (2 sigma^2)).

  Args:
    ab: Lab units, [..., 2]; clipped to the ab square.
    bins: NumPy array [Q, 2], see the module's docstring.
    num_neighbors: k, in 1 to Q; 1 gives a one-hot code.
    sigma: Lab units, above 0.

  Returns:
    The code. The choice between bins at equal distance is arbitrary.

  Raises:
    ValueError: k is not in 1 to Q, or the bins are invalid.
  """
  bins = check_bins(bins)
  if not 1 <= num_neighbors <= len(bins):
    raise ValueError(f'num_neighbors must be in 1 to {len(bins)}, the number '
                     f'of bins, got {num_neighbors}')
  table = _candidates(bins, num_neighbors)
  ab = jnp.clip(ab, -color.AB_SCALE, color.AB_SCALE)
  cell = jnp.round((ab + color.AB_SCALE) / _STEP).astype(jnp.int32)
  near = jnp.asarray(table)[cell[..., 0], cell[..., 1]]
  centers = jnp.asarray(bins)
  squared = (jnp.square(ab[..., :1] - centers[:, 0][near])
             + jnp.square(ab[..., 1:] - centers[:, 1][near]))
  closeness, chosen = jax.lax.top_k(-squared, num_neighbors)
  return SoftCode(
      jnp.take_along_axis(near, chosen, axis=-1),
      jax.nn.softmax(closeness / (2 * sigma**2), axis=-1))


def nearest_bin(ab: jax.Array, bins: np.ndarray) -> jax.Array:
  """Finds the bin nearest to each color.

  Args:
    ab: as in `soft_encode`.
    bins: as in `soft_encode`.

  Returns:
    Indices of bins, int32 [...].
  """
  return soft_encode(ab, bins, num_neighbors=1).indices[..., 0]


def soft_histogram(
    ab: jax.Array, bins: np.ndarray, *, num_neighbors: int = NUM_NEIGHBORS,
    sigma: float = SIGMA) -> jax.Array:
  """Computes the mean soft code of each photograph.

  The mean over all photographs is the prior. The published prior is smoothed by
  the same Gaussian as the targets, so it is the mean of the targets.

  Args:
    ab: Lab units, [B, H, W, 2].
    bins: as in `soft_encode`.
    num_neighbors: as in `soft_encode`.
    sigma: as in `soft_encode`.

  Returns:
    [B, Q]; each row sums to 1.
  """
  code = soft_encode(ab, bins, num_neighbors=num_neighbors, sigma=sigma)
  indices, weights = (x.reshape(len(ab), -1) for x in code)
  pixels = ab.shape[1] * ab.shape[2]
  return jnp.zeros((len(ab), len(bins))).at[
      jnp.arange(len(ab))[:, None], indices].add(weights / pixels)


def class_weights(prior: np.typing.ArrayLike, uniform_share: float
                  ) -> jax.Array:
  """Computes the weight of each bin in a rebalanced loss (eq. 4 of the paper).

  w ~ 1 / ((1 - lambda) p + lambda / Q), scaled such that the mean weight under
  the prior is 1: sum_q p_q w_q = 1.

  Args:
    prior: probability p of each bin, [Q].
    uniform_share: lambda in [0, 1]; 1/2 as published, 1 for equal weights.

  Returns:
    float32 [Q].

  Raises:
    ValueError: the prior is not a distribution, lambda is out of range, or
      lambda is 0 and a bin has probability 0, so its weight would be infinite.
  """
  prior = np.asarray(prior, np.float64)
  if (prior.ndim != 1 or not (prior >= 0).all()
      or abs(prior.sum() - 1) > 1e-3):
    raise ValueError('prior must be Q probabilities that sum to 1')
  if not 0 <= uniform_share <= 1:
    raise ValueError(f'lambda must be in [0, 1], got {uniform_share}')
  mixed = (1 - uniform_share) * prior + uniform_share / len(prior)
  if not mixed.all():
    raise ValueError('lambda is 0 and a bin has probability 0: use a larger '
                     'lambda, or only bins that occur')
  return jnp.asarray(1 / mixed / (prior / mixed).sum(), jnp.float32)


def annealed_mean(logits: jax.Array, bins: np.ndarray, *,
                  temperature: float = TEMPERATURE) -> jax.Array:
  """Computes the annealed mean of distributions over bins (eq. 5 of the paper).

  It is the mean of softmax(logits / T).

  Args:
    logits: unnormalized log probabilities, [..., Q], of any float type.
    bins: [Q, 2].
    temperature: T, at least 0; 0 gives the mode and 1 the mean.

  Returns:
    ab, Lab units, float32 [..., 2].

  Raises:
    ValueError: T is negative.
  """
  if temperature < 0:
    raise ValueError(f'temperature must be at least 0, got {temperature}')
  centers = jnp.asarray(bins, jnp.float32)
  if temperature == 0:
    return centers[logits.argmax(-1)]
  share = jax.nn.softmax(logits.astype(jnp.float32) / temperature, axis=-1)
  return jnp.matmul(share, centers, precision=jax.lax.Precision.HIGHEST)


def log_density(logits: jax.Array, ab: jax.Array, bins: np.ndarray
                ) -> jax.Array:
  """Computes the log density over ab that belongs to a distribution over bins.

  The probability of a bin is spread uniformly over its square. A color outside
  all squares would have density 0, so the density is mixed with UNIFORM_SHARE
  of a uniform distribution over the ab square. This costs colors inside 0.0007
  bits per dimension.

  Args:
    logits: unnormalized log probabilities, [..., Q], of any float type.
    ab: Lab units within the ab square, [..., 2].
    bins: [Q, 2].

  Returns:
    Log density of each color in Lab units, nats, [...].

  Raises:
    ValueError: the bins are invalid.
  """
  rows, columns = (check_bins(bins) / GRID).astype(int).T + _REACH
  bin_of_square = np.full(SIDE**2, -1, np.int32)
  bin_of_square[rows * SIDE + columns] = np.arange(len(bins))
  found = jnp.asarray(bin_of_square)[grid_place(ab)]
  log_share = jnp.take_along_axis(
      jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1),
      jnp.maximum(found, 0)[..., None], axis=-1)[..., 0]
  inside = log_share + math.log1p(-UNIFORM_SHARE) - math.log(GRID**2)
  return jnp.logaddexp(
      jnp.where(found >= 0, inside, -jnp.inf),
      math.log(UNIFORM_SHARE) - 2 * math.log(color.UNIT_AB_WIDTH))


def draw(key: jax.Array, logits: jax.Array, bins: np.ndarray) -> jax.Array:
  """Draws a color for each distribution over bins, with `log_density`.

  Args:
    key: random key.
    logits: as in `log_density`, [..., Q].
    bins: [Q, 2].

  Returns:
    ab, Lab units, [..., 2].

  Raises:
    ValueError: the bins are invalid.
  """
  key_bin, key_place, key_which, key_anywhere = jax.random.split(key, 4)
  chosen = jax.random.categorical(key_bin, logits.astype(jnp.float32))
  shape = (*chosen.shape, 2)
  square = jnp.asarray(check_bins(bins))[chosen] + jax.random.uniform(
      key_place, shape, minval=-GRID / 2, maxval=GRID / 2)
  anywhere = jax.random.uniform(
      key_anywhere, shape, minval=-color.AB_SCALE, maxval=color.AB_SCALE)
  is_anywhere = jax.random.bernoulli(key_which, UNIFORM_SHARE, chosen.shape)
  return jnp.where(is_anywhere[..., None], anywhere, square)


def _candidates(bins: np.ndarray, num_neighbors: int) -> np.ndarray:
  """Tabulates the bins that may be among the k nearest, for cells of ab.

  Cells are squares with the side _STEP and the center c. For each color p in a
  cell, |p - c| <= r. If a bin is among the k nearest of p, its distance from c
  exceeds that of the k-th nearest of c by at most 2r (triangle inequality,
  applied twice).

  Returns:
    int32 [n, n, C], the bins nearest to c first.
  """
  axis = np.arange(-color.AB_SCALE, color.AB_SCALE + _STEP / 2, _STEP)
  cells = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  distance = np.linalg.norm(cells[:, :, None] - bins, axis=-1)
  order = distance.argsort(-1, kind='stable')
  ranked = np.take_along_axis(distance, order, -1)
  reach = ranked[..., num_neighbors - 1, None] + _STEP * math.sqrt(2) + 1e-3
  max_count = (ranked <= reach).sum(-1).max()
  return order[..., :max_count].astype(np.int32)
