"""S2: regression of ab by a residual autoencoder on VGG-19.

One answer for each photograph, trained by a distance in ab: as published the
mean squared error, whose optimum is the mean of all colors that a thing can
have.
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
from colorjax.methods import checks, perception
from colorjax.models import residual_autoencoder

ENLARGEMENTS = ('bilinear', 'edges')
"""How the ab field is brought to the photograph's size, see `build`."""


def build(
    *,
    loss: str = 'mse',
    enlargement: str = 'bilinear',
    dtype: str = 'float32',
) -> Colorizer:
  """The residual autoencoder as a Colorizer.

  The network's ab field has a quarter of the input's sides; the loss is taken
  at the input's size, in network ab. Nothing bounds the output: colors that
  sRGB cannot hold are fitted into its gamut where pictures are made.

  Args:
    loss: see `colorjax.losses.formula`; with several terms each of them is a
      metric, `loss/NAME`.
    enlargement: how the field is brought to the input's size: 'bilinear', as
      published, or 'edges', along the edges of lightness (`upsampling`).
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    The record of functions. UserError for an unknown loss or enlargement.
  """
  checks.check_choice('enlargement', enlargement, ENLARGEMENTS)
  objective = formula.parse(loss)
  perceiver = perception.Perception(objective, dtype=dtype)
  net = residual_autoencoder.ResidualAutoencoder(
      backbone=residual_autoencoder.encoder(dtype), dtype=jnp.dtype(dtype))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, residual_autoencoder.STRIDE)
    variables = init_variables(net, key_lib.named(key, 'network'),
                               jnp.zeros((1, *image_shape, 1)))
    frozen = perceiver.init(key_lib.named(key, 'perceptual'))
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
    del keys, step, train  # neither dropout nor statistics
    lightness, ab = color.split_lightness(batch['image'])
    predicted = predict({'params': params}, {'lightness': lightness})
    metrics = objective(
        predicted / color.AB_SCALE, ab / color.AB_SCALE, lightness=lightness,
        features=perceiver.features(model_state))
    return masked_mean(metrics, batch['padding_mask'], model_state)

  own = Pretrained(load_backbone, functools.partial(
      backbones.download, residual_autoencoder.BACKBONE, top=False))
  return deterministic(
      init=init, loss=measure, predict=predict,
      backbones=perception.joined(
          {residual_autoencoder.BACKBONE: own}, perceiver.pretrained))


def load_backbone(variables: Variables, path: pathlib.Path) -> Variables:
  """Puts VGG-19's weights of a file into params['backbone'].

  Of the file, the classifier is not wanted, and neither is conv1_1: in the
  place of this layer, which reads three colors, there is the stem.

  Args:
    variables: what `init` gives.
    path: of the weights; see `backbones.load`.

  Returns:
    The variables. UserError for a file of another network.
  """
  loaded = backbones.load(residual_autoencoder.BACKBONE, path, top=False)
  params = variables['params']
  kept = backbones.restrict(loaded, {'params': params['backbone']})
  return {**variables, 'params': {**params, 'backbone': kept['params']}}
