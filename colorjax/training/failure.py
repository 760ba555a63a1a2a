"""A step that is not finite: what is kept of it, what is said."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colorjax.errors import UserError
from colorjax.training import checkpoint_files

DIRECTORY = 'failed'
"""Beside the checkpoints and not among them: no run goes on from it."""


class NonFiniteLoss(UserError):
  """A step that has or would make a NaN or infinite number; one line."""


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
  """Writes state and batch of a bad step and describes it.

  Args:
    workdir: the files go to `failed/<step>/`: a checkpoint directory `state`
      (`checkpoint_files.read_leaves`), `batch.npz`, and `files.txt`.
    step: number of the update that could not be made, from 1.
    state: as it was before that step.
    batch: the host batch, arrays by name.
    names: the file names of its photographs.
    loss: the batch's loss.
    grad_norm: the global norm of its gradient.

  Returns:
    The error to raise.
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
    kept = f'state and batch before it are in {path}'
  except (OSError, UserError) as error:
    kept = f'its state could not be kept: {error}'
  where = ('' if not np.isfinite([loss, grad_norm]).all() else
           ', but the state that they lead to is not finite')
  return NonFiniteLoss(
      f'step {step}: loss {loss:.4g}, gradient norm {grad_norm:.4g}{where}; '
      f'the batch holds {shown or "unnamed photographs"}; {kept}; look at the '
      'photographs, or lower learning_rate in a new workdir')
