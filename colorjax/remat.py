"""Rematerialization: parts of a network that a training step computes twice.

The backward pass needs the intermediate results of the forward pass. With
rematerialization, only the inputs of the parts are kept, and the backward pass
computes each part again (Chen et al. 2016, arXiv:1604.06174). Results are the
same; a step needs less memory and more time.

A network marks its parts with `Segmented.segment`, and a training step turns
rematerialization on (`rematerialized`). The network itself need not know.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn

from colorjax.errors import UserError

Result = TypeVar('Result')

_METHOD = 'segment'


class Segmented(nn.Module):
  """Base class of networks that can be rematerialized part by part."""

  def segment(self, part: Callable[..., Any], *inputs: Any) -> Any:
    """Computes a part of this network.

    Args:
      part: `(module, *inputs) -> outputs`. It must create or use layers of the
        module that it receives and not of `self`. Arrays that it needs are
        inputs; what it takes from the enclosing function must be constants.
      *inputs: pytrees of arrays. They are kept for the backward pass, so there
        should be few of them at the borders between parts.

    Returns:
      The outputs, pytrees of arrays.
    """
    return part(self, *inputs)


def rematerialized(function: Callable[..., Result]) -> Callable[..., Result]:
  """Returns a loss whose networks are rematerialized part by part.

  Args:
    function: a pure function that calls Flax networks.

  Returns:
    The same function, with the same results and gradients. It raises UserError
    if none of its networks has parts.
  """
  def call(*args: Any, **kwargs: Any) -> Result:
    num_parts = 0

    def intercept(next_method, args, kwargs, context):
      nonlocal num_parts
      if not (context.method_name == _METHOD
              and isinstance(context.module, Segmented)):
        return next_method(*args, **kwargs)
      num_parts += 1
      part, *inputs = args
      return nn.remat(part)(context.module, *inputs)

    with nn.intercept_methods(intercept):
      result = function(*args, **kwargs)
    if not num_parts:
      raise UserError(
          'remat=True: the networks of this method have no parts that can be '
          'computed twice; remove remat, or mark parts with '
          'colorjax.remat.Segmented')
    return result

  return call
