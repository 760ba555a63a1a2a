"""Regression of ab with a global embedding of the photograph.

An encoder and a decoder predict ab. Between them, every position receives the
same embedding of the grey photograph, computed by a network pretrained on
ImageNet: Xception, or Inception-ResNet-v2 ("Deep Koalarization",
Baldassarre, Gonzalez Morin and Rodes-Guirao 2017, arXiv:1712.03400). The
pretrained network is not trained, so the embedding can be computed once for
each photograph with `embed` and given to the loss as batch['embedding'].

The published outputs are tanh * 128. These are tanh * 110 (network ab), which
covers the sRGB gamut; squared losses are therefore (128 / 110)^2 = 1.35 times
the published ones.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from colorjax import backbones, color, quantize
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
from colorjax.errors import UserError
from colorjax.losses import formula
from colorjax.methods import checks, examples, perceptual, rebalancing
from colorjax.models import fusion

BACKBONE = 'backbone'
"""Key of the backbone's variables in model_state[FROZEN]."""

EMBEDDINGS = ('logits', 'probabilities', 'features', 'standardized')
"""Which output of the backbone is the embedding.

`logits` and `probabilities` are its class scores before and after the softmax,
`features` the pooled features before the classifier, and `standardized` the
logits minus their mean, divided by their standard deviation. Logits of a
trained backbone are a few units large. Those of random weights are about 1e5
and saturate the output permanently.
"""


@dataclasses.dataclass(frozen=True)
class System:
  """Settings in which the systems differ.

  Attributes:
    decoder: as in `models.fusion.Fusion`.
    min_size: smallest side in pixels of the backbone's input: as in Keras, and
      for EfficientNet-Lite0 its largest stride.
  """
  decoder: tuple[tuple[int, ...], ...]
  min_size: int


SYSTEMS = {
    backbones.DEFAULT: System(((256, 128), (64, 64), (32,)), 32),
    'xception': System(((256, 128), (64, 64), (32,)), 71),
    'inception_resnet_v2': System(((128,), (64, 64), (32,)), 75),
}
"""The systems, by their backbone.

Those of Xception and Inception-ResNet-v2 are published. That of
EfficientNet-Lite0 is the system of Xception with another backbone.
"""


