"""One mixture of K whole-image colorings (multivariate Bernoulli mixture).

    p(y | x) = sum_k alpha_k(x) prod_d f(y_d; theta_kd(x))

y is the ab field of the photograph in unit ab and x its lightness. alpha is a
distribution over K components for the WHOLE image, theta the parameters of K
whole-image colorings, and f the component family: the Bernoulli, as published;
its normalized form, the continuous Bernoulli (Loaiza-Ganem & Cunningham 2019);
a Gaussian; or a discretized logistic. The mixture couples all pixels of an
image: each component is a complete coloring, and its prior is the probability
of that coloring.
"""

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
from colorjax.losses import families, likelihood, readout
from colorjax.methods import encoders
from colorjax.methods.checks import check_choice, check_sides
from colorjax.models import mbm, trunk

FAMILIES = {
    'bernoulli': families.bernoulli,
    'continuous_bernoulli': families.continuous_bernoulli,
    'gaussian': families.gaussian,
    'discretized_logistic': families.discretized_logistic,
}
"""Component families by the names used in settings and flags."""

_EVENT = (-3, -2, -1)  # the whole ab field [h, w, 2] is one event
_COMPONENT = 1  # the axis of K in [B, K, h, w, 2]


def build(
    *,
    num_components: int = 8,
    family: str = 'continuous_bernoulli',
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
  prior.

  Args:
    num_components: K, the number of whole-image colorings.
    family: a key of FAMILIES.
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
    UserError: the family or the network does not exist, or the network cannot
      take these filters.
  """
  check_choice('family', family, FAMILIES)
  component_family = FAMILIES[family]()
  # The family whose density `log_prob` is. Samples of a Bernoulli are 0 or 1,
  # so draws come from its normalized form.
  density_family = (families.continuous_bernoulli() if family == 'bernoulli'
                    else component_family)
  net, stride, divisor = _network(
      network, trunk_settings=trunk_settings, num_components=num_components,
      num_params=component_family.num_params, filters=tuple(filters),
      prior_width=prior_width, batch_norm=batch_norm, dropout=dropout,
      dtype=jnp.dtype(dtype))

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
    lightness, ab = color.split_lightness(batch['image'])
    out, new_state = net.apply(
        {'params': params, **model_state},
        color.normalize_lightness(lightness), train=train,
        keys=keys, mutable=list(model_state))
    target = to_field(ab)
    dims = np.prod(target.shape[1:])
    nats = likelihood.mixture_log_prob(
        target, out.components, out.mixing_logits, family=component_family,
        event_axes=_EVENT, component_axis=_COMPONENT)
    metrics = {'loss': -nats / dims}
    if not train:
      metrics |= _component_metrics(
          component_family.mean(*out.components), out.mixing_logits, target)
    return masked_mean(metrics, batch['padding_mask'],
                       new_state if train else model_state)

  def propose(variables: Variables, inputs: Inputs, k: int):
    if not 1 <= k <= num_components:
      raise UserError(
          f'{k} proposals were requested from a mixture of {num_components} '
          f'components: ask for 1 to {num_components}')
    out = apply(variables, inputs)
    probability, order = jax.lax.top_k(jax.nn.softmax(out.mixing_logits), k)
    means = jnp.take_along_axis(
        component_family.mean(*out.components),
        order[:, :, None, None, None], axis=1)
    proposals = jax.vmap(from_field, (1, None))(means, inputs['lightness'])
    return proposals, probability.T

  def predict(variables: Variables, inputs: Inputs) -> jax.Array:
    return propose(variables, inputs, 1)[0][0]

  def draw_fields(family: families.Family, out: mbm.MixtureParams,
                  keys: jax.Array, n: int) -> jax.Array:
    """Samples of the mixture, unit ab [n, B, h, w, 2]."""
    def one(key, components, mixing_logits):
      return readout.mixture_sample(
          key, tuple(x[None] for x in components), mixing_logits[None],
          family=family, event_axes=_EVENT, component_axis=_COMPONENT)[0]

    return jax.vmap(jax.vmap(one), (0, None, None))(
        key_lib.of_answers(keys, n), out.components, out.mixing_logits)

  def sample(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
             ) -> jax.Array:
    fields = draw_fields(component_family, apply(variables, inputs), keys, n)
    return jax.vmap(from_field, (0, None))(fields, inputs['lightness'])

  def draw(variables: Variables, inputs: Inputs, keys: jax.Array, n: int
           ) -> jax.Array:
    return color.unit_to_ab(
        draw_fields(density_family, apply(variables, inputs), keys, n))

  def log_prob(variables: Variables, inputs: Inputs, ab: jax.Array,
               keys: jax.Array) -> jax.Array:
    del keys  # The density is exact.
    out = apply(variables, inputs)
    target = to_field(ab)
    nats = likelihood.mixture_log_density(
        target, out.components, out.mixing_logits, family=component_family,
        event_axes=_EVENT, component_axis=_COMPONENT)
    return likelihood.ab_log_density(nats, int(np.prod(target.shape[1:])))

  return Colorizer(
      init=init, loss=loss, predict=predict, sample=sample, log_prob=log_prob,
      propose=propose, draw=draw,
      backbones=encoders.pretrained(net.trunk)
      if isinstance(net, mbm.TrunkMBM) else {}, max_proposals=num_components,
      event_shape=lambda shape: (shape[0] // stride, shape[1] // stride))


def _network(name: str, *, batch_norm: bool, dropout: float,
             filters: Sequence[int], dtype: Any,
             trunk_settings: Mapping[str, Any] | None = None, **settings
             ) -> tuple[nn.Module, int, int]:
  """Builds the network.

  Returns:
    The network, the stride of its output, and the divisor of its input's sides.
  """
  check_choice('network', name, (*trunk.TRUNKS, 'published'))
  if name == 'published':
    return mbm.PublishedMBM(
        batch_norm=batch_norm, filters=filters, dtype=dtype,
        **settings), 1, 2**len(filters)
  body = trunk.build(name, filters, dtype, trunk_settings)
  return (mbm.TrunkMBM(trunk=body, dropout=dropout, dtype=dtype, **settings),
          body.stride, body.divisor)


def _component_metrics(
    means: jax.Array, mixing_logits: jax.Array, target: jax.Array
) -> dict[str, jax.Array]:
  """How often each component is used, [B] each.

  `best/k` is 1 if component k is the nearest to the photograph, `chosen/k` if
  it has the largest prior. A component that is never the nearest is dead.
  """
  difference = jnp.square(means - target[:, None]).sum(-1)
  nearest = jnp.sqrt(difference).mean((2, 3)).argmin(-1)
  chosen = mixing_logits.argmax(-1)
  metrics = {}
  for k in range(mixing_logits.shape[-1]):
    metrics[f'best/{k}'] = (nearest == k).astype(jnp.float32)
    metrics[f'chosen/{k}'] = (chosen == k).astype(jnp.float32)
  return metrics
