"""VGG-16 and VGG-19 (Simonyan and Zisserman 2015, arXiv:1409.1556)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from colorjax.backbones import stages
from colorjax.errors import UserError
from colorjax.remat import Segmented

VGG16 = (2, 2, 3, 3, 3)
"""Convolutions of each block of VGG-16."""
VGG19 = (2, 2, 4, 4, 4)
"""Convolutions of each block of VGG-19."""
WIDTHS = (64, 128, 256, 512, 512)
"""Channels of each block."""
IMAGE_SIZE = 224
"""Side of the photographs that the classifier takes, in pixels."""

# Mean color of ImageNet, subtracted by the Caffe networks and Keras: blue,
# green, red in [0, 255].
BGR_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
# Standardization of torchvision's checkpoints: red, green, blue in [0, 1].
RGB_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
RGB_STD = np.array([0.229, 0.224, 0.225], np.float32)


def preprocess(rgb: jax.Array) -> jax.Array:
  """sRGB [..., 3] in [0, 1] to 255 * (blue, green, red) - BGR_MEAN (Keras)."""
  return rgb[..., ::-1] * 255. - BGR_MEAN


def preprocess_torch(rgb: jax.Array) -> jax.Array:
  """sRGB [..., 3] in [0, 1] to standardized red, green, blue (torchvision)."""
  return (rgb - RGB_MEAN) / RGB_STD


def intermediates(depths: Sequence[int], *, top: bool = True,
                  first: str = 'conv1_1') -> tuple[str, ...]:
  """Names of the intermediates of `VGG`, in the order of the network."""
  names = [
      name for block, depth in enumerate(depths, 1)
      for name in (*(f'relu{block}_{i + 1}' for i in range(depth)),
                   f'pool{block}')]
  if first == 'conv1_2':
    names.remove('relu1_1')
  return (*names, *(('fc6', 'fc7') if top else ()))


class VGG(Segmented):
  """Five blocks of 3x3 convolutions with max pooling, and a classifier.

  Intermediates: `relu1_1` ... `relu5_4` after each convolution, `pool1` ...
  `pool5`, and `fc6`, `fc7`, the dense layers after their ReLU. There is no
  batch normalization; the He initialization makes training from scratch
  possible.

  Attributes:
    depths: convolutions of each block, VGG16 or VGG19.
    top: whether to compute the classifier; it needs photographs of 224 x 224.
    upto: the last intermediate to compute; None for all.
    first: first layer: 'conv1_1', which takes 3 channels, or 'conv1_2', which
      takes 64.
    num_classes: channels of the logits.
    dtype: compute type; parameters and logits stay float32.
  """
  depths: Sequence[int] = VGG19
  top: bool = True
  upto: str | None = None
  first: Literal['conv1_1', 'conv1_2'] = 'conv1_1'
  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False
               ) -> dict[str, jax.Array]:
    """Maps network input [B, H, W, 3 or 64] to intermediates and `logits`."""
    del train  # No dropout, no batch statistics.
    stages.check_channels(x, 3 if self.first == 'conv1_1' else WIDTHS[0])
    return stages.collect(self._stages(x.astype(self.dtype)), self.upto)

  def _stages(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
    he = nn.initializers.he_normal()
    for block, depth in enumerate(self.depths, 1):
      layers = range(1, depth + 1)
      if block == 1 and self.first != 'conv1_1':
        layers = layers[1:]
      # Later layers get no parameters.
      if self.upto and self.upto.startswith(f'relu{block}_'):
        layers = range(layers.start, int(self.upto.split('_')[1]) + 1)
      values = self.segment(partial(_convolutions, block, layers), x)
      for layer, x in zip(layers, values, strict=True):
        yield f'relu{block}_{layer}', x
      x = nn.max_pool(x, (2, 2), (2, 2))
      yield f'pool{block}', x
    if not self.top:
      return
    if x.shape[1:3] != (7, 7):
      raise UserError(
          f'the classifier of VGG takes photographs of {IMAGE_SIZE} x '
          f'{IMAGE_SIZE}; for other sizes use top=False')
    x = x.reshape(x.shape[0], -1)
    for name in ('fc6', 'fc7'):
      x = nn.relu(nn.Dense(4096, kernel_init=he, dtype=self.dtype,
                           name=name)(x))
      yield name, x
    x = nn.Dense(self.num_classes, dtype=self.dtype, name='fc8')(x)
    yield 'logits', x.astype(jnp.float32)


def _convolutions(block: int, layers: Sequence[int], net: VGG, x: jax.Array
                  ) -> list[jax.Array]:
  """The values of these layers of a block, created in `net`."""
  values = []
  for layer in layers:
    x = nn.relu(nn.Conv(
        WIDTHS[block - 1], (3, 3), kernel_init=nn.initializers.he_normal(),
        dtype=net.dtype, name=f'conv{block}_{layer}')(x))
    values.append(x)
  return values
