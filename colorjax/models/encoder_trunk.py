"""A trunk with a pretrained image classifier as its encoder.

The encoder is EfficientNet-Lite0. It sees lightness as a grey image, in its own
input range. Its batch normalization always uses the statistics of ImageNet,
also in training, so that the pretrained features do not change with the batch.
The decoder combines the encoder's features at strides 32, 16, ... down to the
stride of the trunk.

The variables of a frozen encoder are in the collection FROZEN, which no step
changes and which is written to disk once. A fine-tuned encoder has its
parameters in `params` and its batch statistics in FROZEN.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax import backbones, color
from colorjax.backbones import efficientnet_lite
from colorjax.colorizer import FROZEN, PRETRAINED_ENCODER
from colorjax.errors import UserError
from colorjax.models.residual import (
  GROUP_SIZE,
  GroupNorm,
  ResidualBlock,
  scaled_silu,
)

STRIDES = (2, 4)
"""Possible ratios of the photograph's sides to those of the features."""

_DEEPEST = max(efficientnet_lite.STAGES)


class EncoderTrunk(nn.Module):
  """A pretrained encoder with a decoder of residual blocks.

  Attributes:
    backbone: the encoder, up to its last block.
    filters: channels of the decoder, multiples of GROUP_SIZE, at the stride of
      the trunk and at each coarser one; the last value also holds for all
      coarser strides.
    stride: one of STRIDES.
    frozen: whether the encoder is not trained.
    dtype: compute type; parameters stay float32.
  """
  backbone: backbones.Backbone
  filters: Sequence[int]
  stride: int = 4
  frozen: bool = True
  dtype: Any = jnp.float32

  @property
  def divisor(self) -> int:
    """The encoder halves the sides five times."""
    return _DEEPEST

  @property
  def scales(self) -> tuple[int, ...]:
    """Strides of the features of `encode`, fine to coarse."""
    return tuple(s for s in efficientnet_lite.STAGES if s >= self.stride)

  def setup(self) -> None:
    """Creates the encoder's variables and the layers of the decoder."""
    self.frozen_variables = self.variable(
        FROZEN, PRETRAINED_ENCODER, lambda: self._initial(not self.frozen))
    if not self.frozen:
      self.trained_params = self.param(
          PRETRAINED_ENCODER, lambda key: self._initial_of(key)['params'])
    widths = self.widths
    self.lateral = [nn.Conv(width, (1, 1), dtype=self.dtype)
                    for width in widths]
    self.blocks = [ResidualBlock(width, self.dtype) for width in widths]
    self.last_norm = GroupNorm()

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of the decoder at each of `scales`."""
    last = len(self.filters) - 1
    return tuple(self.filters[min(i, last)] for i in range(len(self.scales)))

  def encode(self, inputs: jax.Array, conditioning: jax.Array | None = None,
             *, train: bool) -> list[jax.Array]:
    """See `trunk.Trunk`; one scale for each of `scales`.

    The encoder sees lightness alone. Further channels are averaged over blocks
    and concatenated to the encoder's features at every scale.
    """
    del conditioning, train
    lightness, further = inputs[..., :1], inputs[..., 1:]
    rgb = color.grey_rgb((lightness.astype(jnp.float32) + 1) * 50)
    stages = self.backbone.module.apply(
        self._variables(), self.backbone.preprocess(rgb), train=False)
    assert isinstance(stages, dict)
    scales = []
    for stride in self.scales:
      x = stages[efficientnet_lite.STAGES[stride]]
      if further.shape[-1]:
        pooled = nn.avg_pool(further, (stride, stride), (stride, stride))
        x = jnp.concatenate([x, pooled.astype(x.dtype)], axis=-1)
      scales.append(x)
    return scales

  def decode(self, scales: Sequence[jax.Array],
             conditioning: jax.Array | None = None, *, train: bool
             ) -> jax.Array:
    """See `trunk.Trunk`; features [B, H / stride, W / stride, filters[0]]."""
    del train
    *skips, x = (layer(x) for layer, x
                 in zip(self.lateral, scales, strict=True))
    *finer, deepest = self.blocks
    x = deepest(x, conditioning)
    for skip, block in reversed(list(zip(skips, finer, strict=True))):
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      x = block(jnp.concatenate([x, skip], axis=-1), conditioning)
    return scaled_silu(x, *self.last_norm(x))

  def _variables(self) -> dict[str, Any]:
    """Variables of the encoder."""
    if self.frozen:
      return self.frozen_variables.value
    return {'params': self.trained_params, **self.frozen_variables.value}

  def _initial(self, statistics_alone: bool) -> dict[str, Any]:
    """Initial variables in FROZEN."""
    variables = self._initial_of(self.make_rng('params'))
    return ({'batch_stats': variables['batch_stats']} if statistics_alone
            else variables)

  def _initial_of(self, key: jax.Array) -> dict[str, Any]:
    """Random variables of the encoder."""
    return dict(self.backbone.module.init(
        key, jnp.zeros((1, _DEEPEST, _DEEPEST, 3)), train=False))


def build(filters: Sequence[int], dtype: Any = jnp.float32, *,
          stride: int = 4, frozen: bool = True) -> EncoderTrunk:
  """Builds the trunk for `trunk.TRUNKS`.

  Args:
    filters: channels of the decoder, see `EncoderTrunk`.
    dtype: compute type.
    stride: ratio of the photograph's sides to those of the features.
    frozen: whether the encoder is not trained.

  Returns:
    The trunk.

  Raises:
    UserError: the stride is not one of STRIDES, there are too many filters or
      none, or one is not a multiple of GROUP_SIZE.
  """
  if stride not in STRIDES:
    raise UserError(f'decoder_stride={stride}: choose '
                    f'{" or ".join(map(str, STRIDES))}')
  most = sum(s >= stride for s in efficientnet_lite.STAGES)
  if not 1 <= len(filters) <= most:
    raise UserError(f'filters={list(filters)}: the decoder of stride {stride} '
                    f'needs 1 to {most} numbers')
  for width in filters:
    if width < 1 or width % GROUP_SIZE:
      raise UserError(f'filters={width}: channels of the decoder must be '
                      f'multiples of {GROUP_SIZE}')
  backbone = backbones.build(
      backbones.DEFAULT, dtype=jnp.dtype(dtype).name, top=False,
      upto=efficientnet_lite.STAGES[_DEEPEST])
  return EncoderTrunk(backbone, tuple(filters), stride, frozen, dtype)
