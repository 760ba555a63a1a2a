"""Named intermediates of a network, as far as they are asked for."""

from collections.abc import Iterable

import jax

from colorjax.errors import UserError


def collect(
    stages: Iterable[tuple[str, jax.Array]], upto: str | None
) -> dict[str, jax.Array]:
  """Runs a network's stages and keeps each by its name.

  Args:
    stages: pairs (name, value) in the order of the network, produced lazily:
      what is not asked for is not computed, and has no parameters.
    upto: the last stage to run; None for all.

  Returns:
    The values by name. UserError if there is no stage `upto`, or if the input
    was so small that nothing was left of it.
  """
  out: dict[str, jax.Array] = {}
  for name, value in stages:
    if 0 in value.shape:
      raise UserError(
          f'photographs are too small for this backbone: nothing is left of '
          f'them at {name}; enlarge the image size')
    out[name] = value
    if name == upto:
      return out
  if upto is not None:
    raise UserError(
        f'this backbone has no stage {upto!r}: choose one of {", ".join(out)}')
  return out


def check_channels(x: jax.Array, channels: int) -> None:
  """UserError unless x is [B, H, W, channels]."""
  if x.ndim != 4 or x.shape[-1] != channels:
    raise UserError(
        f'this backbone takes [B, H, W, {channels}], got {list(x.shape)}')
