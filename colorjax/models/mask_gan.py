"""Networks of the mask-conditioned colorization GAN .

The generator maps network lightness and a region to network ab. A discriminator
maps a picture (network lightness and ab) and the same region to logits, whose
meaning depends on the loss.

The published networks are those of the project "colorization-masks-gans" (H.
Paz, IMPA 2018), which worked on YUV. The patch discriminator is that of Isola
et al. 2017 (pix2pix, arXiv:1611.07004). Noise in several layers follows Cao et
al. 2017 (arXiv:1702.06674).

Letters in shapes: B photographs, H and W their height and width, h and w those
of a map of logits, Z the dimension of the noise.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel
from colorjax.remat import Segmented

WIDTHS = (64, 128, 256, 512, 512)
"""Published channels of the stride-2 convolutions, in both networks."""

PATCH_WIDTHS = (64, 128, 256, 512)
"""Channels of the patch discriminator with patches of 70 x 70 pixels."""

_INIT = nn.initializers.he_normal()
# The published initial variance of output layers is 2 / (kernel area * outputs)
# and saturates tanh and sigmoid. With this one the first colorings are nearly
# grey, and the first logits near 0.
_OUTPUT_INIT = nn.initializers.normal(0.02)

_BORDER = ((1, 1), (1, 1))
# Inverts the shape of a stride-2 convolution with _BORDER: the sides double.
_TRANSPOSED_BORDER = ((1, 2), (1, 2))


def _leaky(slope: float):
  return lambda x: nn.leaky_relu(x, slope)


class _Block(Segmented):
  """A convolution, batch norm and an activation.

  Attributes:
    width: channels of the output.
    kernel: height and width of the kernel.
    stride: stride along both axes.
    border: padding as in flax.linen.Conv.
    activate: activation function.
    is_transposed: whether the convolution is transposed.
    batch_norm: whether to use batch norm; if not, the convolution has a bias.
    dtype: compute type.
  """
  width: int
  kernel: Sequence[int] = (3, 3)
  stride: int = 1
  border: Any = _BORDER
  activate: Any = _leaky(0.1)
  is_transposed: bool = False
  batch_norm: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, h, w, C] to [B, h', w', width]."""
    return self.segment(partial(_compute_block, train), x)


def _compute_block(train: bool, block: _Block, x: jax.Array) -> jax.Array:
  convolution = nn.ConvTranspose if block.is_transposed else nn.Conv
  x = convolution(
      block.width, tuple(block.kernel), (block.stride, block.stride),
      padding=block.border, use_bias=not block.batch_norm, dtype=block.dtype,
      kernel_init=_INIT)(x)
  if block.batch_norm:
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9,
                     axis_name=parallel.axis(), dtype=block.dtype)(x)
  return block.activate(x)


class Generator(nn.Module):
  """The published generator: a U-Net with additive skip connections.

  Separate 3x3 stems for lightness and region are concatenated. An encoder of
  stride-2 convolutions and a decoder of stride-2 transposed convolutions
  follow, with a skip connection at every scale in between, and a final tanh.
  The published stems share a batch norm, which mixes the running statistics of
  two different inputs; here each has its own.

  Attributes:
    widths: channels of the stride-2 convolutions; H and W must be divisible by
      2^len(widths).
    stem_width: channels of each stem.
    dtype: compute type; parameters and output stay float32.
  """
  widths: Sequence[int] = WIDTHS
  stem_width: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, region: jax.Array,
               noise: jax.Array | None = None, *, train: bool) -> jax.Array:
    """Predicts ab.

    Args:
      lightness: network lightness [B, H, W, 1].
      region: [B, H, W, 1], 1 where color is wanted.
      noise: [B, Z], appended to the input of every encoder convolution as Z
        constant channels; None or Z = 0 for a generator without noise.
      train: whether batch norm uses the statistics of this batch or the stored
        ones.

    Returns:
      Network ab [B, H, W, 2], float32.
    """
    x = jnp.concatenate([
        _Block(self.stem_width, dtype=self.dtype, name='stem_lightness')(
            lightness, train=train),
        _Block(self.stem_width, dtype=self.dtype, name='stem_region')(
            region, train=train)], axis=-1)
    skips = []
    for level, width in enumerate(self.widths):
      x = _Block(width, stride=2, dtype=self.dtype, name=f'down_{level}')(
          _with_noise(x, noise), train=train)
      skips.append(x)
    skips.pop()  # The bottleneck is the decoder's input, not a skip.
    for level in reversed(range(len(skips))):
      skip = skips.pop()
      x = skip + _Block(
          skip.shape[-1], stride=2, border=_TRANSPOSED_BORDER,
          activate=nn.relu, is_transposed=True, dtype=self.dtype,
          name=f'up_{level}')(x, train=train)
    assert not skips, 'every scale of the encoder feeds the decoder'
    x = nn.ConvTranspose(
        2, (3, 3), (2, 2), padding=_TRANSPOSED_BORDER, use_bias=False,
        dtype=self.dtype, kernel_init=_OUTPUT_INIT, name='ab')(x)
    return jnp.tanh(x.astype(jnp.float32))


