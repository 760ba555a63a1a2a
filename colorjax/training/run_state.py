"""How often a run logs, evaluates and saves; its host state; how it ends."""

import dataclasses
import math
from typing import Literal

from colorjax.errors import UserError
from colorjax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
  """How often a run logs, evaluates and saves, in steps.

  All three also happen after the last step.

  Attributes:
    num_steps: length of the run.
    log_every: steps between lines of training metrics; a line holds the means
      since the previous one.
    eval_every: steps between evaluations, which also draw the pictures.
    checkpoint_every: steps between checkpoints.
    keep: number of latest checkpoints to keep, in addition to the best one.
    patience: stop after this many evaluations in a row without a new lowest
      validation loss; None never stops early.
  """
  num_steps: int
  log_every: int = 50
  eval_every: int = 1000
  checkpoint_every: int = 1000
  keep: int = 3
  patience: int | None = None

  def __post_init__(self):
    """Checks the numbers.

    Raises:
      UserError: a number is less than 1.
    """
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None and value < 1:
        raise UserError(f'{field.name}={value}: must be at least 1')

  def due(self, step: int, every: int) -> bool:
    """Whether an action is due after this step, or after the last one.

    Args:
      step: number of the step, from 1.
      every: steps between two actions, one of the attributes.
    """
    return step % every == 0 or step == self.num_steps


@dataclasses.dataclass(kw_only=True)
class HostState:
  """State of a run on the host; stored as JSON in each checkpoint.

  Attributes:
    best_value: lowest validation loss so far, None before the first one.
    best_step: step at which it was measured.
    stale: number of evaluations since then.
    stopped: whether the run has stopped early.
    window: (sum, count) of each training metric since the last logged line.
  """
  best_value: float | None = None
  best_step: int | None = None
  stale: int = 0
  stopped: bool = False
  window: dict[str, list[float]] = dataclasses.field(default_factory=dict)

  def judge(self, step: int, value: float, patience: int | None) -> bool:
    """Records a validation loss and returns whether it is the lowest so far.

    Args:
      step: step at which it was measured.
      value: the loss; one that is not finite is never the lowest.
      patience: as in `Cadence`; sets `stopped` when it is exhausted.
    """
    is_best = math.isfinite(value) and (
        self.best_value is None or value < self.best_value)
    if is_best:
      self.best_value, self.best_step, self.stale = value, step, 0
    else:
      self.stale += 1
    self.stopped = patience is not None and self.stale >= patience
    return is_best


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
  """How a run ended.

  Attributes:
    status: 'finished'; 'stopped' early because its patience was exhausted;
      'interrupted' by a signal, so that it can be resumed; 'was_finished'
      before it was started this time.
    state: the last state.
    best_value: lowest validation loss, None if none was measured.
    best_step: step at which it was measured.
    signal: number of the signal that interrupted the run, or None.
    stepping_seconds: seconds spent in steps, without evaluations, checkpoints
      and the first step, which compiles.
    seconds_per_step: mean over the last few steps; None if fewer than two
      steps were made.
  """
  status: Literal['finished', 'stopped', 'interrupted', 'was_finished']
  state: TrainState
  best_value: float | None
  best_step: int | None
  signal: int | None = None
  stepping_seconds: float = 0.0
  seconds_per_step: float | None = None

  @property
  def exit_code(self) -> int:
    """Exit code for the process: 0, or 128 + signal, as in shells.

    It is not 0 for an interrupted run, so that a launcher sees that the run is
    not finished.
    """
    return 0 if self.signal is None else 128 + self.signal
