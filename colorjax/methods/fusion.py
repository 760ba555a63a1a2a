"""S4, S5: colors from an encoder that is told what the photograph shows.

An encoder and decoder predict ab; between them every place gets the same
vector, what a network pretrained on ImageNet sees in the grey photograph:
Xception (S4), or Inception-ResNet-v2 ("Deep Koalarization", Baldassarre,
Gonzalez Morin and Rodes-Guirao 2017, arXiv:1712.03400; S5). The pretrained
network is never trained, so its vector can be computed once a photograph:
`embed` is that, and the loss takes batch['embedding'] where it is there.

Published outputs were tanh * 128. Ours are tanh * 110, network ab, which holds
all of sRGB: losses are (128 / 110)^2 = 1.35 times the published ones where
they are squared.
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
from colorjax.methods import checks, perception, rebalancing
from colorjax.models import fusion

BACKBONE = 'backbone'
"""Where model_state[FROZEN] holds the variables of the backbone."""

EMBEDDINGS = ('logits', 'probabilities', 'features', 'standardized')
"""What of the backbone is told: its classes before or after the softmax, or
the pooled features that they are read from; or its logits, less their mean and
divided by their deviation. Trained logits are a few units large. Those of
random weights are about 1e5, which saturates the output for good."""


@dataclasses.dataclass(frozen=True)
class System:
  """In what the systems differ.

  Attributes:
    decoder: as in `models.fusion.Fusion`.
    least_size: side in pixels of the smallest photograph that the backbone
      takes: as Keras has it, and of EfficientNet-Lite0 its largest stride.
  """
  decoder: tuple[tuple[int, ...], ...]
  least_size: int


SYSTEMS = {
    backbones.DEFAULT: System(((256, 128), (64, 64), (32,)), 32),
    'xception': System(((256, 128), (64, 64), (32,)), 71),
    'inception_resnet_v2': System(((128,), (64, 64), (32,)), 75),
}
"""The systems by their backbone. Xception (S4) and Inception-ResNet-v2 (S5) are
the published ones; the first is S4 on the backbone whose weights are there.
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
  """The fusion network as a Colorizer with one answer.

  `loss` is what the formula says, in network ab. With several terms each of
  them stands beside it as `loss/NAME`. If `rebalance` is given, pixels count by
  how rare their true color is, and the loss without weights is
  `loss_unweighted`.

  Args:
    backbone: a key of SYSTEMS.
    backbone_variant: see `backbones.build`.
    embedding: one of EMBEDDINGS.
    embedding_size: side in pixels that the backbone sees photographs at; None
      for the one that it was trained on.
    loss: see `colorjax.losses.formula`.
    bins: see `rebalancing.weighted_bins`.
    prior: see there.
    rebalance: lambda of Zhang et al. 2016, eq. 4; None for no rebalancing.
    width: share of the published channels, for small machines.
    dtype: compute type of both networks, 'float32' or 'bfloat16'.

  Returns:
    The record of functions. UserError for a setting that does not exist or a
    size that the networks cannot take.
  """
  checks.check_choice('backbone', backbone, SYSTEMS)
  checks.check_choice('embedding', embedding, EMBEDDINGS)
  system = SYSTEMS[backbone]
  pretrained = backbones.build(
      backbone, dtype=dtype, variant=backbone_variant)
  size = embedding_size or pretrained.image_size
  if size < system.least_size:
    raise UserError(f'embedding_size={size}: {backbone} sees at least '
                    f'{system.least_size} pixels a side')
  net = fusion.Fusion(decoder=system.decoder, width=width,
                      dtype=jnp.dtype(dtype))
  objective = formula.parse(loss)
  perceiver = perception.Perception(objective, dtype=dtype)
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
                BACKBONE: frozen, **perceiver.init(
                    key_lib.named(key, 'perceptual'))}}}

  def embed(variables: Variables, lightness: jax.Array) -> jax.Array:
    out = pretrained.module.apply(
        variables['model_state'][FROZEN][BACKBONE],
        pretrained.preprocess(_as_grey_rgb(lightness, size)), train=False)
    assert isinstance(out, dict)
    return _read_embedding(out, embedding)

  def network_ab(params, lightness: jax.Array, vectors: jax.Array) -> jax.Array:
    """Network ab."""
    checks.check_sides(lightness.shape[1:3], fusion.STRIDE)
    out = net.apply(
        {'params': params}, color.normalize_lightness(lightness), vectors)
    assert isinstance(out, jax.Array)
    return out

  def loss_fn(params, model_state, batch: Batch, keys: jax.Array, *,
              step: jax.Array | None, train: bool):
    del keys, step, train  # Nothing here is drawn, or differs while training.
    lightness, ab = color.split_lightness(batch['image'])
    vectors = batch.get('embedding')
    if vectors is None:
      vectors = embed({'model_state': model_state}, lightness)
    measure = functools.partial(
        objective, network_ab(params, lightness, vectors),
        ab / color.AB_SCALE, lightness=lightness,
        features=perceiver.features(model_state))
    metrics = measure()
    if class_weights is not None:
      rarity = class_weights[quantize.nearest_bin(ab, centers)]
      metrics = {**measure(weights=rarity),
                 'loss_unweighted': metrics['loss']}
    return masked_mean(metrics, batch['padding_mask'], model_state)

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    lightness, vectors = inputs['lightness'], inputs.get('embedding')
    if vectors is None:
      vectors = embed(variables, lightness)
    return color.AB_SCALE * network_ab(
        variables['params'], lightness, vectors)

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
      backbones=perception.joined({backbone: own}, perceiver.pretrained))


def _read_embedding(intermediates: dict[str, jax.Array], what: str
                    ) -> jax.Array:
  """One of EMBEDDINGS of a backbone's outputs, float32 [B, E]."""
  if what == 'features':
    return intermediates['avg_pool'].astype(jnp.float32)
  logits = intermediates['logits']
  if what == 'probabilities':
    return jax.nn.softmax(logits)
  if what == 'standardized':
    return jax.nn.standardize(logits)
  return logits


def _as_grey_rgb(lightness: jax.Array, size: int) -> jax.Array:
  """Lightness [B, H, W, 1] to grey sRGB [B, size, size, 3] in [0, 1].

  Bilinear, antialiased where it shrinks.
  """
  grey = color.lab_to_rgb(jnp.concatenate(
      [lightness, jnp.zeros((*lightness.shape[:-1], 2))], axis=-1))
  # The three channels of a grey are equal only up to rounding.
  grey = grey.mean(-1, keepdims=True)
  grey = jax.image.resize(grey, (len(grey), size, size, 1), 'bilinear')
  return jnp.broadcast_to(grey, (*grey.shape[:-1], 3))
