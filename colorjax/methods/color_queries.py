"""Color queries: a trunk and a transformer that decodes colors.

After DDColor (Kang et al. 2023, arXiv:2212.11613); the network is in
`models.color_queries`. It predicts one coloring. The loss is

    pixel_weight * mean absolute error of ab, in Lab units
    + perceptual_weight * distance in the features of a pretrained network
    + adversarial_weight * the generator's loss against a patch discriminator
    + colorfulness_weight * max(0, 1 - colorfulness / 100).

A weight of 0 leaves the term out, with its network. What differs from the
published program: the encoder is another one (there ConvNeXt); queries attend
to features of the encoder at the strides 32, 16 and 8 (there to those of the
pixel decoder at 16, 8 and 4); the ab field has the trunk's resolution; the
perceptual loss compares normalized features, so that its weight does not depend
on the network (there L1 of the features of VGG-16); the discriminator is that
of Isola et al. 2017 and sees Lab (there a larger one with attention, on RGB);
and real pictures are not made 1.2 times as colorful.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import backbones, color, resample
from colorjax import keys as key_lib
from colorjax.backbones import efficientnet_lite
from colorjax.colorizer import (
    FROZEN,
    Aux,
    Batch,
    Colorizer,
    Inputs,
    Variables,
    deterministic,
    init_variables,
    masked_mean,
)
from colorjax.errors import UserError
from colorjax.losses import formula
from colorjax.methods import checks, encoders, examples, perceptual, players
from colorjax.methods import known as known_lib
from colorjax.methods.known import Known
from colorjax.models import color_queries, mask_gan, trunk

PERCEPTUAL_NETWORKS = ('efficientnet_lite0', 'vgg16', 'vgg19')
"""Networks for the perceptual loss. That of the first is compared at strides
of up to 16, that of a VGG after the first convolution of each block."""

_GENERATOR, _DISCRIMINATOR = 'generator', 'discriminator'


def build(
    *,
    network: str = 'encoder',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (64, 96, 128, 128),
    num_queries: int = 100,
    num_blocks: int = 9,
    width: int = 256,
    num_heads: int = 8,
    mlp_width: int = 2048,
    pixel_weight: float = 0.1,
    perceptual_weight: float = 5.0,
    adversarial_weight: float = 1.0,
    colorfulness_weight: float = 0.5,
    perceptual_network: str = 'efficientnet_lite0',
    adversarial_loss: str = 'bce',
    discriminator_widths: Sequence[int] = mask_gan.PATCH_WIDTHS,
    hint_share: float = 0.0,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the method.

  The network predicts an ab field at the trunk's resolution, which is upsampled
  to that of the photograph along the edges of lightness. All losses are
  computed there. Weights are as published.

  The metric `loss` is the objective of the network, `loss/NAME` its unweighted
  terms; `loss/l1` is in network ab. With a discriminator, `deceived` is the
  share of its logits that take a coloring for a photograph. The objective uses
  the current discriminator, so it is comparable between steps only as far as
  the other terms dominate.

  Hints: the network sees them as further channels, at the resolution of the
  field, and the field has their colors.

  Args:
    network: a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the trunk's scales.
    num_queries: number of color queries.
    num_blocks: blocks of the color decoder; they attend to the three coarsest
      scales of the trunk in turn.
    width: length of a query; a multiple of 4 and of `num_heads`.
    num_heads: heads of each attention.
    mlp_width: channels between the two dense layers of a block.
    pixel_weight: weight of the mean absolute error of ab in Lab units.
    perceptual_weight: weight of `losses.regression.perceptual`.
    adversarial_weight: weight of the adversarial loss; with 0 there is no
      discriminator and the method has no players.
    colorfulness_weight: weight of `losses.regression.colorfulness`.
    perceptual_network: one of PERCEPTUAL_NETWORKS.
    adversarial_loss: a key of `players.LOSSES`.
    discriminator_widths: channels of the discriminator's convolutions.
    hint_share: share of training photographs with random hints; with 0 the
      method does not accept hints itself.
    dtype: compute type of the networks, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer with one prediction for each photograph. With an adversarial
    loss it has the players 'discriminator' and 'generator'.

  Raises:
    UserError: a setting has a value that does not exist, or the trunk cannot
      take these filters.
  """
  checks.check_choice('network', network, trunk.TRUNKS)
  checks.check_choice('perceptual_network', perceptual_network,
                      PERCEPTUAL_NETWORKS)
  checks.check_choice('adversarial_loss', adversarial_loss, players.LOSSES)
  checks.check_counts(num_queries=num_queries, num_heads=num_heads,
                      num_blocks=num_blocks, mlp_width=mlp_width)
  if width < 1 or width % 4 or width % num_heads:
    raise UserError(f'width={width}: use a multiple of 4 and of the number of '
                    f'heads, num_heads={num_heads}')
  checks.check_shares(hint_share=hint_share)
  objective = _formula(pixel_weight, perceptual_weight, adversarial_weight,
                       colorfulness_weight, perceptual_network)
  perceptual_net = perceptual.PerceptualNetwork(objective, dtype=dtype)
  compute = jnp.dtype(dtype)
  body = trunk.build(network, filters, compute, trunk_settings)
  net = color_queries.ColorQueries(
      body, color_queries.ColorDecoder(
          num_queries, num_blocks, width, num_heads, mlp_width, compute),
      dtype=compute)
  discriminator = mask_gan.PatchDiscriminator(
      tuple(discriminator_widths), dtype=compute)
  gan_loss = players.LOSSES[adversarial_loss]()
  is_adversarial = adversarial_weight > 0

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, body.divisor)
    channel = jnp.zeros((1, *image_shape, 1))
    known = known_lib.of_inputs({'lightness': channel}, body.stride)
    by_name = {_GENERATOR: init_variables(
        net, key_lib.named(key, 'generator'), channel, channels(known),
        train=False)}
    if is_adversarial:
      players.check_patch_sides(image_shape, len(discriminator_widths))
      by_name[_DISCRIMINATOR] = init_variables(
          discriminator, key_lib.named(key, 'discriminator'),
          jnp.zeros((1, *image_shape, 3)), channel, train=False)
    variables = players.merge(by_name)
    state = variables['model_state']
    frozen = {**state.get(FROZEN, {}),
              **perceptual_net.init(key_lib.named(key, 'perceptual'))}
    return {**variables, 'model_state': {
        **state, **({FROZEN: frozen} if frozen else {})}}

  def channels(known: Known) -> jax.Array | None:
    """What the network sees of hints, [B, h, w, 3]."""
    if not hint_share:
      return None
    return jnp.concatenate([known.ab / color.AB_SCALE, known.mask], axis=-1)

  def generate(params, model_state, lightness: jax.Array, known: Known, *,
               train: bool):
    """Network ab [B, H, W, 2], and the new model state."""
    checks.check_sides(lightness.shape[1:3], body.divisor)
    field, state = players.apply(
        _GENERATOR, net, params, model_state,
        color.normalize_lightness(lightness), channels(known), train=train)
    field = known.put(known.ab / color.AB_SCALE, field)
    return resample.enlarge(field, lightness), state

  def discriminate(params, model_state, lightness: jax.Array, ab: jax.Array, *,
                   train: bool):
    """Logits [B, h', w'] for this network ab, and the new model state."""
    picture = jnp.concatenate(
        [color.normalize_lightness(lightness), ab], axis=-1)
    return players.apply(
        _DISCRIMINATOR, discriminator, params, model_state, picture,
        jnp.ones_like(lightness), train=train)

  def example(batch: Batch, keys: jax.Array, train: bool):
    """Lightness, network ab, true lightness, and what is known."""
    lightness, ab, true_lightness = examples.of_batch(batch)
    _, known = known_lib.draw(
        keys, ab, jnp.ones_like(lightness), stride=body.stride,
        hint_share=hint_share * train, region_share=0.0)
    return lightness, ab / color.AB_SCALE, true_lightness, known

  def discriminator_loss(params, model_state, batch: Batch, keys: jax.Array, *,
                         step: jax.Array | None, train: bool
                         ) -> tuple[jax.Array, Aux]:
    del step
    lightness, ab, true_lightness, known = example(batch, keys, train)
    fake, _ = generate(params, model_state, lightness, known, train=train)
    # Separate passes: real and generated pictures have different batch
    # statistics.
    real_logits, state = discriminate(
        params, model_state, true_lightness, ab, train=train)
    fake_logits, state = discriminate(
        params, state, true_lightness, jax.lax.stop_gradient(fake),
        train=train)
    return players.discriminator_loss(
        gan_loss, real_logits, fake_logits, batch['padding_mask'], state)

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool) -> tuple[jax.Array, Aux]:
    del step
    lightness, ab, true_lightness, known = example(batch, keys, train)
    predicted, state = generate(
        params, model_state, lightness, known, train=train)
    metrics = objective(predicted, ab, lightness=true_lightness,
                        features=perceptual_net.features(model_state))
    if is_adversarial:
      # The discriminator is fixed here: drop its new batch statistics.
      logits, _ = discriminate(
          params, state, true_lightness, predicted, train=train)
      value = players.mean(gan_loss.generator(logits))
      metrics |= {'loss': metrics['loss'] + adversarial_weight * value,
                  'loss/adversarial': value,
                  'deceived': players.mean(logits > gan_loss.boundary)}
    return masked_mean(metrics, batch['padding_mask'], state)

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    known = known_lib.of_inputs(inputs, body.stride, body.divisor)
    ab, _ = generate(variables['params'], variables['model_state'],
                     inputs['lightness'], known, train=False)
    return known_lib.applied(color.AB_SCALE * ab, inputs)

  return deterministic(
      init=init, loss=loss, predict=predict,
      accepts=known_lib.accepted_inputs(hint_share, region_share=0.0),
      players={_DISCRIMINATOR: discriminator_loss, _GENERATOR: loss}
      if is_adversarial else {},
      backbones=perceptual.merge_backbones(
          encoders.pretrained(body, (_GENERATOR,)), perceptual_net.pretrained))


def _formula(pixel: float, perceptual_: float, adversarial: float,
             colorfulness: float, network: str) -> formula.Formula:
  """The losses other than the adversarial one, as a formula."""
  for name, weight in (('pixel', pixel), ('perceptual', perceptual_),
                       ('adversarial', adversarial),
                       ('colorfulness', colorfulness)):
    if not weight >= 0:
      raise UserError(f'{name}_weight={weight}: choose a number of at least 0')
  if not pixel and not perceptual_:
    raise UserError('pixel_weight=0 and perceptual_weight=0: no other loss '
                    'compares with the photograph; set one of them')
  stages = (tuple(efficientnet_lite.STAGES[stride] for stride in (2, 4, 8, 16))
            if network == backbones.DEFAULT
            else tuple(f'relu{block}_1' for block in range(1, 6)))
  terms = [
      formula.Term(pixel * color.AB_SCALE, 'l1', {}),
      formula.Term(perceptual_, 'perceptual', {
          'network': network, 'stages': stages}),
      formula.Term(colorfulness, 'colorfulness', {})]
  return formula.Formula(tuple(term for term in terms if term.weight))
