"""Color transfer to grey photographs (Welsh, Ashikhmin and Mueller 2002).

Every pixel takes the ab of the most similar pixel of a reference photograph.
Similarity is measured by lightness and by the standard deviation of lightness
in the surrounding window of 5 x 5 pixels, with equal weights. The candidates
are about two hundred pixels of the reference, one at a random position in each
cell of a grid (jittered sampling). Their lightness is first shifted and scaled
to the mean and standard deviation of the grey photograph, as Reinhard et al.
2001 do with colors:

    L' = (L - mean_ref) * deviation / deviation_ref + mean,

and the deviations in their windows are scaled by the same factor. This is the
paper's global matching. Its matching with swatches, which a user pairs, is not
implemented.
"""

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.errors import UserError
from colorjax.methods.baselines import untrained

_WINDOW = (5, 5)


def build(*, grid: int = 14) -> Colorizer:
  """Builds the baseline.

  Its params are the `candidates` of the run's reference. A reference in the
  inputs replaces it; the positions of its candidates are drawn with a constant
  key.

  Args:
    grid: the reference provides grid x grid candidates; 14 x 14 for the paper's
      "approximately 200".
  """
  count = grid * grid
  scalar, column = jnp.zeros(()), jnp.zeros(count)
  params = {'mean': scalar, 'deviation': scalar, 'lightness': column,
            'texture': column, 'ab': jnp.zeros((count, 2))}

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness = inputs['lightness'][..., 0]
    if 'reference' not in inputs:
      return jax.vmap(_transfer, (None, 0))(variables['params'], lightness)
    references = jax.vmap(lambda image: candidates(
        jax.random.key(0), image, grid=grid))(inputs['reference'])
    return jax.vmap(_transfer)(references, lightness)

  return untrained.without_training(
      params=params, predict=predict, accepts=frozenset({'reference'}))


def candidates(key: jax.Array, image: jax.typing.ArrayLike, *, grid: int = 14
               ) -> dict[str, jax.Array]:
  """Samples candidate pixels of a reference.

  Args:
    key: random key for their positions.
    image: the reference, uint8 sRGB [H, W, 3]. Its resolution should be similar
      to that of the photographs to color, since windows are in pixels.
    grid: as in `build`.

  Returns:
    'mean' and 'deviation' of the reference's lightness, scalars; of each
    candidate 'lightness' [N], 'texture' (deviation in its window) [N] and 'ab'
    [N, 2]. All in Lab units.

  Raises:
    UserError: the reference has fewer pixels along a side than the grid.
  """
  lightness, ab = color.split_lightness(jnp.asarray(image))
  lightness = lightness[..., 0]
  if min(lightness.shape) < grid:
    raise UserError(
        f'grid={grid}: a reference of {" x ".join(map(str, lightness.shape))}'
        f' pixels is too small; use at least {grid} x {grid} pixels')
  # Cells are numbered 0, 1, ... along each side; positions are in [0, 1).
  cells = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(grid)], indexing='ij'))
  positions = (cells + jax.random.uniform(key, cells.shape)) / grid
  row, column = (
      jnp.minimum((position * side).astype(int), side - 1).reshape(-1)
      for position, side in zip(positions, lightness.shape, strict=True))
  return {'mean': lightness.mean(), 'deviation': lightness.std(),
          'lightness': lightness[row, column],
          'texture': texture(lightness)[row, column],
          'ab': ab[row, column]}


def texture(lightness: jax.Array) -> jax.Array:
  """Computes the standard deviation in the 5 x 5 window of each pixel.

  Args:
    lightness: L, [H, W].

  Returns:
    L units, [H, W]. Windows are cropped at the borders.
  """
  def total(x):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, _WINDOW, (1, 1), 'SAME')

  # Centered first, to avoid cancellation between two large squares.
  centered = lightness - lightness.mean()
  count = total(jnp.ones_like(centered))
  mean = total(centered) / count
  return jnp.sqrt(jnp.maximum(total(centered**2) / count - mean**2, 0))


def _transfer(reference: dict[str, jax.Array], lightness: jax.Array
              ) -> jax.Array:
  """Transfers the candidates' ab to one photograph.

  Args:
    reference: the result of `candidates`.
    lightness: L, [H, W].

  Returns:
    ab [H, W, 2].
  """
  # The bound avoids a division by 0 if the reference has a single lightness.
  scale = lightness.std() / jnp.maximum(reference['deviation'], 1e-3)
  centered, own_texture = lightness - lightness.mean(), texture(lightness)

  def update(best, candidate):
    """Replaces the best candidate of each pixel where this one is better."""
    best_cost, ab = best
    cost = (jnp.abs(centered - candidate['lightness'])
            + jnp.abs(own_texture - candidate['texture'])) / 2
    is_better = cost < best_cost
    return (jnp.where(is_better, cost, best_cost),
            jnp.where(is_better[..., None], candidate['ab'], ab)), None

  # A scan over candidates: an array of all costs would have pixels x candidates
  # elements.
  start = (jnp.full_like(lightness, jnp.inf), jnp.zeros((*lightness.shape, 2)))
  (_, ab), _ = jax.lax.scan(update, start, {
      'lightness': (reference['lightness'] - reference['mean']) * scale,
      'texture': reference['texture'] * scale, 'ab': reference['ab']})
  return ab
