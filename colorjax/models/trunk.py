"""The interface of trunks, and the table of all trunks.

A trunk maps a photograph to features. A head of a few layers, in `models.mbm`,
`models.classifier` and others, maps the features to a mixture, to bins or to
colors. To add an architecture, write a module with the interface `Trunk` and
add it to TRUNKS: every method with a `network` setting can then use it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from colorjax.errors import UserError
from colorjax.models import encoder_trunk, unet


class Trunk(Protocol):
  """Interface of a trunk: a Flax module with `encode` and `decode`.

  It works for all photographs whose height and width are multiples of
  `divisor`. The module that contains it calls `encode` first, then `decode`.

  Attributes:
    stride: ratio of the photograph's height and width to those of the features
      of `decode`.
    divisor: the photograph's height and width must be multiples of it.
  """

  @property
  def stride(self) -> int:
    """The ratio of the photograph's sides to those of the features."""

  @property
  def divisor(self) -> int:
    """The photograph's sides must be multiples of it."""

  def encode(self, inputs: jax.Array, conditioning: jax.Array | None = None,
             *, train: bool) -> Sequence[jax.Array]:
    """Computes features at every scale.

    Args:
      inputs: [B, H, W, C]: network lightness in [-1, 1], followed by any
        further channels of the method (noisy ab, hints).
      conditioning: a vector for the whole photograph (time, noise level, a
        global embedding), [B, E], or None.
      train: whether the network is being trained.

    Returns:
      Features [B, h_s, w_s, C_s], fine to coarse, at least one.
    """

  def decode(self, scales: Sequence[jax.Array],
             conditioning: jax.Array | None = None, *, train: bool
             ) -> jax.Array:
    """Combines the features of all scales at one resolution.

    Args:
      scales: the result of `encode`.
      conditioning: as in `encode`.
      train: as in `encode`.

    Returns:
      Activated features [B, H / stride, W / stride, C].
    """


TRUNKS: Mapping[str, Callable[..., Trunk]] = {
    'unet': unet.build,
    'encoder': encoder_trunk.build,
}
"""All trunks by name: functions `(filters, dtype, **settings) -> Trunk`.

`filters` are the channels of the trunk's scales; a function raises UserError if
it cannot use them. `dtype` is the compute type. Settings that only one trunk
has are keyword-only, with defaults.
"""


def build(name: str, filters: Sequence[int], dtype: Any,
          settings: Mapping[str, Any] | None = None) -> Trunk:
  """Builds a trunk by its name.

  Args:
    name: a key of TRUNKS.
    filters: channels of the trunk's scales.
    dtype: compute type.
    settings: settings that only this trunk has, see its own `build`.

  Returns:
    The trunk.

  Raises:
    UserError: the trunk does not have one of the settings, or its value is
      wrong.
  """
  settings = dict(settings or {})
  known = {parameter.name for parameter
           in inspect.signature(TRUNKS[name]).parameters.values()
           if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
  if unknown := settings.keys() - known:
    raise UserError(
        f'trunk_settings: network={name} has no setting {min(unknown)!r}; it '
        f'has {", ".join(sorted(known)) or "none"}')
  return TRUNKS[name](filters, dtype, **settings)
