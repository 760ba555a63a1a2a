"""A mixture of K whole-image colorings (multivariate Bernoulli mixture).

    p(y | x) = sum_k alpha_k(x) prod_d f(y_d; theta_kd(x))

y is the ab field of the photograph in unit ab and x its lightness. alpha is a
distribution over K components for the WHOLE image, theta the parameters of K
whole-image colorings, and f the component family: the Bernoulli, as published;
its normalized form, the continuous Bernoulli (Loaiza-Ganem & Cunningham 2019);
a Gaussian; or a discretized logistic. The mixture couples all pixels of an
image: each component is a complete coloring, and its prior is the probability
of that coloring.

Two settings change what varies together. With patches, each patch of the
photograph has its own prior and chooses its own component. With a rank, the
values of a component are not independent but vary together in a few ways.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, resample
from colorjax import keys as key_lib
from colorjax.colorizer import (
    Batch,
    Colorizer,
    Inputs,
    Variables,
    init_variables,
    masked_mean,
)
from colorjax.errors import UserError
from colorjax.losses import families, likelihood
from colorjax.methods import encoders, examples, mixtures
from colorjax.methods.checks import check_choice, check_sides
from colorjax.models import mbm, trunk

FAMILIES = {
    'bernoulli': families.bernoulli,
    'continuous_bernoulli': families.continuous_bernoulli,
    'gaussian': families.gaussian,
    'discretized_logistic': families.discretized_logistic,
}
"""Component families by the names used in settings and flags."""

READOUTS = ('top', 'mean', 'medoid')
"""How the single coloring is chosen, see `build`."""


def build(
    *,
    num_components: int = 8,
    family: str = 'continuous_bernoulli',
    patch_size: int = 0,
    rank: int = 0,
    network: str = 'unet',
    trunk_settings: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (32, 64, 128, 256),
    prior_width: int = 128,
    batch_norm: bool = False,
    dropout: float = 0.5,
    dtype: str = 'float32',
) -> Colorizer:
  """Builds the mixture density network.

  `log_prob` is the density of the ab field at the network's output resolution
  (`event_shape`: the input's for 'published', otherwise the input's divided by
  the stride of the trunk, which is 2 for 'unet'); the photograph's ab is
  averaged to that resolution. For the Bernoulli family it is the density of the
  continuous Bernoulli, its normalized form.

  Metrics on held-out photographs: `best/k` is the share of photographs to which
  component k is nearest, `chosen/k` the share for which it has the largest
  prior; with patches, shares of patches.

  Option: `readout` of `predict`. 'top' is the coloring of the component with
  the largest prior; 'mean' is the mean of all components, weighted by their
  priors; 'medoid' is the component whose expected distance from the others is
  the smallest, for which a few close colorings count more than one that is
  slightly more probable than each of them. With patches it is always the mean.

  With patches, proposal k is component k everywhere, in the order of the mean
  prior over patches. It has no probability, because patches choose separately,
  and samples have visible patches.

  Args:
    num_components: K, the number of whole-image colorings.
    family: a key of FAMILIES.
    patch_size: side of the squares that choose a component each, in pixels, a
      multiple of the trunk's stride; 0: the whole photograph chooses one.
    rank: number of ways in which the values of a component vary together, for
      the whole photograph and the family 'gaussian'; 0: they are independent.
    network: a key of `models.trunk.TRUNKS`, or 'published'.
    trunk_settings: further settings of the trunk, see its `build`.
    filters: channels of the stages or scales.
    prior_width: units of the dense layer before the priors.
    batch_norm: whether to use batch normalization; only for 'published'.
    dropout: dropout rate of the prior head; not for 'published'.
    dtype: compute type of the network, 'float32' or 'bfloat16'.

  Returns:
    A Colorizer.

  Raises:
    UserError: the family or the network does not exist, the network cannot
      take these filters, or settings do not fit together.
  """
  check_choice('family', family, FAMILIES)
  component_family = FAMILIES[family]()
  if rank < 0 or (rank and (family != 'gaussian' or patch_size)):
    raise UserError(f'rank={rank}: use 0, or a number above 0 with '
                    'family=gaussian and patch_size=0')
  net, stride, divisor = _network(
      network, trunk_settings=trunk_settings, num_components=num_components,
      num_params=component_family.num_params + rank, filters=tuple(filters),
      prior_width=prior_width, batch_norm=batch_norm, dropout=dropout,
      patch_size=patch_size, dtype=jnp.dtype(dtype))
  patch = patch_size // stride
  mixture = (mixtures.normal_low_rank(rank) if rank else mixtures.product(
      component_family, patch))

  def init(key: jax.Array, image_shape: tuple[int, int]) -> Variables:
    check_sides(image_shape, divisor)
    return init_variables(net, key, jnp.zeros((1, *image_shape, 1)),
                          train=False)

  def apply(variables: Variables, inputs: Inputs) -> mbm.MixtureParams:
    lightness = inputs['lightness']
    check_sides(lightness.shape[1:3], divisor)
    out = net.apply(
        {'params': variables['params'], **variables['model_state']},
        color.normalize_lightness(lightness), train=False)
    assert isinstance(out, mbm.MixtureParams)
    return out

  def to_field(ab: jax.Array) -> jax.Array:
    """ab [B, H, W, 2] to unit ab at the resolution of the mixture."""
    return color.ab_to_unit(resample.mean_pool(ab, stride))

  def from_field(field: jax.Array, lightness: jax.Array) -> jax.Array:
    """Unit ab [B, h, w, 2] to ab [B, H, W, 2], along edges of lightness."""
    return resample.enlarge(color.unit_to_ab(field), lightness)

  def loss(params, model_state, batch: Batch, keys: jax.Array, *,
           step: jax.Array | None, train: bool):
    del step
    lightness, ab, _ = examples.of_batch(batch)
    out, new_state = net.apply(
        {'params': params, **model_state},
        color.normalize_lightness(lightness), train=train,
        keys=keys, mutable=list(model_state))
    target = to_field(ab)
    dims = np.prod(target.shape[1:])
    metrics = {'loss': -mixture.log_prob(target, out) / dims}
    if not train:
      metrics |= _component_metrics(
          mixture.means(out), out.mixing_logits, target, patch)
    return masked_mean(metrics, batch['padding_mask'],
                       new_state if train else model_state)

  def propose(variables: Variables, inputs: Inputs, k: int):
    if not 1 <= k <= num_components:
      raise UserError(
          f'{k} proposals were requested from a mixture of {num_components} '
          f'components: ask for 1 to {num_components}')
    out = apply(variables, inputs)
    probability, order = jax.lax.top_k(_priors(out), k)
    means = jnp.take_along_axis(
        mixture.means(out), order[:, :, None, None, None], axis=1)
    proposals = jax.vmap(from_field, (1, None))(means, inputs['lightness'])
    return proposals, None if patch else probability.T

  def predict(variables: Variables, inputs: Inputs, *,
              readout: str = 'top') -> jax.Array:
    check_choice('readout', readout, READOUTS)
    out = apply(variables, inputs)
    means = mixture.means(out)
    if patch or readout == 'mean':
      weights = jax.nn.softmax(out.mixing_logits, axis=1)
      weights = (mixtures.over_field(weights, patch) if patch
                 else weights[..., None, None, None])
      field = (weights * means).sum(1)
    else:
      chosen = (_priors(out).argmax(-1) if readout == 'top'
                else _medoid(means, _priors(out)))
      field = jnp.take_along_axis(
          means, chosen[:, None, None, None, None], axis=1)[:, 0]
    return from_field(field, inputs['lightness'])

  def fields(draw_one, variables: Variables, inputs: Inputs, keys: jax.Array,
             n: int) -> jax.Array:
    """Samples of the mixture, unit ab [n, B, h, w, 2]."""
    return jax.vmap(jax.vmap(draw_one), (0, None))(
        key_lib.of_answers(keys, n), apply(variables, inputs))

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
             ) -> jax.Array:
    return jax.vmap(from_field, (0, None))(
        fields(mixture.sample, variables, inputs, keys, n),
        inputs['lightness'])

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
           ) -> jax.Array:
    return color.unit_to_ab(fields(mixture.draw, variables, inputs, keys, n))

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array) -> jax.Array:
    del keys  # The density is exact.
    target = to_field(ab)
    return likelihood.ab_log_density(
        mixture.log_density(target, apply(variables, inputs)),
        int(np.prod(target.shape[1:])))

  return Colorizer(
      init=init, loss=loss, predict=predict, sample=sample, log_prob=log_prob,
      propose=propose, draw=draw,
      backbones=encoders.pretrained(net.trunk)
      if isinstance(net, mbm.TrunkMBM) else {}, max_proposals=num_components,
      event_shape=lambda shape: (shape[0] // stride, shape[1] // stride))


def _network(name: str, *, batch_norm: bool, dropout: float,
             filters: Sequence[int], dtype: Any, patch_size: int = 0,
             trunk_settings: Mapping[str, Any] | None = None, **settings
             ) -> tuple[nn.Module, int, int]:
  """Builds the network.

  Returns:
    The network, the stride of its output, and the divisor of its input's sides.
  """
  check_choice('network', name, (*trunk.TRUNKS, 'published'))
  if name == 'published':
    if patch_size:
      raise UserError(f'patch_size={patch_size}: network=published has none; '
                      'choose another network, or 0')
    return mbm.PublishedMBM(
        batch_norm=batch_norm, filters=filters, dtype=dtype,
        **settings), 1, 2**len(filters)
  body = trunk.build(name, filters, dtype, trunk_settings)
  if patch_size < 0 or patch_size % body.stride:
    raise UserError(f'patch_size={patch_size}: choose a multiple of '
                    f'{body.stride}, the stride of this network, or 0')
  return (mbm.TrunkMBM(trunk=body, dropout=dropout, dtype=dtype,
                       patch=patch_size // body.stride, **settings),
          body.stride, math.lcm(body.divisor, patch_size or 1))


def _priors(params: mbm.MixtureParams) -> jax.Array:
  """Priors of the components, [B, K]; of patches, their mean."""
  priors = jax.nn.softmax(params.mixing_logits, axis=1)
  return priors.mean(tuple(range(2, priors.ndim)))


def _medoid(means: jax.Array, priors: jax.Array) -> jax.Array:
  """The component with the smallest expected distance from a sample, [B].

  The distance of two colorings is the mean over places of that in the ab plane.
  """
  def distances(one):  # [B, h, w, 2] from all, [B, K]
    return jnp.linalg.norm(means - one[:, None], axis=-1).mean((2, 3))

  # One component after the other: all pairs would need K times the memory.
  each = jax.lax.map(distances, means.swapaxes(0, 1))
  return (each * priors).sum(-1).argmin(0)


def _component_metrics(
    means: jax.Array, mixing_logits: jax.Array, target: jax.Array, patch: int
) -> dict[str, jax.Array]:
  """How often each component is used, [B] each.

  `best/k` is 1 if component k is the nearest to the photograph, `chosen/k` if
  it has the largest prior, or the shares of patches for which this holds. A
  component that is never the nearest is dead.
  """
  num = mixing_logits.shape[1]
  metrics: dict[str, jax.Array] = {}
  for name, which in (
      ('best', mixtures.nearest(means, target, patch)),
      ('chosen', mixing_logits.argmax(1))):
    shares = jax.nn.one_hot(which.reshape(len(target), -1), num).mean(1)
    metrics |= {f'{name}/{k}': shares[:, k] for k in range(num)}
  return metrics
