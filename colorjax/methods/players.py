"""What adversarial methods share: variables by network, and losses.

The networks of such a method are trained by different losses, its players
(`Colorizer.players`). Each has an entry of its own, by its name, in `params`
and in each collection of `model_state`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.colorizer import FROZEN, Aux, Variables, masked_mean
from colorjax.errors import UserError
from colorjax.losses import adversarial

LOSSES = {
    'bce': adversarial.bce,
    'least_squares': adversarial.least_squares,
    'hinge': adversarial.hinge,
}
"""Adversarial losses by the names used in settings and flags."""


def merge(by_name: Mapping[str, Variables]) -> Variables:
  """Merges the variables of networks.

  Args:
    by_name: results of `init_variables` by the name of the network.

  Returns:
    {'params': {NAME: ...}, 'model_state': {COLLECTION: {NAME: ...}}}.
  """
  state: dict[str, dict[str, Any]] = {}
  for name, variables in by_name.items():
    for collection, value in variables['model_state'].items():
      state.setdefault(collection, {})[name] = value
  return {'params': {name: v['params'] for name, v in by_name.items()},
          'model_state': state}


def apply(name: str, net: nn.Module, params: Any, model_state: Any,
          *inputs: Any, train: bool) -> tuple[Any, Any]:
  """Applies one of the networks.

  Args:
    name: its name in `params` and in the collections of `model_state`.
    net: the network; its `__call__` takes `train`.
    params: parameters of all networks.
    model_state: the other variables of all networks.
    *inputs: arguments of the network.
    train: whether the network is being trained.

  Returns:
    The output, and `model_state` with what the network changed: its batch
    statistics, with `train`.
  """
  own = {collection: values[name] for collection, values
         in model_state.items() if name in values}
  out, new = net.apply(
      {'params': params[name], **own}, *inputs, train=train,
      mutable=[collection for collection in own if collection != FROZEN])
  if not train:
    return out, model_state
  return out, {**model_state, **{
      collection: {**model_state[collection], name: values}
      for collection, values in new.items()}}


def discriminator_loss(
    loss: adversarial.Adversarial, real_logits: jax.Array,
    fake_logits: jax.Array, padding_mask: jax.Array, model_state: Any
) -> tuple[jax.Array, Aux]:
  """The loss of a discriminator, (real + fake) / 2, as players return it.

  Args:
    loss: the adversarial loss.
    real_logits: logits of photographs, [B, ...].
    fake_logits: logits of generated colorings, [B, ...].
    padding_mask: [B], 1 for a photograph and 0 for padding.
    model_state: the new state.

  Returns:
    The mean loss, and Aux with the metrics `discriminator_loss`,
    `real_accuracy` and `fake_accuracy`.
  """
  metrics = {
      'loss': mean((loss.real(real_logits) + loss.fake(fake_logits)) / 2),
      'real_accuracy': mean(real_logits > loss.boundary),
      'fake_accuracy': mean(fake_logits <= loss.boundary)}
  scalar, aux = masked_mean(metrics, padding_mask, model_state)
  # The name `loss` is reserved for the generator's objective.
  loss_sum = aux.metrics.pop('loss')
  return scalar, aux.replace(
      metrics={'discriminator_loss': loss_sum, **aux.metrics})


def mean(x: jax.Array) -> jax.Array:
  """Mean over all axes but the first: [B, ...] to [B], float32."""
  return x.astype(jnp.float32).mean(tuple(range(1, x.ndim)))


def check_patch_sides(image_shape: tuple[int, int], num_widths: int) -> None:
  """Checks that a photograph is large enough for the patch discriminator.

  Args:
    image_shape: (H, W) in pixels.
    num_widths: number of widths of `mask_gan.PatchDiscriminator`.

  Raises:
    UserError: it is not.
  """
  # The last two convolutions each shorten the sides by a pixel.
  least = 3 * 2**(num_widths - 1)
  if min(image_shape) < least:
    raise UserError(
        f'image_size={" x ".join(map(str, image_shape))}: this '
        f'discriminator needs sides of at least {least} pixels')
