"""Output to the terminal: single lines, and the progress of a run."""

import math
import sys
import time
from collections.abc import Mapping

import tqdm


def say(line: str) -> None:
  """Prints one line to stderr, above the progress bar if there is one."""
  tqdm.tqdm.write(line, file=sys.stderr)


def format_metrics(metrics: Mapping[str, float]) -> str:
  """Formats metrics as 'name value, ...', the loss first.

  Metrics of a group ('a/b') are left out.
  """
  names = sorted(metrics, key=lambda name: name != 'loss')
  return ', '.join(f'{name} {metrics[name]:.4g}' for name in names
                   if '/' not in name)


class Progress:
  """A progress bar with ETA and losses.

  If stderr is not a terminal, it prints a line from time to time instead.
  """

  def __init__(self, *, step: int, num_steps: int, seconds: float = 30.0):
    """Starts the display.

    Args:
      step: step that the run starts or resumes from.
      num_steps: last step of the run.
      seconds: minimum time between two lines if stderr is not a terminal.
    """
    self._num_steps = num_steps
    self._seconds = seconds
    self._last = -math.inf
    self._start: tuple[float, int] | None = None
    self._bar = tqdm.tqdm(
        total=num_steps, initial=step, unit='step', dynamic_ncols=True,
        smoothing=0.1, disable=not sys.stderr.isatty())

  def advance(self, step: int) -> None:
    """Moves the bar to a step."""
    self._bar.update(step - self._bar.n)
    if self._start is None:  # The first step compiles, so it is not timed.
      self._start = (time.monotonic(), step)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows metrics beside the bar, or prints a line if the last one is old."""
    text = format_metrics(metrics)
    if not self._bar.disable:
      self._bar.set_postfix_str(text, refresh=False)
      return
    now = time.monotonic()
    if now - self._last < self._seconds and step < self._num_steps:
      return
    self._last = now
    say(f'step {step}/{self._num_steps}, {self._left(now, step)}{text}')

  def _left(self, now: float, step: int) -> str:
    """Remaining time as text; empty until a step has been timed."""
    if self._start is None or step == self._start[1]:
      return ''
    start, first = self._start
    left = (now - start) / (step - first) * (self._num_steps - step)
    return f'{tqdm.tqdm.format_interval(left)} left, '

  def close(self) -> None:
    """Closes the bar."""
    self._bar.close()
