"""A conditional variational autoencoder of ab fields.

    p(y | x) = integral of p(z | x) prod_d f(y_d; theta_d(z, x)) dz

y is the ab field of the photograph, x its lightness, and f the component
family, a density of one value. The latent variables z carry what values have in
common (`models.latent`): a vector for the whole photograph with a mixture of K
Gaussians as its prior, and grids with Gaussians that depend on it.

It follows Deshpande et al. 2017 (arXiv:1612.01958), a variational autoencoder
of ab fields with a mixture density network from the lightness to z. There are
three differences. Both parts are trained together, on one bound of one
density, where theirs are trained one after the other. Pixels have densities
with scales that the network predicts, and not a weighted distance. The bound of
`log_prob` is importance weighted (Burda et al. 2016, arXiv:1509.00519).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colorjax import color
from colorjax import keys as key_lib
from colorjax.colorizer import (
    FROZEN,
    Batch,
    Colorizer,
    Inputs,
    Variables,
    init_variables,
    masked_mean,
)
from colorjax.errors import UserError
from colorjax.losses import families, likelihood
from colorjax.methods import checks, encoders, examples
from colorjax.methods import known as known_lib
from colorjax.methods.known import Known
from colorjax.models import latent, trunk
from colorjax.models.residual import GROUP_SIZE

FAMILIES: Mapping[str, Callable[[], families.Family]] = {
    'discretized_logistic': families.discretized_logistic,
    'gaussian': families.gaussian,
}
"""Densities of the values by the names used in settings and flags."""


def build(
    *,
    num_components: int = 8,
    latent_size: int = 64,
    latent_strides: Sequence[int] = (),
    latent_channels: int = 4,
    family: str = 'discretized_logistic',
    network: str = 'unet',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (32, 64, 128, 256),
    width: int = 64,
    kl_warmup_steps: int = 0,
    free_bits: float = 0.0,
    hint_share: float = 0.25,
    region_share: float = 0.1,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the autoencoder.

  Options: `sample` takes `temperature`, a factor of the standard deviations of
  all latents, and `pixel_noise`: by default a value is the mean of its density,
  because independent noise looks bad; with it, the value is drawn. `log_prob`
  takes `importance_samples`.

  `log_prob` is a lower bound of the log density of the ab field at the
  resolution of the trunk (`event_shape`); the photograph's ab is averaged to
  that resolution. It is the log of the mean of n importance weights
  p(y, z | x) / q(z | x, y), with z from the posterior q. Its expectation grows
  with n towards the log density. Given hints or a region, it is that of the
  unknown values, given the known ones. `draw` draws from the density itself.

  Proposal k is the coloring at the mean of the k-th most probable component of
  the prior, with grids at their means; `predict` returns the first.

  Metrics: `kl` is the KL divergence of the posterior from the prior in nats, in
  total and for each level, before free bits and warm-up; `error` is the rest of
  the loss, negative nats of the pixels per value. A level whose KL divergence
  is 0 is not used: this is posterior collapse.

  Hints and regions: the network sees known values and where they are, in
  training and at prediction, and a coloring has them exactly.

  Args:
    num_components: K.
    latent_size: length of the vector z.
    latent_strides: ratios of the photograph's sides to those of the grids,
      each once, at which the network has features; () or (0,) for no grids.
    latent_channels: length of the vectors in the grids.
    family: a key of FAMILIES.
    network: a key of `models.trunk.TRUNKS`.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the trunk's scales.
    width: channels of the networks outside the trunk, a multiple of GROUP_SIZE.
    kl_warmup_steps: steps in which the weight of the KL divergence rises from 0
      to 1 (Bowman et al. 2016, arXiv:1511.06349).
    free_bits: nats of each level and photograph below which the KL divergence
      is not reduced further (Kingma et al. 2016, arXiv:1606.04934).
    hint_share: share of training photographs with random hints; with 0 the
      method does not accept hints itself.
    region_share: share of training photographs with a random region, if the
      batch has none; with 0 the method does not accept regions itself.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer.

  Raises:
    UserError: a setting has a value that does not exist, or the network cannot
      take these filters.
  """
  checks.check_choice('family', family, FAMILIES)
  checks.check_choice('network', network, trunk.TRUNKS)
  checks.check_counts(num_components=num_components, latent_size=latent_size,
                      latent_channels=latent_channels)
  checks.check_shares(hint_share=hint_share, region_share=region_share)
  if width < 1 or width % GROUP_SIZE:
    raise UserError(f'width={width}: use a multiple of {GROUP_SIZE}')
  checks.check_not_negative(
      kl_warmup_steps=kl_warmup_steps, free_bits=free_bits)
  strides = sorted((s for s in latent_strides if s), reverse=True)
  if len(set(strides)) < len(strides):
    raise UserError(f'latent_strides={", ".join(map(str, strides))}: give each '
                    'stride once')
  pixels = FAMILIES[family]()
  body = trunk.build(network, filters, jnp.dtype(dtype), trunk_settings)
  net = latent.TrunkLatent(
      trunk=body, num_components=num_components, latent_size=latent_size,
      latent_strides=tuple(strides),
      latent_channels=latent_channels, num_params=pixels.num_params,
      width=width, dtype=jnp.dtype(dtype))
  names = ['kl/vector', *(f'kl/stride{s}' for s in net.latent_strides)]

  def event_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0] // body.stride, shape[1] // body.stride

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    checks.check_sides(image_shape, body.divisor)
    shape = event_shape(image_shape)
    return init_variables(
        net, key, jnp.zeros((1, *shape, 2)), jnp.zeros((1, *image_shape, 1)),
        jnp.zeros((1, *shape, 4)),
        [jnp.zeros((1, *s)) for s in net.noise_shapes(*image_shape)],
        train=False)

  def noise(keys: jax.Array, lightness: jax.Array) -> list[jax.Array]:
    """Standard normal noise of each level, in the shapes of the latents."""
    return [jax.vmap(lambda key, shape=shape: jax.random.normal(key, shape))(
        key_lib.named(keys, name)) for name, shape in zip(
            names, net.noise_shapes(*lightness.shape[1:3]), strict=True)]

  def apply(variables: Variables, *args, **kwargs):
    """The network at prediction."""
    return net.apply(
        {'params': variables['params'], **variables['model_state']},
        *args, **kwargs)

  def nats_of(field: jax.Array, params: Sequence[jax.Array], known: Known
              ) -> jax.Array:
    """Log density of the unknown values in Lab units, nats [B]."""
    each = pixels.normalized().log_prob(color.ab_to_unit(field), *params)
    return known.sum_unknown(likelihood.ab_log_density(each, 1))

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    lightness, ab, _ = examples.of_batch(batch)
    checks.check_sides(lightness.shape[1:3], body.divisor)
    field, known = known_lib.draw(
        keys, ab, batch.get('region'), stride=body.stride,
        hint_share=hint_share * train, region_share=region_share * train)
    out, new_state = net.apply(
        {'params': params, **model_state}, field / known_lib.UNIT,
        color.normalize_lightness(lightness), known.channels(),
        noise(keys, lightness), train=train,
        mutable=[name for name in model_state if name != FROZEN])
    nats = nats_of(field, out.params, known)
    dims = jnp.maximum(known.num_unknown(), 1)
    weight = jnp.float32(1)
    kl = out.kl
    if train:
      kl = jnp.maximum(kl, free_bits) if free_bits else kl
      if kl_warmup_steps:
        assert step is not None
        weight = jnp.minimum(step / kl_warmup_steps, 1)
    metrics = {'loss': (weight * kl.sum(-1) - nats) / dims,
               'kl': out.kl.sum(-1), 'error': -nats / dims}
    metrics |= {name: out.kl[:, i] for i, name in enumerate(names)}
    return masked_mean(metrics, batch['padding_mask'],
                       {**model_state, **new_state} if train else model_state)

  def look(variables: Variables, inputs: Inputs):
    """What is known, the network's features of it, and the prior of z."""
    known = known_lib.of_inputs(inputs, body.stride, body.divisor)
    scales = apply(
        variables, color.normalize_lightness(inputs['lightness']),
        known.channels(), method='look', train=False)
    return known, scales, apply(variables, scales, method='prior')

  def drawn(variables: Variables, inputs: Inputs, keys: jax.Array, n: int,
            temperature: float, has_noise: bool) -> jax.Array:
    """Samples of the field, Lab units [n, B, h, w, 2]."""
    known, scales, prior = look(variables, inputs)

    def one(keys):
      chosen = jax.vmap(jax.random.categorical)(
          key_lib.named(keys, 'component'), prior.mixing_logits)
      first, *others = noise(keys, inputs['lightness'])
      z = latent.Normal(*(jnp.take_along_axis(
          x, chosen[:, None, None], axis=1)[:, 0] for x in prior.components)
                        ).at(first, temperature)
      out = apply(variables, scales, z, others, None, temperature,
                  train=False, method='generate')
      if has_noise:
        return color.unit_to_ab(jax.vmap(pixels.normalized().sample)(
            key_lib.named(keys, 'pixels'), *out.params))
      return color.unit_to_ab(pixels.mean(*out.params))

    # One after the other: all at once would need n times the memory.
    fields = jax.lax.map(one, key_lib.of_answers(keys, n))
    return known.put(known.ab, fields)

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int):
    return drawn(variables, inputs, keys, n, 1.0, True)

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int, *,
             temperature: float = 1.0, pixel_noise: bool = False):
    checks.check_not_negative(temperature=temperature)
    return known_lib.colorings(
        drawn(variables, inputs, keys, n, temperature, pixel_noise), inputs)

  def propose(variables: Variables, inputs: Inputs, k: int):
    if not 1 <= k <= num_components:
      raise UserError(
          f'{k} proposals were requested from a prior of {num_components} '
          f'components: ask for 1 to {num_components}')
    known, scales, prior = look(variables, inputs)
    probability, order = jax.lax.top_k(jax.nn.softmax(prior.mixing_logits), k)
    means = jnp.take_along_axis(
        prior.components.mean, order[:, :, None], axis=1)
    batch = means.shape[0]
    zeros = [jnp.zeros((batch, *shape)) for shape in net.noise_shapes(
        *inputs['lightness'].shape[1:3])[1:]]

    def one(z):
      out = apply(variables, scales, z, zeros, train=False,
                  method='generate')
      return color.unit_to_ab(pixels.mean(*out.params))

    fields = known.put(known.ab, jax.lax.map(one, means.swapaxes(0, 1)))
    return known_lib.colorings(fields, inputs), probability.T

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return propose(variables, inputs, 1)[0][0]

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array, *, importance_samples: int = 16) -> jax.Array:
    checks.check_counts(importance_samples=importance_samples)
    known, scales, prior = look(variables, inputs)
    field = known_lib.field_of(ab, inputs, known, body.stride)
    posterior = apply(
        variables, field / known_lib.UNIT,
        color.normalize_lightness(inputs['lightness']), known.channels(),
        method='posterior')

    def log_weight(keys):
      out = apply(variables, scales, noise(keys, inputs['lightness']), prior,
                  posterior, train=False, method='decode')
      return nats_of(field, out.params, known) + out.log_ratio

    log_weights = jax.lax.map(
        log_weight, key_lib.of_answers(keys, importance_samples))
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(
        float(importance_samples))

  return Colorizer(
      init=init, loss=loss, predict=predict, sample=sample, propose=propose,
      log_prob=log_prob, log_prob_kind='lower_bound', draw=draw,
      event_shape=event_shape, max_proposals=num_components,
      backbones=encoders.pretrained(body),
      accepts=known_lib.accepted_inputs(hint_share, region_share))
