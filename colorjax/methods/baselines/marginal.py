"""The marginal distribution of colors: what is known with closed eyes.

Every pixel is drawn by itself from the colors of the training set, whatever
the photograph shows. A density that has learned something from lightness needs
fewer bits than this one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, quantize, resample
from colorjax.colorizer import Colorizer, Variables
from colorjax.methods.baselines import untrained
from colorjax.methods.checks import check_sides

STRIDE = 2
"""The density is that of the field at half the photograph's resolution, as the
mixtures and the classification U-Net have it."""

_BINS = quantize.occurring_bins(np.ones((quantize.SIDE, quantize.SIDE)))
_LEAST = 1e-9  # share of a square in which the training set has no color


def build() -> Colorizer:
  """The marginal distribution as a Colorizer.

  Its one parameter is 'shares' [23, 23], what `histogram` gives in the mean
  over training photographs: a density that is constant over squares of 10 x 10
  ab units. `predict` is its mean, a constant.
  """
  def logits(variables: Variables, lightness: jax.Array) -> jax.Array:
    check_sides(lightness.shape[1:3], STRIDE)
    batch, height, width, _ = lightness.shape
    return jnp.broadcast_to(
        jnp.log(variables['params']['shares'].reshape(-1) + _LEAST),
        (batch, height // STRIDE, width // STRIDE, len(_BINS)))

  def predict(variables: Variables, lightness: jax.Array) -> jax.Array:
    ab = quantize.annealed_mean(
        logits(variables, lightness), _BINS, temperature=1.0)
    return untrained.constant(lightness, ab[0, 0, 0])

  def draw(variables: Variables, lightness: jax.Array, key: jax.Array, n: int
           ) -> jax.Array:
    every = logits(variables, lightness)
    return jax.lax.map(lambda k: quantize.draw(k, every, _BINS),
                       jax.random.split(key, n))

  def sample(variables: Variables, lightness: jax.Array, key: jax.Array,
             n: int) -> jax.Array:
    return jax.vmap(resample.enlarge, (0, None))(
        draw(variables, lightness, key, n), lightness)

  def log_prob(variables: Variables, lightness: jax.Array, ab: jax.Array
               ) -> jax.Array:
    return quantize.log_density(
        logits(variables, lightness), resample.mean_pool(ab, STRIDE), _BINS
    ).sum((1, 2))

  one_answer = untrained.without_training(
      params={'shares': jnp.zeros((quantize.SIDE, quantize.SIDE))},
      predict=predict, log_prob=log_prob,
      event_shape=lambda shape: (shape[0] // STRIDE, shape[1] // STRIDE))
  return dataclasses.replace(one_answer, sample=sample, draw=draw)


def histogram(ab: jax.Array) -> jax.Array:
  """Share of each square of colors in each photograph.

  Args:
    ab: Lab units, [B, H, W, 2].

  Returns:
    [B, 23, 23], as `quantize.grid_histogram` has it.
  """
  field = resample.mean_pool(
      jnp.clip(ab, -color.AB_SCALE, color.AB_SCALE), STRIDE)
  return quantize.grid_histogram(field)
