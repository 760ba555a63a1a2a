"""Catches SIGTERM and Ctrl-C, so that a run can save before it ends."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

_SAME_SECONDS = 1.0
"""A signal that comes again so soon is the same one.

SLURM sends a signal to each process of a job, and a launcher in that job hands
its own on: the run gets two.
"""


class Notice:
  """Holds the number of the received signal in `received`, or None."""

  received: int | None = None


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
  """Records the first SIGINT or SIGTERM instead of ending the process.

  A second signal, at least a second later, ends the process at once, without
  clean-up: checkpoints are atomic, so nothing would be gained by it. The
  previous handlers are restored at the end. Outside the main thread, where
  Python allows no signal handlers, nothing is recorded.
  """
  notice = Notice()
  if threading.current_thread() is not threading.main_thread():
    yield notice
    return
  numbers = (signal.SIGINT, signal.SIGTERM)
  first = 0.0

  def note(number: int, frame: object) -> None:
    nonlocal first
    if notice.received is None:
      notice.received, first = number, time.monotonic()
    elif time.monotonic() - first >= _SAME_SECONDS:
      signal.signal(number, signal.SIG_DFL)
      os.kill(os.getpid(), number)

  before = {number: signal.signal(number, note) for number in numbers}
  try:
    yield notice
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
