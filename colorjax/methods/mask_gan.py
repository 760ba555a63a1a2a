"""A mask-conditioned GAN with color inside a region and grey outside.

The generator G takes lightness x and a region m. The discriminator D takes a
picture (network lightness and network ab) and the region. Their losses are

  D:  (real(D(x, y, m)) + fake(D(x, G(x, m), m))) / 2
  G:  adversarial_weight * generator(D(x, G(x, m), m))
      + regression_weight * mean((m * y - G(x, m))^2)

with y the photograph's network ab, and the functions real, fake and generator
of `colorjax.losses.adversarial`. After "colorization-masks-gans" (H. Paz, IMPA
2018), which worked on UV instead of ab. If the region covers the whole picture,
this is the GAN of Nazeri et al. 2018 (arXiv:1803.05400); with noise it is the
diverse GAN of Cao et al. 2017 (arXiv:1702.06674).
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
from colorjax.losses import adversarial
from colorjax.methods import checks, examples, players
from colorjax.metrics import regions
from colorjax.models import mask_gan

DISCRIMINATORS = ('image', 'patch')
"""One logit for the whole picture, as published, or one for every patch."""

REAL_PICTURES = ('whole', 'within')
"""Real examples for the discriminator: the photograph in full color, as
published, or with color only within the region, as the generator should paint.
"""

OUTSIDE = ('grey', 'free')
"""Regression target outside the region: grey, as published, or none. Without a
target outside, the generator colors the whole picture whatever the region."""


class _Example(NamedTuple):
  """A batch as the networks take it: float32 [B, H, W, ...]."""
  lightness: jax.Array  # network lightness that the generator sees
  ab: jax.Array  # network ab of the photograph
  true_lightness: jax.Array  # network lightness that is judged
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
  """Builds the mask-conditioned GAN.

  Without a region, in batches or inputs, the region is the whole picture.

  Metrics on held-out photographs: `loss` is the generator's objective. It uses
  the current discriminator, so it is comparable between steps only as far as
  the regression dominates, as it does with the published weights. `adversarial`
  and `regression` are its unweighted terms, and `deceived` is the share of
  logits that take the coloring for a photograph. `chroma_outside`,
  `difference_inside` and `error_inside` are in Lab units: the chroma outside
  the region, and inside the region the distances to the prediction for the
  whole picture and to the photograph.

  Args:
    adversarial_loss: a key of `players.LOSSES`.
    discriminator: one of DISCRIMINATORS.
    real_pictures: one of REAL_PICTURES.
    outside: one of OUTSIDE.
    adversarial_weight: weight of the generator's adversarial loss.
    regression_weight: weight of the masked squared error.
    noise: dimension of the generator's noise vector; 0 for a deterministic
      method.
    widths: channels of the stride-2 convolutions. The patch discriminator
      uses the first four.
    dtype: compute type of the networks, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer with the players 'discriminator' and 'generator'.

  Raises:
    UserError: a setting has a value that does not exist.
  """
  checks.check_choice('adversarial_loss', adversarial_loss, players.LOSSES)
  checks.check_choice('discriminator', discriminator, DISCRIMINATORS)
  checks.check_choice('real_pictures', real_pictures, REAL_PICTURES)
  checks.check_choice('outside', outside, OUTSIDE)
  gan_loss = players.LOSSES[adversarial_loss]()
  nets = _Networks(
      tuple(widths), discriminator, noise, jnp.dtype(dtype))

  def discriminator_loss(params, model_state, batch: Batch, keys: jax.Array, *,
                         step: jax.Array | None, train: bool):
    del step
    example = _as_example(batch)
    fake, _ = nets.generate(params, model_state, example.lightness,
                            example.region, nets.draw_noise(keys), train)
    real = (example.region * example.ab if real_pictures == 'within'
            else example.ab)
    # Separate passes, as published: real and generated pictures have different
    # batch statistics.
    real_logits, state = nets.discriminate(
        params, model_state, example, real, train)
    fake_logits, state = nets.discriminate(
        params, state, example, jax.lax.stop_gradient(fake), train)
    return players.discriminator_loss(
        gan_loss, real_logits, fake_logits, batch['padding_mask'], state)

  def objective(params, model_state, example: _Example, noise_vectors,
                train: bool):
    """The generator's metrics [B], its network ab, and the new model state."""
    ab, state = nets.generate(params, model_state, example.lightness,
                              example.region, noise_vectors, train)
    # The discriminator is fixed here: drop its new batch statistics.
    logits, _ = nets.discriminate(params, state, example, ab, train)
    error = adversarial.masked_squared_error(ab, example.ab, example.region)
    if outside == 'free':
      error = example.region * error
    metrics = {'adversarial': players.mean(gan_loss.generator(logits)),
               'regression': players.mean(error),
               'deceived': players.mean(logits > gan_loss.boundary)}
    metrics['loss'] = (adversarial_weight * metrics['adversarial']
                       + regression_weight * metrics['regression'])
    return metrics, ab, state

  def generator_loss(params, model_state, batch: Batch, keys: jax.Array, *,
                     step: jax.Array | None, train: bool
                     ) -> tuple[jax.Array, Aux]:
    del step
    metrics, _, state = objective(
        params, model_state, _as_example(batch), nets.draw_noise(keys), train)
    return masked_mean(metrics, batch['padding_mask'], state)

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool) -> tuple[jax.Array, Aux]:
    if train:
      return generator_loss(
          params, model_state, batch, keys, step=step, train=True)
    example = _as_example(batch)
    noise_vectors = nets.fixed_noise(0, len(example.region))
    metrics, ab, _ = objective(
        params, model_state, example, noise_vectors, False)
    unmasked, _ = nets.generate(
        params, model_state, example.lightness, jnp.ones_like(example.region),
        noise_vectors, False)
    ab, target, unmasked = (
        color.AB_SCALE * x for x in (ab, example.ab, unmasked))
    metrics |= {
        'chroma_outside': regions.chroma_outside(ab, example.region),
        'difference_inside': regions.difference_inside(
            ab, unmasked, example.region),
        'error_inside': regions.difference_inside(ab, target, example.region)}
    return masked_mean(metrics, batch['padding_mask'], model_state)

  def colorize(variables: Variables, inputs: Inputs,
               noise_vectors: jax.Array | None) -> jax.Array:
    lightness = inputs['lightness']
    ab, _ = nets.generate(
        variables['params'], variables['model_state'],
        color.normalize_lightness(lightness),
        inputs.get('region', jnp.ones_like(lightness)), noise_vectors, False)
    return color.AB_SCALE * ab

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return colorize(
        variables, inputs, nets.fixed_noise(0, inputs['lightness'].shape[0]))

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
             ) -> jax.Array:
    return jax.vmap(
        lambda keys: colorize(variables, inputs, nets.draw_noise(keys)))(
            key_lib.of_answers(keys, n))

  def propose(variables: Variables, inputs: Inputs, k: int):
    # A proposal uses the same noise for all photographs, so that proposals of
    # the same number are similar.
    proposals = jax.vmap(lambda number: colorize(
        variables, inputs,
        nets.fixed_noise(number, inputs['lightness'].shape[0])))(jnp.arange(k))
    return proposals, None

  shared: dict[str, Any] = {
      'init': nets.init, 'loss': loss, 'predict': predict,
      'accepts': frozenset({'region'}),
      'players': {'discriminator': discriminator_loss,
                  'generator': generator_loss}}
  if noise:
    return Colorizer(sample=sample, propose=propose, **shared)
  return deterministic(**shared)


