"""A network that predicts an ab field."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.models.trunk import Trunk


class TrunkRegressor(nn.Module):
  """A trunk followed by a 3x3 convolution to ab, initialized to grey (0).

  Attributes:
    trunk: see `models.trunk`.
    dtype: compute type; parameters and output stay float32.
  """
  trunk: Trunk
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, *, train: bool) -> jax.Array:
    """Network lightness [B, H, W, 1] to network ab [B, h, w, 2]."""
    scales = self.trunk.encode(lightness, train=train)
    x = self.trunk.decode(scales, train=train)
    return nn.Conv(2, (3, 3), kernel_init=nn.initializers.zeros,
                   dtype=self.dtype, name='ab')(x).astype(jnp.float32)
