"""Losses of a generator and a discriminator, and the masked regression.

An adversarial loss is a record of three functions of discriminator logits of
any shape, each unreduced: nothing is averaged over positions or photographs.
Larger logits say "photograph", smaller ones "colored by the generator".

  name            photograph (l)     generated (l)      generator (l)
  bce             softplus(-l)       softplus(l)        softplus(-l)
  least_squares   (l - 1)^2          l^2                (l - 1)^2
  hinge           max(0, 1 - l)      max(0, 1 + l)      -l
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Adversarial(NamedTuple):
  """An adversarial loss; each function maps logits to losses, same shape.

  Attributes:
    real: the discriminator's loss on photographs.
    fake: the discriminator's loss on what the generator colored.
    generator: the generator's loss, small where the discriminator is deceived.
    boundary: logits above it mean "photograph".
  """
  real: Callable[[jax.Array], jax.Array]
  fake: Callable[[jax.Array], jax.Array]
  generator: Callable[[jax.Array], jax.Array]
  boundary: float


def bce() -> Adversarial:
  """Binary cross-entropy, non-saturating (Goodfellow et al. 2014).

  With D = sigmoid(l): -log D on photographs, -log(1 - D) on generated ones,
  and -log D for the generator, whose gradient lives where D is sure of itself;
  log(1 - D) has none there.
  """
  # -log sigmoid(l) = softplus(-l): finite for every logit.
  return Adversarial(
      real=lambda logits: jax.nn.softplus(-logits), fake=jax.nn.softplus,
      generator=lambda logits: jax.nn.softplus(-logits), boundary=0.0)


def least_squares() -> Adversarial:
  """Least squares with targets 1, 0 and 1 (Mao et al. 2017, arXiv:1611.04076).

  The paper's factor 1/2 is left to whoever adds up the two halves of the
  discriminator's loss.
  """
  return Adversarial(
      real=lambda logits: jnp.square(logits - 1), fake=jnp.square,
      generator=lambda logits: jnp.square(logits - 1), boundary=0.5)


def hinge() -> Adversarial:
  """Hinge with margin 1 (Lim and Ye 2017, arXiv:1705.02894)."""
  return Adversarial(
      real=lambda logits: jax.nn.relu(1 - logits),
      fake=lambda logits: jax.nn.relu(1 + logits),
      generator=jnp.negative, boundary=0.0)


def masked_squared_error(
    output: jax.Array, target: jax.Array, region: jax.Array) -> jax.Array:
  """(region * target - output)^2: the target inside, zero outside.

  Args:
    output: [..., H, W, C].
    target: [..., H, W, C], in the unit of `output`, in which grey is 0.
    region: [..., H, W, 1], 1 inside and 0 outside.

  Returns:
    [..., H, W, C], not reduced.
  """
  if output.shape != target.shape or region.shape != (*output.shape[:-1], 1):
    raise ValueError(
        f'output {output.shape} and target {target.shape} have one shape, and '
        f'the region one channel; got {region.shape}')
  return jnp.square(region * target - output)
