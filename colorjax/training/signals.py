"""SIGTERM and Ctrl-C, noted so that a run can end where it is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Notice:
  """What `noticed` yields; `received` is the signal's number, or None."""

  received: int | None = None


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
  """Notes the first SIGINT or SIGTERM instead of dying of it.

  The second one ends the process at once, without unwinding: checkpoints are
  atomic, so there is nothing that a clean-up could save. The handlers found
  are put back in the end. Outside the main thread, where Python allows no
  handler, nothing is noted.
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
