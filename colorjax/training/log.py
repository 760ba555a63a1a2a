"""The logs of a run: metrics.jsonl, TensorBoard, and the terminal.

All writing is synchronous and flushed line by line. A full disk is then noticed
here, where the error can name the file, and a killed run leaves every finished
line.
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

_RECENT = 16  # number of last steps over which `seconds_per_step` is averaged


class MetricsLog:
  """`metrics.jsonl`: one JSON object per line with `step`, `split`, metrics.

  No clock time is written, so that a resumed run and an uninterrupted one
  write the same bytes. A metric that is not finite is written as null.
  """

  def __init__(self, path: pathlib.Path, *, step: int):
    """Opens the file to continue after a step.

    Args:
      path: the file; made if it does not exist.
      step: step that the run starts or resumes from. Lines of later steps are
        deleted, and so is a line that a killed process left unfinished.

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
    """Appends one line.

    Raises:
      UserError: the disk is full.
    """
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
  """Number of bytes of the complete lines whose step is at most `step`."""
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

  tensorboardX makes the records, but they are written here, in the caller's
  thread: on a full disk the thread of its SummaryWriter dies silently, and the
  next add_scalar waits forever.
  """

  def __init__(self, directory: pathlib.Path, *, step: int):
    """Opens a new event file.

    Args:
      directory: the directory of event files; made if it does not exist.
      step: step that the run starts or resumes from. TensorBoard ignores what
        earlier files hold for later steps.

    Raises:
      UserError: the directory cannot be written.
    """
    self._directory = directory
    try:
      directory.mkdir(parents=True, exist_ok=True)
      # tensorboardX names files by the second, so two runs could share a file.
      self._writer = EventsWriter(
          str(directory / 'events'), f'.{time.time_ns()}')
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(event_pb2.Event(session_log=start), step + 1)
      self._writer.flush()
    except OSError as error:
      raise self._failure(error) from error

  def scalars(self, step: int, split: str, metrics: Mapping[str, float]
              ) -> None:
    """Adds metrics as `split/name`.

    Raises:
      UserError: the disk is full.
    """
    self._write(step, [summary.scalar(f'{split}/{name}', value)
                       for name, value in metrics.items()])

  def images(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
    """Adds pictures, uint8 sRGB [H, W, 3], by name.

    Raises:
      UserError: the disk is full.
    """
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
  """The three logs of a run, and a measurement of its speed.

  Use it as a context manager: leaving it closes the logs.
  """

  def __init__(self, workdir: pathlib.Path, *, step: int, num_steps: int):
    """Opens the logs to continue after a step.

    Args:
      workdir: work directory of the run; it must exist.
      step: step that the run starts or resumes from.
      num_steps: last step of the run.

    Raises:
      UserError: a log cannot be written.
    """
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
    self._paused = 0.0

  def __enter__(self) -> 'RunLog':
    """Returns itself."""
    return self

  def __exit__(self, *error) -> None:
    """Closes the logs."""
    self._stack.close()

  def advance(self, step: int, num_images: int) -> None:
    """Records that a step of `num_images` photographs has finished."""
    self._progress.advance(step)
    now = time.monotonic()
    if self._since is None:
      self._since = now  # The first step compiles, so it is not counted.
    else:
      self._images += num_images
      seconds = now - self._last - self._paused
      self._stepping += seconds
      self._recent.append(seconds)
    self._last, self._paused = now, 0.0

  @property
  def stepping_seconds(self) -> float:
    """Seconds spent in steps, without evaluations and checkpoints.

    The first step, which compiles, is not counted.
    """
    return self._stepping

  @property
  def seconds_per_step(self) -> float | None:
    """Mean seconds of the last few steps; None if only one step was made.

    The last steps are used because photographs are in memory by then, if they
    fit. The first step, which compiles, is not counted.
    """
    return float(np.mean(self._recent)) if self._recent else None

  def train(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs training metrics; the speed goes to TensorBoard and terminal."""
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
    """Excludes the time spent inside from the speed of training."""
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    self._paused += seconds
    if self._since is not None:
      self._since += seconds


class NoLog(RunLog):
  """Log of a process that writes nothing; it still measures the speed."""

  def __init__(self):
    """Opens no file."""
    self._stack = contextlib.ExitStack()
    self._since = None
    self._stepping = self._last = self._paused = 0.0
    self._recent = collections.deque(maxlen=_RECENT)

  def advance(self, step: int, num_images: int) -> None:
    """Does nothing."""

  def train(self, step: int, metrics: Mapping[str, float]) -> None:
    """Does nothing."""

  def evaluation(
      self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Does nothing."""

  def images(self, step: int, grids: Mapping[str, np.ndarray]) -> None:
    """Does nothing."""
