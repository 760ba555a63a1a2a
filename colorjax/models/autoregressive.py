"""A network that predicts coarse color symbols in raster order, and colors.

Letters in shapes: B photographs, H and W their height and width, h and w those
of the ab field (H and W divided by the stride of the trunk), n and m the rows
and columns of symbols (h and w divided by `ratio`), T = n m places, Q symbols.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from colorjax.models.residual import GroupNorm, ResidualBlock, scaled_silu
from colorjax.models.trunk import Trunk

NUM_NEIGHBORS = 4
"""Symbols that a place sees directly, in this order: above left, above, above
right, and the one before it in raster order, which is left of it or at the end
of the row above."""

_NUM_FREQUENCIES = 4  # of the sines that encode a position
_NUM_BLOCKS = 2  # residual blocks of the upsampler

Cache = Sequence[tuple[jax.Array, jax.Array]]
"""Keys and values of each layer at the places so far, [B, T, width] each."""


class Layer(nn.Module):
  """Causal self-attention and two dense layers (Vaswani et al. 2017).

  With layer norm before each of the two (Radford et al. 2019).

  Attributes:
    width: channels.
    num_heads: number of attention heads; it divides the width.
    dtype: compute type.
  """
  width: int
  num_heads: int
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Creates the layers that `__call__` and `step` share."""
    self.norm_1 = nn.LayerNorm(dtype=self.dtype)
    self.project = nn.Dense(3 * self.width, use_bias=False, dtype=self.dtype)
    self.attended = nn.Dense(self.width, dtype=self.dtype)
    self.norm_2 = nn.LayerNorm(dtype=self.dtype)
    self.wide = nn.Dense(4 * self.width, dtype=self.dtype)
    self.narrow = nn.Dense(self.width, dtype=self.dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """All places at once: [B, T, width] to [B, T, width]."""
    queries, keys, values = jnp.split(self.project(self.norm_1(x)), 3, axis=-1)
    places = np.arange(x.shape[1])
    return self._finish(x, self._attend(
        queries, keys, values, places <= places[:, None]))

  def step(self, x: jax.Array, cache: tuple[jax.Array, jax.Array],
           place: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """One place: [B, 1, width] to [B, 1, width], and the new cache."""
    queries, *new = jnp.split(self.project(self.norm_1(x)), 3, axis=-1)
    keys, values = (jax.lax.dynamic_update_slice_in_dim(old, part, place, 1)
                    for old, part in zip(cache, new, strict=True))
    is_past = jnp.arange(keys.shape[1]) <= place
    return self._finish(x, self._attend(
        queries, keys, values, is_past[None])), (keys, values)

  def _attend(self, queries: jax.Array, keys: jax.Array, values: jax.Array,
              mask: jax.typing.ArrayLike) -> jax.Array:
    """Attention of S places to T places, where the mask [S, T] is true."""
    heads = self.num_heads, self.width // self.num_heads
    queries, keys, values = (
        x.reshape(*x.shape[:2], *heads) for x in (queries, keys, values))
    scores = jnp.einsum('bshd,bthd->bhst', queries, keys) / heads[1]**0.5
    shares = jax.nn.softmax(
        jnp.where(mask, scores.astype(jnp.float32), -jnp.inf), axis=-1)
    found = jnp.einsum('bhst,bthd->bshd', shares.astype(self.dtype), values)
    return found.reshape(*found.shape[:2], self.width)

  def _finish(self, x: jax.Array, found: jax.Array) -> jax.Array:
    """What follows the attention."""
    x = x + self.attended(found)
    return x + self.narrow(nn.gelu(self.wide(self.norm_2(x))))


class SymbolsAndColors(nn.Module):
  """A causal transformer of symbols, and an upsampler, on one trunk.

  The trunk sees the lightness and what is known of the ab field. A convolution
  reduces its features to the places of the symbols. The transformer goes
  through the places in raster order (row by row); at each it receives the
  features there, the position, and the neighbors of NUM_NEIGHBORS. The
  upsampler, two residual blocks at the resolution of the field, receives the
  trunk's features and the colors of the symbols.

  Attributes:
    trunk: see `models.trunk`.
    bins: colors of the symbols in network units, Q pairs.
    ratio: side of the blocks of the field that have one symbol.
    width: channels of the transformer.
    depth: layers of the transformer.
    num_heads: its attention heads; a divisor of the width.
    upsampler_width: channels of the upsampler, a multiple of
      `residual.GROUP_SIZE`.
    dtype: compute type; parameters and outputs stay float32.
  """
  trunk: Trunk
  bins: Sequence[tuple[float, float]]
  ratio: int
  width: int = 128
  depth: int = 4
  num_heads: int = 4
  upsampler_width: int = 32
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Creates the layers."""
    block = self.ratio, self.ratio
    self.reduce = nn.Conv(self.width, block, block, dtype=self.dtype)
    self.position = nn.Dense(self.width, dtype=self.dtype)
    self.symbol = nn.Embed(NUM_NEIGHBORS * (len(self.bins) + 1), self.width,
                           dtype=self.dtype)
    self.neighbor = nn.Dense(self.width, dtype=self.dtype)
    self.layers = [Layer(self.width, self.num_heads, self.dtype)
                   for _ in range(self.depth)]
    self.last_norm = nn.LayerNorm(dtype=self.dtype)
    self.logits = nn.Dense(len(self.bins), kernel_init=nn.initializers.zeros,
                           dtype=self.dtype)
    self.join = nn.Conv(self.upsampler_width, (3, 3), dtype=self.dtype)
    self.blocks = [ResidualBlock(self.upsampler_width, self.dtype)
                   for _ in range(_NUM_BLOCKS)]
    self.join_norm = GroupNorm()
    self.color = nn.Conv(4, (3, 3), kernel_init=nn.initializers.zeros,
                         dtype=self.dtype)

  def __call__(self, lightness: jax.Array, known: jax.Array,
               symbols: jax.Array, *, train: bool
               ) -> tuple[jax.Array, jax.Array]:
    """Predicts every symbol from the earlier ones, and the field from all.

    Args:
      lightness: network lightness [B, H, W, 1].
      known: what is known of the field and further channels (masks),
        [B, h, w, 4].
      symbols: int32 [B, n, m], each in [0, Q).
      train: whether the network is being trained.

    Returns:
      The results of `predict_symbols` and `upsample`.
    """
    features = self.encode(lightness, known, train=train)
    return (self.predict_symbols(self.at_places(features), symbols),
            self.upsample(features, symbols))

  def encode(self, lightness: jax.Array, known: jax.Array, *, train: bool
             ) -> jax.Array:
    """Lightness and known values to features [B, h, w, C]."""
    stride = self.trunk.stride
    repeated = jnp.repeat(jnp.repeat(known, stride, axis=1), stride, axis=2)
    scales = self.trunk.encode(
        jnp.concatenate([lightness, repeated], axis=-1), train=train)
    features = self.trunk.decode(scales, train=train)
    return jnp.concatenate([features, known.astype(features.dtype)], axis=-1)

  def at_places(self, features: jax.Array) -> jax.Array:
    """Features [B, h, w, C] to the transformer's inputs [B, n, m, width]."""
    x = self.reduce(features)
    return x + self.position(_positions(*x.shape[1:3]))

  def predict_symbols(self, inputs: jax.Array, symbols: jax.Array) -> jax.Array:
    """Logits of each symbol, given the symbols before it in raster order.

    Args:
      inputs: result of `at_places`.
      symbols: int32 [B, n, m].

    Returns:
      float32 [B, n, m, Q].
    """
    batch, rows, columns = symbols.shape
    padded = padded_symbols(symbols, len(self.bins))
    before = jnp.pad(symbols.reshape(batch, -1), ((0, 0), (1, 0)),
                     constant_values=len(self.bins))[:, :-1]
    near = jnp.stack([
        *(padded[:, :-1, x:x + columns] for x in range(3)),
        before.reshape(symbols.shape)], axis=-1)
    x = (inputs + self._embed(near)).reshape(batch, rows * columns, -1)
    for layer in self.layers:
      x = layer(x)
    return self._to_logits(x).reshape(batch, rows, columns, -1)

  def step(self, inputs: jax.Array, neighbors: jax.Array, cache: Cache,
           place: jax.Array) -> tuple[jax.Array, Cache]:
    """Logits of one symbol; the result is that of `predict_symbols`.

    Args:
      inputs: result of `at_places` at this place, [B, width].
      neighbors: see NUM_NEIGHBORS; Q where there is none, int32 [B, 4].
      cache: of the places before; `empty_cache` before the first place.
      place: number of the place, int32 scalar.

    Returns:
      float32 [B, Q], and the cache with this place.
    """
    x = (inputs + self._embed(neighbors))[:, None]
    new = []
    for layer, old in zip(self.layers, cache, strict=True):
      x, part = layer.step(x, old, place)
      new.append(part)
    return self._to_logits(x)[:, 0], new

  def empty_cache(self, batch: int, num_places: int) -> Cache:
    """The cache for `step` at the first place."""
    zeros = jnp.zeros((batch, num_places, self.width), self.dtype)
    return [(zeros, zeros) for _ in range(self.depth)]

  def upsample(self, features: jax.Array, symbols: jax.Array) -> jax.Array:
    """Parameters of the distributions of colors, given all symbols.

    Args:
      features: result of `encode`.
      symbols: int32 [B, n, m].

    Returns:
      Of each value of the field, the location, network units, and a raw scale,
      float32 [B, h, w, 2, 2]. The location is the interpolated color of the
      symbols plus a correction that is initialized to 0, as is the raw scale.
    """
    colors = jnp.asarray(self.bins, jnp.float32)[symbols]
    shape = *features.shape[:3], 2
    coarse = jax.image.resize(colors, shape, 'linear')
    exact = jax.image.resize(colors, shape, 'nearest')
    x = self.join(jnp.concatenate(
        [features, coarse.astype(self.dtype), exact.astype(self.dtype)],
        axis=-1))
    for block in self.blocks:
      x = block(x)
    x = scaled_silu(x, *self.join_norm(x))
    found = self.color(x).astype(jnp.float32)
    return jnp.stack([coarse + found[..., :2], found[..., 2:]], axis=-1)

  def _embed(self, neighbors: jax.Array) -> jax.Array:
    """Symbols of neighbors [..., 4] to [..., width]."""
    count = len(self.bins) + 1
    colors = jnp.asarray([*self.bins, (0.0, 0.0)], jnp.float32)[neighbors]
    return self.symbol(neighbors + count * np.arange(NUM_NEIGHBORS)).sum(
        -2) + self.neighbor(colors.reshape(*neighbors.shape[:-1], -1))

  def _to_logits(self, x: jax.Array) -> jax.Array:
    """[..., width] to float32 [..., Q]."""
    return self.logits(self.last_norm(x)).astype(jnp.float32)


def padded_symbols(symbols: jax.Array, nothing: int) -> jax.Array:
  """Adds a row above and a column on each side.

  Args:
    symbols: [B, n, m].
    nothing: number that stands for no symbol.

  Returns:
    [B, n + 1, m + 2].
  """
  return jnp.pad(symbols, ((0, 0), (1, 0), (1, 1)), constant_values=nothing)


def _positions(rows: int, columns: int) -> np.ndarray:
  """Sines and cosines of the positions of places, [rows, columns, C]."""
  sides = [(np.arange(count) + 0.5) / count for count in (rows, columns)]
  waves = [np.concatenate([f(np.pi * 2.0**k * side)[:, None] for k in range(
      _NUM_FREQUENCIES) for f in (np.sin, np.cos)], 1) for side in sides]
  down, across = waves
  return np.concatenate([
      np.broadcast_to(down[:, None], (rows, columns, down.shape[1])),
      np.broadcast_to(across, (rows, columns, across.shape[1]))],
      axis=-1).astype(np.float32)
