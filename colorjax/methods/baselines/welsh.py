"""Color transfer to grey photographs (Welsh, Ashikhmin and Mueller 2002).

Every pixel takes the ab of the most similar pixel of a reference photograph,
where similar means: like lightness, and like standard deviation of lightness in
the window of 5 x 5 pixels around it, weighted half and half. Candidates are
about two hundred pixels of the reference, one at a random place in each cell of
a grid (jittered sampling). Their lightness is first brought to the mean and
deviation that the grey photograph has, as Reinhard et al. 2001 do with colors:

    L' = (L - mean_ref) * deviation / deviation_ref + mean,

and the deviations in their windows are stretched alike. This is the paper's
global matching; its second form, in which a person pairs swatches, is not here.
"""

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.errors import UserError
from colorjax.methods.baselines import untrained

_WINDOW = (5, 5)


def build(*, grid: int = 14) -> Colorizer:
  """Welsh's transfer as a Colorizer.

  Its params are those of `candidates`, of the reference that the run was given.
  A reference among the inputs takes their place; its candidates lie at the same
  places whenever it is given.

  Args:
    grid: the reference gives grid x grid candidates; 14 x 14 is the paper's
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
    offered = jax.vmap(lambda image: candidates(
        jax.random.key(0), image, grid=grid))(inputs['reference'])
    return jax.vmap(_transfer)(offered, lightness)

  return untrained.without_training(
      params=params, predict=predict, accepts=frozenset({'reference'}))


def candidates(key: jax.Array, image: jax.typing.ArrayLike, *, grid: int = 14
               ) -> dict[str, jax.Array]:
  """What is taken from the reference.

  Args:
    key: random key of the places.
    image: the reference, uint8 sRGB [H, W, 3], at about the resolution of the
      photographs that will be colored: windows are counted in pixels.
    grid: as in `build`.

  Returns:
    'mean' and 'deviation' of its lightness; of each candidate 'lightness'
    [N], 'texture' (deviation in its window) [N] and 'ab' [N, 2]; Lab units.

  Raises:
    UserError: the reference has fewer pixels along a side than the grid.
  """
  lightness, ab = color.split_lightness(jnp.asarray(image))
  lightness = lightness[..., 0]
  if min(lightness.shape) < grid:
    raise UserError(
        f'grid={grid}: a reference of {" x ".join(map(str, lightness.shape))}'
        ' pixels has fewer rows or columns than that')
  # Cells are numbered 0, 1, ... along each side; a place is a share of it.
  cell = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(grid)], indexing='ij'))
  place = (cell + jax.random.uniform(key, cell.shape)) / grid
  row, column = (
      jnp.minimum((share * side).astype(int), side - 1).reshape(-1)
      for share, side in zip(place, lightness.shape, strict=True))
  return {'mean': lightness.mean(), 'deviation': lightness.std(),
          'lightness': lightness[row, column],
          'texture': texture(lightness)[row, column],
          'ab': ab[row, column]}


def texture(lightness: jax.Array) -> jax.Array:
  """Standard deviation in the 5 x 5 window of each pixel.

  Args:
    lightness: L, [H, W].

  Returns:
    L units, [H, W]. Windows are cut off at the borders.
  """
  def total(x):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, _WINDOW, (1, 1), 'SAME')

  # Centered first: the difference of two large squares would lose digits.
  centered = lightness - lightness.mean()
  count = total(jnp.ones_like(centered))
  mean = total(centered) / count
  return jnp.sqrt(jnp.maximum(total(centered**2) / count - mean**2, 0))


def _transfer(reference: dict[str, jax.Array], lightness: jax.Array
              ) -> jax.Array:
  """The candidates' ab for one photograph, L [H, W] to ab [H, W, 2]."""
  # A reference of one lightness offers no choice by lightness.
  scale = lightness.std() / jnp.maximum(reference['deviation'], 1e-3)
  offered = (reference['lightness'] - reference['mean']) * scale
  wanted, texture_wanted = lightness - lightness.mean(), texture(lightness)

  def offer(best, candidate):
    """Keeps the better of the best so far and one more candidate."""
    least, ab = best
    cost = (jnp.abs(wanted - candidate['lightness'])
            + jnp.abs(texture_wanted - candidate['texture'])) / 2
    better = cost < least
    return (jnp.where(better, cost, least),
            jnp.where(better[..., None], candidate['ab'], ab)), None

  # One after the other: all at once would take pixels x candidates numbers.
  start = (jnp.full_like(lightness, jnp.inf), jnp.zeros((*lightness.shape, 2)))
  (_, ab), _ = jax.lax.scan(offer, start, {
      'lightness': offered, 'texture': reference['texture'] * scale,
      'ab': reference['ab']})
  return ab
