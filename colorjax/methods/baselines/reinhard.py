"""Color transfer from a reference photograph (Reinhard et al. 2001), in Lab.

Each chroma channel of a photograph is moved to the mean and stretched to the
standard deviation of the reference,

    ab' = (ab - mean(ab)) * deviation_ref / deviation(ab) + mean_ref.

A grey photograph has ab = 0 everywhere: there is nothing to stretch, and what
the transfer gives is the mean color of the reference on every pixel. That is
the honest answer of this method to the question of this project, and this file
gives it. `colorjax.methods.baselines.welsh` is the form of the idea that colors
a grey photograph: it looks up colors by lightness. The paper works in
Ruderman's l-alpha-beta space; here it is Lab, as everywhere. The lightness
stays that of the photograph.
"""

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """Reinhard's transfer as a Colorizer.

  Its params are those of `statistics`, of the reference that the run was given.
  A reference among the inputs takes their place.
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
  """What is taken from the reference.

  Args:
    image: the reference, uint8 sRGB [H, W, 3].

  Returns:
    'mean' and 'deviation' of its ab over pixels, Lab units, [2] each.
  """
  _, ab = color.split_lightness(jnp.asarray(image))
  return {'mean': ab.mean((0, 1)), 'deviation': ab.std((0, 1))}


def transfer(ab: jax.Array, reference: dict[str, jax.Array]) -> jax.Array:
  """Gives photographs the chroma statistics of the reference.

  Args:
    ab: Lab units, [B, H, W, 2].
    reference: what `statistics` returned.

  Returns:
    ab [B, H, W, 2]. A channel without deviation becomes the reference's mean.
  """
  centered = ab - ab.mean((-3, -2), keepdims=True)
  deviation = centered.std((-3, -2), keepdims=True)
  # A channel without deviation is 0 after centring, whatever it is divided by.
  stretch = reference['deviation'] / jnp.where(deviation > 0, deviation, 1)
  return centered * stretch + reference['mean']
