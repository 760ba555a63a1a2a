"""Encoder and decoder with a fusion layer for a global embedding.

An ImageNet classifier gives one embedding vector for the photograph. It is
repeated at every position of the encoder's features and combined with them by a
1x1 convolution, so that every position has information about the whole scene
(Baldassarre, Gonzalez Morin and Rodes-Guirao 2017, "Deep Koalarization",
arXiv:1712.03400, after the global features of Iizuka et al. 2016). This module
takes the embedding as an input. The Xception and the Inception-ResNet-v2
systems differ in their decoder widths.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.remat import Segmented

STRIDE = 8
"""H and W of photographs must be multiples of it."""

ENCODER = ((64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 1),
           (256, 1))
"""Channels and stride of each 3x3 convolution of the published encoder."""

FUSION_WIDTH = 256
"""Channels of the published fusion layer."""


class Fusion(Segmented):
  """The published encoder, fusion layer and decoder.

  All convolutions are 3x3 with ReLU, except the fusion layer (1x1 with ReLU)
  and the last one (3x3 with tanh). There are no normalization layers and no
  skip connections. The ab field is computed at half the input's height and
  width and upsampled by repeating pixels.

  Attributes:
    decoder: channels of the convolutions before each of the three
      nearest-neighbor upsampling layers; the output layer with two channels
      follows the last of them.
    width: fraction of the published number of channels, for small machines.
    dtype: compute type; parameters and outputs stay float32.
  """
  decoder: Sequence[Sequence[int]]
  width: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, embedding: jax.Array) -> jax.Array:
    """Predicts ab.

    Args:
      lightness: network lightness [B, H, W, 1] in [-1, 1], H and W multiples
        of STRIDE.
      embedding: global embeddings of the photographs [B, E], unbounded.

    Returns:
      Network ab [B, H, W, 2] in [-1, 1], float32.
    """
    x = lightness.astype(self.dtype)
    # A part ends where the resolution has changed, and holds few pixels.
    for part in _parts(ENCODER):
      x = self.segment(partial(_encode, part), x)

    x = self._fuse(x, embedding)

    for level, widths in enumerate(self.decoder):
      if level:
        x = _double(x)
      x = self.segment(partial(_encode, [(n, 1) for n in widths]), x)
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
    """Features [B, h, w, C] and embedding [B, E] to [B, h, w, F].

    Equivalent to a 1x1 convolution, with a kernel [C + E, F], of the features
    concatenated with the repeated embedding. The embedding is the same at all
    positions, so its part of the kernel is applied once for each photograph
    and not h * w times.
    """
    num_channels = x.shape[-1]
    kernel = self.param(
        'fusion_kernel', nn.initializers.he_normal(),
        (num_channels + embedding.shape[-1], self._channels(FUSION_WIDTH)))
    bias = self.param('fusion_bias', nn.initializers.zeros, kernel.shape[-1:])
    x, embedding, kernel, bias = nn.dtypes.promote_dtype(
        x, embedding, kernel, bias, dtype=self.dtype)
    global_term = embedding @ kernel[num_channels:] + bias
    return nn.relu(x @ kernel[:num_channels] + global_term[:, None, None])


def _encode(layers: Sequence[tuple[int, int]], net: Fusion, x: jax.Array
            ) -> jax.Array:
  """Convolutions (channels, stride) with ReLU, created in `net`."""
  for channels, stride in layers:
    x = nn.relu(net._conv(channels, strides=(stride, stride))(x))
  return x


def _parts(layers: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
  """Cuts layers (channels, stride) after each one with a stride above 1."""
  parts: list[list[tuple[int, int]]] = [[]]
  for layer in layers:
    parts[-1].append(layer)
    if layer[1] > 1:
      parts.append([])
  return [part for part in parts if part]


def _double(x: jax.Array) -> jax.Array:
  """[B, h, w, C] to [B, 2h, 2w, C] by repeating pixels."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
