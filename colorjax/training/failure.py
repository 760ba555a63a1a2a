"""A step with a loss or gradient that is not finite: saves and reports it."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colorjax.errors import UserError
from colorjax.training import checkpoint_files

DIRECTORY = 'failed'
"""Directory inside the work directory. It is not in `checkpoints/`, because no
run may resume from it."""


class NonFiniteLoss(UserError):
  """A step has a NaN or infinite loss or gradient, or leads to such a state."""


def keep_failure(
    workdir: pathlib.Path,
    *,
    step: int,
    state: Any,
    batch: Mapping[str, Any],
    names: Sequence[str],
    loss: float,
    grad_norm: float,
) -> NonFiniteLoss:
  """Writes state and batch of a failed step and returns the error to raise.

  Args:
    workdir: the files go to `failed/<step>/` in it: a checkpoint directory
      `state` (`checkpoint_files.read_leaves` reads it), `batch.npz`, and
      `files.txt`.
    step: number of the failed update, counted from 1.
    state: the state before that step.
    batch: the host batch, arrays by name.
    names: file names of its photographs.
    loss: loss of the batch.
    grad_norm: global norm of its gradient.

  Returns:
    The error, which the caller raises.
  """
  path = pathlib.Path(workdir) / DIRECTORY / str(step)
  shown = ', '.join(names[:8])
  if len(names) > 8:
    shown += f' and {len(names) - 8} more in files.txt'
  try:
    shutil.rmtree(path, ignore_errors=True)  # The same step failed before.
    path.mkdir(parents=True)
    np.savez(path / 'batch.npz', allow_pickle=False, **batch)
    (path / 'files.txt').write_text(''.join(f'{name}\n' for name in names))
    checkpoint_files.write(
        path / 'state', checkpoint_files.snapshot(state), {'step': step - 1})
    kept = f'its batch and the state before it are in {path}'
  except (OSError, UserError) as error:
    kept = f'its state could not be saved: {error}'
  where = ('' if not np.isfinite([loss, grad_norm]).all() else
           ', but the resulting state is not finite')
  return NonFiniteLoss(
      f'step {step}: loss {loss:.4g}, gradient norm {grad_norm:.4g}{where}; '
      f'the batch holds {shown or "unnamed photographs"}; {kept}; check the '
      'photographs, or lower learning_rate in a new workdir')
