"""The convolutions of AlexNet, as in torchvision (Krizhevsky 2014).

"One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997: a single column, without the local response normalization of
the 2012 version. The classifier is not implemented; this network only provides
features.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.backbones import stages


class Conv(NamedTuple):
  """One convolution with bias, followed by a ReLU.

  Attributes:
    features: channels of the output.
    side: side of the square kernel, pixels.
    stride: pixels.
    padding: zeros on each side, pixels.
    key: prefix of its tensors' names in torchvision.
  """
  features: int
  side: int
  stride: int
  padding: int
  key: str


CONVS = (Conv(64, 11, 4, 2, 'features.0'), Conv(192, 5, 1, 2, 'features.3'),
         Conv(384, 3, 1, 1, 'features.6'), Conv(256, 3, 1, 1, 'features.8'),
         Conv(256, 3, 1, 1, 'features.10'))
"""The convolutions conv1 ... conv5."""
POOLED = (1, 2)
"""Numbers of the convolutions that are followed by pooling. torchvision also
pools after conv5, but only for its classifier."""
MIN_SIDE = 31
"""Smallest side of a photograph, in pixels; `relu5` is then 1 x 1."""
INTERMEDIATES = ('relu1', 'pool1', 'relu2', 'pool2', 'relu3', 'relu4', 'relu5')
"""Names of the intermediates, in the order of the network."""


class AlexNet(nn.Module):
  """Five convolutions, the first two followed by max pooling.

  Attributes:
    upto: the last intermediate to compute; None for all.
    dtype: compute type; parameters stay float32.
  """
  upto: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """Maps the network input [B, H, W, 3] to the INTERMEDIATES by name."""
    stages.check_channels(x, 3)
    return stages.collect(self._stages(x.astype(self.dtype)), self.upto)

  def _stages(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
    for number, (features, side, stride, padding, _) in enumerate(CONVS, 1):
      x = nn.relu(nn.Conv(
          features, (side, side), stride, padding=padding, dtype=self.dtype,
          kernel_init=nn.initializers.he_normal(), name=f'conv{number}')(x))
      yield f'relu{number}', x
      if number in POOLED:
        x = nn.max_pool(x, (3, 3), (2, 2))
        yield f'pool{number}', x
