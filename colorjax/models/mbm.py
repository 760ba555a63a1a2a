"""Networks that predict the parameters of a mixture of whole-image colorings.

Both map network lightness [B, H, W, 1] in [-1, 1] to MixtureParams: K
whole-image colorings with `num_params` channels per ab value, and K mixing
logits per image. The distribution that they parameterize depends on the loss.

Letters in shapes: B photographs, K components, h and w the height and width of
the ab field, C channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from colorjax import keys as key_lib
from colorjax import parallel
from colorjax.models.dropout import dropout
from colorjax.models.residual import GroupNorm, scaled_silu
from colorjax.models.trunk import Trunk


class MixtureParams(flax.struct.PyTreeNode):
  """Parameters of a mixture over ab fields.

  Attributes:
    components: `num_params` arrays [B, K, h, w, 2], float32, unbounded.
    mixing_logits: unnormalized log priors, float32: [B, K] of whole
      photographs, or [B, K, n, m] of patches.
  """
  components: tuple[jax.Array, ...]
  mixing_logits: jax.Array


def split_components(
    x: jax.Array, num_components: int, num_params: int
) -> tuple[jax.Array, ...]:
  """Splits the channels of a head into one array per distribution parameter.

  Args:
    x: head output [B, h, w, num_params * K * 2].
    num_components: K.
    num_params: number of distribution parameters per ab value.

  Returns:
    `num_params` float32 arrays [B, K, h, w, 2].
  """
  batch, height, width, _ = x.shape
  x = x.astype(jnp.float32).reshape(
      batch, height, width, num_params, num_components, 2)
  return tuple(jnp.moveaxis(x[..., p, :, :], -2, 1) for p in range(num_params))


class PublishedMBM(nn.Module):
  """The published network: encoder and decoder without skip connections.

  Each encoder stage has two 3x3 convolutions with stride 1 and one with stride
  2, all with ReLU. The decoder mirrors it with transposed convolutions of
  strides 1, 2, 1. The mixing logits are computed from a one-channel convolution
  of the bottleneck by two dense layers, so the network works only at the size
  with which it was initialized.

  Attributes:
    num_components: K.
    num_params: number of distribution parameters per ab value.
    filters: channels of each stage; H and W must be divisible by
      2^len(filters).
    prior_width: units of the dense layer before the mixing logits.
    batch_norm: whether each convolution is followed by batch norm.
    dtype: compute type; parameters and outputs stay float32.
  """
  num_components: int
  num_params: int = 1
  filters: Sequence[int] = (16, 32, 64, 128)
  prior_width: int = 128
  batch_norm: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, *, train: bool,
               keys: jax.Array | None = None) -> MixtureParams:
    """Network lightness [B, H, W, 1] to MixtureParams with h, w = H, W.

    The keys are not used: this network has no dropout.
    """
    del keys

    def activate(x):
      if self.batch_norm:
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype,
                         axis_name=parallel.axis())(x)
      return nn.relu(x)

    x = lightness.astype(self.dtype)
    for width in self.filters:
      for stride in (1, 1, 2):
        x = activate(
            nn.Conv(width, (3, 3), (stride, stride), dtype=self.dtype)(x))

    prior = nn.Conv(1, (3, 3), dtype=self.dtype, name='prior_conv')(x)
    prior = prior.reshape(prior.shape[0], -1)
    prior = nn.relu(nn.Dense(self.prior_width, dtype=self.dtype,
                             name='prior_dense')(prior))
    mixing_logits = nn.Dense(self.num_components, name='prior')(
        prior.astype(jnp.float32))

    for width in reversed(self.filters):
      for stride in (1, 2, 1):
        x = activate(nn.ConvTranspose(
            width, (3, 3), (stride, stride), dtype=self.dtype)(x))
    x = nn.Conv(self.num_params * self.num_components * 2, (3, 3),
                dtype=self.dtype, name='components')(x)
    return MixtureParams(
        split_components(x, self.num_components, self.num_params),
        mixing_logits)


class TrunkMBM(nn.Module):
  """A trunk with a head for the components and a pooled head for the priors.

  The mixing logits are computed from the encoder's features of every scale,
  averaged over positions, with dropout. The published head, a dense layer on
  the flattened bottleneck, memorizes the training set by the positions of edges
  in the photographs. Pooled features carry no positions.

  With patches, each has its own mixing logits: those of the photograph plus a
  correction from the features of the patch, which is initialized to 0.

  Attributes:
    num_components: K.
    trunk: see `models.trunk`.
    num_params: number of distribution parameters per ab value.
    prior_width: units of the dense layer before the mixing logits.
    dropout: dropout rate in the prior head.
    patch: side of the patches with their own mixing logits, in places of the
      ab field, which is a multiple of it; 0 for none.
    dtype: compute type; parameters and outputs stay float32.
  """
  num_components: int
  trunk: Trunk
  num_params: int = 1
  prior_width: int = 128
  dropout: float = 0.5
  patch: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lightness: jax.Array, *, train: bool,
               keys: jax.Array | None = None) -> MixtureParams:
    """Network lightness [B, H, W, 1] to MixtureParams at the trunk's stride.

    Args:
      lightness: network lightness.
      train: whether to use dropout.
      keys: typed keys [B] for dropout; required only in training.

    Raises:
      ValueError: keys are required but not given.
    """
    if train and self.dropout and keys is None:
      raise ValueError('keys=None: dropout in training needs keys [B]')
    scales = self.trunk.encode(lightness, train=train)
    mixing_logits = self._prior(scales, keys if train else None)
    x = self.trunk.decode(scales, train=train)
    if self.patch:
      mixing_logits = mixing_logits[..., None, None] + self._patch_prior(x)
    x = nn.Conv(self.num_params * self.num_components * 2, (3, 3),
                dtype=self.dtype, name='components')(x)
    return MixtureParams(
        split_components(x, self.num_components, self.num_params),
        mixing_logits)

  def _patch_prior(self, features: jax.Array) -> jax.Array:
    """Features [B, h, w, C] to the correction of patches [B, K, n, m]."""
    patch = self.patch, self.patch
    x = nn.Conv(self.prior_width, patch, patch, dtype=self.dtype,
                name='patch_dense')(features)
    x = nn.Dense(self.num_components, kernel_init=nn.initializers.zeros,
                 name='patch_prior')(nn.silu(x).astype(jnp.float32))
    return jnp.moveaxis(x, -1, 1)

  def _prior(self, scales: Sequence[jax.Array], keys: jax.Array | None
             ) -> jax.Array:
    """Feature maps [B, h_s, w_s, C_s] to mixing logits [B, K].

    Dropout is used only if keys are given.
    """
    def drop(x: jax.Array, purpose: str) -> jax.Array:
      return x if keys is None else dropout(
          x, key_lib.named(keys, purpose), self.dropout)

    pooled = [scaled_silu(x, *GroupNorm()(x)).mean((1, 2)) for x in scales]
    x = drop(jnp.concatenate(pooled, axis=-1), 'dropout before prior_dense')
    x = nn.silu(nn.Dense(self.prior_width, dtype=self.dtype,
                         name='prior_dense')(x))
    x = drop(x, 'dropout before prior')
    return nn.Dense(self.num_components, name='prior')(x.astype(jnp.float32))
