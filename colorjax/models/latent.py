"""A conditional variational autoencoder of ab fields, on any trunk.

A coloring has latent variables at several levels: a vector z for the whole
photograph, then grids of vectors, coarse to fine. The prior of z is a mixture
of diagonal Gaussians whose parameters come from the trunk's features, a mixture
density network (Deshpande et al. 2017, arXiv:1612.01958). The prior of a grid
is a diagonal Gaussian that depends on these features and on all coarser levels
(a ladder, Sonderby et al. 2016, arXiv:1602.02282). The posterior of a grid is
given as a difference to its prior (Vahdat and Kautz 2020, arXiv:2007.03898).

The trunk's `encode` sees the photograph once. The latents are added to its
features, and only its `decode` depends on them, so many samples of one
photograph are cheap.

Letters in shapes: B photographs, K components, D length of z, C channels of the
grids, H and W the photograph's height and width, h and w those of the field (H
and W divided by the stride of the trunk), g height and width of a grid.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.errors import UserError
from colorjax.models.residual import GroupNorm, ResidualBlock, scaled_silu
from colorjax.models.trunk import Trunk

_MAX_LOG_SCALE = 4.0
"""Log scales of latents are smoothly limited to plus or minus this."""

_COMPONENT_SPREAD = 0.5
"""Standard deviation of the initial means of the prior's components. If they
were equal, all components would learn the same."""


class Normal(NamedTuple):
  """Diagonal Gaussians; both of the same shape, float32."""
  mean: jax.Array
  log_scale: jax.Array

  def at(self, noise: jax.Array, temperature: float = 1.0) -> jax.Array:
    """The value that standard normal noise stands for."""
    return self.mean + temperature * jnp.exp(self.log_scale) * noise

  def log_prob(self, x: jax.Array) -> jax.Array:
    """Nats of each value, in the shape of x."""
    deviation = (x - self.mean) * jnp.exp(-self.log_scale)
    return (-0.5 * (jnp.square(deviation) + math.log(2 * math.pi))
            - self.log_scale)

  def kl_from(self, prior: 'Normal') -> jax.Array:
    """KL divergence of this distribution from a prior, nats of each value."""
    ratio = self.log_scale - prior.log_scale
    shift = (self.mean - prior.mean) * jnp.exp(-prior.log_scale)
    return 0.5 * (jnp.exp(2 * ratio) + jnp.square(shift) - 1) - ratio


class Prior(NamedTuple):
  """A mixture of diagonal Gaussians.

  Attributes:
    mixing_logits: unnormalized log probabilities [B, K], float32.
    components: [B, K, D].
  """
  mixing_logits: jax.Array
  components: Normal

  def log_prob(self, z: jax.Array) -> jax.Array:
    """Log density of z [B, D], nats [B]."""
    nats = self.components.log_prob(z[:, None]).sum(-1)
    return jax.nn.logsumexp(
        jax.nn.log_softmax(self.mixing_logits) + nats, axis=-1)


class Posterior(NamedTuple):
  """What the encoder knows about the latents of a photograph.

  Attributes:
    z: [B, D].
    features: features for the grids by stride, [B, H / stride, W / stride, F].
  """
  z: Normal
  features: Mapping[int, jax.Array]


class Decoded(NamedTuple):
  """One coloring.

  Attributes:
    params: `num_params` raw parameters of the values, [B, h, w, 2], float32.
    kl: KL divergence of the posterior from the prior at each level, the vector
      first, nats [B, 1 + number of grids]; 0 without a posterior. That of the
      vector is an estimate from one sample, the others are exact given the
      coarser levels.
    log_ratio: log prior - log posterior at the latents, nats [B]; 0 without a
      posterior.
  """
  params: tuple[jax.Array, ...]
  kl: jax.Array
  log_ratio: jax.Array


class TrunkLatent(nn.Module):
  """The networks of prior, posterior and decoder.

  Attributes:
    trunk: see `models.trunk`.
    num_components: K.
    latent_size: D.
    latent_strides: ratios of the photograph's sides to those of the grids,
      coarse to fine. The trunk must have features at each of them.
    latent_channels: C.
    num_params: number of distribution parameters per ab value.
    width: channels of the layers outside the trunk, a multiple of GROUP_SIZE.
    dtype: compute type; parameters, latents and outputs stay float32.
  """
  trunk: Trunk
  num_components: int
  latent_size: int
  latent_strides: Sequence[int] = ()
  latent_channels: int = 4
  num_params: int = 2
  width: int = 64
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Creates the parts."""
    self.prior_head = _PriorHead(
        self.num_components, self.latent_size, self.width, self.dtype)
    self.encoder = _Encoder(
        self.trunk.stride, self.trunk.divisor,
        min(self.latent_strides, default=self.trunk.divisor),
        self.latent_size, self.width, self.dtype)
    self.ladder = _Ladder(
        self.trunk.stride, tuple(self.latent_strides), self.latent_channels,
        self.width, self.dtype)
    self.head = nn.Conv(2 * self.num_params, (3, 3), dtype=self.dtype)

  def __call__(self, field: jax.Array, lightness: jax.Array,
               known: jax.Array, noise: Sequence[jax.Array], *, train: bool
               ) -> Decoded:
    """Encodes a field and decodes it: what training needs.

    Args:
      field: the whole ab field, about unit variance, [B, h, w, 2].
      lightness: network lightness [B, H, W, 1].
      known: channels that say what is known of the field, [B, h, w, M].
      noise: standard normal noise of each level, shapes as of `noise_shapes`.
      train: whether the network is being trained.

    Returns:
      The coloring at latents of the posterior.
    """
    scales = self.look(lightness, known, train=train)
    return self.decode(
        scales, noise, self.prior_head(scales),
        self.encoder(field, lightness, known), train=train)

  def look(self, lightness: jax.Array, known: jax.Array, *, train: bool
           ) -> Sequence[jax.Array]:
    """The trunk's features of the lightness and of what is known."""
    stride = self.trunk.stride
    known = jnp.repeat(jnp.repeat(known, stride, axis=1), stride, axis=2)
    return self.trunk.encode(
        jnp.concatenate([lightness, known], axis=-1), train=train)

  def prior(self, scales: Sequence[jax.Array]) -> Prior:
    """The prior of z, given the result of `look`."""
    return self.prior_head(scales)

  def posterior(self, field: jax.Array, lightness: jax.Array,
                known: jax.Array) -> Posterior:
    """The posterior, see `__call__`."""
    return self.encoder(field, lightness, known)

  def decode(self, scales: Sequence[jax.Array], noise: Sequence[jax.Array],
             prior: Prior, posterior: Posterior, *, train: bool) -> Decoded:
    """The coloring at latents of the posterior, see `__call__`."""
    z = posterior.z.at(noise[0])
    ratio = prior.log_prob(z) - posterior.z.log_prob(z).sum(-1)
    decoded = self.generate(scales, z, noise[1:], posterior.features,
                            train=train)
    return decoded._replace(
        kl=jnp.concatenate([-ratio[:, None], decoded.kl], axis=-1),
        log_ratio=ratio + decoded.log_ratio)

  def generate(self, scales: Sequence[jax.Array], z: jax.Array,
               noise: Sequence[jax.Array],
               features: Mapping[int, jax.Array] | None = None,
               temperature: float = 1.0, *, train: bool) -> Decoded:
    """The coloring at a given z.

    Args:
      scales: the result of `look`.
      z: [B, D].
      noise: standard normal noise of each grid, coarse to fine.
      features: those of the posterior, from which the grids come; None for the
        prior.
      temperature: factor of the prior's standard deviations.
      train: whether the network is being trained.

    Returns:
      The coloring; `kl` and `log_ratio` are of the grids alone.
    """
    scales, conditioning, kl, ratio = self.ladder(
        scales, z, noise, features, temperature)
    x = self.head(self.trunk.decode(scales, conditioning, train=train))
    params = jnp.split(x.astype(jnp.float32), self.num_params, axis=-1)
    return Decoded(tuple(params), kl, ratio)

  def noise_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
    """Shapes of the noise of one photograph of H x W pixels, by level."""
    return [(self.latent_size,), *(
        (height // stride, width // stride, self.latent_channels)
        for stride in self.latent_strides)]


def _normal(raw: jax.Array) -> Normal:
  """Raw outputs [..., 2 C] as Gaussians [..., C], standard at 0."""
  mean, log_scale = jnp.split(raw.astype(jnp.float32), 2, axis=-1)
  return Normal(mean, _limited(log_scale))


def _limited(log_scale: jax.Array) -> jax.Array:
  """Limits log scales smoothly."""
  return _MAX_LOG_SCALE * jnp.tanh(log_scale / _MAX_LOG_SCALE)


class _PriorHead(nn.Module):
  """Features of all scales, averaged over positions, to the prior of z.

  As in `mbm.TrunkMBM`, pooled features carry no positions of edges, by which a
  dense layer on the features themselves memorizes photographs.
  """
  num_components: int
  latent_size: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, scales: Sequence[jax.Array]) -> Prior:
    """Scales [B, h_s, w_s, C_s] to the mixture."""
    def pooled(x):
      return scaled_silu(x, *GroupNorm()(x)).mean((1, 2))

    x = jnp.concatenate([pooled(x) for x in scales], axis=-1)
    x = nn.silu(nn.Dense(self.width, dtype=self.dtype, name='dense')(x))
    x = x.astype(jnp.float32)
    shape = self.num_components, self.latent_size
    raw = nn.Dense(2 * math.prod(shape), name='components',
                   kernel_init=nn.initializers.variance_scaling(
                       0.01, 'fan_in', 'truncated_normal'))(x)
    components = _normal(raw.reshape(-1, shape[0], 2 * shape[1]))
    centers = self.param(
        'centers', nn.initializers.normal(_COMPONENT_SPREAD), shape)
    return Prior(
        nn.Dense(self.num_components, name='mixing_logits')(x),
        Normal(components.mean + centers, components.log_scale))


