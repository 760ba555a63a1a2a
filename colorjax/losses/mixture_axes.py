"""Axes and shapes of a mixture's arrays: their meaning and their checks.

`colorjax.losses.likelihood` states the convention.
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
    shape: the shape that the component params broadcast to.
  """
  component: int
  events: tuple[int, ...]
  shape: tuple[int, ...]

  @property
  def mixing_component(self) -> int:
    """The component axis after the event axes are removed."""
    return self.component - sum(a < self.component for a in self.events)

  @property
  def mixing_shape(self) -> tuple[int, ...]:
    """The shape after the event axes are removed."""
    return tuple(n for a, n in enumerate(self.shape) if a not in self.events)


def shapes(arrays: Sequence[jax.Array]) -> str:
  """Lists the arrays' shapes, for an error message."""
  return ', '.join(str(list(a.shape)) for a in arrays)


def as_floats(arrays: Sequence[jax.typing.ArrayLike], what: str
              ) -> list[jax.Array]:
  """Converts integer and bool arrays to float32; keeps floating arrays.

  Args:
    arrays: any arrays.
    what: what they are, for the error message.

  Raises:
    TypeError: an array is uint8. Photographs are uint8; unit ab never is.
  """
  checked = [jnp.asarray(a) for a in arrays]
  if any(a.dtype == jnp.uint8 for a in checked):
    raise TypeError(f'{what} must not be uint8: convert photographs with '
                    'color.split_lightness and color.ab_to_unit first')
  return [a if jnp.issubdtype(a.dtype, jnp.floating)
          else a.astype(jnp.float32) for a in checked]


def at_least_float32(arrays: Sequence[jax.Array]) -> list[jax.Array]:
  """Casts to float32, or to float64 if any of the arrays is float64."""
  dtype = jnp.result_type(jnp.float32, *arrays)
  return [a.astype(dtype) for a in arrays]


def resolve(params: Sequence[jax.Array], num_params: int,
            event_axes: Sequence[int], component_axis: int) -> MixtureAxes:
  """Checks that the component params match and resolves their axes.

  Args:
    params: component params; along each axis their sizes are equal or 1.
    num_params: the number of params that the family needs.
    event_axes: axes of the targets, which have no component axis.
    component_axis: axis of the component params.

  Raises:
    ValueError: shapes or axes do not match; the message names them.
  """
  if len(params) != num_params:
    raise ValueError(f'this family needs {num_params} component params, got '
                     f'{len(params)}: {shapes(params)}')
  rank = params[0].ndim
  if any(p.ndim != rank for p in params):
    raise ValueError(
        f'component params must have the same rank: {shapes(params)}')
  if not -rank <= component_axis < rank:
    raise ValueError(f'component_axis={component_axis}: component params of '
                     f'shape {shapes(params)} have no such axis')
  if any(not 1 - rank <= a < rank - 1 for a in event_axes):
    raise ValueError(f'event_axes={tuple(event_axes)}: must be axes of the '
                     f'targets, which have {rank - 1} axes for component '
                     f'params of shape {shapes(params)}')
  component = component_axis % rank
  events = [a % (rank - 1) for a in event_axes]
  if len(set(events)) != len(events):
    raise ValueError(f'event_axes={tuple(event_axes)}: an axis is named twice')
  try:
    shape = jnp.broadcast_shapes(*(p.shape for p in params))
  except ValueError as error:
    raise ValueError(
        f'component params do not broadcast: {shapes(params)}') from error
  return MixtureAxes(
      component, tuple(a + (a >= component) for a in events), shape)


def fit_targets(targets: jax.Array, params: Sequence[jax.Array],
                axes: MixtureAxes) -> tuple[jax.Array, MixtureAxes]:
  """Inserts a component axis into the targets.

  Returns:
    The targets, and the axes with the full shape: that of the targets with K
    components.

  Raises:
    ValueError: a size of the params is neither 1 nor that of the targets.
  """
  message = (f'targets {list(targets.shape)} do not match component params '
             f'{shapes(params)} with component axis {axes.component}')
  if targets.ndim != len(axes.shape) - 1:
    raise ValueError(f'{message}: the params must have one more axis')
  expanded = jnp.expand_dims(targets, axes.component)
  full = list(expanded.shape)
  full[axes.component] = axes.shape[axes.component]
  if any(n not in (1, m) for n, m in zip(axes.shape, full, strict=True)):
    raise ValueError(f'{message}: sizes must be equal, or 1 in the params')
  return expanded, dataclasses.replace(axes, shape=tuple(full))


def log_priors(mixing_logits: jax.typing.ArrayLike, axes: MixtureAxes
               ) -> jax.Array:
  """Normalizes mixing logits along `axes.mixing_component`.

  Raises:
    ValueError: the logits do not have the params' shape without event axes.
  """
  (logits,) = as_floats([mixing_logits], 'mixing_logits')
  want = axes.mixing_shape
  fits = logits.ndim == len(want) and all(
      n == m or (n == 1 and a != axes.mixing_component)
      for a, (n, m) in enumerate(zip(logits.shape, want, strict=True)))
  if not fits:
    raise ValueError(f'mixing_logits {list(logits.shape)} must have the shape '
                     f'of component params without event axes, {list(want)}')
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  return jax.nn.log_softmax(logits, axis=axes.mixing_component)
