"""AlexNet's convolutions as torchvision has them (Krizhevsky 2014).

"One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997: one column, without the local response normalization of 2012.
The classifier is left out: only features are asked of this network.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.backbones import stages


class Conv(NamedTuple):
  """One convolution with bias, before its ReLU.

  Attributes:
    features: channels of the output.
    side: of the square kernel.
    stride: in pixels.
    padding: zeros on each side.
    key: what torchvision's names of its tensors begin with.
  """
  features: int
  side: int
  stride: int
  padding: int
  key: str


CONVS = (Conv(64, 11, 4, 2, 'features.0'), Conv(192, 5, 1, 2, 'features.3'),
         Conv(384, 3, 1, 1, 'features.6'), Conv(256, 3, 1, 1, 'features.8'),
         Conv(256, 3, 1, 1, 'features.10'))
"""The convolutions conv1 ... conv5; pooling follows the first two."""
POOLED = (1, 2)
"""Numbers of the convolutions that pooling follows, of those that count here;
what torchvision pools after conv5 is read by its classifier alone."""
MIN_SIDE = 31
"""The smallest photograph of which a pixel is left at `relu5`."""
INTERMEDIATES = ('relu1', 'pool1', 'relu2', 'pool2', 'relu3', 'relu4', 'relu5')
"""Names of what the network computes, in order."""


class AlexNet(nn.Module):
  """Five convolutions, two of them with max pooling behind.

  Attributes:
    upto: the last intermediate to compute; None for all.
    dtype: compute type; parameters stay float32.
  """
  upto: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    """Network input [B, H, W, 3] to the INTERMEDIATES by name."""
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
