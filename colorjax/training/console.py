"""The terminal: single lines, and the progress of a run."""

import math
import sys
import time
from collections.abc import Mapping

import tqdm


def say(line: str) -> None:
  """Prints one line to stderr, above a progress bar if there is one."""
  tqdm.tqdm.write(line, file=sys.stderr)


def format_metrics(metrics: Mapping[str, float]) -> str:
  """'name value, ...', the loss first; those of a group ('a/b') left out."""
  names = sorted(metrics, key=lambda name: name != 'loss')
  return ', '.join(f'{name} {metrics[name]:.4g}' for name in names
                   if '/' not in name)


class Progress:
  """A bar with ETA and losses, or now and then a line where no terminal is."""

  def __init__(self, *, step: int, num_steps: int, seconds: float = 30.0):
    """Starts the display.

    Args:
      step: step that the run goes on from.
      num_steps: where it ends.
      seconds: least time between two lines where stderr is no terminal.
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
    if self._start is None:  # The first step compiles: no measure of speed.
      self._start = (time.monotonic(), step)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows metrics beside the bar, or as a line if the last one is old."""
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
    """The time left, as text, once there is a step to judge by."""
    if self._start is None or step == self._start[1]:
      return ''
    begun, first = self._start
    left = (now - begun) / (step - first) * (self._num_steps - step)
    return f'{tqdm.tqdm.format_interval(left)} left, '

  def close(self) -> None:
    """Ends the display."""
    self._bar.close()
