"""Xception (Chollet 2017, arXiv:1610.02357)."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel
from colorjax.backbones import depthwise, stages

IMAGE_SIZE = 299
"""Side of the photographs that the network was trained on, in pixels."""

# Channels of the separable convolutions of each block. Entry and exit blocks
# have a convolutional shortcut and halve the resolution.
ENTRY = {'block2': (128, 128), 'block3': (256, 256), 'block4': (728, 728)}
MIDDLE = {f'block{i}': (728, 728, 728) for i in range(5, 13)}
EXIT = {'block13': (728, 1024)}
BLOCKS = ENTRY | MIDDLE | EXIT
LAST = {'block14_sepconv1': 1536, 'block14_sepconv2': 2048}


def intermediates(*, top: bool = True) -> tuple[str, ...]:
  """Names of the intermediates of `Xception`, in the order of the network."""
  return ('block1_conv1_act', 'block1_conv2_act', *BLOCKS,
          *(f'{name}_act' for name in LAST), *(('avg_pool',) if top else ()))


class SeparableConv(nn.Module):
  """A 3x3 convolution of each channel, then a 1x1 convolution across channels.

  Attributes:
    features: channels of the output.
    conv: `nn.Conv` with the options shared by all convolutions.
  """
  features: int
  conv: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, h, w, features]."""
    x = self.conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1],
                  conv_general_dilated=depthwise.convolve, name='depthwise')(x)
    return self.conv(self.features, (1, 1), name='pointwise')(x)


class Xception(nn.Module):
  """Separable convolutions with shortcuts.

  Intermediates, with Keras's layer names: the two convolutions of block 1 and
  of block 14 after their ReLU (`block1_conv1_act`, ...,
  `block14_sepconv2_act`), and `avg_pool`. The outputs of the blocks in between,
  which have no names in Keras, are `block2` ... `block13`.

  Attributes:
    top: whether to compute the pooled features and the classifier.
    upto: the last intermediate to compute; None for all.
    num_classes: channels of the logits.
    variant: 'keras', the original, or 'torch', timm's port (`legacy_xception`),
      which pads its pooling on both sides and has a smaller epsilon in its
      batch norms. A checkpoint must be used with its own variant.
    dtype: compute type; parameters, statistics and logits stay float32.
  """
  top: bool = True
  upto: str | None = None
  num_classes: int = 1000
  variant: Literal['keras', 'torch'] = 'keras'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False
               ) -> dict[str, jax.Array]:
    """Maps network input [B, H, W, 3] to all intermediates and `logits`.

    With `train`, batch norm uses the statistics of the batch, and the
    collection `batch_stats` is updated.
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
        epsilon=1e-3 if self.variant == 'keras' else 1e-5, dtype=self.dtype,
        axis_name=parallel.axis())
    separable = functools.partial(SeparableConv, conv=conv)

    for name, width, stride in (('block1_conv1', 32, 2),
                                ('block1_conv2', 64, 1)):
      x = conv(width, (3, 3), stride, padding='VALID', name=name)(x)
      x = nn.relu(norm(name=f'{name}_bn')(x))
      yield f'{name}_act', x

    for block, widths in BLOCKS.items():
      shortcut = x
      if block not in MIDDLE:
        shortcut = conv(widths[-1], (1, 1), 2, name=f'{block}_shortcut')(x)
        shortcut = norm(name=f'{block}_shortcut_bn')(shortcut)
      for i, width in enumerate(widths, 1):
        # The first ReLU of block 2 has no effect: block 1 ends with a ReLU.
        x = separable(width, name=f'{block}_sepconv{i}')(nn.relu(x))
        x = norm(name=f'{block}_sepconv{i}_bn')(x)
      if block not in MIDDLE:
        x = nn.max_pool(x, (3, 3), (2, 2), padding='SAME'
                        if self.variant == 'keras' else ((1, 1), (1, 1)))
      x = x + shortcut
      yield block, x

    for name, width in LAST.items():
      x = separable(width, name=name)(x)
      x = nn.relu(norm(name=f'{name}_bn')(x))
      yield f'{name}_act', x
    if not self.top:
      return
    x = x.mean((1, 2))
    yield 'avg_pool', x
    x = nn.Dense(self.num_classes, dtype=self.dtype, name='predictions')(x)
    yield 'logits', x.astype(jnp.float32)
