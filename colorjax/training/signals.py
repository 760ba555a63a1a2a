"""Catches SIGTERM and Ctrl-C, so that a run can save before it ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Notice:
  """Holds the number of the received signal in `received`, or None."""

  received: int | None = None


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
  """Records the first SIGINT or SIGTERM instead of ending the process.

  A second signal ends the process at once, without clean-up: checkpoints are
  atomic, so nothing would be gained by it. The previous handlers are restored
  at the end. Outside the main thread, where Python allows no signal handlers,
  nothing is recorded.
  """
  notice = Notice()
  if threading.current_thread() is not threading.main_thread():
    yield notice
    return
  numbers = (signal.SIGINT, signal.SIGTERM)

  def note(number: int, frame: object) -> None:
    notice.received = number
    for each in numbers:
      signal.signal(each, signal.SIG_DFL)

  before = {number: signal.signal(number, note) for number in numbers}
  try:
    yield notice
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
