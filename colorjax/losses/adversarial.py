"""Adversarial losses for a GAN, and its masked regression loss.

An adversarial loss is a record of three functions of discriminator logits.
They take logits l of any shape and are not reduced. A large logit means
"photograph", a small one "colored by the generator".

  name            photograph         generated          generator
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
    fake: the discriminator's loss on generated colorings.
    generator: the generator's loss; small where the discriminator is fooled.
    boundary: the decision threshold; logits above it mean "photograph".
  """
  real: Callable[[jax.Array], jax.Array]
  fake: Callable[[jax.Array], jax.Array]
  generator: Callable[[jax.Array], jax.Array]
  boundary: float


def bce() -> Adversarial:
  """Binary cross-entropy, non-saturating (Goodfellow et al. 2014).

  With D = sigmoid(l): -log D on photographs, -log(1 - D) on generated
  colorings, and -log D for the generator. Where the discriminator confidently
  rejects a coloring, the gradient of -log D stays large, while that of the
  minimax loss log(1 - D) vanishes.
  """
  # -log sigmoid(l) = softplus(-l): finite for every logit.
  return Adversarial(
      real=lambda logits: jax.nn.softplus(-logits), fake=jax.nn.softplus,
      generator=lambda logits: jax.nn.softplus(-logits), boundary=0.0)


def least_squares() -> Adversarial:
  """Least squares with targets 1, 0 and 1 (Mao et al. 2017, arXiv:1611.04076).

  Without the paper's factor 1/2: the caller applies it when adding the two
  terms of the discriminator's loss.
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
  """Squared error (region * target - output)^2.

  The output is compared with the target inside the region and with 0 outside.

  Args:
    output: [..., H, W, C].
    target: [..., H, W, C], in the units of `output`; 0 is grey.
    region: [..., H, W, 1], 1 inside and 0 outside.

  Returns:
    [..., H, W, C], not reduced.

  Raises:
    ValueError: the shapes differ from those above; none is broadcast.
  """
  if output.shape != target.shape or region.shape != (*output.shape[:-1], 1):
    raise ValueError(
        f'output {list(output.shape)} and target {list(target.shape)} must '
        'have the same shape [..., H, W, C], and the region the shape '
        f'[..., H, W, 1]; got {list(region.shape)}')
  return jnp.square(region * target - output)
