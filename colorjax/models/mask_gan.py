"""Networks of the mask-conditioned colorization GAN (S3).

The generator sees network lightness and a region and gives network ab; a
discriminator sees a picture (network lightness and ab) with the same region and
gives logits. What the logits mean is decided by the loss, not here.

The published networks are those of the project "colorization-masks-gans" (H.
Paz, IMPA 2018), which worked on YUV; the patch discriminator is that of Isola
et al. 2017 (pix2pix, arXiv:1611.07004), noise in several layers that of Cao et
al. 2017 (arXiv:1702.06674).

Letters in shapes: B photographs, H and W their sides, h and w those of a map of
logits, Z numbers of noise.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel

WIDTHS = (64, 128, 256, 512, 512)
"""Published channels of the stride-2 convolutions, in both networks."""

PATCH_WIDTHS = (64, 128, 256, 512)
"""Channels of the patch discriminator that sees 70 x 70 pixels."""

_INIT = nn.initializers.he_normal()
# Published outputs start with a variance of 2 / (kernel area * outputs), which
# saturates tanh and sigmoid: there the first colors are near grey, and the
# first verdicts near undecided.
_OUTPUT_INIT = nn.initializers.normal(0.02)

_BORDER = ((1, 1), (1, 1))
# Undoes a stride-2 convolution with that border: the sides double.
_TRANSPOSED_BORDER = ((1, 2), (1, 2))


def _leaky(slope: float):
  return lambda x: nn.leaky_relu(x, slope)


class _Block(nn.Module):
  """A bias-free convolution, batch norm and an activation.

  Attributes:
    width: channels of the output.
    kernel: sides of the kernel.
    stride: of both axes.
    border: pixels added on each side, as flax.linen.Conv takes them.
    activate: activation.
    is_transposed: a transposed convolution.
    batch_norm: whether to normalize.
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
    convolution = nn.ConvTranspose if self.is_transposed else nn.Conv
    x = convolution(
        self.width, tuple(self.kernel), (self.stride, self.stride),
        padding=self.border, use_bias=not self.batch_norm, dtype=self.dtype,
        kernel_init=_INIT)(x)
    if self.batch_norm:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9,
                       axis_name=parallel.axis(), dtype=self.dtype)(x)
    return self.activate(x)


class Generator(nn.Module):
  """The published generator: a U-Net whose skips are added.

  Two 3x3 stems, lightness and region apart, are concatenated; stride-2
  convolutions go down, stride-2 transposed ones come up, and the encoder's
  output is added at every scale between; tanh. The published stems shared one
  batch norm, which mixes the running statistics of two unlike inputs: here each
  has its own.

  Attributes:
    widths: channels of the stride-2 convolutions; H and W are divisible by
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
    """A coloring.

    Args:
      lightness: network lightness [B, H, W, 1].
      region: [B, H, W, 1], 1 where color is wanted.
      noise: [B, Z], given to every convolution of the encoder as Z constant
        channels; None or Z = 0 for a generator without noise.
      train: batch statistics of this batch, else the stored ones.

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
    skips.pop()  # the bottleneck is where the decoder starts
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
  if noise is None:
    return x
  spread = jnp.broadcast_to(noise.astype(x.dtype)[:, None, None],
                            (*x.shape[:3], noise.shape[-1]))
  return jnp.concatenate([x, spread], axis=-1)


class ImageDiscriminator(nn.Module):
  """The published discriminator: one logit for the whole picture.

  Stride-2 3x3 convolutions, one over the whole map that they leave (7x7 at the
  published 224 pixels), one 1x1 convolution. The network works at the one size
  it was made for.

  Attributes:
    widths: channels of the stride-2 convolutions; H and W are divisible by
      2^len(widths). The whole-map convolution has as many as the last.
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
  """One logit for every patch (Isola et al. 2017): 70 x 70 by default.

  4x4 convolutions, stride 2 in all but the last; no batch norm in the first;
  leaky ReLU 0.2. With n widths a patch has 9 * 2^(n - 1) - 2 pixels a side, and
  patches lie 2^(n - 1) pixels apart.

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
  """The last convolution of a discriminator, in its compact __call__."""
  x = nn.Conv(1, kernel, padding=border, dtype=dtype,
              kernel_init=_OUTPUT_INIT, name='logits')(x)
  return x[..., 0].astype(jnp.float32)
