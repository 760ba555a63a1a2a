"""The photograph left grey: what a method has to be better than."""

import jax
import jax.numpy as jnp

from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained


def build() -> Colorizer:
  """Grey as a Colorizer; it has no numbers and no settings."""

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    del variables
    return untrained.constant(inputs['lightness'], jnp.zeros(2))

  return untrained.without_training(params={}, predict=predict)
