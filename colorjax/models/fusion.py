"""An encoder and decoder that know what the whole photograph shows (S4, S5).

A classification network trained on ImageNet gives one vector for the
photograph; it is replicated over the grid of encoder features and mixed with
them by a 1x1 convolution, so that every place knows the scene (Baldassarre,
Gonzalez Morin and Rodes-Guirao 2017, "Deep Koalarization", arXiv:1712.03400,
after the global features of Iizuka et al. 2016). Where the vector comes from
is not decided here: the Xception and the Inception-ResNet-v2 systems are this
network with other decoder widths.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

STRIDE = 8
"""Sides of photographs are multiples of this."""

ENCODER = ((64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 1),
           (256, 1))
"""Channels and stride of each 3x3 convolution of the published encoder."""

FUSION_WIDTH = 256
"""Channels of the published fusion layer."""


class Fusion(nn.Module):
  """Encoder, fusion with an embedding, decoder, as published.

  All convolutions are 3x3 with ReLU but the fusion, 1x1 with ReLU, and the
  last one, with tanh. There is no normalization and there are no skips. The
  ab field has half the sides of the input; the last step only repeats it.

  Attributes:
    decoder: channels of the convolutions before each of the three nearest
      neighbor enlargements; the last entry is followed by the output's two
      channels.
    width: share of the published channels, for small machines.
    dtype: compute type; parameters and outputs stay float32.
  """
  decoder: Sequence[Sequence[int]]
  width: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, embedding: jax.Array) -> jax.Array:
    """Colors photographs.

    Args:
      lightness: network lightness [B, H, W, 1] in [-1, 1], H and W multiples
        of STRIDE.
      embedding: what the photographs show, [B, E], unbounded.

    Returns:
      Network ab [B, H, W, 2] in [-1, 1], float32.
    """
    x = lightness.astype(self.dtype)
    for channels, stride in ENCODER:
      x = nn.relu(self._conv(channels, strides=(stride, stride))(x))

    x = self._fuse(x, embedding)

    for level, widths in enumerate(self.decoder):
      if level:
        x = _double(x)
      for channels in widths:
        x = nn.relu(self._conv(channels)(x))
    ab = nn.Conv(2, (3, 3), dtype=self.dtype, name='ab')(x)
    ab = _double(jnp.tanh(ab.astype(jnp.float32)))
    assert ab.shape[:-1] == lightness.shape[:-1], 'all strides are undone'
    return ab

  def _conv(self, channels: int, **options: Any) -> nn.Conv:
    return nn.Conv(self._channels(channels), (3, 3), dtype=self.dtype,
                   kernel_init=nn.initializers.he_normal(), **options)

  def _channels(self, published: int) -> int:
    return max(1, round(published * self.width))

  def _fuse(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
    """Grid [B, h, w, C] and vectors [B, E] to [B, h, w, FUSION_WIDTH].

    A 1x1 convolution of the grid with the vector behind each place: a matrix
    [C + E, F] whose lower part sees the same at all places, and so is applied
    once a photograph and not h w times.
    """
    grid_channels = x.shape[-1]
    kernel = self.param(
        'fusion_kernel', nn.initializers.he_normal(),
        (grid_channels + embedding.shape[-1], self._channels(FUSION_WIDTH)))
    bias = self.param('fusion_bias', nn.initializers.zeros, kernel.shape[-1:])
    x, embedding, kernel, bias = nn.dtypes.promote_dtype(
        x, embedding, kernel, bias, dtype=self.dtype)
    scene = embedding @ kernel[grid_channels:] + bias
    return nn.relu(x @ kernel[:grid_channels] + scene[:, None, None])


def _double(x: jax.Array) -> jax.Array:
  """[B, h, w, C] to [B, 2h, 2w, C] by repeating pixels."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
