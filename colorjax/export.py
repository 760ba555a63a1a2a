"""Writes a trained method in formats that other programs can run.

  StableHLO   what `jax.export` serializes; `jax.export.deserialize` reads it
              with JAX alone, on CPUs, NVIDIA GPUs and TPUs
  ONNX        for ONNX Runtime and others; needs the package jax2onnx

Both hold the weights. The exported function maps the method's inputs, in Lab
units, to ab at the same size. It has the options that the method was given
(`Colorizer.ask`). Colors of a photograph at its full resolution, and the inputs
that `fallbacks` adds to every method, are not part of it.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import export as jax_export

from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError

CHANNELS = {'lightness': 1, 'region': 1, 'hint_ab': 2, 'hint_mask': 1}
"""The inputs that can be exported, and their channels."""

OUTPUTS = ('ab', 'probability')
"""The names of the results in ONNX; the second one only for proposals."""

PLATFORMS = ('cpu', 'cuda', 'tpu')
"""The devices that a StableHLO file runs on."""


def stablehlo(
    colorizer: Colorizer, variables: Variables, image_size: int, *,
    num_proposals: int = 0, inputs: Sequence[str] = ('lightness',)) -> bytes:
  """Exports a method as StableHLO; `jax.export.deserialize(...).call` runs it.

  Args:
    colorizer: the method, with its options set.
    variables: its variables.
    image_size: S, side of the square input in pixels.
    num_proposals: 0 for the best coloring, else K, the number of proposals.
    inputs: names of the inputs, a part of CHANNELS with 'lightness'.

  Returns:
    The serialized function. Its arguments are the inputs in the given order,
    float32 [B, S, S, C] for any B. It returns ab, Lab units, [B, S, S, 2]; or,
    with proposals, ab [K, B, S, S, 2], and the probabilities [K, B] if the
    method has them.

  Raises:
    UserError: an input cannot be exported or is not accepted by the method, or
      the method has not so many proposals.
  """
  function = _function(colorizer, variables, num_proposals, inputs)
  batch, = jax_export.symbolic_shape('b')
  shapes = [jax.ShapeDtypeStruct(
      (batch, image_size, image_size, CHANNELS[name]), jnp.float32)
            for name in inputs]
  exported = jax_export.export(
      jax.jit(function), platforms=PLATFORMS)(*shapes)
  return bytes(exported.serialize())


def onnx(
    colorizer: Colorizer, variables: Variables, image_size: int, *,
    num_proposals: int = 0, inputs: Sequence[str] = ('lightness',)) -> bytes:
  """Exports a method as an ONNX model.

  Args:
    colorizer: as in `stablehlo`.
    variables: as in `stablehlo`.
    image_size: as in `stablehlo`.
    num_proposals: as in `stablehlo`.
    inputs: as in `stablehlo`; they are the names of the model's inputs, and
      OUTPUTS those of its results.

  Returns:
    The file. Arguments and results are those of `stablehlo`.

  Raises:
    UserError: as in `stablehlo`, jax2onnx is not installed, or it cannot
      convert an operation of this method.
  """
  function = _function(colorizer, variables, num_proposals, inputs)
  try:
    import jax2onnx  # Optional: its pinned versions exclude current ones.
  except ImportError as error:
    raise UserError(
        f'ONNX needs jax2onnx ({error}): pip install onnx onnx-ir equinox '
        'dm-pix, then pip install --no-deps jax2onnx') from error
  shapes = [('b', image_size, image_size, CHANNELS[name]) for name in inputs]
  results = jax.tree.leaves(jax.eval_shape(function, *(
      jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32) for shape in shapes)))
  try:
    with _quiet('onnx_ir'):
      model = jax2onnx.to_onnx(
          function, inputs=shapes, model_name='colorjax',
          input_names=list(inputs), output_names=OUTPUTS[:len(results)])
  except Exception as error:  # jax2onnx has no error class of its own.
    raise UserError(
        'jax2onnx cannot convert this method; use StableHLO '
        f'({type(error).__name__}: {str(error).splitlines()[0]})') from error
  # The shapes that the converter notes for values between operations are wrong
  # for some convolutions. Programs infer them themselves.
  model.graph.ClearField('value_info')
  return model.SerializeToString()


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
  """Hides warnings, and those of a logger: the converter has hundreds."""
  logger = logging.getLogger(name)
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)


def _function(colorizer: Colorizer, variables: Variables, num_proposals: int,
              inputs: Sequence[str]) -> Callable[..., object]:
  """The function to export, of arrays in the order of `inputs`."""
  if 'lightness' not in inputs:
    raise UserError(f'inputs={list(inputs)}: lightness is missing')
  for name in inputs:
    if name not in CHANNELS:
      raise UserError(f'inputs={name}: choose from {", ".join(CHANNELS)}')
    if name != 'lightness' and name not in colorizer.accepts:
      raise UserError(
          f'inputs={name}: this method does not accept it; it accepts '
          f'{", ".join(sorted(colorizer.accepts)) or "lightness only"}')
  if num_proposals != colorizer.num_proposals(num_proposals):
    raise UserError(f'proposals={num_proposals}: this method has at most '
                    f'{colorizer.max_proposals}')

  def colorings(*arrays: jax.Array):
    named = dict(zip(inputs, arrays, strict=True))
    if not num_proposals:
      return colorizer.predict(variables, named)
    ab, probability = colorizer.propose(variables, named, num_proposals)
    return ab if probability is None else (ab, probability)

  return colorings
