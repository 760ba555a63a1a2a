"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567).

Layers bear the names that torchvision gives them. The auxiliary classifier is
left out: it serves training alone.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.backbones import inception_resnet, stages
from colorjax.backbones.inception_resnet import Conv

IMAGE_SIZE = 299
"""Side of the photographs that the network was made for, in pixels."""
MIN_SIDE = 75
"""The smallest photograph of which a pixel is left at the end."""

Pool = Literal['average', 'max', 'halving max']


class Step(NamedTuple):
  """One convolution of a block.

  Attributes:
    name: its name.
    source: what it convolves: 'input', 'pool', or an earlier step by name.
    conv: the convolution.
  """
  name: str
  source: str
  conv: Conv


class Block(NamedTuple):
  """Convolutions side by side, in the order of torchvision.

  Attributes:
    pool: how the input is pooled over 3x3 pixels.
    steps: the convolutions.
  """
  pool: Pool
  steps: tuple[Step, ...]


def _chain(branch: str, *convs: Conv) -> tuple[Step, ...]:
  """Numbered convolutions, one behind the other."""
  names = [f'{branch}_{i}' for i in range(1, len(convs) + 1)]
  sources = ['input', *names[:-1]]
  return tuple(map(Step, names, sources, convs))


def _square(features: int, side: int) -> Conv:
  return Conv(features, (side, side))


def _halving(features: int) -> Conv:
  return Conv(features, (3, 3), 2, 'VALID')


def _wide(features: int, side: int) -> Conv:
  return Conv(features, (1, side))


def _tall(features: int, side: int) -> Conv:
  return Conv(features, (side, 1))


def _fives(pooled: int) -> Block:
  """A block of kernels of up to 5x5 pixels."""
  return Block('average', (
      Step('branch1x1', 'input', Conv(64)),
      *_chain('branch5x5', Conv(48), _square(64, 5)),
      *_chain('branch3x3dbl', Conv(64), _square(96, 3), _square(96, 3)),
      Step('branch_pool', 'pool', Conv(pooled))))


def _sevens(n: int) -> Block:
  """A block of kernels of 7x7 pixels in two parts, n channels between."""
  return Block('average', (
      Step('branch1x1', 'input', Conv(192)),
      *_chain('branch7x7', Conv(n), _wide(n, 7), _tall(192, 7)),
      *_chain('branch7x7dbl', Conv(n), _tall(n, 7), _wide(n, 7), _tall(n, 7),
              _wide(192, 7)),
      Step('branch_pool', 'pool', Conv(192))))


def _forks(pool: Pool) -> Block:
  """A block whose branches divide in the end."""
  return Block(pool, (
      Step('branch1x1', 'input', Conv(320)),
      Step('branch3x3_1', 'input', Conv(384)),
      Step('branch3x3_2a', 'branch3x3_1', _wide(384, 3)),
      Step('branch3x3_2b', 'branch3x3_1', _tall(384, 3)),
      *_chain('branch3x3dbl', Conv(448), _square(384, 3)),
      Step('branch3x3dbl_3a', 'branch3x3dbl_2', _wide(384, 3)),
      Step('branch3x3dbl_3b', 'branch3x3dbl_2', _tall(384, 3)),
      Step('branch_pool', 'pool', Conv(192))))


STEM = {'Conv2d_1a_3x3': _halving(32),
        'Conv2d_2a_3x3': Conv(32, (3, 3), 1, 'VALID'),
        'Conv2d_2b_3x3': _square(64, 3),
        'Conv2d_3b_1x1': Conv(80),
        'Conv2d_4a_3x3': Conv(192, (3, 3), 1, 'VALID')}
