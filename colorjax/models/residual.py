"""A residual block with group norm, of which several networks are made."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUP_SIZE = 16
"""Number of channels that a group norm normalizes together."""


def group_norm(dtype: Any) -> nn.GroupNorm:
  """Group norm with groups of GROUP_SIZE channels (Wu and He 2018)."""
  return nn.GroupNorm(num_groups=None, group_size=GROUP_SIZE, dtype=dtype)


class ResidualBlock(nn.Module):
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
    x = group_norm(self.dtype)(x)
    x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(x))
    x = group_norm(self.dtype)(x)
    if conditioning is not None:
      film = nn.Dense(2 * self.width, kernel_init=nn.initializers.zeros,
                      dtype=self.dtype, name='film')(nn.silu(conditioning))
      scale, shift = jnp.split(film[:, None, None], 2, axis=-1)
      x = x * (1 + scale) + shift
    x = nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(x))
    return shortcut + x
