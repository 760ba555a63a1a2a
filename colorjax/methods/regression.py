"""Regression of ab with any trunk and any sum of regression losses.

The simplest learned method: it predicts one coloring for each photograph. The
loss is given by a formula (`colorjax.losses.formula`) and the network by a name
(`colorjax.models.trunk`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import color, resample
from colorjax import keys as key_lib
from colorjax.colorizer import (
    FROZEN,
    Batch,
    Colorizer,
    Inputs,
    Variables,
    deterministic,
    init_variables,
    masked_mean,
)
from colorjax.losses import formula
from colorjax.methods import checks, encoders, examples, perceptual
from colorjax.models import regressor, trunk


def build(
    *,
    loss: str = 'huber',
    network: str = 'unet',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (32, 64, 128, 256),
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the regression method.

  The network predicts an ab field at the trunk's resolution, which is upsampled
  to that of the photograph along the edges of lightness. The loss is computed
  there, in network ab. The untrained network predicts grey.

  Args:
    loss: see `colorjax.losses.formula`. Each of several terms is also a metric,
      `loss/NAME`.
    network: a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the trunk's scales.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer with one prediction for each photograph.

  Raises:
    UserError: the loss or the network does not exist, or the network cannot
      take these filters.
  """
  checks.check_choice('network', network, trunk.TRUNKS)
  objective = formula.parse(loss)
  perceptual_network = perceptual.PerceptualNetwork(objective, dtype=dtype)
  body = trunk.build(network, filters, jnp.dtype(dtype), trunk_settings)
  net = regressor.TrunkRegressor(body, jnp.dtype(dtype))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, body.divisor)
    variables = init_variables(
        net, key_lib.named(key, 'network'), jnp.zeros((1, *image_shape, 1)),
        train=False)
    state = variables['model_state']
    frozen = {**state.get(FROZEN, {}),
              **perceptual_network.init(key_lib.named(key, 'perceptual'))}
    return {'params': variables['params'], 'model_state': {
        **state, **({FROZEN: frozen} if frozen else {})}}

  def apply(variables: Variables, lightness: jax.Array, *, train: bool):
    """Network ab [B, H, W, 2], and the network's new state."""
    checks.check_sides(lightness.shape[1:3], body.divisor)
    state = variables['model_state']
    field, new_state = net.apply(
        {'params': variables['params'], **state},
        color.normalize_lightness(lightness), train=train,
        mutable=[name for name in state if name != FROZEN])
    return resample.enlarge(field, lightness), new_state

  def measure(params, model_state, batch: Batch, keys: jax.Array, *,
              step: jax.Array | None, train: bool):
    del keys, step  # Nothing is drawn.
    lightness, ab, true_lightness = examples.of_batch(batch)
    predicted, new_state = apply(
        {'params': params, 'model_state': model_state}, lightness, train=train)
    metrics = objective(predicted, ab / color.AB_SCALE,
                        lightness=true_lightness,
                        features=perceptual_network.features(model_state))
    return masked_mean(metrics, batch['padding_mask'],
                       {**model_state, **new_state}
                       if train else model_state)

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return color.AB_SCALE * apply(
        variables, inputs['lightness'], train=False)[0]

  return deterministic(init=init, loss=measure, predict=predict,
                       backbones=perceptual.merge_backbones(
                           encoders.pretrained(body),
                           perceptual_network.pretrained))
