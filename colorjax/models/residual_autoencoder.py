"""VGG-19 as the encoder, and a decoder that adds its higher stages.

The decoder has three transposed convolutions. The outputs of the first two are
added to pool4 and pool3 of the encoder. Only these higher stages are used: they
represent concepts, the lower ones image statistics. There is no non-linearity
after the transposed convolutions, so the decoder is an affine function of three
stages of VGG, and its output is not bounded.

    relu5_4  [h/16, 512]  -> 3x3 transposed, stride 1, 512  -> + pool4
             [h/16, 512]  -> 3x3 transposed, stride 2, 256  -> + pool3
             [h/8,  256]  -> 3x3 transposed, stride 2, 2    = ab [h/4]

The first two strides are determined by the stages that are added: relu5_4
precedes pool5 and therefore has the resolution of pool4. The last stride is a
choice: 2 gives a field with a quarter of the input's height and width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import backbones

BACKBONE = 'vgg19'
"""Name of the encoder in `colorjax.backbones`."""

STRIDE = 16
"""H and W of photographs must be multiples of it."""

_STEM_WIDTH = 64  # channels of conv1_1, which the stem replaces


def encoder(dtype: str = 'float32') -> nn.Module:
  """Builds VGG-19 from conv1_2 to relu5_4."""
  return backbones.build(BACKBONE, first='conv1_2', upto='relu5_4', top=False,
                         dtype=dtype).module


class ResidualAutoencoder(nn.Module):
  """The published network; VGG's variables are params['backbone'].

  The last convolution is initialized to 0, so the network starts at grey. Other
  initial values would depend on the scale of VGG's features, that is on its
  weights.

  Attributes:
    backbone: the result of `encoder`.
    dtype: compute type; parameters and output stay float32.
  """
  backbone: nn.Module
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array) -> jax.Array:
    """Network lightness [B, H, W, 1] to network ab [B, H/4, W/4, 2]."""
    x = nn.relu(nn.Conv(
        _STEM_WIDTH, (3, 3), kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype, name='stem')(lightness.astype(self.dtype)))
    stages = self.backbone(x)
    x = self._transposed(512, 1, name='up_to_pool4')(stages['relu5_4'])
    x = x + stages['pool4']
    x = self._transposed(256, 2, name='up_to_pool3')(x)
    x = x + stages['pool3']
    x = self._transposed(2, 2, name='ab',
                         kernel_init=nn.initializers.zeros)(x)
    return x.astype(jnp.float32)

  def _transposed(self, channels: int, stride: int, **options: Any
                  ) -> nn.ConvTranspose:
    return nn.ConvTranspose(channels, (3, 3), (stride, stride),
                            dtype=self.dtype, **options)
