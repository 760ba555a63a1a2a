"""A network that describes the colors of a photograph by learned queries.

After DDColor (Kang et al. 2023, arXiv:2212.11613). A trunk gives features at
several scales and, at one resolution, features of each pixel. A color decoder
refines learned vectors, the color queries, by attention to the coarse scales.
The product of the queries with the features of a pixel gives one map for each
query, and a 1x1 convolution turns the maps into ab.

Letters in shapes: B photographs, H and W their height and width, h and w those
of the ab field (H and W divided by the stride of the trunk), Q queries, C their
width.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from colorjax.models.trunk import Trunk

_LARGEST_PERIOD = 1e4  # of the sines of positions, in photographs


class Block(nn.Module):
  """One block of the color decoder.

  Queries attend to the features of a scale, then to each other, and pass
  through two dense layers. A layer norm follows each sum with the input
  (post-norm). As in DETR (Carion et al. 2020), positions are added to queries
  and keys of the attention but not to its values.

  Attributes:
    num_heads: heads of each attention.
    mlp_width: channels between the two dense layers.
    dtype: compute type.
  """
  num_heads: int
  mlp_width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, queries: jax.Array, identity: jax.Array,
               features: jax.Array, positions: jax.Array) -> jax.Array:
    """Refines the queries.

    Args:
      queries: [B, Q, C].
      identity: the learned position of each query, [Q, C].
      features: those of one scale, [B, N, C].
      positions: those of the features, [N, C].

    Returns:
      Queries, [B, Q, C].
    """
    def norm(name, x):
      return nn.LayerNorm(dtype=self.dtype, name=name)(x)

    def attend(name, asking, keys, values):
      return nn.MultiHeadDotProductAttention(
          num_heads=self.num_heads, dtype=self.dtype, name=name)(
              asking, keys, values)

    queries = norm('cross_norm', queries + attend(
        'cross', queries + identity, features + positions, features))
    placed = queries + identity
    queries = norm('self_norm', queries + attend(
        'self', placed, placed, queries))
    x = nn.Dense(self.mlp_width, dtype=self.dtype, name='mlp_1')(queries)
    x = nn.Dense(queries.shape[-1], dtype=self.dtype, name='mlp_2')(nn.relu(x))
    return norm('mlp_norm', queries + x)


class _Group(nn.Module):
  """A block for each scale; a step of `nn.scan`."""
  num_heads: int
  mlp_width: int
  dtype: Any

  @nn.compact
  def __call__(self, queries, identity, memory):
    for scale, (features, positions) in enumerate(memory):
      queries = Block(self.num_heads, self.mlp_width, self.dtype,
                      name=f'block_{scale}')(
                          queries, identity, features, positions)
    return queries, None


class ColorDecoder(nn.Module):
  """Learned queries, refined by blocks that visit the scales in turn.

  Block i attends to scale i modulo the number of scales. Blocks that visit all
  scales once are compiled once, whatever their number (`nn.scan`). Their
  parameters have a leading axis; those of the remaining blocks, if the number
  of blocks is not a multiple, do not.

  Attributes:
    num_queries: number of queries, Q.
    num_blocks: number of blocks.
    width: length of a query, C.
    num_heads: heads of each attention.
    mlp_width: channels between the two dense layers of a block.
    dtype: compute type; parameters stay float32.
  """
  num_queries: int
  num_blocks: int
  width: int
  num_heads: int
  mlp_width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, scales: Sequence[jax.Array]) -> jax.Array:
    """Features of scales, [B, h_s, w_s, C_s] each, to queries [B, Q, C]."""
    memory = [self._memory(i, x) for i, x in enumerate(scales)]
    # The standard deviation is that of normalized queries.
    normal = nn.initializers.normal(1.0)
    queries, identity = (
        self.param(name, normal, (self.num_queries, self.width))
        .astype(self.dtype) for name in ('queries', 'identity'))
    queries = jnp.broadcast_to(queries, (scales[0].shape[0], *queries.shape))
    num_groups, num_last = divmod(self.num_blocks, len(memory))
    settings = (self.num_heads, self.mlp_width, self.dtype)
    if num_groups:
      groups = nn.scan(
          _Group, variable_axes={'params': 0}, split_rngs={'params': True},
          in_axes=nn.broadcast, length=num_groups)(*settings, name='groups')
      queries, _ = groups(queries, identity, memory)
    for i in range(num_last):
      queries = Block(*settings, name=f'last_{i}')(
          queries, identity, *memory[i])
    queries = nn.LayerNorm(dtype=self.dtype, name='norm')(queries)
    for i in range(2):
      queries = nn.relu(nn.Dense(
          self.width, dtype=self.dtype, name=f'embedding_{i}')(queries))
    return nn.Dense(self.width, dtype=self.dtype, name='embedding_2')(queries)

  def _memory(self, i: int, features: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
    """What queries attend to at scale i: features [B, N, C], positions."""
    batch, height, width, _ = features.shape
    x = nn.Dense(self.width, dtype=self.dtype, name=f'scale_{i}')(
        features.reshape(batch, height * width, -1))
    # Features of trunks differ in size, and large keys would make attention
    # look at single places.
    x = nn.LayerNorm(dtype=self.dtype, name=f'scale_norm_{i}')(x)
    x += self.param(f'level_{i}', nn.initializers.normal(1.0), (self.width,)
                    ).astype(x.dtype)
    return x, positions(height, width, self.width).astype(x.dtype)


class ColorQueries(nn.Module):
  """A trunk and a color decoder; the untrained network predicts grey.

  Attributes:
    trunk: see `models.trunk`.
    decoder: the color decoder.
    num_scales: number of scales that queries attend to, the coarsest ones; all
      if the trunk has fewer.
    dtype: compute type; parameters and output stay float32.
  """
  trunk: Trunk
  decoder: ColorDecoder
  num_scales: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, further: jax.Array | None = None,
               *, train: bool) -> jax.Array:
    """Predicts ab.

    Args:
      lightness: network lightness [B, H, W, 1].
      further: further channels (hints), [B, h, w, D], or None.
      train: whether the network is being trained.

    Returns:
      Network ab [B, h, w, 2], float32.
    """
    stride, inputs = self.trunk.stride, lightness
    if further is not None:
      further = jnp.repeat(jnp.repeat(further, stride, axis=1), stride, axis=2)
      inputs = jnp.concatenate([lightness, further], axis=-1)
    scales = self.trunk.encode(inputs, train=train)
    pixels = self.trunk.decode(scales, train=train)
    queries = self.decoder(scales[:-self.num_scales - 1:-1])
    pixels = nn.Dense(queries.shape[-1], dtype=self.dtype, name='pixels')(
        pixels)
    return nn.Conv(2, (1, 1), kernel_init=nn.initializers.zeros,
                   dtype=self.dtype, name='ab')(
                       fuse(queries, pixels)).astype(jnp.float32)


def fuse(queries: jax.Array, pixels: jax.Array) -> jax.Array:
  """One map for each query: its product with the features of each pixel.

  The products are divided by the root of the number of channels, so that the
  size of the maps does not depend on it.

  Args:
    queries: [B, Q, C].
    pixels: [B, h, w, C].

  Returns:
    [B, h, w, Q].
  """
  return jnp.einsum('bqc,bhwc->bhwq', queries, pixels
                    ) / np.sqrt(pixels.shape[-1]).astype(pixels.dtype)


def positions(height: int, width: int, channels: int) -> jax.Array:
  """Positions as sines and cosines (Vaswani et al. 2017; Carion et al. 2020).

  Coordinates are those of the photograph, 0 to 1, at the centers of the
  features. The periods grow geometrically from 1.

  Args:
    height: number of rows.
    width: number of columns.
    channels: a multiple of 4; a quarter each for the sines and cosines of rows
      and of columns.

  Returns:
    [height * width, channels], row by row.
  """
  count = channels // 4
  frequencies = 2 * np.pi * _LARGEST_PERIOD**(-np.arange(count) / count)
  rows, columns = (
      ((np.arange(side) + 0.5) / side)[:, None] * frequencies
      for side in (height, width))
  rows, columns = (np.concatenate([np.sin(x), np.cos(x)], axis=-1)
                   for x in (rows, columns))
  grid = np.concatenate([
      np.broadcast_to(rows[:, None], (height, width, 2 * count)),
      np.broadcast_to(columns, (height, width, 2 * count))], axis=-1)
  return jnp.asarray(grid.reshape(height * width, channels), jnp.float32)
