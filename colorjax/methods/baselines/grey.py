"""The grey baseline: the photograph without color."""

import jax
import jax.numpy as jnp

from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """Builds the grey baseline; it has no parameters."""

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    del variables
    return untrained.constant(inputs['lightness'], jnp.zeros(2))

  return untrained.without_training(params={}, predict=predict)
