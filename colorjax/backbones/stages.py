"""Runs the stages of a network up to a chosen one."""

from collections.abc import Iterable

import jax

from colorjax.errors import UserError


def collect(
    stages: Iterable[tuple[str, jax.Array]], upto: str | None
) -> dict[str, jax.Array]:
  """Runs a network's stages and collects their values by name.

  Args:
    stages: lazy pairs (name, value) in the order of the network. Stages after
      `upto` are not computed and get no parameters.
    upto: the last stage to run; None for all.

  Returns:
    The values by name.

  Raises:
    UserError: there is no stage `upto`, or the input is too small for the
      network.
  """
  out: dict[str, jax.Array] = {}
  for name, value in stages:
    if 0 in value.shape:
      raise UserError(
          f'photographs are too small for this backbone: stage {name} is '
          'empty; use a larger image size')
    out[name] = value
    if name == upto:
      return out
  if upto is not None:
    raise UserError(
        f'this backbone has no stage {upto!r}: choose one of {", ".join(out)}')
  return out


def check_channels(x: jax.Array, channels: int) -> None:
  """Raises UserError unless x has the shape [B, H, W, channels]."""
  if x.ndim != 4 or x.shape[-1] != channels:
    raise UserError(
        f'this backbone takes [B, H, W, {channels}], got {list(x.shape)}')
