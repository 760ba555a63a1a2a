"""EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946; the Lite variant of
March 2020).

It is EfficientNet-B0 without squeeze-and-excitation, and with ReLU6 in place of
swish. Its padding is that of TensorFlow, in which it was trained.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel
from colorjax.backbones import depthwise, stages

IMAGE_SIZE = 224
"""Side of the photographs that the network was trained on, in pixels."""

STEM_WIDTH = 32
"""Channels of the first convolution."""
HEAD_WIDTH = 1280
"""Channels of the features that the classifier reads."""


class Block(NamedTuple):
  """One inverted residual block.

  Attributes:
    kernel: side of the depthwise convolution, in pixels.
    stride: stride of the depthwise convolution.
    expansion: ratio of channels within the block to channels of its input.
    width: channels of the output.
  """
  kernel: int
  stride: int
  expansion: int
  width: int


def _blocks() -> Iterator[Block]:
  """The blocks of EfficientNet-B0: table 1 of the paper."""
  for repeats, kernel, stride, expansion, width in (
      (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
      (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)):
    for i in range(repeats):
      yield Block(kernel, stride if i == 0 else 1, expansion, width)


BLOCKS = tuple(_blocks())
"""The blocks in order; their names are `block1` ... `block16`."""

STAGES = {2: 'block1', 4: 'block3', 8: 'block5', 16: 'block11', 32: 'block16'}
"""The last intermediate at each stride, a power of 2."""


def preprocess(rgb: jax.Array) -> jax.Array:
  """Converts sRGB [..., 3] in [0, 1] to the network's input, about [-1, 1]."""
  return (rgb * 255. - 127.) / 128.


def intermediates(*, top: bool = True) -> tuple[str, ...]:
  """Names of the intermediates of `EfficientNetLite0`, in order."""
  return ('stem', *(f'block{i + 1}' for i in range(len(BLOCKS))), 'head',
          *(('avg_pool',) if top else ()))


class InvertedResidual(nn.Module):
  """Expansion, depthwise convolution, projection (Sandler et al. 2018).

  Attributes:
    block: its sizes.
    conv: `nn.Conv` with the options that all convolutions share.
    norm: `nn.BatchNorm` with the options that all norms share.
  """
  block: Block
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, h / stride, w / stride, width], sides rounded up."""
    kernel, stride, expansion, width = self.block
    shortcut = x
    inner = x.shape[-1] * expansion
    if expansion > 1:
      x = self.conv(inner, (1, 1), name='expand')(x)
      x = nn.relu6(self.norm(name='expand_bn')(x))
    x = self.conv(inner, (kernel, kernel), stride, feature_group_count=inner,
                  conv_general_dilated=depthwise.convolve, name='depthwise')(x)
    x = nn.relu6(self.norm(name='depthwise_bn')(x))
    x = self.norm(name='project_bn')(
        self.conv(width, (1, 1), name='project')(x))
    return x + shortcut if x.shape == shortcut.shape else x


class EfficientNetLite0(nn.Module):
  """Sixteen inverted residual blocks between two convolutions.

  Intermediates: `stem` and `head`, the convolutions after their ReLU6;
  `block1` ... `block16`, the blocks, which end without a nonlinearity; and
  `avg_pool`. STAGES lists strides.

  Attributes:
    top: whether the pooled features and the classifier are computed.
    upto: the last intermediate to compute; None for all.
    num_classes: channels of the logits.
    dtype: compute type; parameters, statistics and logits stay float32.
  """
  top: bool = True
  upto: str | None = None
  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False
               ) -> dict[str, jax.Array]:
    """Network input [B, H, W, 3] to all intermediates and `logits`.

    With `train` batch statistics are those of the batch, and the collection
    `batch_stats` is updated.
    """
    stages.check_channels(x, 3)
    return stages.collect(self._stages(x.astype(self.dtype), train), self.upto)

  def _stages(self, x: jax.Array, train: bool
              ) -> Iterator[tuple[str, jax.Array]]:
    conv = functools.partial(
        nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype)
    norm = functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=0.99,
        epsilon=1e-3, dtype=self.dtype, axis_name=parallel.axis())
    x = conv(STEM_WIDTH, (3, 3), 2, name='stem')(x)
    x = nn.relu6(norm(name='stem_bn')(x))
    yield 'stem', x
    for i, block in enumerate(BLOCKS, 1):
      x = InvertedResidual(block, conv, norm, name=f'block{i}')(x)
      yield f'block{i}', x
    x = conv(HEAD_WIDTH, (1, 1), name='head')(x)
    x = nn.relu6(norm(name='head_bn')(x))
    yield 'head', x
    if not self.top:
      return
    x = x.mean((1, 2))
    yield 'avg_pool', x
    x = nn.Dense(self.num_classes, dtype=self.dtype, name='predictions')(x)
    yield 'logits', x.astype(jnp.float32)
