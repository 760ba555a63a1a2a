"""Likelihoods of mixtures: sum over events, then logsumexp over components.

An event is the group of numbers that share one choice of component: a whole
image, a patch or a pixel. Which one is a matter of `event_axes` alone:

  log p(y) = logsumexp_k [log softmax(mixing)_k + sum_event log p_k(y)]

Axes. `targets` [...] hold unit ab in [0, 1] (see `colorjax.color`). Component
params are the targets' shape with an axis of K components put in at
`component_axis`, as `jnp.expand_dims` would; each of their sizes is the full
one or 1. `event_axes` name axes of the targets. `mixing_logits` are shaped
like the params without the event axes, and results like the targets without
them. For ab fields, with params `[B, K, H, W, 2]` (component_axis 1):

  event         targets             event_axes  mixing_logits  result
  whole image   [B, H, W, 2]        (1, 2, 3)   [B, K]         [B]
  p x p patch   [B, h, p, w, p, 2]  (2, 4, 5)   [B, K, h, w]   [B, h, w]
  pixel         [B, H, W, 2]        (3,)        [B, K, H, W]   [B, H, W]

Networks put channels last: with `[B, H, W, K, 2]` and component_axis 3 no array
needs to be transposed.

Log-likelihoods are in nats and not reduced. All functions compute in float32
at least, whatever the inputs, and are finite for raw outputs of +-1e4.

Juan and Vidal, "Bernoulli mixture models for binary images", ICPR 2004.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax

from colorjax import color
from colorjax.losses import families, fused_sum, mixture_axes
from colorjax.losses.families import Family


def _joint_log_prob(targets, component_params, mixing_logits, *, family,
                    event_axes, component_axis):
  """log prior_k + log p_k(targets), and its component axis."""
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
  """Log-likelihood of events under a mixture of products of a family.

  Args:
    targets: unit ab in [0, 1], any shape.
    component_params: `family.num_params` arrays of raw network outputs, the
      targets' shape with K components at `component_axis`; sizes may be 1,
      for one scale per component for example.
    mixing_logits: unnormalized log priors, the component params' shape without
      the event axes; sizes other than K may be 1.
    family: the elementwise distribution, see `colorjax.losses.families`.
    event_axes: axes of the targets that share one choice of component.
    component_axis: the axis of K in the component params.

  Returns:
    Nats, the targets' shape without the event axes; not reduced further. A
    probability mass for discrete families, a density otherwise.

  Raises:
    ValueError: shapes or axes do not fit each other; the message names them.
    TypeError: an input is uint8, a photograph not yet converted.
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
    targets: values in {0, 1}, floats, integers or bool, shape [..., D];
      values between are taken as soft labels, see `families.bernoulli`.
    component_logits: real, shape [..., K, D].
    mixing_logits: unnormalized log pi, shape [..., K].

  Returns:
    Nats, shape [...]; not reduced.

  Raises:
    ValueError: shapes differ from those above; none is broadcast.
    TypeError: an input is uint8, a photograph not yet converted.
  """
  targets, logits, mixing = mixture_axes.as_floats(
      [targets, component_logits, mixing_logits], 'targets and logits')
  if (targets.ndim < 1 or logits.ndim != targets.ndim + 1
      or logits.shape[:-1] != mixing.shape
      or targets.shape != logits.shape[:-2] + logits.shape[-1:]):
    raise ValueError(
        'targets [..., D], component_logits [..., K, D] and mixing_logits '
        '[..., K] are needed, got '
        f'{mixture_axes.shapes([targets, logits, mixing])}')
  return mixture_log_prob(
      targets, (logits,), mixing, family=families.bernoulli(),
      event_axes=(-1,), component_axis=-2)


def mixture_log_density(
    targets: jax.Array, component_params: Sequence[jax.Array],
    mixing_logits: jax.Array, *, family: Family, event_axes: Sequence[int],
    component_axis: int = 1) -> jax.Array:
  """Log density of events over unit ab, on one footing for every family.

  As `mixture_log_prob`, with each element's normalized density over [0, 1] in
  the place of what is trained on; see `Family.log_density`.

  Returns:
    Nats with respect to unit ab, the targets' shape without the event axes.
  """
  if family.log_density is not None:
    family = dataclasses.replace(
        family, log_prob=family.log_density, log_product=None)
  return mixture_log_prob(
      targets, component_params, mixing_logits, family=family,
      event_axes=event_axes, component_axis=component_axis)


def ab_log_density(log_density: jax.Array, num_dims: int) -> jax.Array:
  """Log density over unit ab to the log density over ab in Lab units.

  A unit interval spans `color.UNIT_AB_WIDTH` ab units, so that the density
  falls by that factor in every dimension.

  Args:
    log_density: nats per event over unit ab, from `mixture_log_density`.
    num_dims: numbers in an event, height * width * 2 for a whole image.

  Returns:
    Nats per event over ab, same shape.
  """
  return log_density - num_dims * math.log(color.UNIT_AB_WIDTH)


def bits_per_dim(log_density: jax.Array, num_dims: int) -> jax.Array:
  """Negative log density over ab, in bits per dimension; lower is better.

  Comparable: any families, event shapes and methods whose densities over ab
  are normalized, for the same photographs, resolution and resampling of ab.
  It is the bits needed to tell a value to a precision of 1 ab unit. The uniform
  density over the ab square scores log2(220) = 7.78. Not comparable: other
  resolutions (neighbors predict each other better at higher ones), and
  `mixture_log_prob` of a discrete family.

  Args:
    log_density: nats per event over unit ab, from `mixture_log_density`.
    num_dims: numbers in an event, height * width * 2 for a whole image.

  Returns:
    Bits per dimension in ab units, same shape.
  """
  return -ab_log_density(log_density, num_dims) / (num_dims * math.log(2))
