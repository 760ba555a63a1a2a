"""The mean color of the training set on every pixel of every photograph.

Of all constant fields it has the least squared error on the training set. A
network that has learned nothing from its input, trained by mean squared error,
comes to this one.
"""

import jax
import jax.numpy as jnp

from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """The mean color as a Colorizer.

  Its one parameter is 'mean_ab' [2], Lab units, as
  `evaluation.measuring.mean_color` measures it.
  """
  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return untrained.constant(
        inputs['lightness'], variables['params']['mean_ab'])

  return untrained.without_training(
      params={'mean_ab': jnp.zeros(2)}, predict=predict)
