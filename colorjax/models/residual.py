"""A residual block with group norm, of which several networks are made.

Its derivatives are written by hand, because those that XLA compiles for a CPU
are slow: they sum over photographs several times, and compute what is summed
again for each sum. Here such sums are products with ones. Values and
derivatives are those of `flax.linen.GroupNorm`, `silu` and `Conv`, up to
rounding.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUP_SIZE = 16
"""Number of channels that a group norm normalizes together at most."""

_EPSILON = 1e-6


class GroupNorm(nn.Module):
  """Group norm (Wu and He 2018) with the largest groups that fit.

  A group has GROUP_SIZE channels, or fewer if C is no multiple of it.

  It does not normalize itself: it returns the factor and the summand with which
  `scaled_silu` does.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, h, w, C] to two float32 arrays [B, C]."""
    batch, height, width, channels = x.shape
    scale = self.param('scale', nn.initializers.ones, (channels,))
    bias = self.param('bias', nn.initializers.zeros, (channels,))
    group_size = math.gcd(GROUP_SIZE, channels)
    x = x.astype(jnp.float32)

    def mean(values):
      channel_means = _totals(values) / (height * width)
      grouped = channel_means.reshape(batch, -1, group_size)
      return jnp.repeat(grouped.mean(-1), group_size, axis=-1)

    average = mean(x)
    variance = jnp.maximum(mean(x * x) - average**2, 0)
    factor = jax.lax.rsqrt(variance + _EPSILON) * scale
    return factor, bias - average * factor


@jax.custom_jvp
def scaled_silu(x: jax.Array, factor: jax.Array, summand: jax.Array
                ) -> jax.Array:
  """`silu(x * factor + summand)`, computed in float32.

  Args:
    x: [B, h, w, C].
    factor: float32 [B, C].
    summand: float32 [B, C].

  Returns:
    [B, h, w, C] in the type of x.
  """
  return nn.silu(_scaled(x, factor, summand)).astype(x.dtype)


@scaled_silu.defjvp
def _scaled_silu_jvp(primals, tangents):
  x, factor, summand = primals
  x_dot, factor_dot, summand_dot = tangents
  scaled = _scaled(x, factor, summand)
  sigmoid = jax.nn.sigmoid(scaled)
  derivative = sigmoid * (1 + scaled * (1 - sigmoid))
  scaled_dot = (x_dot * factor[:, None, None]
                + x * _spread(factor_dot, x.shape)
                + _spread(summand_dot, x.shape))
  return ((scaled * sigmoid).astype(x.dtype),
          (derivative * scaled_dot).astype(x.dtype))


class Conv(nn.Module):
  """A 3x3 convolution, initialized as `flax.linen.Conv`.

  Attributes:
    width: channels of the output.
    dtype: compute type; parameters stay float32.
  """
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, h, w, width]."""
    kernel = self.param('kernel', nn.initializers.lecun_normal(),
                        (3, 3, x.shape[-1], self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    x = jax.lax.conv_general_dilated(
        x.astype(self.dtype), kernel.astype(self.dtype), (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return _add_bias(x, bias.astype(self.dtype))


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
    x = Conv(self.width, self.dtype)(scaled_silu(x, *GroupNorm()(x)))
    factor, summand = GroupNorm()(x)
    if conditioning is not None:
      film = nn.Dense(2 * self.width, kernel_init=nn.initializers.zeros,
                      dtype=self.dtype, name='film')(nn.silu(conditioning))
      scale, shift = jnp.split(film.astype(jnp.float32), 2, axis=-1)
      factor, summand = factor * (1 + scale), summand * (1 + scale) + shift
    x = Conv(self.width, self.dtype)(scaled_silu(x, factor, summand))
    return shortcut + x


def _scaled(x: jax.Array, factor: jax.Array, summand: jax.Array) -> jax.Array:
  """`x * factor + summand` in float32; shapes as for `scaled_silu`."""
  return x * factor[:, None, None] + summand[:, None, None]


def _totals(x: jax.Array) -> jax.Array:
  """Sums over a photograph, [B, h, w, C] to [B, C]."""
  x = x.reshape(x.shape[0], -1, x.shape[-1])
  return jnp.einsum('bp,bpc->bc', jnp.ones(x.shape[:2], x.dtype), x,
                    precision='highest')


def _spread(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Repeats [B, C] to the shape [B, h, w, C]; the transpose of `_totals`.

  As a product, so that its transpose, in the gradient, is a product too.
  """
  batch, height, width, _ = shape
  ones = jnp.ones((batch, height * width), values.dtype)
  return jnp.einsum('bp,bc->bpc', ones, values,
                    precision='highest').reshape(shape)


@jax.custom_jvp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """[B, h, w, C] plus [C]."""
  return x + bias


@_add_bias.defjvp
def _add_bias_jvp(primals, tangents):
  x, bias = primals
  x_dot, bias_dot = tangents
  count = x.size // bias.size
  repeated = jnp.einsum('n,c->nc', jnp.ones(count, bias.dtype), bias_dot,
                        precision='highest')
  return x + bias, x_dot + repeated.reshape(x.shape)
