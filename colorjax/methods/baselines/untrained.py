"""What the baselines share: methods whose numbers are measured, not trained.

Their numbers, if they have any, are params all the same, so that checkpoints,
evaluation and `colorize` treat them as they treat networks.
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


def without_training(
    *,
    params: dict[str, Any],
    predict: Callable[..., jax.Array],
    **fields: Any,
) -> Colorizer:
  """A deterministic method whose loss only measures.

  Args:
    params: what `init` gives: the shapes of the method's numbers, all 0 until
      they are measured.
    predict: as in Colorizer.
    **fields: further fields of Colorizer.

  Returns:
    The record of functions. Its loss is the mean squared error in network ab,
    the one of the regression methods, without a gradient.
  """
  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    del key, image_shape
    return {'params': params, 'model_state': {}}

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del keys, step, train
    # A step would ask for a gradient that is as large as it is useless.
    params = jax.lax.stop_gradient(params)
    lightness, ab = color.split_lightness(batch['image'])
    predicted = predict(
        {'params': params, 'model_state': model_state},
        {'lightness': lightness})
    error = regression.mse(predicted / color.AB_SCALE, ab / color.AB_SCALE,
                           lightness=lightness)
    return masked_mean({'loss': error}, batch['padding_mask'], model_state)

  return deterministic(init=init, loss=loss, predict=predict, **fields)


def constant(lightness: jax.Array, ab: jax.Array) -> jax.Array:
  """One color for all pixels.

  Args:
    lightness: [B, H, W, 1].
    ab: Lab units, [2].

  Returns:
    ab [B, H, W, 2].
  """
  return jnp.broadcast_to(ab, (*lightness.shape[:-1], 2))
