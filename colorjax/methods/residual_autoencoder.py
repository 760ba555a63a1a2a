"""Regression of ab with a residual autoencoder on VGG-19.

It predicts one coloring for each photograph. The published loss is the mean
squared error, which is minimized by the mean of all plausible colors.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp

from colorjax import backbones, color, resample
from colorjax import keys as key_lib
from colorjax.colorizer import (
    FROZEN,
    Batch,
    Colorizer,
    Inputs,
    Pretrained,
    Variables,
    deterministic,
    init_variables,
    masked_mean,
)
from colorjax.losses import formula
from colorjax.methods import checks, examples, perceptual
from colorjax.models import residual_autoencoder

ENLARGEMENTS = ('bilinear', 'edges')
"""How the ab field is upsampled to the photograph's size, see `build`."""


def build(
    *,
    loss: str = 'mse',
    enlargement: str = 'bilinear',
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the residual autoencoder method.

  The network predicts an ab field at a quarter of the input's height and width.
  The loss is computed at the input's size, in network ab. The output is not
  bounded; colors outside the sRGB gamut are mapped into it when pictures are
  made.

  Args:
    loss: see `colorjax.losses.formula`. Each of several terms is also a metric,
      `loss/NAME`.
    enlargement: how the field is upsampled to the input's size: 'bilinear', as
      published, or 'edges', along the edges of lightness (`resample.enlarge`).
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer with one prediction for each photograph.

  Raises:
    UserError: the loss or the enlargement does not exist.
  """
  checks.check_choice('enlargement', enlargement, ENLARGEMENTS)
  objective = formula.parse(loss)
  perceptual_network = perceptual.PerceptualNetwork(objective, dtype=dtype)
  net = residual_autoencoder.ResidualAutoencoder(
      backbone=residual_autoencoder.encoder(dtype), dtype=jnp.dtype(dtype))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, residual_autoencoder.STRIDE)
    variables = init_variables(net, key_lib.named(key, 'network'),
                               jnp.zeros((1, *image_shape, 1)))
    frozen = perceptual_network.init(key_lib.named(key, 'perceptual'))
    return {'params': variables['params'],
            'model_state': {FROZEN: frozen} if frozen else {}}

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness = inputs['lightness']
    checks.check_sides(lightness.shape[1:3], residual_autoencoder.STRIDE)
    out = net.apply({'params': variables['params']},
                    color.normalize_lightness(lightness))
    assert isinstance(out, jax.Array)
    ab = color.AB_SCALE * out
    if enlargement == 'edges':
      return resample.enlarge(ab, lightness)
    return jax.image.resize(
        ab, (*lightness.shape[:-1], 2), jax.image.ResizeMethod.LINEAR)

  def measure(params, model_state, batch: Batch, keys: jax.Array, *,
              step: jax.Array | None, train: bool):
    del keys, step, train  # No dropout, no batch statistics.
    lightness, ab, true_lightness = examples.of_batch(batch)
    predicted = predict({'params': params}, {'lightness': lightness})
    metrics = objective(
        predicted / color.AB_SCALE, ab / color.AB_SCALE,
        lightness=true_lightness,
        features=perceptual_network.features(model_state))
    return masked_mean(metrics, batch['padding_mask'], model_state)

  own = Pretrained(load_backbone, functools.partial(
      backbones.download, residual_autoencoder.BACKBONE, top=False))
  return deterministic(
      init=init, loss=measure, predict=predict,
      backbones=perceptual.merge_backbones(
          {residual_autoencoder.BACKBONE: own}, perceptual_network.pretrained))


def load_backbone(variables: Variables, path: pathlib.Path) -> Variables:
  """Loads VGG-19's weights into params['backbone'].

  The classifier and conv1_1 of the file are not used: the stem replaces
  conv1_1, which takes three color channels.

  Args:
    variables: the result of `init`.
    path: the weights file; see `backbones.load`.

  Returns:
    The variables with the loaded weights.

  Raises:
    UserError: the file holds another network.
  """
  loaded = backbones.load(residual_autoencoder.BACKBONE, path, top=False)
  params = variables['params']
  kept = backbones.restrict(loaded, {'params': params['backbone']})
  return {**variables, 'params': {**params, 'backbone': kept['params']}}
