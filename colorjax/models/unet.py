"""A residual U-Net with group norm: the trunk that several networks share.

Encoder and decoder are two functions to be called inside the compact `__call__`
of a network, which then owns the layers: what is put between or after them is
the network's own.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUP_SIZE = 16
"""Channels that a group norm takes together."""

STRIDE = 2
"""How much smaller the decoder's features are than the photograph."""


def group_norm(dtype: Any) -> nn.GroupNorm:
  """Group norm over GROUP_SIZE channels (Wu and He 2018), inside a network."""
  return nn.GroupNorm(num_groups=None, group_size=GROUP_SIZE, dtype=dtype)


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions with pre-activation group norm (He et al. 2016b).

  Attributes:
    width: channels of the output.
    dtype: compute type.
  """
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, h, w, width]."""
    shortcut = x
    if x.shape[-1] != self.width:
      shortcut = nn.Conv(self.width, (1, 1), use_bias=False,
                         dtype=self.dtype)(x)
    for _ in range(2):
      x = group_norm(self.dtype)(x)
      x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(x))
    return shortcut + x


def encode(lightness: jax.Array, filters: Sequence[int], dtype: Any
           ) -> list[jax.Array]:
  """The features of a photograph at every scale.

  The stem halves the resolution once: chroma is smooth, and eyes resolve it at
  half the sharpness of lightness, so ab fields are modelled at (H/2, W/2).

  Args:
    lightness: network lightness [B, H, W, 1].
    filters: channels at each scale, multiples of GROUP_SIZE; H and W are
      divisible by 2^len(filters).
    dtype: compute type.

  Returns:
    [B, H / 2^(i+1), W / 2^(i+1), filters[i]] for each i.
  """
  x = nn.Conv(filters[0], (4, 4), (STRIDE, STRIDE), dtype=dtype, name='stem')(
      lightness.astype(dtype))
  scales = []
  for level, width in enumerate(filters):
    if level:
      x = nn.Conv(width, (2, 2), (2, 2), dtype=dtype)(x)
    x = ResidualBlock(width, dtype)(x)
    scales.append(x)
  return scales


def decode(scales: Sequence[jax.Array], dtype: Any) -> jax.Array:
  """Features of every scale, joined at the finest.

  Args:
    scales: what `encode` returned.
    dtype: compute type.

  Returns:
    Normalized and activated features [B, H / 2, W / 2, filters[0]].
  """
  *skips, x = scales
  for skip in reversed(skips):
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    x = jnp.concatenate([x, skip], axis=-1)
    x = ResidualBlock(skip.shape[-1], dtype)(x)
  return nn.silu(group_norm(dtype)(x))
