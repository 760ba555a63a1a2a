"""Inception-ResNet-v2 (Szegedy et al. 2017, arXiv:1602.07261).

The network of TF-slim and Keras, which differs from the paper in the widths of
a few branches.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel
from colorjax.backbones import stages

IMAGE_SIZE = 299
"""Side of the photographs that the network was trained on, in pixels."""


class Conv(NamedTuple):
  """One convolution with batch norm and ReLU.

  Attributes:
    features: channels of the output.
    kernel: height and width of the kernel.
    stride: 1, or 2 to halve the resolution.
    padding: as in `jax.lax`.
  """
  features: int
  kernel: tuple[int, int] = (1, 1)
  stride: int = 1
  padding: str = 'SAME'


Branch = tuple[Conv, ...]


def square(features: int, side: int) -> Conv:
  """A convolution with a square kernel."""
  return Conv(features, (side, side))


def halving(features: int) -> Conv:
  """A 3x3 convolution that halves the resolution, without padding."""
  return Conv(features, (3, 3), 2, 'VALID')


STEM = {
    'stem_1a': halving(32), 'stem_2a': Conv(32, (3, 3), 1, 'VALID'),
    'stem_2b': square(64, 3), 'stem_3b': Conv(80),
    'stem_4a': Conv(192, (3, 3), 1, 'VALID')}
"""Convolutions of the stem; pooling follows `stem_2b` and `stem_4a`."""

MIXED: dict[str, tuple[Branch, ...]] = {
    # The last branch of mixed_5b convolves the average of 3x3 pixels.
    'mixed_5b': ((Conv(96),), (Conv(48), square(64, 5)),
                 (Conv(64), square(96, 3), square(96, 3)), (Conv(64),)),
    # Both reductions have one more branch: the maximum of 3x3 pixels.
    'mixed_6a': ((halving(384),),
                 (Conv(256), square(256, 3), halving(384))),
    'mixed_7a': ((Conv(256), halving(384)), (Conv(256), halving(288)),
                 (Conv(256), square(288, 3), halving(320)))}
"""Branches of the layers that change the number of channels."""

RESIDUAL: dict[str, tuple[Branch, ...]] = {
    'block35': ((Conv(32),), (Conv(32), square(32, 3)),
                (Conv(32), square(48, 3), square(64, 3))),
    'block17': ((Conv(192),),
                (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1)))),
    'block8': ((Conv(192),),
               (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))))}
"""Branches of the residual blocks."""

REPEATS = {'block35': 10, 'block17': 20, 'block8': 10}
"""How often each residual block is repeated."""
SCALES = {'block35': 0.17, 'block17': 0.1, 'block8': 0.2}
"""Weight of each block's residual; 1 in the last block8."""
ORDER = (('mixed_5b', 'block35'), ('mixed_6a', 'block17'),
         ('mixed_7a', 'block8'))
"""Each of the MIXED layers and the residual blocks that follow it."""


def intermediates(*, top: bool = True) -> tuple[str, ...]:
  """Names of the intermediates of `InceptionResNetV2`, in order."""
  return ('stem', 'mixed_5b', 'block35_10_ac', 'mixed_6a', 'block17_20_ac',
          'mixed_7a', 'block8_10', 'conv_7b_ac',
          *(('avg_pool',) if top else ()))


class ConvNorm(nn.Module):
  """Convolution, batch norm, ReLU.

  Attributes:
    spec: the convolution.
    conv: `nn.Conv` with the options shared by all convolutions.
    norm: `nn.BatchNorm` with the options shared by all batch norms.
  """
  spec: Conv
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, h', w', features]."""
    features, kernel, stride, padding = self.spec
    x = self.conv(features, kernel, stride, padding=padding, use_bias=False,
                  name='conv')(x)
    return nn.relu(self.norm(name='bn')(x))


class Branches(nn.Module):
  """Parallel chains of convolutions of the same input.

  Attributes:
    branches: the convolutions of each chain.
    pool: 'average' pools the input of the last chain, 'max' adds a branch that
      is only pooled; None for no pooling.
    layer: `ConvNorm` with its options.
  """
  branches: Sequence[Branch]
  layer: Callable[..., nn.Module]
  pool: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to the concatenation of all branches."""
    out = []
    for b, branch in enumerate(self.branches):
      y = x
      if self.pool == 'average' and b == len(self.branches) - 1:
        y = nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
      for i, spec in enumerate(branch):
        y = self.layer(spec, name=f'branch{b}_{i}')(y)
      out.append(y)
    if self.pool == 'max':
      out.append(nn.max_pool(x, (3, 3), (2, 2)))
    return jnp.concatenate(out, axis=-1)


class InceptionResNetV2(nn.Module):
  """Inception blocks with residual connections.

  Intermediates: `stem` and, with Keras's layer names, `mixed_5b`,
  `block35_10_ac`, `mixed_6a`, `block17_20_ac`, `mixed_7a`, `block8_10` (the
  last block, which has no ReLU), `conv_7b_ac` and `avg_pool`.

  Attributes:
    top: whether to compute the pooled features and the classifier.
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
    """Maps network input [B, H, W, 3] to all intermediates and `logits`.

    With `train`, batch norm uses the statistics of the batch, and the
    collection `batch_stats` is updated.
    """
    stages.check_channels(x, 3)
    return stages.collect(self._stages(x.astype(self.dtype), train), self.upto)

  def _stages(self, x: jax.Array, train: bool
              ) -> Iterator[tuple[str, jax.Array]]:
    conv = functools.partial(
        nn.Conv, kernel_init=nn.initializers.he_normal(), dtype=self.dtype)
    norm = functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=0.99,
        epsilon=1e-3, use_scale=False, dtype=self.dtype,
        axis_name=parallel.axis())
    layer = functools.partial(ConvNorm, conv=conv, norm=norm)

    for name, spec in STEM.items():
      x = layer(spec, name=name)(x)
      if name in ('stem_2b', 'stem_4a'):
        x = nn.max_pool(x, (3, 3), (2, 2))
    yield 'stem', x

    for mixed, block in ORDER:
      x = Branches(MIXED[mixed], layer,
                   'average' if mixed == 'mixed_5b' else 'max', name=mixed)(x)
      yield mixed, x
      for i in range(1, REPEATS[block] + 1):
        last = (block, i) == ('block8', 10)
        name = f'{block}_{i}'
        y = Branches(RESIDUAL[block], layer, name=name)(x)
        y = conv(x.shape[-1], (1, 1), name=f'{name}_conv')(y)
        x = x + y * (1. if last else SCALES[block])
        x = x if last else nn.relu(x)
      yield name if last else f'{name}_ac', x

    x = layer(Conv(1536), name='conv_7b')(x)
    yield 'conv_7b_ac', x
    if not self.top:
      return
    x = x.mean((1, 2))
    yield 'avg_pool', x
    x = nn.Dense(self.num_classes, dtype=self.dtype, name='predictions')(x)
    yield 'logits', x.astype(jnp.float32)
