"""The mean-color baseline: every pixel has the mean color of the training set.

Of all constant predictions, this one has the smallest squared error on the
training set. A network trained with the mean squared error predicts it if it
learns nothing from its input.
"""

import jax
import jax.numpy as jnp

from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """Builds the mean-color baseline.

  Its parameter is 'mean_ab' [2] in Lab units, as measured by
  `evaluation.measuring.mean_color`.
  """
  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return untrained.constant(
        inputs['lightness'], variables['params']['mean_ab'])

  return untrained.without_training(
      params={'mean_ab': jnp.zeros(2)}, predict=predict)
