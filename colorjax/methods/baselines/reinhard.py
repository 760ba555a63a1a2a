"""Color transfer from a reference photograph (Reinhard et al. 2001), in Lab.

Each chroma channel of a photograph is shifted to the mean and scaled to the
standard deviation of the reference,

    ab' = (ab - mean(ab)) * deviation_ref / deviation(ab) + mean_ref.

A grey photograph has ab = 0 everywhere, so there is nothing to scale and every
pixel gets the mean color of the reference. That makes this method a weak
baseline for colorization. `colorjax.methods.baselines.welsh` extends the idea
to grey photographs: it looks colors up by lightness. The paper works in
Ruderman's l-alpha-beta space, this file in Lab. The lightness of the photograph
is kept.
"""

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """Builds the baseline.

  Its params are the `statistics` of the run's reference. A reference in the
  inputs replaces it.
  """
  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    grey = untrained.constant(inputs['lightness'], jnp.zeros(2))
    if 'reference' in inputs:
      return jax.vmap(lambda ab, image: transfer(ab, statistics(image)))(
          grey, inputs['reference'])
    return transfer(grey, variables['params'])

  return untrained.without_training(
      params={'mean': jnp.zeros(2), 'deviation': jnp.zeros(2)},
      predict=predict, accepts=frozenset({'reference'}))


def statistics(image: jax.typing.ArrayLike) -> dict[str, jax.Array]:
  """Computes the chroma statistics of a reference.

  Args:
    image: the reference, uint8 sRGB [H, W, 3].

  Returns:
    'mean' and standard 'deviation' of its ab over pixels, Lab units, [2] each.
  """
  _, ab = color.split_lightness(jnp.asarray(image))
  return {'mean': ab.mean((0, 1)), 'deviation': ab.std((0, 1))}


def transfer(ab: jax.Array, reference: dict[str, jax.Array]) -> jax.Array:
  """Gives photographs the chroma statistics of the reference.

  Args:
    ab: Lab units, [B, H, W, 2].
    reference: the result of `statistics`.

  Returns:
    ab [B, H, W, 2]. A constant channel becomes the reference's mean.
  """
  centered = ab - ab.mean((-3, -2), keepdims=True)
  deviation = centered.std((-3, -2), keepdims=True)
  # A constant channel is 0 after centering, so any divisor but 0 will do.
  scale = reference['deviation'] / jnp.where(deviation > 0, deviation, 1)
  return centered * scale + reference['mean']
