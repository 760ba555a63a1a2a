"""Mixture likelihoods: sum over an event, then logsumexp over components.

An event is a group of numbers that share one choice of component: a whole
image, a patch or a pixel. `event_axes` selects it:

  log p(y) = logsumexp_k [log softmax(mixing)_k + sum_event log p_k(y)]

Axes. `targets` [...] are unit ab in [0, 1] (see `colorjax.color`). Component
params have the targets' shape with an axis of K components inserted at
`component_axis`, as by `jnp.expand_dims`; any of their sizes may be 1.
`event_axes` are axes of the targets. `mixing_logits` have the params' shape
without the event axes, results the targets' shape without them. For ab fields,
with params `[B, K, H, W, 2]` (component_axis 1):

  event         targets             event_axes  mixing_logits  result
  whole image   [B, H, W, 2]        (1, 2, 3)   [B, K]         [B]
  p x p patch   [B, h, p, w, p, 2]  (2, 4, 5)   [B, K, h, w]   [B, h, w]
  pixel         [B, H, W, 2]        (3,)        [B, K, H, W]   [B, H, W]

Networks put channels last: `[B, H, W, K, 2]` with component_axis 3 avoids
transposing them.

Log-likelihoods are in nats and not reduced. All functions compute in float32
or wider, whatever the type of the inputs, and are finite for raw outputs of
+-1e4.

Juan and Vidal, "Bernoulli mixture models for binary images", ICPR 2004.
"""

import math
from collections.abc import Sequence

import jax

from colorjax import color
from colorjax.losses import families, fused_sum, mixture_axes
from colorjax.losses.families import Family


def _joint_log_prob(targets, component_params, mixing_logits, *, family,
                    event_axes, component_axis):
  """log prior_k + log p_k(targets) for each event, and its component axis."""
  params = mixture_axes.as_floats(component_params, 'component params')
  (targets,) = mixture_axes.as_floats([targets], 'targets')
  axes = mixture_axes.resolve(
      params, family.num_params, event_axes, component_axis)
  targets, axes = mixture_axes.fit_targets(targets, params, axes)
  log_priors = mixture_axes.log_priors(mixing_logits, axes)
  log_probs = fused_sum.sum_log_prob(family, targets, params, axes.events)
  return log_priors + log_probs, axes.mixing_component


def mixture_log_prob(
    targets: jax.Array, component_params: Sequence[jax.Array],
    mixing_logits: jax.Array, *, family: Family, event_axes: Sequence[int],
    component_axis: int = 1) -> jax.Array:
  """Log-likelihood of events under a mixture of product distributions.

  Args:
    targets: unit ab in [0, 1], any shape.
    component_params: `family.num_params` arrays of raw network outputs, the
      targets' shape with K components at `component_axis`. Sizes may be 1, for
      example to give each component a single scale.
    mixing_logits: unnormalized log priors, the component params' shape without
      the event axes; sizes other than K may be 1.
    family: the elementwise distribution, see `colorjax.losses.families`.
    event_axes: axes of the targets that share one choice of component.
    component_axis: the axis of K in the component params.

  Returns:
    Nats, the targets' shape without the event axes: the log of a probability
    mass for discrete families, of a density otherwise.

  Raises:
    ValueError: shapes or axes do not match; the message names them.
    TypeError: an input is uint8, an unconverted photograph.
  """
  joint, axis = _joint_log_prob(
      targets, component_params, mixing_logits, family=family,
      event_axes=event_axes, component_axis=component_axis)
  return jax.nn.logsumexp(joint, axis=axis)


def responsibilities(
    targets: jax.Array, component_params: Sequence[jax.Array],
    mixing_logits: jax.Array, *, family: Family, event_axes: Sequence[int],
    component_axis: int = 1) -> jax.Array:
  """Posterior probability of each component, given the targets.

  Args and errors: as `mixture_log_prob`.

  Returns:
    Probabilities, the component params' shape without the event axes; they
    sum to 1 over components.
  """
  joint, axis = _joint_log_prob(
      targets, component_params, mixing_logits, family=family,
      event_axes=event_axes, component_axis=component_axis)
  return jax.nn.softmax(joint, axis=axis)


def bernoulli_mixture_log_prob(targets: jax.Array,
                               component_logits: jax.Array,
                               mixing_logits: jax.Array) -> jax.Array:
  """Log-likelihood under a mixture of product Bernoullis, as published.

  log p(x) = logsumexp_k [log pi_k + sum_d x_d l_kd - log(1 + exp(l_kd))].

  Args:
    targets: values in {0, 1}, floats, integers or bool, shape [..., D]; values
      in between are soft labels, see `families.bernoulli`.
    component_logits: real, shape [..., K, D].
    mixing_logits: unnormalized log pi, shape [..., K].

  Returns:
    Nats, shape [...]; not reduced.

  Raises:
    ValueError: shapes differ from those above; none is broadcast.
    TypeError: an input is uint8, an unconverted photograph.
  """
  targets, logits, mixing = mixture_axes.as_floats(
      [targets, component_logits, mixing_logits], 'targets and logits')
  if (targets.ndim < 1 or logits.ndim != targets.ndim + 1
      or logits.shape[:-1] != mixing.shape
      or targets.shape != logits.shape[:-2] + logits.shape[-1:]):
    raise ValueError(
        'targets must be [..., D], component_logits [..., K, D] and '
        'mixing_logits [..., K], got '
        f'{mixture_axes.shapes([targets, logits, mixing])}')
  return mixture_log_prob(
      targets, (logits,), mixing, family=families.bernoulli(),
      event_axes=(-1,), component_axis=-2)


def mixture_log_density(
    targets: jax.Array, component_params: Sequence[jax.Array],
    mixing_logits: jax.Array, *, family: Family, event_axes: Sequence[int],
    component_axis: int = 1) -> jax.Array:
  """Normalized log density of events over unit ab, comparable across families.

  Like `mixture_log_prob`, but with the normalized density of each element
  (`Family.log_density`) instead of the training objective.

  Returns:
    Nats with respect to unit ab, the targets' shape without the event axes.
  """
  return mixture_log_prob(
      targets, component_params, mixing_logits, family=family.normalized(),
      event_axes=event_axes, component_axis=component_axis)


def ab_log_density(log_density: jax.Array, num_dims: int) -> jax.Array:
  """Converts a log density over unit ab to one over ab in Lab units.

  The unit interval spans `color.UNIT_AB_WIDTH` ab units, so the density is
  smaller by that factor in every dimension.

  Args:
    log_density: nats per event over unit ab, from `mixture_log_density`.
    num_dims: number of values in an event, height * width * 2 for an image.

  Returns:
    Nats per event over ab, same shape.
  """
  return log_density - num_dims * math.log(color.UNIT_AB_WIDTH)


def bits_per_dim(log_density: jax.Array, num_dims: int) -> jax.Array:
  """Negative log density over ab, in bits per dimension; lower is better.

  This is the number of bits needed to code a value to a precision of 1 ab unit.
  The uniform density over the ab square scores log2(220) = 7.78.

  Values of different families, event shapes and methods can be compared if the
  densities over ab are normalized and photographs, resolution and resampling of
  ab are the same. Values at different resolutions cannot: at a higher
  resolution neighboring pixels predict each other better. Nor can
  `mixture_log_prob` of a discrete family.

  Args:
    log_density: nats per event over unit ab, from `mixture_log_density`.
    num_dims: number of values in an event, height * width * 2 for an image.

  Returns:
    Bits per dimension in ab units, same shape.
  """
  return -ab_log_density(log_density, num_dims) / (num_dims * math.log(2))
