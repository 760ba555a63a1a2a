"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567).

Layers have the names of torchvision. The auxiliary classifier, which is only
needed for training, is not implemented.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.backbones import inception_resnet, stages
from colorjax.backbones.inception_resnet import Conv, halving, square

IMAGE_SIZE = 299
"""Side of the photographs that the network was trained on, in pixels."""
MIN_SIDE = 75
"""Smallest side of a photograph, in pixels; the last block is then 1 x 1."""

Pool = Literal['average', 'max', 'halving max']


class Step(NamedTuple):
  """One convolution of a block.

  Attributes:
    name: name of the convolution.
    source: its input: 'input' or 'pool' of the block, or the name of an earlier
      step.
    conv: the convolution.
  """
  name: str
  source: str
  conv: Conv


class Block(NamedTuple):
  """Parallel branches of convolutions, in the order of torchvision.

  Attributes:
    pool: how the input is pooled over 3x3 pixels.
    steps: the convolutions of all branches.
  """
  pool: Pool
  steps: tuple[Step, ...]


def _chain(branch: str, *convs: Conv) -> tuple[Step, ...]:
  """A chain of convolutions; their names are numbered."""
  names = [f'{branch}_{i}' for i in range(1, len(convs) + 1)]
  sources = ['input', *names[:-1]]
  return tuple(map(Step, names, sources, convs))


def _wide(features: int, width: int) -> Conv:
  """A convolution with a kernel of one row."""
  return Conv(features, (1, width))


def _tall(features: int, height: int) -> Conv:
  """A convolution with a kernel of one column."""
  return Conv(features, (height, 1))


def _inception_a(pooled: int) -> Block:
  """A block with 3x3 and 5x5 kernels, and `pooled` channels after pooling."""
  return Block('average', (
      Step('branch1x1', 'input', Conv(64)),
      *_chain('branch5x5', Conv(48), square(64, 5)),
      *_chain('branch3x3dbl', Conv(64), square(96, 3), square(96, 3)),
      Step('branch_pool', 'pool', Conv(pooled))))


def _inception_c(n: int) -> Block:
  """A block with factorized 7x7 kernels and n intermediate channels."""
  return Block('average', (
      Step('branch1x1', 'input', Conv(192)),
      *_chain('branch7x7', Conv(n), _wide(n, 7), _tall(192, 7)),
      *_chain('branch7x7dbl', Conv(n), _tall(n, 7), _wide(n, 7), _tall(n, 7),
              _wide(192, 7)),
      Step('branch_pool', 'pool', Conv(192))))


def _inception_e(pool: Pool) -> Block:
  """A block with branches that split at their end."""
  return Block(pool, (
      Step('branch1x1', 'input', Conv(320)),
      Step('branch3x3_1', 'input', Conv(384)),
      Step('branch3x3_2a', 'branch3x3_1', _wide(384, 3)),
      Step('branch3x3_2b', 'branch3x3_1', _tall(384, 3)),
      *_chain('branch3x3dbl', Conv(448), square(384, 3)),
      Step('branch3x3dbl_3a', 'branch3x3dbl_2', _wide(384, 3)),
      Step('branch3x3dbl_3b', 'branch3x3dbl_2', _tall(384, 3)),
      Step('branch_pool', 'pool', Conv(192))))


STEM = {'Conv2d_1a_3x3': halving(32),
        'Conv2d_2a_3x3': Conv(32, (3, 3), 1, 'VALID'),
        'Conv2d_2b_3x3': square(64, 3),
        'Conv2d_3b_1x1': Conv(80),
        'Conv2d_4a_3x3': Conv(192, (3, 3), 1, 'VALID')}
"""Convolutions of the stem."""
POOLED = {'Conv2d_2b_3x3': 'pool1', 'Conv2d_4a_3x3': 'pool2'}
"""Convolutions that are followed by max pooling, and the pooling's name."""
BLOCKS = {
    'Mixed_5b': _inception_a(32), 'Mixed_5c': _inception_a(64),
    'Mixed_5d': _inception_a(64),
    'Mixed_6a': Block('halving max', (
        Step('branch3x3', 'input', halving(384)),
        *_chain('branch3x3dbl', Conv(64), square(96, 3), halving(96)))),
    'Mixed_6b': _inception_c(128), 'Mixed_6c': _inception_c(160),
    'Mixed_6d': _inception_c(160), 'Mixed_6e': _inception_c(192),
    'Mixed_7a': Block('halving max', (
        *_chain('branch3x3', Conv(192), halving(320)),
        *_chain('branch7x7x3', Conv(192), _wide(192, 7), _tall(192, 7),
                halving(192)))),
    'Mixed_7b': _inception_e('average'), 'Mixed_7c': _inception_e('average')}
"""The blocks after the stem; `InceptionV3.last_pool` replaces the last pool."""


class Mixed(nn.Module):
  """One inception block.

  Attributes:
    block: its convolutions and pooling.
    layer: `inception_resnet.ConvNorm` with its options.
    count_padding: whether average pooling counts padded zeros as pixels.
  """
  block: Block
  layer: Any
  count_padding: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] to the concatenation of the ends of all branches."""
    values = {'input': x, 'pool': self._pool(x)}
    for name, source, conv in self.block.steps:
      values[name] = self.layer(conv, name=name)(values[source])
    sources = {'input', *(step.source for step in self.block.steps)}
    ends = [name for name in values if name not in sources]
    # Pooling that is not followed by a convolution is the last branch.
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
  """Inception-v3 for inference only, with stored batch statistics.

  Intermediates: `pool1` and `pool2` in the stem, the blocks `Mixed_5b` ...
  `Mixed_7c`, and `avg_pool` with 2048 channels. `logits` are the values before
  the softmax.

  Attributes:
    count_padding: whether average pooling counts padded zeros as pixels, as in
      torchvision. TensorFlow, where the weights come from, does not count them.
    last_pool: the pooling in `Mixed_7c`: 'average', or 'max' as in the graph
      of 2015 that defines the Frechet inception distance.
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
    """Maps input [B, H, W, 3] in [-1, 1] to intermediates and `logits`."""
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
