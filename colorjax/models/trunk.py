"""Trunks: networks from a photograph to features, and all that there are.

A trunk does the work that methods share; what is read from its features (a
mixture, bins, one color) is a head of a few layers in `models.mbm`,
`models.classifier`, ... A new architecture is a file with a module that keeps
`Trunk`, and its entry in TRUNKS: every method with `network=NAME` has it then.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from colorjax.errors import UserError
from colorjax.models import encoder_trunk, unet


class Trunk(Protocol):
  """What a trunk is: a Flax module with `encode` and `decode`.

  It works at all sides that `divisor` divides. Both functions are called in
  the module that holds it, `encode` first.

  Attributes:
    stride: how many times smaller than the photograph the features of `decode`
      are.
    divisor: what the photograph's sides are multiples of.
  """

  @property
  def stride(self) -> int:
    """See the class."""

  @property
  def divisor(self) -> int:
    """See the class."""

  def encode(self, inputs: jax.Array, conditioning: jax.Array | None = None,
             *, train: bool) -> Sequence[jax.Array]:
    """What the network sees, at every scale.

    Args:
      inputs: network lightness in [-1, 1] and, where a method has more (noisy
        ab, hints), further channels behind it, [B, H, W, C].
      conditioning: what is said of the photograph as a whole (time, noise
        level, a global embedding), [B, E], or None.
      train: whether the network is being trained.

    Returns:
      Features [B, h_s, w_s, C_s], fine to coarse, at least one.
    """

  def decode(self, scales: Sequence[jax.Array],
             conditioning: jax.Array | None = None, *, train: bool
             ) -> jax.Array:
    """Features of the whole at one resolution.

    Args:
      scales: what `encode` returned.
      conditioning: as in `encode`.
      train: as in `encode`.

    Returns:
      Activated features [B, H / stride, W / stride, C].
    """


TRUNKS: Mapping[str, Callable[..., Trunk]] = {
    'unet': unet.build,
    'encoder': encoder_trunk.build,
}
"""The trunks by name: `(filters, dtype, **settings) -> Trunk`.

`filters` are the channels of its scales, however many it has; UserError if it
cannot take them. `dtype` is the compute type. Settings are keyword-only, with
defaults.
"""


def build(name: str, filters: Sequence[int], dtype: Any,
          settings: Mapping[str, Any] | None = None) -> Trunk:
  """A trunk by its name.

  Args:
    name: a key of TRUNKS.
    filters: channels of its scales.
    dtype: compute type.
    settings: of this trunk alone, see its own `build`.

  Returns:
    The trunk; UserError for settings that it does not have.
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
