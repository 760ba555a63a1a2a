"""The marginal baseline: the distribution of colors in the training set.

Every pixel is drawn independently from this distribution, and the photograph is
ignored. A density model that has learned anything from lightness needs fewer
bits per dimension.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, quantize, resample
from colorjax import keys as key_lib
from colorjax.colorizer import Colorizer, Inputs, Variables
from colorjax.methods.baselines import untrained
from colorjax.methods.checks import check_sides

STRIDE = 2
"""The density is that of the ab field at half the photograph's resolution, as
for mixtures and classification with the U-Net."""

_BINS = quantize.occurring_bins(np.ones((quantize.SIDE, quantize.SIDE)))
_MIN_SHARE = 1e-9  # share of squares without any color of the training set


def build() -> Colorizer:
  """Builds the marginal baseline.

  Its parameter is 'shares' [23, 23], the mean of `histogram` over the training
  photographs. The density is constant over squares of 10 x 10 ab units.
  `predict` gives every pixel its mean.
  """
  def logits(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness = inputs['lightness']
    check_sides(lightness.shape[1:3], STRIDE)
    batch, height, width, _ = lightness.shape
    return jnp.broadcast_to(
        jnp.log(variables['params']['shares'].reshape(-1) + _MIN_SHARE),
        (batch, height // STRIDE, width // STRIDE, len(_BINS)))

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    ab = quantize.annealed_mean(
        logits(variables, inputs), _BINS, temperature=1.0)
    return untrained.constant(inputs['lightness'], ab[0, 0, 0])

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
           ) -> jax.Array:
    pixel_logits = logits(variables, inputs)
    return jax.lax.map(
        lambda keys: jax.vmap(quantize.draw, (0, 0, None))(
            keys, pixel_logits, _BINS), key_lib.of_answers(keys, n))

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
             ) -> jax.Array:
    return jax.vmap(resample.enlarge, (0, None))(
        draw(variables, inputs, keys, n), inputs['lightness'])

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array) -> jax.Array:
    del keys  # The density is exact.
    return quantize.log_density(
        logits(variables, inputs), resample.mean_pool(ab, STRIDE), _BINS
    ).sum((1, 2))

  colorizer = untrained.without_training(
      params={'shares': jnp.zeros((quantize.SIDE, quantize.SIDE))},
      predict=predict, log_prob=log_prob,
      event_shape=lambda shape: (shape[0] // STRIDE, shape[1] // STRIDE))
  return dataclasses.replace(colorizer, sample=sample, draw=draw)


def histogram(ab: jax.Array) -> jax.Array:
  """Computes the share of each color square in each photograph.

  Args:
    ab: Lab units, [B, H, W, 2].

  Returns:
    [B, 23, 23]; see `quantize.grid_histogram`.
  """
  field = resample.mean_pool(
      jnp.clip(ab, -color.AB_SCALE, color.AB_SCALE), STRIDE)
  return quantize.grid_histogram(field)
