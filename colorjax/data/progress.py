"""How far long work on photographs is: a line now and then."""

import time
from collections.abc import Callable

_SECONDS_BETWEEN_REPORTS = 10.0


class Progress:
  """Says how far it is and how long it will take, now and then."""

  def __init__(self, name: str, total: int, noun: str,
               report: Callable[[str], None], *, note: str = '',
               done: int = 0):
    """Says that it begins.

    Args:
      name: what lines begin with, for example the source's name.
      total: how many things there are to compute.
      noun: what they are, in the plural.
      report: is told of progress, a line at a time.
      note: what the first line ends with.
      done: how many of them an earlier run has computed.
    """
    self._name, self._total, self._noun = name, total, noun
    self._report = report
    self._count = self._before = done
    self._start = self._said = time.monotonic()
    begun = f', {done} of them done' if done else ''
    report(f'{name}: computing {total} {noun}{begun}{note}')

  def add(self, count: int) -> None:
    """So many more are done; says so if the last line is old."""
    self._count = min(self._count + count, self._total)
    now = time.monotonic()
    if now - self._said < _SECONDS_BETWEEN_REPORTS:
      return
    self._said = now
    rate = (self._count - self._before) / (now - self._start)
    minutes = (self._total - self._count) / rate / 60
    self._report(f'{self._name}: {self._count} of {self._total} {self._noun}, '
                 f'{rate:.1f} a second, {minutes:.1f} minutes left')

  def finish(self, done: int) -> None:
    """Says that all work is over and that there are `done` of them now."""
    seconds = time.monotonic() - self._start
    self._report(f'{self._name}: {done} {self._noun} in all, {seconds:.0f} s')
