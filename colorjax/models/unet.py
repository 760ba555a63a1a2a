"""A residual U-Net with group norm, as a trunk (`colorjax.models.trunk`)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.errors import UserError
from colorjax.models.residual import (
  GROUP_SIZE,
  GroupNorm,
  ResidualBlock,
  scaled_silu,
)


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
    self.last_norm = GroupNorm()

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
    return scaled_silu(x, *self.last_norm(x))


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
