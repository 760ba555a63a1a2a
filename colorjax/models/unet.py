"""A residual U-Net with group norm, as a trunk (`colorjax.models.trunk`)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.errors import UserError
from colorjax.remat import Segmented

GROUP_SIZE = 16
"""Number of channels that a group norm normalizes together."""


def group_norm(dtype: Any) -> nn.GroupNorm:
  """Group norm with groups of GROUP_SIZE channels (Wu and He 2018)."""
  return nn.GroupNorm(num_groups=None, group_size=GROUP_SIZE, dtype=dtype)


class ResidualBlock(Segmented):
  """Two 3x3 convolutions with pre-activation group norm (He et al. 2016b).

  Conditioning scales and shifts the channels after the second norm (FiLM,
  Perez et al. 2018). It is initialized to the identity.

  Attributes:
    width: channels of the output.
    dtype: compute type.
  """
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, conditioning: jax.Array | None = None
               ) -> jax.Array:
    """[B, h, w, C] and conditioning [B, E] to [B, h, w, width]."""
    shortcut = x
    if x.shape[-1] != self.width:
      shortcut = nn.Conv(self.width, (1, 1), use_bias=False,
                         dtype=self.dtype)(x)
    x = self.segment(_first_half, x)
    return shortcut + self.segment(_second_half, x, conditioning)


def _first_half(block: ResidualBlock, x: jax.Array) -> jax.Array:
  x = group_norm(block.dtype)(x)
  return nn.Conv(block.width, (3, 3), dtype=block.dtype)(nn.silu(x))


def _second_half(block: ResidualBlock, x: jax.Array,
                 conditioning: jax.Array | None) -> jax.Array:
  x = group_norm(block.dtype)(x)
  if conditioning is not None:
    film = nn.Dense(2 * block.width, kernel_init=nn.initializers.zeros,
                    dtype=block.dtype, name='film')(nn.silu(conditioning))
    scale, shift = jnp.split(film[:, None, None], 2, axis=-1)
    x = x * (1 + scale) + shift
  return nn.Conv(block.width, (3, 3), dtype=block.dtype)(nn.silu(x))


class UNet(nn.Module):
  """The U-Net as a trunk.

  The stem halves the resolution, so ab fields are modeled at (H/2, W/2). Chroma
  is smooth, and human vision resolves it less finely than lightness.

  Attributes:
    filters: channels at each scale, multiples of GROUP_SIZE: scale i is
      [B, H / 2^(i+1), W / 2^(i+1), filters[i]].
    dtype: compute type; parameters stay float32.
  """
  filters: Sequence[int] = (32, 64, 128, 256)
  dtype: Any = jnp.float32

  @property
  def stride(self) -> int:
    """Features have half the photograph's height and width."""
    return 2

  @property
  def divisor(self) -> int:
    """Each scale halves the height and width."""
    return 2**len(self.filters)

  def setup(self) -> None:
    """Creates the layers of `encode` and `decode`."""
    first, *rest = self.filters
    self.stem = nn.Conv(first, (4, 4), (2, 2), dtype=self.dtype)
    self.down = [nn.Conv(width, (2, 2), (2, 2), dtype=self.dtype)
                 for width in rest]
    self.encoder = [ResidualBlock(width, self.dtype) for width in self.filters]
    self.decoder = [ResidualBlock(width, self.dtype)
                    for width in self.filters[:-1]]
    self.last_norm = group_norm(self.dtype)

  def encode(self, inputs: jax.Array, conditioning: jax.Array | None = None,
             *, train: bool) -> list[jax.Array]:
    """See `trunk.Trunk`; one scale for each of `filters`."""
    del train  # Training and inference do not differ.
    x = self.stem(inputs.astype(self.dtype))
    scales = []
    for level, block in enumerate(self.encoder):
      if level:
        x = self.down[level - 1](x)
      x = block(x, conditioning)
      scales.append(x)
    return scales

  def decode(self, scales: Sequence[jax.Array],
             conditioning: jax.Array | None = None, *, train: bool
             ) -> jax.Array:
    """See `trunk.Trunk`; features [B, H / 2, W / 2, filters[0]]."""
    del train
    *skips, x = scales
    for skip, block in reversed(list(zip(skips, self.decoder, strict=True))):
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      x = block(jnp.concatenate([x, skip], axis=-1), conditioning)
    return nn.silu(self.last_norm(x))


def build(filters: Sequence[int], dtype: Any = jnp.float32) -> UNet:
  """Builds the U-Net for `trunk.TRUNKS`.

  Args:
    filters: channels at each scale.
    dtype: compute type.

  Returns:
    The trunk.

  Raises:
    UserError: there are no filters, or one is not a multiple of GROUP_SIZE.
  """
  if not filters:
    raise UserError('filters=[]: the U-Net needs at least one scale')
  for width in filters:
    if width < 1 or width % GROUP_SIZE:
      raise UserError(f'filters={width}: channels of the U-Net must be '
                      f'multiples of {GROUP_SIZE}')
  return UNet(tuple(filters), dtype)