class _Encoder(nn.Module):
  """Fields to what the posterior needs: residual blocks at coarser strides."""
  stride: int
  divisor: int
  finest: int
  latent_size: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, field: jax.Array, lightness: jax.Array,
               known: jax.Array) -> Posterior:
    """See `TrunkLatent.__call__`."""
    lightness = nn.avg_pool(
        lightness, (self.stride, self.stride), (self.stride, self.stride))
    x = jnp.concatenate([field, lightness, known], axis=-1).astype(self.dtype)
    # Blocks at the stride of the field would take half the time of a step.
    stride = self.stride
    if min(self.finest, self.divisor) > stride:
      x, stride = self._halved(x, 4), 2 * stride
    else:
      x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(x)
    features = {stride: ResidualBlock(self.width, self.dtype)(x)}
    while 2 * stride <= self.divisor:
      x = self._halved(features[stride], 2)
      stride *= 2
      features[stride] = ResidualBlock(self.width, self.dtype)(x)
    x = features[stride]
    x = scaled_silu(x, *GroupNorm()(x)).mean((1, 2))
    x = nn.silu(nn.Dense(self.width, dtype=self.dtype, name='dense')(x))
    return Posterior(_normal(nn.Dense(2 * self.latent_size, name='z')(
        x.astype(jnp.float32))), features)

  def _halved(self, x: jax.Array, side: int) -> jax.Array:
    """A convolution with stride 2."""
    return nn.Conv(self.width, (side, side), (2, 2), dtype=self.dtype)(x)