def _with_noise(x: jax.Array, noise: jax.Array | None) -> jax.Array:
  """Appends noise [B, Z] to x [B, h, w, C] as Z constant channels."""
  if noise is None:
    return x
  channels = jnp.broadcast_to(noise.astype(x.dtype)[:, None, None],
                              (*x.shape[:3], noise.shape[-1]))
  return jnp.concatenate([x, channels], axis=-1)


class ImageDiscriminator(nn.Module):
  """The published discriminator: one logit for the whole picture.

  3x3 convolutions with stride 2, a convolution over the whole remaining map
  (7x7 for the published 224 pixels), and a 1x1 convolution. The network works
  only at the size with which it was initialized.

  Attributes:
    widths: channels of the stride-2 convolutions; H and W must be divisible by
      2^len(widths). The convolution over the whole map has as many channels as
      the last of them.
    dtype: compute type; parameters and output stay float32.
  """
  widths: Sequence[int] = WIDTHS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, picture: jax.Array, region: jax.Array, *, train: bool
               ) -> jax.Array:
    """Picture [B, H, W, 3] and region [B, H, W, 1] to logits [B, 1, 1]."""
    x = jnp.concatenate([picture, region], axis=-1)
    for level, width in enumerate(self.widths):
      x = _Block(width, stride=2, dtype=self.dtype, name=f'down_{level}')(
          x, train=train)
    x = _Block(self.widths[-1], kernel=x.shape[1:3], border='VALID',
               dtype=self.dtype, name='whole')(x, train=train)
    return _logits(x, (1, 1), 'VALID', self.dtype)


class PatchDiscriminator(nn.Module):
  """One logit for every patch of 70 x 70 pixels (Isola et al. 2017).

  4x4 convolutions with leaky ReLU 0.2; all but the last have stride 2, all but
  the first have batch norm. With n widths, patches have sides of
  9 * 2^(n - 1) - 2 pixels and are 2^(n - 1) pixels apart.

  Attributes:
    widths: channels of the convolutions before the logits.
    dtype: compute type; parameters and output stay float32.
  """
  widths: Sequence[int] = PATCH_WIDTHS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, picture: jax.Array, region: jax.Array, *, train: bool
               ) -> jax.Array:
    """Picture [B, H, W, 3] and region [B, H, W, 1] to logits [B, h, w]."""
    x = jnp.concatenate([picture, region], axis=-1)
    for level, width in enumerate(self.widths):
      is_last = level == len(self.widths) - 1
      x = _Block(width, kernel=(4, 4), stride=1 if is_last else 2,
                 activate=_leaky(0.2), batch_norm=level > 0,
                 dtype=self.dtype, name=f'conv_{level}')(x, train=train)
    return _logits(x, (4, 4), _BORDER, self.dtype)


def _logits(x: jax.Array, kernel: tuple[int, int], border: Any, dtype: Any
            ) -> jax.Array:
  """The output convolution; call it inside the compact __call__."""
  x = nn.Conv(1, kernel, padding=border, dtype=dtype,
              kernel_init=_OUTPUT_INIT, name='logits')(x)
  return x[..., 0].astype(jnp.float32)
