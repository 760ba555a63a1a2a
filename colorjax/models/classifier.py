"""Networks that predict a distribution over ab bins for each pixel.

Both map network lightness [B, H, W, 1] in [-1, 1] to logits [B, h, w, Q] in the
compute type. They do not know the colors of the Q bins.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import parallel
from colorjax.models.trunk import Trunk
from colorjax.remat import Segmented

# For conv1 to conv7: number of convolutions, stride of the last one, dilation
# of all.
_BLOCKS = ((2, 2, 1), (2, 2, 1), (3, 2, 1), (3, 1, 1), (3, 1, 2), (3, 1, 2),
           (3, 1, 1))


class PublishedClassifier(Segmented):
  """The network of Zhang, Isola and Efros (ECCV 2016), layer by layer.

  conv1 to conv3 end with a convolution of stride 2; conv5 and conv6 are
  dilated. Each of conv1 to conv7 has a batch norm without scale and shift after
  its last ReLU. conv8 doubles the resolution with a transposed convolution, so
  the logits have a quarter of the input's resolution. The authors' network
  takes L - 50, this one L / 50 - 1.

  Attributes:
    num_bins: Q.
    filters: four numbers of channels: of conv1; conv2; conv3 and conv8; and
      conv4 to conv7.
    dtype: compute type; parameters stay float32.
  """
  num_bins: int
  filters: Sequence[int] = (64, 128, 256, 512)
  dtype: Any = jnp.float32

  DIVISOR = 8  # H and W must be multiples of it
  STRIDE = 4  # ratio of the input's height and width to those of the logits

  @nn.compact
  def __call__(self, lightness: jax.Array, *, train: bool) -> jax.Array:
    """Network lightness [B, H, W, 1] to logits [B, H/4, W/4, Q]."""
    def compute(block, net, x):
      depth, stride, dilation = _BLOCKS[block]
      width = net.filters[min(block, 3)]
      for i in range(depth):
        # With stride 2, 'SAME' would pad an even side only at its end.
        x = nn.relu(nn.Conv(
            width, (3, 3), stride if i == depth - 1 else 1, padding=dilation,
            kernel_dilation=dilation, dtype=net.dtype,
            name=f'conv{block + 1}_{i + 1}')(x))
      return nn.BatchNorm(
          use_running_average=not train, use_scale=False, use_bias=False,
          axis_name=parallel.axis(), dtype=net.dtype,
          name=f'conv{block + 1}_norm')(x)

    x = lightness.astype(self.dtype)
    for block in range(len(_BLOCKS)):
      x = self.segment(partial(compute, block), x)
    width = self.filters[2]
    x = nn.relu(nn.ConvTranspose(
        width, (4, 4), (2, 2), dtype=self.dtype, name='conv8_1')(x))
    for name in ('conv8_2', 'conv8_3'):
      x = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=name)(x))
    return nn.Conv(self.num_bins, (1, 1), dtype=self.dtype, name='bins')(x)


class TrunkClassifier(nn.Module):
  """A trunk followed by a 1x1 convolution to Q bins.

  Attributes:
    num_bins: Q.
    trunk: see `models.trunk`.
    dtype: compute type; parameters stay float32.
  """
  num_bins: int
  trunk: Trunk
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, *, train: bool) -> jax.Array:
    """Network lightness [B, H, W, 1] to logits [B, h, w, Q]."""
    scales = self.trunk.encode(lightness, train=train)
    x = self.trunk.decode(scales, train=train)
    return nn.Conv(self.num_bins, (1, 1), dtype=self.dtype, name='bins')(x)
