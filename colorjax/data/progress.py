"""Progress messages for long work on photographs."""

import time
from collections.abc import Callable

_SECONDS_BETWEEN_REPORTS = 10.0


class Progress:
  """Reports at intervals how much is done and how much time is left."""

  def __init__(self, name: str, total: int, noun: str,
               report: Callable[[str], None], *, note: str = '',
               done: int = 0):
    """Reports the start of the work.

    Args:
      name: start of each line, for example the name of the source.
      total: number of items to compute.
      noun: what the items are, in the plural.
      report: called with each line.
      note: end of the first line.
      done: number of items that an earlier run has computed.
    """
    self._name, self._total, self._noun = name, total, noun
    self._report = report
    self._count = self._count_at_start = done
    self._start = self._last_report = time.monotonic()
    already = f', {done} of them done' if done else ''
    report(f'{name}: computing {total} {noun}{already}{note}')

  def add(self, count: int) -> None:
    """Adds `count` finished items; reports if the last line is old enough."""
    self._count = min(self._count + count, self._total)
    now = time.monotonic()
    if now - self._last_report < _SECONDS_BETWEEN_REPORTS:
      return
    self._last_report = now
    rate = (self._count - self._count_at_start) / (now - self._start)
    minutes = (self._total - self._count) / rate / 60
    self._report(f'{self._name}: {self._count} of {self._total} {self._noun}, '
                 f'{rate:.1f} per second, {minutes:.1f} minutes left')

  def finish(self, done: int) -> None:
    """Reports the end of the work and the number of items that exist now."""
    seconds = time.monotonic() - self._start
    self._report(f'{self._name}: {done} {self._noun} in all, {seconds:.0f} s')