def build(
    *,
    backbone: str = backbones.DEFAULT,
    backbone_variant: backbones.Variant = 'keras',
    embedding: str = 'logits',
    embedding_size: int | None = None,
    loss: str = 'mse',
    bins: Sequence[Sequence[float]] | None = None,
    prior: Sequence[float] | None = None,
    rebalance: float | None = None,
    width: float = 1.0,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the fusion method.

  Metrics: `loss` is the loss formula, in network ab. Each of several terms is
  also a metric, `loss/NAME`. With `rebalance`, pixels are weighted by the
  rarity of their true color, and `loss_unweighted` is the loss without weights.

  Args:
    backbone: a key of SYSTEMS.
    backbone_variant: see `backbones.build`.
    embedding: one of EMBEDDINGS.
    embedding_size: side in pixels of the backbone's input; None for the size
      that it was trained on.
    loss: see `colorjax.losses.formula`.
    bins: see `rebalancing.weighted_bins`.
    prior: see `rebalancing.weighted_bins`.
    rebalance: lambda of Zhang et al. 2016, eq. 4; None for no rebalancing.
    width: fraction of the published number of channels, for small machines.
    dtype: compute type of both networks, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer with one prediction for each photograph.

  Raises:
    UserError: a setting has a value that does not exist, or the embedding size
      is too small.
  """
  checks.check_choice('backbone', backbone, SYSTEMS)
  checks.check_choice('embedding', embedding, EMBEDDINGS)
  system = SYSTEMS[backbone]
  pretrained = backbones.build(
      backbone, dtype=dtype, variant=backbone_variant)
  size = embedding_size or pretrained.image_size
  if size < system.min_size:
    raise UserError(f'embedding_size={size}: {backbone} needs at least '
                    f'{system.min_size} pixels')
  net = fusion.Fusion(decoder=system.decoder, width=width,
                      dtype=jnp.dtype(dtype))
  objective = formula.parse(loss)
  perceptual_network = perceptual.PerceptualNetwork(objective, dtype=dtype)
  centers, class_weights = rebalancing.weighted_bins(bins, prior, rebalance)

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, fusion.STRIDE)
    frozen = pretrained.module.init(
        key_lib.named(key, 'backbone'), jnp.zeros((1, size, size, 3)),
        train=False)
    channels = (pretrained.num_features if embedding == 'features'
                else pretrained.num_classes)
    variables = init_variables(
        net, key_lib.named(key, 'network'), jnp.zeros((1, *image_shape, 1)),
        jnp.zeros((1, channels)))
    return {'params': variables['params'],
            'model_state': {**variables['model_state'], FROZEN: {
                BACKBONE: frozen, **perceptual_network.init(
                    key_lib.named(key, 'perceptual'))}}}

  def embed(variables: Variables, lightness: jax.Array) -> jax.Array:
    out = pretrained.module.apply(
        variables['model_state'][FROZEN][BACKBONE],
        pretrained.preprocess(_as_grey_rgb(lightness, size)), train=False)
    assert isinstance(out, dict)
    return _read_embedding(out, embedding)

  def network_ab(params, lightness: jax.Array, embeddings: jax.Array
                 ) -> jax.Array:
    """Predicts network ab [B, H, W, 2]."""
    checks.check_sides(lightness.shape[1:3], fusion.STRIDE)
    out = net.apply(
        {'params': params}, color.normalize_lightness(lightness), embeddings)
    assert isinstance(out, jax.Array)
    return out

  def loss_fn(params, model_state, batch: Batch, keys: jax.Array, *,
              step: jax.Array | None, train: bool):
    del keys, step, train  # No randomness, and no difference in training.
    lightness, ab, true_lightness = examples.of_batch(batch)
    embeddings = batch.get('embedding')
    if embeddings is None:
      embeddings = embed({'model_state': model_state}, lightness)
    measure = functools.partial(
        objective, network_ab(params, lightness, embeddings),
        ab / color.AB_SCALE, lightness=true_lightness,
        features=perceptual_network.features(model_state))
    metrics = measure()
    if class_weights is not None:
      weights = class_weights[quantize.nearest_bin(ab, centers)]
      metrics = {**measure(weights=weights),
                 'loss_unweighted': metrics['loss']}
    return masked_mean(metrics, batch['padding_mask'], model_state)

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness, embeddings = inputs['lightness'], inputs.get('embedding')
    if embeddings is None:
      embeddings = embed(variables, lightness)
    return color.AB_SCALE * network_ab(
        variables['params'], lightness, embeddings)

  def load_backbone(variables: Variables, path: pathlib.Path) -> Variables:
    state = variables['model_state']
    loaded = backbones.load(backbone, path, variant=backbone_variant)
    return {**variables, 'model_state': {
        **state, FROZEN: {**state[FROZEN], BACKBONE: loaded}}}

  own = Pretrained(
      load_backbone, functools.partial(backbones.download, backbone))
  return deterministic(
      init=init, loss=loss_fn, predict=predict, embed=embed,
      accepts=frozenset({'embedding'}),
      backbones=perceptual.merge_backbones(
          {backbone: own}, perceptual_network.pretrained))


def _read_embedding(intermediates: dict[str, jax.Array], embedding: str
                    ) -> jax.Array:
  """Selects one of EMBEDDINGS from a backbone's outputs, float32 [B, E]."""
  if embedding == 'features':
    return intermediates['avg_pool'].astype(jnp.float32)
  logits = intermediates['logits']
  if embedding == 'probabilities':
    return jax.nn.softmax(logits)
  if embedding == 'standardized':
    return jax.nn.standardize(logits)
  return logits


def _as_grey_rgb(lightness: jax.Array, size: int) -> jax.Array:
  """Lightness [B, H, W, 1] to grey sRGB [B, size, size, 3] in [0, 1].

  Resized bilinearly, with antialiasing when shrinking.
  """
  grey = color.lab_to_rgb(jnp.concatenate(
      [lightness, jnp.zeros((*lightness.shape[:-1], 2))], axis=-1))
  # The three channels are equal only up to rounding.
  grey = grey.mean(-1, keepdims=True)
  grey = jax.image.resize(grey, (len(grey), size, size, 1), 'bilinear')
  return jnp.broadcast_to(grey, (*grey.shape[:-1], 3))