class _Networks:
  """Both networks; their variables are dicts with an entry for each."""

  def __init__(self, widths: tuple[int, ...], discriminator: str, noise: int,
               dtype: Any):
    self._divisor = 2**len(widths)
    self._num_patch_widths = len(widths[:4]) * (discriminator == 'patch')
    self._noise = noise
    self._generator = mask_gan.Generator(widths, dtype=dtype)
    self._discriminator: nn.Module = (
        mask_gan.ImageDiscriminator(widths, dtype=dtype)
        if discriminator == 'image'
        else mask_gan.PatchDiscriminator(widths[:4], dtype=dtype))

  def init(self, key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    """Variables of both networks; see Colorizer."""
    checks.check_sides(image_shape, self._divisor)
    if self._num_patch_widths:
      players.check_patch_sides(image_shape, self._num_patch_widths)
    channel = jnp.zeros((1, *image_shape, 1))
    return players.merge({
        'generator': init_variables(
            self._generator, key_lib.named(key, 'generator'), channel, channel,
            self.fixed_noise(0, 1), train=False),
        'discriminator': init_variables(
            self._discriminator, key_lib.named(key, 'discriminator'),
            jnp.zeros((1, *image_shape, 3)), channel, train=False)})

  def draw_noise(self, keys: jax.Array) -> jax.Array | None:
    """Draws noise [B, Z] from keys [B], one for each photograph."""
    if not self._noise:
      return None
    return jax.vmap(lambda key: jax.random.normal(key, (self._noise,)))(
        key_lib.named(keys, 'noise'))

  def fixed_noise(self, number: jax.typing.ArrayLike, count: int
                  ) -> jax.Array | None:
    """The constant noise of proposal `number`, [count, Z].

    All rows are the same, so that a coloring does not depend on the position
    of its photograph in the batch.
    """
    vector = self.draw_noise(
        jax.random.fold_in(jax.random.key(0), number)[None])
    return None if vector is None else jnp.repeat(vector, count, axis=0)

  def generate(self, params, model_state, lightness: jax.Array,
               region: jax.Array, noise: jax.Array | None, train: bool):
    """Network ab [B, H, W, 2] and the new model state."""
    checks.check_sides(lightness.shape[1:3], self._divisor)
    return players.apply(
        'generator', self._generator, params, model_state, lightness, region,
        noise, train=train)

  def discriminate(self, params, model_state, example: _Example, ab: jax.Array,
                   train: bool):
    """Logits [B, h, w] for this network ab, and the new model state."""
    picture = jnp.concatenate([example.true_lightness, ab], axis=-1)
    return players.apply(
        'discriminator', self._discriminator, params, model_state, picture,
        example.region, train=train)


def _as_example(batch: Batch) -> _Example:
  lightness, ab, true_lightness = examples.of_batch(batch)
  region = batch.get('region')
  return _Example(color.normalize_lightness(lightness), ab / color.AB_SCALE,
                  color.normalize_lightness(true_lightness),
                  jnp.ones_like(lightness) if region is None else region)
