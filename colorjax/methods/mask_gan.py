"""S3: colors inside a region, grey outside: a mask-conditioned GAN.

The generator G sees lightness x and a region m, the discriminator D a picture
(network lightness and network ab) and the region:

  D:  (real(D(x, y, m)) + fake(D(x, G(x, m), m))) / 2
  G:  adversarial_weight * generator(D(x, G(x, m), m))
      + regression_weight * mean((m * y - G(x, m))^2)

with y the photograph's network ab and real, fake, generator those of
`colorjax.losses.adversarial`. After "colorization-masks-gans" (H. Paz, IMPA
2018); y is ab here and was UV there. A region that holds everything makes it
the unconditional GAN of Nazeri et al. 2018 (arXiv:1803.05400), noise the
diverse one of Cao et al. 2017 (arXiv:1702.06674).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import color
from colorjax import keys as key_lib
from colorjax.colorizer import (
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
from colorjax.losses import adversarial
from colorjax.methods import checks
from colorjax.metrics import regions
from colorjax.models import mask_gan

LOSSES = {
    'bce': adversarial.bce,
    'least_squares': adversarial.least_squares,
    'hinge': adversarial.hinge,
}
"""Adversarial losses by the name that settings and flags use."""

DISCRIMINATORS = ('image', 'patch')
"""One verdict for the picture, as published, or one for every patch."""

REAL_PICTURES = ('whole', 'within')
"""What the discriminator is shown as real: the photograph in all its colors,
as published, or colored within the region only, as the generator should."""


OUTSIDE = ('grey', 'free')
"""What the regression asks for outside the region: no color, as published, or
nothing. With nothing asked the whole picture is colored, masks or no masks."""


class _View(NamedTuple):
  """What both networks see of a batch: float32 [B, H, W, ...]."""
  lightness: jax.Array  # network lightness
  ab: jax.Array  # network ab of the photograph
  region: jax.Array


def build(
    *,
    adversarial_loss: str = 'bce',
    discriminator: str = 'image',
    real_pictures: str = 'whole',
    outside: str = 'grey',
    adversarial_weight: float = 1.0,
    regression_weight: float = 1000.0,
    noise: int = 0,
    widths: Sequence[int] = mask_gan.WIDTHS,
    dtype: str = 'float32',
) -> Colorizer:
  """The mask-conditioned GAN as a Colorizer.

  Without batch['region'] a region holds the whole picture, and so it does in
  `predict`, `sample` and `propose`. The objective on held-out photographs
  judges by the discriminator of that moment; with the published weights the
  regression is nearly all of it.

  Args:
    adversarial_loss: a key of LOSSES.
    discriminator: one of DISCRIMINATORS.
    real_pictures: one of REAL_PICTURES.
    outside: one of OUTSIDE.
    adversarial_weight: of the generator's adversarial loss.
    regression_weight: of the masked squared error.
    noise: numbers of noise that the generator sees; 0 for one answer.
    widths: channels of the stride-2 convolutions. The patch discriminator
      takes the first four.
    dtype: compute type of the networks, 'float32' or 'bfloat16'.

  Returns:
    The record of functions, with the players 'discriminator' and 'generator'.
    UserError for an unknown loss, discriminator or kind of picture.
  """
  checks.check_choice('adversarial_loss', adversarial_loss, LOSSES)
  checks.check_choice('discriminator', discriminator, DISCRIMINATORS)
  checks.check_choice('real_pictures', real_pictures, REAL_PICTURES)
  checks.check_choice('outside', outside, OUTSIDE)
  game = LOSSES[adversarial_loss]()
  nets = _Nets(
      tuple(widths), discriminator, noise, jnp.dtype(dtype))

  def discriminator_loss(params, model_state, batch: Batch, keys: jax.Array, *,
                         step: jax.Array | None, train: bool):
    del step
    view = _look(batch)
    fake, _ = nets.generate(params, model_state, view.lightness, view.region,
                            nets.draw(keys), train)
    real = view.region * view.ab if real_pictures == 'within' else view.ab
    # One pass each, as published: batch statistics of unlike pictures differ.
    real_logits, state = nets.judge(
        params, model_state, view, real, train)
    fake_logits, state = nets.judge(
        params, state, view, jax.lax.stop_gradient(fake), train)
    metrics = {
        'loss': _mean((game.real(real_logits) + game.fake(fake_logits)) / 2),
        'real_accuracy': _mean(real_logits > game.boundary),
        'fake_accuracy': _mean(fake_logits <= game.boundary)}
    scalar, aux = masked_mean(metrics, batch['padding_mask'], state)
    # `loss` is the generator's name for its objective.
    loss_sum = aux.metrics.pop('loss')
    return scalar, aux.replace(
        metrics={'discriminator_loss': loss_sum, **aux.metrics})

  def objective(params, model_state, view: _View, noise_vectors, train: bool):
    """The generator's metrics, its ab and the new model state."""
    ab, state = nets.generate(params, model_state, view.lightness, view.region,
                              noise_vectors, train)
    # The discriminator is held: its new statistics are not kept.
    logits, _ = nets.judge(params, state, view, ab, train)
    error = adversarial.masked_squared_error(ab, view.ab, view.region)
    if outside == 'free':
      error = view.region * error
    metrics = {'adversarial': _mean(game.generator(logits)),
               'regression': _mean(error),
               'deceived': _mean(logits > game.boundary)}
    metrics['loss'] = (adversarial_weight * metrics['adversarial']
                       + regression_weight * metrics['regression'])
    return metrics, ab, state

  def generator_loss(params, model_state, batch: Batch, keys: jax.Array, *,
                     step: jax.Array | None, train: bool
                     ) -> tuple[jax.Array, Aux]:
    del step
    view = _look(batch)
    metrics, _, state = objective(
        params, model_state, view, nets.draw(keys), train)
    return masked_mean(metrics, batch['padding_mask'], state)

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool) -> tuple[jax.Array, Aux]:
    if train:
      return generator_loss(
          params, model_state, batch, keys, step=step, train=True)
    view = _look(batch)
    count = len(view.region)
    metrics, ab, _ = objective(
        params, model_state, view, nets.fixed(0, count), False)
    unmasked, _ = nets.generate(
        params, model_state, view.lightness, jnp.ones_like(view.region),
        nets.fixed(0, count), False)
    ab, target, unmasked = (
        color.AB_SCALE * x for x in (ab, view.ab, unmasked))
    metrics |= {
        'chroma_outside': regions.chroma_outside(ab, view.region),
        'difference_inside': regions.difference_inside(
            ab, unmasked, view.region),
        'error_inside': regions.difference_inside(ab, target, view.region)}
    return masked_mean(metrics, batch['padding_mask'], model_state)

  def paint(variables: Variables, inputs: Inputs,
            noise_vectors: jax.Array | None) -> jax.Array:
    lightness = inputs['lightness']
    ab, _ = nets.generate(
        variables['params'], variables['model_state'],
        color.normalize_lightness(lightness),
        inputs.get('region', jnp.ones_like(lightness)), noise_vectors, False)
    return color.AB_SCALE * ab

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return paint(variables, inputs, nets.fixed(0, len(inputs['lightness'])))

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
             ) -> jax.Array:
    return jax.vmap(
        lambda keys: paint(variables, inputs, nets.draw(keys)))(
            key_lib.of_answers(keys, n))

  def propose(variables: Variables, inputs: Inputs, k: int):
    # The same noise for all photographs: answers of one number are alike.
    proposals = jax.vmap(lambda which: paint(
        variables, inputs, nets.fixed(which, len(inputs['lightness']))))(
            jnp.arange(k))
    return proposals, None

  shared: dict[str, Any] = {
      'init': nets.init, 'loss': loss, 'predict': predict,
      'accepts': frozenset({'region'}),
      'players': {'discriminator': discriminator_loss,
                  'generator': generator_loss}}
  if noise:
    return Colorizer(sample=sample, propose=propose, **shared)
  return deterministic(**shared)