"""Convolutions of the stem."""
POOLED = {'Conv2d_2b_3x3': 'pool1', 'Conv2d_4a_3x3': 'pool2'}
"""Names of the max pooling that follows some of them."""
BLOCKS = {
    'Mixed_5b': _fives(32), 'Mixed_5c': _fives(64), 'Mixed_5d': _fives(64),
    'Mixed_6a': Block('halving max', (
        Step('branch3x3', 'input', _halving(384)),
        *_chain('branch3x3dbl', Conv(64), _square(96, 3), _halving(96)))),
    'Mixed_6b': _sevens(128), 'Mixed_6c': _sevens(160),
    'Mixed_6d': _sevens(160), 'Mixed_6e': _sevens(192),
    'Mixed_7a': Block('halving max', (
        *_chain('branch3x3', Conv(192), _halving(320)),
        *_chain('branch7x7x3', Conv(192), _wide(192, 7), _tall(192, 7),
                _halving(192)))),
    'Mixed_7b': _forks('average'), 'Mixed_7c': _forks('average')}
"""The blocks that follow the stem; `InceptionV3.last_pool` is of the last."""


class Mixed(nn.Module):
  """One block.

  Attributes:
    block: what it computes.
    layer: `inception_resnet.ConvNorm` with its options.
    count_padding: whether the zeros around the input count as pixels where
      an average is taken.
  """
  block: Block
  layer: Any
  count_padding: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to the concatenation of all that is not read further."""
    values = {'input': x, 'pool': self._pool(x)}
    for name, source, conv in self.block.steps:
      values[name] = self.layer(conv, name=name)(values[source])
    read = {'input', *(step.source for step in self.block.steps)}
    ends = [name for name in values if name not in read]
    # A pool that no convolution reads is the last branch itself.
    ends.sort(key=lambda name: name == 'pool')
    return jnp.concatenate([values[name] for name in ends], axis=-1)

  def _pool(self, x: jax.Array) -> jax.Array:
    if self.block.pool == 'average':
      return nn.avg_pool(x, (3, 3), padding='SAME',
                         count_include_pad=self.count_padding)
    if self.block.pool == 'max':
      return nn.max_pool(x, (3, 3), padding='SAME')
    return nn.max_pool(x, (3, 3), (2, 2))


class InceptionV3(nn.Module):
  """The network with the statistics of its training: it is not trained here.

  Intermediates: `pool1`, `pool2` in the stem, the blocks `Mixed_5b` ...
  `Mixed_7c`, and `avg_pool`, 2048 channels. `logits` are the values before
  the softmax.

  Attributes:
    count_padding: whether average pooling counts the zeros at the margin, as
      torchvision does; TensorFlow, from where the weights come, does not.
    last_pool: the pooling in `Mixed_7c`: 'average', or 'max' as in the graph
      of 2015 that the Frechet distance is defined by.
    num_classes: channels of the logits; None for no classifier.
    upto: the last intermediate to compute; None for all.
    dtype: compute type; parameters, statistics and logits stay float32.
  """
  count_padding: bool = False
  last_pool: Literal['average', 'max'] = 'average'
  num_classes: int | None = 1000
  upto: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """Network input [B, H, W, 3] in [-1, 1] to intermediates and `logits`."""
    stages.check_channels(x, 3)
    return stages.collect(self._stages(x.astype(self.dtype)), self.upto)

  def _stages(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
    layer = functools.partial(
        inception_resnet.ConvNorm,
        conv=functools.partial(
            nn.Conv, kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype),
        norm=functools.partial(
            nn.BatchNorm, use_running_average=True, epsilon=1e-3,
            dtype=self.dtype))

    for name, conv in STEM.items():
      x = layer(conv, name=name)(x)
      if name in POOLED:
        x = nn.max_pool(x, (3, 3), (2, 2))
        yield POOLED[name], x
    for name, block in BLOCKS.items():
      if name == 'Mixed_7c':
        block = block._replace(pool=self.last_pool)
      x = Mixed(block, layer, self.count_padding, name=name)(x)
      yield name, x
    x = x.mean((1, 2))
    yield 'avg_pool', x
    if self.num_classes is None:
      return
    x = nn.Dense(self.num_classes, dtype=self.dtype, name='fc')(x)
    yield 'logits', x.astype(jnp.float32)
