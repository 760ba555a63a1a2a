"""Point estimates and samples of a mixture.

Axes and arguments are those of `colorjax.losses.likelihood`. Results are unit
ab in [0, 1] (`color.unit_to_ab` converts them to Lab units), float32 or wider.

For both Bernoulli families, modes and samples of single elements lie at or near
the ends of the ab range. Use their means as colorings.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from colorjax.losses import mixture_axes
from colorjax.losses.families import Family


def _as_params(component_params) -> list[jax.Array]:
  """Component params as arrays of float32 or wider."""
  return mixture_axes.at_least_float32(
      mixture_axes.as_floats(component_params, 'component params'))


def mixture_mean(component_params: Sequence[jax.Array],
                 mixing_logits: jax.Array, *, family: Family,
                 event_axes: Sequence[int], component_axis: int = 1
                 ) -> jax.Array:
  """Mean of the mixture: the components' means weighted by their priors.

  Returns:
    Unit ab, the component params' shape without the component axis.
  """
  params = _as_params(component_params)
  axes = mixture_axes.resolve(
      params, family.num_params, event_axes, component_axis)
  priors = jnp.exp(mixture_axes.log_priors(mixing_logits, axes))
  priors = jnp.expand_dims(priors, axes.events)
  return (priors * family.mean(*params)).sum(axes.component)


def top_component_mean(component_params: Sequence[jax.Array],
                       mixing_logits: jax.Array, *, family: Family,
                       event_axes: Sequence[int], component_axis: int = 1
                       ) -> jax.Array:
  """Mean of the component with the largest prior: the published prediction.

  Returns:
    Unit ab, the component params' shape without the component axis.
  """
  params = _as_params(component_params)
  axes = mixture_axes.resolve(
      params, family.num_params, event_axes, component_axis)
  return family.mean(*_choose(params, _top(mixing_logits, axes), axes))


def mixture_mode(component_params: Sequence[jax.Array],
                 mixing_logits: jax.Array, *, family: Family,
                 event_axes: Sequence[int], component_axis: int = 1
                 ) -> jax.Array:
  """Mode of the component with the largest prior.

  The exact mode of a mixture has no closed form. This is the mode if the
  components are well separated and equally wide.

  Returns:
    Unit ab, the component params' shape without the component axis.
  """
  params = _as_params(component_params)
  axes = mixture_axes.resolve(
      params, family.num_params, event_axes, component_axis)
  return family.mode(*_choose(params, _top(mixing_logits, axes), axes))


def mixture_sample(key: jax.Array, component_params: Sequence[jax.Array],
                   mixing_logits: jax.Array, *, family: Family,
                   event_axes: Sequence[int], component_axis: int = 1
                   ) -> jax.Array:
  """Draws one sample: a component for each event, then the event's elements.

  For n samples, `jax.vmap` this over `jax.random.split(key, n)`.

  Returns:
    Unit ab, the component params' shape without the component axis.
  """
  params = _as_params(component_params)
  axes = mixture_axes.resolve(
      params, family.num_params, event_axes, component_axis)
  key_component, key_elements = jax.random.split(key)
  log_priors = mixture_axes.log_priors(mixing_logits, axes)
  chosen = jax.random.categorical(
      key_component, log_priors, axis=axes.mixing_component)
  return family.sample(key_elements, *_choose(params, chosen, axes))


def _top(mixing_logits: jax.Array, axes: mixture_axes.MixtureAxes) -> jax.Array:
  """Index of the component with the largest prior, for each event."""
  log_priors = mixture_axes.log_priors(mixing_logits, axes)
  return jnp.argmax(log_priors, axis=axes.mixing_component)


def _choose(params: Sequence[jax.Array], chosen: jax.Array,
            axes: mixture_axes.MixtureAxes) -> list[jax.Array]:
  """Params of the chosen components, without the component axis."""
  index = jnp.expand_dims(chosen, axes.mixing_component)
  index = jnp.expand_dims(index, axes.events)
  return [
      jnp.take_along_axis(
          p, jnp.minimum(index, p.shape[axes.component] - 1), axes.component
      ).squeeze(axes.component) for p in params]