class _Nets:
  """Both networks, their variables kept apart by name."""

  def __init__(self, widths: tuple[int, ...], discriminator: str, noise: int,
               dtype: Any):
    self._divisor = 2**len(widths)
    # The patch discriminator's last two convolutions take a pixel each.
    self._smallest = 3 * 2**(len(widths[:4]) - 1) * (discriminator == 'patch')
    self._noise = noise
    self._generator = mask_gan.Generator(widths, dtype=dtype)
    self._judge: nn.Module = (
        mask_gan.ImageDiscriminator(widths, dtype=dtype)
        if discriminator == 'image'
        else mask_gan.PatchDiscriminator(widths[:4], dtype=dtype))

  def init(self, key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    """Variables of both; see Colorizer."""
    checks.check_sides(image_shape, self._divisor)
    if min(image_shape) < self._smallest:
      raise UserError(
          f'image_size={" x ".join(map(str, image_shape))}: this '
          f'discriminator needs {self._smallest} pixels a side or more')
    one = jnp.zeros((1, *image_shape, 1))
    by_name = {
        'generator': init_variables(
            self._generator, key_lib.named(key, 'generator'), one, one,
            self.fixed(0, 1), train=False),
        'discriminator': init_variables(
            self._judge, key_lib.named(key, 'discriminator'),
            jnp.zeros((1, *image_shape, 3)), one, train=False)}
    return {
        'params': {name: v['params'] for name, v in by_name.items()},
        'model_state': {'batch_stats': {
            name: v['model_state'].get('batch_stats', {})
            for name, v in by_name.items()}}}

  def draw(self, keys: jax.Array) -> jax.Array | None:
    """Noise [B, Z], of each photograph from its own key in keys [B]."""
    if not self._noise:
      return None
    return jax.vmap(lambda key: jax.random.normal(key, (self._noise,)))(
        key_lib.named(keys, 'noise'))

  def fixed(self, which: jax.typing.ArrayLike, count: int
            ) -> jax.Array | None:
    """The same noise for each photograph: answer number `which`, [count, Z].

    One vector for all: an answer must not depend on the place in the batch.
    """
    vector = self.draw(jax.random.fold_in(jax.random.key(0), which)[None])
    return None if vector is None else jnp.repeat(vector, count, axis=0)

  def generate(self, params, model_state, lightness: jax.Array,
               region: jax.Array, noise: jax.Array | None, train: bool):
    """Network ab [B, H, W, 2] and the new model state."""
    checks.check_sides(lightness.shape[1:3], self._divisor)
    return self._apply('generator', self._generator, params, model_state,
                       lightness, region, noise, train=train)

  def judge(self, params, model_state, view: _View, ab: jax.Array,
            train: bool):
    """Logits [B, h, w] of pictures with this network ab, and the state."""
    picture = jnp.concatenate([view.lightness, ab], axis=-1)
    return self._apply('discriminator', self._judge, params, model_state,
                       picture, view.region, train=train)

  def _apply(self, name, net, params, model_state, *inputs, train):
    stats = model_state['batch_stats']
    out, new = net.apply(
        {'params': params[name], 'batch_stats': stats[name]}, *inputs,
        train=train, mutable=['batch_stats'])
    if not train:
      return out, model_state
    return out, {**model_state, 'batch_stats': {
        **stats, name: new.get('batch_stats', {})}}


def _look(batch: Batch) -> _View:
  lightness, ab = color.split_lightness(batch['image'])
  region = batch.get('region')
  return _View(color.normalize_lightness(lightness), ab / color.AB_SCALE,
               jnp.ones_like(lightness) if region is None else region)


def _mean(x: jax.Array) -> jax.Array:
  """[B, ...] to [B], float32."""
  return x.astype(jnp.float32).mean(tuple(range(1, x.ndim)))
