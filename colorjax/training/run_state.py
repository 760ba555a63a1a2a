"""When things happen in a run, what it carries along, and how it ends."""

import dataclasses
import math
from typing import Literal

from colorjax.errors import UserError
from colorjax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
  """What happens when; all in steps, and at the last step in any case.

  Attributes:
    num_steps: length of the run.
    log_every: write the means of the training metrics since the last line.
    eval_every: run the evaluations and draw the pictures.
    checkpoint_every: save the state.
    keep: how many of the last checkpoints to keep, beside the best.
    patience: stop after so many evaluations in a row without a new least
      validation loss; None: never.
  """
  num_steps: int
  log_every: int = 50
  eval_every: int = 1000
  checkpoint_every: int = 1000
  keep: int = 3
  patience: int | None = None

  def __post_init__(self):
    """UserError for a number that is not positive."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None and value < 1:
        raise UserError(f'{field.name}={value}: must be at least 1')

  def due(self, step: int, every: int) -> bool:
    """Whether something is to happen after this step."""
    return step % every == 0 or step == self.num_steps


@dataclasses.dataclass(kw_only=True)
class HostState:
  """What a run carries beside its TrainState; JSON in each checkpoint.

  Attributes:
    best_value: least validation loss so far.
    best_step: the step of it.
    stale: evaluations since.
    stopped: patience has run out.
    window: sums of the training metrics since the last line.
  """
  best_value: float | None = None
  best_step: int | None = None
  stale: int = 0
  stopped: bool = False
  window: dict[str, list[float]] = dataclasses.field(default_factory=dict)

  def judge(self, step: int, value: float, patience: int | None) -> bool:
    """Takes note of a validation loss; whether it is the least so far."""
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
    status: 'finished'; 'stopped', its patience at an end; 'interrupted', by a
      signal, to be gone on with; 'was_finished', when it was started.
    state: the last state.
    best_value: least validation loss, None where none was measured.
    best_step: the step of it.
    signal: number of the signal that interrupted it, or None.
    stepping_seconds: of all its steps but the first, which compiles;
      evaluations and checkpoints left out.
    seconds_per_step: mean over the last of them; None where there were none.
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
    """0, or 128 + signal as shells have it.

    Not 0 for an interrupted run: a launcher must see that it is not finished.
    """
    return 0 if self.signal is None else 128 + self.signal
