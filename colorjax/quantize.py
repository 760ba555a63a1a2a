"""Colors as classes: bins of ab, soft codes, and what is read out of them.

After Zhang, Isola and Efros, "Colorful Image Colorization" (ECCV 2016): the ab
plane is cut into squares of 10 x 10 units around the points of a grid, a
color is spread over the bins nearest to it, and a distribution over bins is
read as a color by its annealed mean.

Bins are a NumPy array [Q, 2] of the squares' centers in Lab units, multiples
of GRID within the ab square of `colorjax.color`, no two alike. They are known
when a function is traced, which makes searching them cheap: a color is
compared with the few bins that can be near it, never with all Q.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color

GRID = 10.0
"""Side of a bin, ab units."""

NUM_NEIGHBORS = 5
"""Bins that a color is spread over, as published."""

SIGMA = 5.0
"""Width of the Gaussian that spreads a color, ab units, as published."""

TEMPERATURE = 0.38
"""Of the annealed mean, as published: between the mode and the mean."""

UNIFORM_SHARE = 1e-3
"""Share of `log_density` that is uniform over the ab square."""

_REACH = int(color.AB_SCALE // GRID)  # grid points on each side of grey
SIDE = 2 * _REACH + 1
"""Squares of the grid along a and along b."""

# The bins of the published network: lowest and highest b of each row of a.
_PUBLISHED = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90),
    -50: (-30, 100), -40: (-40, 100), -30: (-50, 100), -20: (-50, 100),
    -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90),
    30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80),
    70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}

_STEP = 2.5  # side of the cells that `_candidates` is tabulated for


class SoftCode(NamedTuple):
  """Colors as distributions over bins, all but a few of them zero.

  Attributes:
    indices: bins, int32 [..., k], the nearest first.
    weights: their probabilities, float32 [..., k]; they sum to 1.
  """
  indices: jax.Array
  weights: jax.Array


def published_bins() -> np.ndarray:
  """The 313 bins of the published network: a in rising order, then b.

  They hold all colors of sRGB, and more.

  Returns:
    float32 [313, 2].
  """
  return np.array([(a, b) for a, (low, high) in _PUBLISHED.items()
                   for b in range(low, high + 1, int(GRID))], np.float32)


def occurring_bins(histogram: np.ndarray) -> np.ndarray:
  """Bins of one's own data: the squares in which there is a color.

  Args:
    histogram: sum over photographs of what `grid_histogram` returns.

  Returns:
    float32 [Q, 2], in the order of `published_bins`. ValueError if there is
    no color.
  """
  if histogram.shape != (SIDE, SIDE) or not (histogram > 0).any():
    raise ValueError(
        f'a histogram [{SIDE}, {SIDE}] with a color in it is needed, got '
        f'{list(histogram.shape)} that sums to {histogram.sum()}')
  places = np.argwhere(histogram > 0) - _REACH
  return (places * GRID).astype(np.float32)


def check_bins(bins: np.typing.ArrayLike) -> np.ndarray:
  """Bins as float32 [Q, 2]; ValueError where they are not as said above."""
  bins = np.asarray(bins, np.float32)
  if bins.ndim != 2 or bins.shape[1] != 2 or not len(bins):
    raise ValueError(f'bins are points [Q, 2], got {list(bins.shape)}')
  places = bins / GRID
  if (places != places.round()).any() or (np.abs(places) > _REACH).any():
    raise ValueError(f'bins lie at multiples of {GRID:g} within '
                     f'+-{_REACH * GRID:g}')
  if len(np.unique(bins, axis=0)) < len(bins):
    raise ValueError('a bin is there twice')
  return bins


def grid_place(ab: jax.Array) -> jax.Array:
  """Number of the square of the grid that holds each color.

  Args:
    ab: Lab units, [..., 2]; beyond the ab square it counts as its border.

  Returns:
    int32 [...] in 0 to 528: 23 (a / 10 + 11) + (b / 10 + 11) for the middle
    of a square, the order of `grid_histogram`.
  """
  place = jnp.floor(ab / GRID + 0.5).astype(jnp.int32) + _REACH
  place = jnp.clip(place, 0, SIDE - 1)
  return place[..., 0] * SIDE + place[..., 1]


def grid_histogram(ab: jax.Array) -> jax.Array:
  """Share of each square of the grid in the colors of each photograph.

  Args:
    ab: Lab units, [B, H, W, 2].

  Returns:
    [B, 23, 23], each of which sums to 1; the axes are a and b, from -110 up.
  """
  place = grid_place(ab).reshape(len(ab), -1)
  rows = jnp.arange(len(ab))[:, None]
  counts = jnp.zeros((len(ab), SIDE**2)).at[rows, place].add(1)
  return counts.reshape(-1, SIDE, SIDE) / place.shape[1]


def soft_encode(
    ab: jax.Array, bins: np.ndarray, *, num_neighbors: int = NUM_NEIGHBORS,
    sigma: float = SIGMA) -> SoftCode:
  """Spreads colors over their nearest bins, w ~ exp(-d^2 / (2 sigma^2)).

  Args:
    ab: Lab units, [..., 2]; beyond the ab square it counts as its border.
    bins: NumPy array [Q, 2], see above.
    num_neighbors: k, at most Q; 1 is a hard code.
    sigma: ab units, above 0.

  Returns:
    The code. Between bins at one distance the choice is arbitrary.

  Raises:
    ValueError: k is not in 1 to Q, or the bins are none.
  """
  bins = check_bins(bins)
  if not 1 <= num_neighbors <= len(bins):
    raise ValueError(
        f'{num_neighbors} neighbors asked of {len(bins)} bins')
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
  """The bin nearest to each color [..., 2], int32 [...]."""
  return soft_encode(ab, bins, num_neighbors=1).indices[..., 0]


def soft_histogram(
    ab: jax.Array, bins: np.ndarray, *, num_neighbors: int = NUM_NEIGHBORS,
    sigma: float = SIGMA) -> jax.Array:
  """Mean soft code of each photograph; the mean over photographs is the prior.

  The published prior is smoothed by the same Gaussian as the targets, which
  is to say that it is the mean of the targets.

  Args:
    ab: Lab units, [B, H, W, 2].
    bins: as in `soft_encode`.
    num_neighbors: as in `soft_encode`.
    sigma: as in `soft_encode`.

  Returns:
    [B, Q], each row of which sums to 1.
  """
  code = soft_encode(ab, bins, num_neighbors=num_neighbors, sigma=sigma)
  indices, weights = (x.reshape(len(ab), -1) for x in code)
  pixels = ab.shape[1] * ab.shape[2]
  return jnp.zeros((len(ab), len(bins))).at[
      jnp.arange(len(ab))[:, None], indices].add(weights / pixels)


def class_weights(prior: np.typing.ArrayLike, uniform_share: float
                  ) -> jax.Array:
  """How much each bin counts in a rebalanced loss (eq. 4 of the paper).

  w ~ 1 / ((1 - lambda) p + lambda / Q), scaled such that the weight is 1 in
  the mean over the prior: sum_q p_q w_q = 1.

  Args:
    prior: probability p of each bin, [Q].
    uniform_share: lambda in [0, 1]; 1/2 as published, 1 weighs all bins alike.

  Returns:
    float32 [Q].

  Raises:
    ValueError: the prior is no distribution, lambda is out of range, or lambda
      is 0 and a bin never occurs: its weight would be infinite.
  """
  prior = np.asarray(prior, np.float64)
  if (prior.ndim != 1 or not (prior >= 0).all()
      or abs(prior.sum() - 1) > 1e-3):
    raise ValueError('a prior is Q probabilities that sum to 1')
  if not 0 <= uniform_share <= 1:
    raise ValueError(f'lambda is in [0, 1], got {uniform_share}')
  mixed = (1 - uniform_share) * prior + uniform_share / len(prior)
  if not mixed.all():
    raise ValueError('lambda is 0 and a bin has probability 0: choose a '
                     'larger lambda, or bins that occur')
  return jnp.asarray(1 / mixed / (prior / mixed).sum(), jnp.float32)


def annealed_mean(logits: jax.Array, bins: np.ndarray, *,
                  temperature: float = TEMPERATURE) -> jax.Array:
  """Mean color of the distribution whose log is divided by T (eq. 5).

  Args:
    logits: unnormalized log probabilities, [..., Q], of any float type.
    bins: [Q, 2].
    temperature: T >= 0; 0 is the mode, 1 the mean.

  Returns:
    ab, Lab units, float32 [..., 2]. ValueError if T is negative.
  """
  if temperature < 0:
    raise ValueError(f'the temperature is at least 0, got {temperature}')
  centers = jnp.asarray(bins, jnp.float32)
  if temperature == 0:
    return centers[logits.argmax(-1)]
  share = jax.nn.softmax(logits.astype(jnp.float32) / temperature, axis=-1)
  return jnp.matmul(share, centers, precision=jax.lax.Precision.HIGHEST)


def log_density(logits: jax.Array, ab: jax.Array, bins: np.ndarray
                ) -> jax.Array:
  """Log density over ab that a distribution over bins stands for.

  The probability of a bin is spread evenly over its square. A color outside
  all squares would have density 0, so UNIFORM_SHARE of the whole is spread
  evenly over the ab square. For colors inside that costs 0.0007 bits a
  dimension.

  Args:
    logits: unnormalized log probabilities, [..., Q], of any float type.
    ab: Lab units within the ab square, [..., 2].
    bins: [Q, 2].

  Returns:
    Nats of one color with respect to ab units, [...].
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
  """One color for each distribution over bins, from `log_density`.

  Args:
    key: random key.
    logits: as in `log_density`, [..., Q].
    bins: [Q, 2].

  Returns:
    ab, Lab units, [..., 2].
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
  """The bins that can be among the k nearest of a color, for each cell.

  Cells are squares of _STEP around c. For a color p in a cell, |p - c| <= r;
  so if a bin is among the k nearest of p, it is at most 2r farther from c than
  the k-th nearest of c is (triangle inequality, twice).

  Returns:
    int32 [n, n, C], the nearest to c first.
  """
  axis = np.arange(-color.AB_SCALE, color.AB_SCALE + _STEP / 2, _STEP)
  cells = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  distance = np.linalg.norm(cells[:, :, None] - bins, axis=-1)
  order = distance.argsort(-1, kind='stable')
  ranked = np.take_along_axis(distance, order, -1)
  reach = ranked[..., num_neighbors - 1, None] + _STEP * math.sqrt(2) + 1e-3
  most = (ranked <= reach).sum(-1).max()
  return order[..., :most].astype(np.int32)
