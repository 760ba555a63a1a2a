"""Seeing a run: metrics.jsonl, TensorBoard, and progress on the terminal.

All writing is synchronous and flushed a line at a time, so that a full disk is
met here, where it can be named, and a killed run leaves what it reached.
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from colorjax.errors import UserError
from colorjax.training.console import Progress, format_metrics, say

_RECENT = 16  # steps that the speed at the end of a run is read of


class MetricsLog:
  """`metrics.jsonl`: one JSON object a line: `step`, `split`, the metrics.

  No clock time is written: a resumed run and an uninterrupted one leave the
  same bytes. A figure that is not finite is null.
  """

  def __init__(self, path: pathlib.Path, *, step: int):
    """Opens the file to go on after a step.

    Args:
      path: the file; made if it does not exist.
      step: step that the run goes on from. Lines of later steps are dropped,
        as is a line that a killed process left unfinished.

    Raises:
      UserError: the file cannot be written.
    """
    self._path = path
    try:
      path.touch()
      os.truncate(path, _length_up_to(path.read_bytes(), step))
      self._file = path.open('a')
    except OSError as error:
      raise self._failure(error) from error

  def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Appends one line; UserError on a full disk."""
    finite = {name: value if math.isfinite(value) else None
              for name, value in metrics.items()}
    line = json.dumps({'step': step, 'split': split, **finite})
    try:
      self._file.write(line + '\n')
      self._file.flush()
    except OSError as error:
      raise self._failure(error) from error

  def close(self) -> None:
    """Closes the file."""
    try:
      self._file.close()
    except OSError as error:
      raise self._failure(error) from error

  def _failure(self, error: OSError) -> UserError:
    return UserError(f'cannot write {self._path}: {error.strerror}')


def _length_up_to(content: bytes, step: int) -> int:
  """Bytes of the whole lines whose step is at most `step`."""
  length = 0
  for line in content.splitlines(keepends=True):
    try:
      if not line.endswith(b'\n') or json.loads(line)['step'] > step:
        break
    except (ValueError, KeyError, TypeError):
      break
    length += len(line)
  return length


class TensorBoard:
  """Scalars and pictures in TensorBoard's event format.

  The records are tensorboardX's; they are written here, in the caller's
  thread, because a full disk kills the thread of its SummaryWriter silently
  and the next add_scalar then waits for ever.
  """

  def __init__(self, directory: pathlib.Path, *, step: int):
    """Opens an event file; what earlier files say after `step` is purged.

    Raises:
      UserError: the directory cannot be written.
    """
    self._directory = directory
    try:
      directory.mkdir(parents=True, exist_ok=True)
      # tensorboardX names files by the second: two starts may share one.
      self._writer = EventsWriter(
          str(directory / 'events'), f'.{time.time_ns()}')
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(event_pb2.Event(session_log=start), step + 1)
      self._writer.flush()
    except OSError as error:
      raise self._failure(error) from error

  def scalars(self, step: int, split: str, metrics: Mapping[str, float]
              ) -> None:
    """Adds metrics as `split/name`; UserError on a full disk."""
    self._write(step, [summary.scalar(f'{split}/{name}', value)
                       for name, value in metrics.items()])

  def images(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
    """Adds pictures, uint8 sRGB [H, W, 3], by name."""
    self._write(step, [summary.image(name, grid, dataformats='HWC')
                       for name, grid in grids.items()])

  def close(self) -> None:
    """Closes the file."""
    try:
      self._writer.close()
    except OSError as error:
      raise self._failure(error) from error

  def _write(self, step: int, summaries: list) -> None:
    try:
      for record in summaries:
        self._add(event_pb2.Event(summary=record), step)
      self._writer.flush()
    except OSError as error:
      raise self._failure(error) from error

  def _add(self, event: event_pb2.Event, step: int) -> None:
    event.step = step
    event.wall_time = time.time()
    self._writer.write_event(event)

  def _failure(self, error: OSError) -> UserError:
    return UserError(f'cannot write to {self._directory}: {error.strerror}')


class RunLog:
  """The three logs of one run together, and its speed. A context manager."""

  def __init__(self, workdir: pathlib.Path, *, step: int, num_steps: int):
    """Opens them to go on after `step`; UserError if one cannot be written."""
    with contextlib.ExitStack() as stack:
      self._metrics = MetricsLog(workdir / 'metrics.jsonl', step=step)
      stack.callback(self._metrics.close)
      self._board = TensorBoard(workdir / 'tensorboard', step=step)
      stack.callback(self._board.close)
      self._progress = Progress(step=step, num_steps=num_steps)
      stack.callback(self._progress.close)
      self._stack = stack.pop_all()
    self._images = 0
    self._since: float | None = None
    self._stepping = 0.0
    self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
    self._last = 0.0
    self._away = 0.0

  def __enter__(self) -> 'RunLog':
    """Returns itself."""
    return self

  def __exit__(self, *error) -> None:
    """Closes the logs."""
    self._stack.close()

  def advance(self, step: int, num_images: int) -> None:
    """Notes that a step of so many photographs is over."""
    self._progress.advance(step)
    now = time.monotonic()
    if self._since is None:
      self._since = now  # The first step compiles: not counted.
    else:
      self._images += num_images
      seconds = now - self._last - self._away
      self._stepping += seconds
      self._recent.append(seconds)
    self._last, self._away = now, 0.0

  @property
  def stepping_seconds(self) -> float:
    """Of all steps but the first, without evaluations and checkpoints."""
    return self._stepping

  @property
  def seconds_per_step(self) -> float | None:
    """Mean over the last steps: photographs are in memory then, if they fit.

    None while there is but the first one, which compiles.
    """
    return float(np.mean(self._recent)) if self._recent else None

  def train(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs training metrics; the speed goes to board and terminal only."""
    self._metrics.write(step, 'train', metrics)
    speed = {}
    if self._images and self._since is not None:
      now = time.monotonic()
      speed = {'images_per_second': self._images / (now - self._since)}
      self._images, self._since = 0, now
    self._board.scalars(step, 'train', {**metrics, **speed})
    self._progress.show(step, {**metrics, **speed})

  def evaluation(
      self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Logs the metrics of an evaluation."""
    self._metrics.write(step, split, metrics)
    self._board.scalars(step, split, metrics)
    say(f'step {step} {split}: {format_metrics(metrics)}')

  def images(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
    """Shows pictures, uint8 [H, W, 3] by name, in TensorBoard."""
    self._board.images(step, grids)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time within does not count for the speed of training."""
    begun = time.monotonic()
    yield
    away = time.monotonic() - begun
    self._away += away
    if self._since is not None:
      self._since += away


class NoLog(RunLog):
  """The log of a process that writes nothing; it knows the speed."""

  def __init__(self):
    """Opens nothing."""
    self._stack = contextlib.ExitStack()
    self._since = None
    self._stepping = self._last = self._away = 0.0
    self._recent = collections.deque(maxlen=_RECENT)

  def advance(self, step: int, num_images: int) -> None:
    """Nothing."""

  def train(self, step: int, metrics: Mapping[str, float]) -> None:
    """Nothing."""

  def evaluation(
      self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Nothing."""

  def images(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
    """Nothing."""
