"""A network that predicts the velocity of a flow of ab fields.

Letters in shapes: B photographs, H and W their height and width, h and w those
of the field (H and W divided by the stride of the trunk).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.models.trunk import Trunk

# Few, because a velocity changes smoothly with time, and mean flow matching
# differentiates with respect to it.
_NUM_FREQUENCIES = 4


class TrunkVelocity(nn.Module):
  """A trunk, conditioned on times, and a 3x3 convolution, initialized to 0.

  The field is repeated to the photograph's resolution and follows the lightness
  as further channels of the trunk's input. Times are encoded by sines and
  cosines (Vaswani et al. 2017) and two dense layers.

  Attributes:
    trunk: see `models.trunk`.
    width: length of the trunk's conditioning vector.
    dtype: compute type; parameters and output stay float32.
  """
  trunk: Trunk
  width: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, field: jax.Array, lightness: jax.Array,
               is_given: jax.Array, times: jax.Array, *, train: bool
               ) -> jax.Array:
    """Predicts a velocity.

    Args:
      field: the ab field at some time, then any further channels (masks),
        [B, h, w, 2 + C].
      lightness: network lightness [B, H, W, 1].
      is_given: [B], 1 where the lightness is given; 0 where the velocity is
        that of a field of any photograph. The network then sees a constant.
      times: [B, T], each in [0, 1].
      train: whether the network is being trained.

    Returns:
      Velocity [B, h, w, 2], float32.
    """
    stride = self.trunk.stride
    lightness = lightness * is_given[:, None, None, None]
    field = jnp.repeat(jnp.repeat(field, stride, axis=1), stride, axis=2)
    conditioning = self._condition(times, is_given)
    scales = self.trunk.encode(
        jnp.concatenate([lightness, field], axis=-1), conditioning,
        train=train)
    x = self.trunk.decode(scales, conditioning, train=train)
    return nn.Conv(2, (3, 3), kernel_init=nn.initializers.zeros,
                   dtype=self.dtype, name='velocity')(x).astype(jnp.float32)

  def _condition(self, times: jax.Array, is_given: jax.Array) -> jax.Array:
    """Times [B, T] and is_given [B] to the conditioning vector [B, width]."""
    angles = times[..., None] * jnp.pi * 2.0**jnp.arange(_NUM_FREQUENCIES)
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    waves = waves.reshape(waves.shape[0], -1)
    x = jnp.concatenate([waves, times, is_given[:, None]], axis=-1)
    x = nn.silu(nn.Dense(self.width, dtype=self.dtype, name='time_1')(x))
    return nn.Dense(self.width, dtype=self.dtype, name='time_2')(x)
