"""Memory and arithmetic of a training step, by XLA's own analysis.

The step is compiled and not run. No photograph and no weights are read.

The backend of this machine compiles it. A GPU's backend fuses other operations
and uses other algorithms for convolutions, so the analysis on a CPU only shows
the order of magnitude for a GPU. On a CPU, all sums are in float32: a step in
bfloat16 needs as much there as one in float32, and less on a GPU.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from colorjax import parallel
from colorjax.colorizer import Colorizer
from colorjax.errors import UserError
from colorjax.runs import plan as plans
from colorjax.runs import program as programs
from colorjax.runs import replica_options
from colorjax.runs.options import TrainOptions

CARD_SHARE = 0.75
"""Part of a GPU's memory that JAX allocates unless it is told otherwise."""

# The last two change only the machine code, and compiling takes less time.
COMPILER_OPTIONS = {
    'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED',
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
}
"""Options of XLA's compiler that `analyze` sets on a CPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
  """What one training step needs on one device.

  Attributes:
    batch_size: photographs of the step.
    state: bytes of the training state: parameters, moments of the optimizer,
      moving average, batch statistics.
    batch: bytes of the batch.
    temporary: bytes of intermediate results, at most at any moment; None if the
      step was not compiled.
    output: bytes of the results that do not reuse the memory of the state; None
      if the step was not compiled.
    parameters: number of trained parameters.
    flops: floating-point operations of the step, multiply and add counted as
      two.
  """
  batch_size: int
  state: int
  batch: int
  temporary: int | None
  output: int | None
  parameters: int
  flops: float

  @property
  def total(self) -> int:
    """Bytes of all together, for a step that was compiled."""
    assert self.temporary is not None
    assert self.output is not None
    return self.state + self.batch + self.temporary + self.output


def analyze(colorizer: Colorizer, options: TrainOptions, batch_size: int, *,
            has_regions: bool = False, has_embeddings: bool = False,
            compiles: bool = True) -> StepCost:
  """Compiles the training step for one device and asks XLA what it needs.

  On a CPU, COMPILER_OPTIONS are set: operations are ordered for little memory,
  as on GPUs, and not for many threads.

  Args:
    colorizer: the method.
    options: of the run.
    batch_size: photographs of the step, in place of that of `options`.
    has_regions: whether the batch has regions.
    has_embeddings: whether the batch has embeddings that were computed before.
    compiles: whether to compile the step, which may take minutes.

  Returns:
    The analysis.

  Raises:
    UserError: an option is wrong, or `accumulate` does not divide the batch.
  """
  side = (options.image_size, options.image_size)
  variables = jax.eval_shape(
      lambda key: colorizer.init(key, side), jax.random.key(0))
  starts = [variables] * max(1, len(replica_options.differences(options)))
  state = jax.eval_shape(
      lambda starts: programs.initial_state(
          colorizer, options, plans.of_variables(colorizer, options, starts)),
      starts)
  batch = {name: jax.ShapeDtypeStruct((batch_size, *shape), kind)
           for name, (shape, kind) in _rows(
               colorizer, variables, side, has_regions=has_regions,
               has_embeddings=has_embeddings).items()}
  step = programs.train_step(
      colorizer, options, plans.of_variables(colorizer, options, starts))
  lowered = parallel.lower_step(step, state, batch)
  temporary = output = None
  if compiles:
    memory = lowered.compile(
        COMPILER_OPTIONS if jax.default_backend() == 'cpu' else None
    ).memory_analysis()
    temporary = memory.temp_size_in_bytes
    output = max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes)
  return StepCost(
      batch_size=batch_size, state=_bytes(state), batch=_bytes(batch),
      temporary=temporary, output=output,
      parameters=sum(x.size for x in jax.tree.leaves(state.params)),
      # XLA counts the loop over microbatches once.
      flops=lowered.cost_analysis()['flops'] * options.accumulate)


def largest_batch(costs: Sequence[StepCost], num_bytes: float, *,
                  multiple: int = 1) -> int:
  """Estimates the largest batch that fits, by a straight line.

  Args:
    costs: of the same step with at least two batch sizes.
    num_bytes: memory that the step may use.
    multiple: the batch must be a multiple of it.

  Returns:
    Photographs, 0 if not even `multiple` of them fit.

  Raises:
    UserError: there are not two different batch sizes.
  """
  fixed, each = line(costs)
  count = max(0, int((num_bytes - fixed) // max(each, 1)))
  return count - count % multiple


def line(costs: Sequence[StepCost]) -> tuple[float, float]:
  """Fits total bytes = fixed + each * batch size, by least squares.

  Args:
    costs: of the same step with at least two batch sizes.

  Returns:
    (fixed, each), bytes.

  Raises:
    UserError: there are not two different batch sizes.
  """
  sizes = [cost.batch_size for cost in costs]
  if len(set(sizes)) < 2:
    raise UserError(f'batch_sizes={",".join(map(str, sizes))}: give at least '
                    'two different ones')
  each, fixed = np.polyfit(sizes, [cost.total for cost in costs], 1)
  return float(fixed), float(each)


def _rows(colorizer: Colorizer, variables: Any, side: tuple[int, int], *,
          has_regions: bool, has_embeddings: bool
          ) -> dict[str, tuple[tuple[int, ...], Any]]:
  """Shape and type of a row of each entry of a batch."""
  rows: dict[str, tuple[tuple[int, ...], Any]] = {
      'image': ((*side, 3), np.uint8), 'padding_mask': ((), np.float32),
      'index': ((), np.int32)}
  if has_regions:
    rows['region'] = ((*side, 1), np.float32)
  if has_embeddings:
    assert colorizer.embed is not None
    embedding = jax.eval_shape(colorizer.embed, variables, jax.ShapeDtypeStruct(
        (1, *side, 1), np.float32))
    rows['embedding'] = (embedding.shape[1:], np.float32)
  return rows


def _bytes(tree: Any) -> int:
  """Bytes of arrays or their shapes."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