class _Ladder(nn.Module):
  """Draws the grids, coarse to fine, and adds all latents to the features."""
  stride: int
  latent_strides: Sequence[int]
  latent_channels: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, scales: Sequence[jax.Array], z: jax.Array,
               noise: Sequence[jax.Array],
               features: Mapping[int, jax.Array] | None, temperature: float):
    """See `TrunkLatent.generate`.

    Returns:
      Scales with latents, the conditioning vector [B, width], KL of each grid
      [B, number of grids] and log prior - log posterior [B].
    """
    scales = list(scales)
    height = scales[0].shape[1] * self.stride
    places = {height // x.shape[1]: i for i, x in enumerate(scales)}
    x = nn.silu(nn.Dense(self.width, dtype=self.dtype, name='z_1')(z))
    conditioning = nn.Dense(self.width, dtype=self.dtype, name='z_2')(x)
    x = conditioning[:, None, None]
    kl, ratio = [], jnp.zeros(z.shape[0])
    for stride, of_level in zip(self.latent_strides, noise, strict=True):
      if stride not in places:
        raise UserError(
            f'latent_strides={stride}: this network has features at the '
            f'strides {", ".join(map(str, sorted(places)))}')
      place = places[stride]
      there = scales[place]
      x = jax.image.resize(
          x, (*there.shape[:3], self.width), 'nearest') + nn.Conv(
              self.width, (1, 1), dtype=self.dtype,
              name=f'lateral_{stride}')(there)
      x = ResidualBlock(self.width, self.dtype, name=f'block_{stride}')(
          x, conditioning)
      prior = _normal(self._statistics(x, f'prior_{stride}'))
      if features is None:
        grid = prior.at(of_level, temperature)
      else:
        posterior = self._posterior(x, features[stride], conditioning, prior,
                                    stride)
        grid = posterior.at(of_level)
        kl.append(posterior.kl_from(prior).sum((1, 2, 3)))
        ratio += (prior.log_prob(grid) - posterior.log_prob(grid)
                  ).sum((1, 2, 3))
      x += nn.Dense(self.width, dtype=self.dtype, name=f'grid_{stride}')(grid)
      scales[place] = there + self._added(x, there, stride)
    if not self.latent_strides:
      scales[-1] = scales[-1] + self._added(x, scales[-1], 'last')
    return (scales, conditioning,
            jnp.stack(kl, -1) if kl else jnp.zeros((z.shape[0], 0)), ratio)

  def _statistics(self, x: jax.Array, name: str) -> jax.Array:
    """Raw mean and log scale [B, g, g, 2 C], at first 0."""
    return nn.Conv(2 * self.latent_channels, (3, 3), dtype=self.dtype,
                   kernel_init=nn.initializers.zeros, name=name)(nn.silu(x))

  def _posterior(self, x: jax.Array, features: jax.Array,
                 conditioning: jax.Array, prior: Normal, stride: int
                 ) -> Normal:
    """The posterior of a grid; at first it is the prior."""
    x = ResidualBlock(self.width, self.dtype, name=f'posterior_{stride}')(
        jnp.concatenate([x, features], axis=-1), conditioning)
    change = _normal(self._statistics(x, f'difference_{stride}'))
    return Normal(prior.at(change.mean),
                  prior.log_scale + change.log_scale)

  def _added(self, x: jax.Array, there: jax.Array, name: Any) -> jax.Array:
    """What is added to the features of the trunk."""
    return nn.Dense(there.shape[-1], dtype=self.dtype,
                    name=f'added_{name}')(nn.silu(x))
