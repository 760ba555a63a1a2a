"""Which axis of a mixture's arrays means what, and the checks of it.

The convention is that of `colorjax.losses.likelihood`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class MixtureAxes:
  """Axes of the component params of a mixture.

  Attributes:
    component: the axis of the K components.
    events: the axes that share one choice of component.
    shape: what the component params broadcast to.
  """
  component: int
  events: tuple[int, ...]
  shape: tuple[int, ...]

  @property
  def mixing_component(self) -> int:
    """The component axis once the event axes are gone."""
    return self.component - sum(a < self.component for a in self.events)

  @property
  def mixing_shape(self) -> tuple[int, ...]:
    """The shape once the event axes are gone."""
    return tuple(n for a, n in enumerate(self.shape) if a not in self.events)


def shapes(arrays: Sequence[jax.Array]) -> str:
  """The arrays' shapes, for an error message."""
  return ', '.join(str(list(a.shape)) for a in arrays)


def as_floats(arrays: Sequence[jax.typing.ArrayLike], what: str
              ) -> list[jax.Array]:
  """Floating arrays of 32 bits at least where they are not floats already.

  Raises:
    TypeError: an array is uint8, which is a photograph and not unit ab.
  """
  checked = [jnp.asarray(a) for a in arrays]
  if any(a.dtype == jnp.uint8 for a in checked):
    raise TypeError(f'{what} must not be uint8: convert photographs with '
                    'color.split_lightness and color.ab_to_unit first')
  return [a if jnp.issubdtype(a.dtype, jnp.floating)
          else a.astype(jnp.float32) for a in checked]


def resolve(params: Sequence[jax.Array], num_params: int,
            event_axes: Sequence[int], component_axis: int) -> MixtureAxes:
  """Checks component params among themselves and counts their axes.

  Args:
    params: component params, sizes equal or 1.
    num_params: how many the family needs.
    event_axes: axes of the targets, that is not counting the components.
    component_axis: axis of the component params.

  Raises:
    ValueError: names the shapes or axes that do not fit.
  """
  if len(params) != num_params:
    raise ValueError(f'the family has {num_params} component params, got '
                     f'{len(params)}: {shapes(params)}')
  rank = params[0].ndim
  if any(p.ndim != rank for p in params):
    raise ValueError(f'component params differ in rank: {shapes(params)}')
  if not -rank <= component_axis < rank:
    raise ValueError(f'no component_axis {component_axis} in component params '
                     f'{shapes(params)}')
  if any(not 1 - rank <= a < rank - 1 for a in event_axes):
    raise ValueError(f'event_axes {tuple(event_axes)} name axes of targets, '
                     f'which have {rank - 1} for component params '
                     f'{shapes(params)}')
  component = component_axis % rank
  events = [a % (rank - 1) for a in event_axes]
  if len(set(events)) != len(events):
    raise ValueError(f'event_axes {tuple(event_axes)} name an axis twice')
  try:
    shape = jnp.broadcast_shapes(*(p.shape for p in params))
  except ValueError as error:
    raise ValueError(
        f'component params do not broadcast: {shapes(params)}') from error
  return MixtureAxes(
      component, tuple(a + (a >= component) for a in events), shape)


def fit_targets(targets: jax.Array, params: Sequence[jax.Array],
                axes: MixtureAxes) -> tuple[jax.Array, MixtureAxes]:
  """Puts an axis for the components into the targets.

  Returns:
    The targets, and the axes with their shape filled in.

  Raises:
    ValueError: a size of the params is neither the targets' nor 1.
  """
  message = (f'targets {list(targets.shape)} do not fit component params '
             f'{shapes(params)} with component axis {axes.component}')
  if targets.ndim != len(axes.shape) - 1:
    raise ValueError(f'{message}: params need one axis more')
  expanded = jnp.expand_dims(targets, axes.component)
  full = list(expanded.shape)
  full[axes.component] = axes.shape[axes.component]
  if any(n not in (1, m) for n, m in zip(axes.shape, full, strict=True)):
    raise ValueError(f'{message}: sizes must be equal, or 1 in params')
  return expanded, dataclasses.replace(axes, shape=tuple(full))


def log_priors(mixing_logits: jax.typing.ArrayLike, axes: MixtureAxes
               ) -> jax.Array:
  """Normalized log priors, components at `axes.mixing_component`.

  Raises:
    ValueError: the logits are not shaped like params without event axes.
  """
  (logits,) = as_floats([mixing_logits], 'mixing_logits')
  want = axes.mixing_shape
  fits = logits.ndim == len(want) and all(
      n == m or (n == 1 and a != axes.mixing_component)
      for a, (n, m) in enumerate(zip(logits.shape, want, strict=True)))
  if not fits:
    raise ValueError(f'mixing_logits {list(logits.shape)} must be shaped like '
                     f'component params without event axes, {list(want)}')
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  return jax.nn.log_softmax(logits, axis=axes.mixing_component)
