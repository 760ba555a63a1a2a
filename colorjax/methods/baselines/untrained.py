"""Code shared by the baselines, whose parameters are measured, not trained.

Measured values are stored as params, so that checkpoints, evaluation and
`colorize` handle baselines like networks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax.colorizer import (
    Batch,
    Colorizer,
    Variables,
    deterministic,
    masked_mean,
)
from colorjax.losses import regression
from colorjax.methods import examples


def without_training(
    *,
    params: dict[str, Any],
    predict: Callable[..., jax.Array],
    **fields: Any,
) -> Colorizer:
  """Builds a deterministic method whose loss has no gradient.

  Args:
    params: the result of `init`: arrays of zeros in the shapes of the measured
      values.
    predict: as in Colorizer.
    **fields: further fields of Colorizer.

  Returns:
    A Colorizer. Its loss is the mean squared error in network ab, as in the
    regression methods.
  """
  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    del key, image_shape
    return {'params': params, 'model_state': {}}

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del keys, step, train
    # Without this, a training step would compute a large, useless gradient.
    params = jax.lax.stop_gradient(params)
    lightness, ab, true_lightness = examples.of_batch(batch)
    predicted = predict(
        {'params': params, 'model_state': model_state},
        {'lightness': lightness})
    error = regression.mse(predicted / color.AB_SCALE, ab / color.AB_SCALE,
                           lightness=true_lightness)
    return masked_mean({'loss': error}, batch['padding_mask'], model_state)

  return deterministic(init=init, loss=loss, predict=predict, **fields)


def constant(lightness: jax.Array, ab: jax.Array) -> jax.Array:
  """Gives all pixels the same color.

  Args:
    lightness: [B, H, W, 1]; only its shape is used.
    ab: Lab units, [2].

  Returns:
    ab [B, H, W, 2].
  """
  return jnp.broadcast_to(ab, (*lightness.shape[:-1], 2))
