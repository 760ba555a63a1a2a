"""The distributions that a mixture density network can parameterize.

All are over ab fields in unit ab, [B, h, w, 2], and read the same
`MixtureParams`:

- `product`: a component has a density for each value (its family). The whole
  field chooses one component, or each p x p patch its own.
- `normal_low_rank`: a component is a normal distribution in which all values of
  the field vary together in a few ways. The whole field chooses one component.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from colorjax import resample
from colorjax.losses import families, likelihood, low_rank, readout
from colorjax.losses.families import Family
from colorjax.models.mbm import MixtureParams

_COMPONENT = 1  # the axis of K in [B, K, h, w, 2]
_WHOLE = (-3, -2, -1)  # h, w, 2
_PATCH = (-4, -2, -1)  # of [h / p, p, w / p, p, 2]
_FACTOR_SCALE = 0.1  # unit ab per unit of the network's output


class Mixture(NamedTuple):
  """A distribution of ab fields, given the outputs of a network.

  Attributes:
    num_params: number of network outputs per component and value.
    log_prob: `(target, params) -> nats [B]`, the training objective in unit ab.
    log_density: the same with densities that are normalized.
    means: `(params) -> [B, K, h, w, 2]`, the means of the components.
    sample: `(key, params) -> [h, w, 2]`, a sample for params of one photograph,
      without the axis B.
    draw: as `sample`, from the distribution of `log_density`.
  """
  num_params: int
  log_prob: Callable[[jax.Array, MixtureParams], jax.Array]
  log_density: Callable[[jax.Array, MixtureParams], jax.Array]
  means: Callable[[MixtureParams], jax.Array]
  sample: Callable[[jax.Array, MixtureParams], jax.Array]
  draw: Callable[[jax.Array, MixtureParams], jax.Array]


def product(family: Family, patch: int = 0) -> Mixture:
  """Components in which values are independent.

  Args:
    family: the density of a value.
    patch: side of the patches that choose a component each, in places of the
      field; 0 for the whole field.

  Returns:
    The mixture. With patches, mixing logits are [B, K, h / p, w / p].
  """
  axes = _PATCH if patch else _WHOLE

  def split(x: jax.Array) -> jax.Array:
    """[..., h, w, 2] to [..., h / p, p, w / p, p, 2]."""
    if not patch:
      return x
    *batch, height, width, _ = x.shape
    return x.reshape(*batch, height // patch, patch, width // patch, patch, 2)

  def of_events(function):
    """Sums nats over the events of a photograph."""
    def nats(target: jax.Array, params: MixtureParams) -> jax.Array:
      each = function(
          split(target), tuple(map(split, params.components)),
          params.mixing_logits, family=family, event_axes=axes,
          component_axis=_COMPONENT)
      return each.sum(tuple(range(1, each.ndim)))

    return nats

  def sampler(family: Family):
    def sample(key: jax.Array, params: MixtureParams) -> jax.Array:
      found = readout.mixture_sample(
          key, tuple(split(x)[None] for x in params.components),
          params.mixing_logits[None], family=family, event_axes=axes,
          component_axis=_COMPONENT)
      return found.reshape(params.components[0].shape[1:])

    return sample

  return Mixture(
      num_params=family.num_params,
      log_prob=of_events(likelihood.mixture_log_prob),
      log_density=of_events(likelihood.mixture_log_density),
      means=lambda params: family.mean(*params.components),
      sample=sampler(family), draw=sampler(family.normalized()))


def normal_low_rank(rank: int) -> Mixture:
  """Normal components whose values vary together in `rank` ways.

  See `losses.low_rank`. A logistic distribution has no such form with a density
  in closed form, which is why components are normal.

  Args:
    rank: r, at least 1.

  Returns:
    The mixture.
  """
  def components(params: MixtureParams) -> tuple[jax.Array, ...]:
    """Location and log scale [..., D], factors [..., D, r]."""
    raw_loc, raw_scale, *factors = params.components
    flat = (*raw_loc.shape[:-3], -1)
    return (jax.nn.sigmoid(raw_loc).reshape(flat),
            families.normal_log_scale(raw_scale).reshape(flat),
            _FACTOR_SCALE * jnp.stack(
                [x.reshape(flat) for x in factors], axis=-1))

  def log_prob(target: jax.Array, params: MixtureParams) -> jax.Array:
    nats = low_rank.log_prob(
        target.reshape(len(target), 1, -1), *components(params))
    return jax.nn.logsumexp(
        jax.nn.log_softmax(params.mixing_logits) + nats, axis=-1)

  def sample(key: jax.Array, params: MixtureParams) -> jax.Array:
    key_component, key_values = jax.random.split(key)
    chosen = jax.random.categorical(key_component, params.mixing_logits)
    field = low_rank.sample(
        key_values, *(x[chosen] for x in components(params)))
    return jnp.clip(field, 0, 1).reshape(params.components[0].shape[1:])

  return Mixture(
      num_params=2 + rank, log_prob=log_prob, log_density=log_prob,
      means=lambda params: jax.nn.sigmoid(params.components[0]),
      sample=sample, draw=sample)


def over_field(weights: jax.Array, patch: int) -> jax.Array:
  """Weights of patches [B, K, n, m] as weights of places [B, K, h, w, 1]."""
  return weights.repeat(patch, 2).repeat(patch, 3)[..., None]


def nearest(means: jax.Array, target: jax.Array, patch: int = 0) -> jax.Array:
  """The component nearest to the target, [B], or of patches [B, n, m].

  By the mean distance in the ab plane; means [B, K, h, w, 2], target
  [B, h, w, 2].
  """
  distance = jnp.sqrt(jnp.square(means - target[:, None]).sum(-1))
  if not patch:
    return distance.mean((2, 3)).argmin(1)
  batch, num, height, width = distance.shape
  pooled = resample.mean_pool(
      distance.reshape(batch * num, height, width, 1), patch)
  return pooled.reshape(batch, num, *pooled.shape[1:3]).argmin(1)
