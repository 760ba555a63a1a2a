"""Two engines that turn a numbered sequence of examples into batches.

An engine calls a load function in parallel and ahead of time, and returns the
results in order. It knows nothing about photographs. Both engines give
bit-identical batches. The thread engine needs no TensorFlow; the tf.data engine
can be profiled with TensorFlow's tools.
"""

import collections
import concurrent.futures
import dataclasses
import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator

import numpy as np

Batch = dict[str, np.ndarray]
"""The arrays of a batch by name.

'image' uint8 sRGB [B, S, S, 3]; 'padding_mask' float32 [B], 1 for a photograph
and 0 for padding; 'index' int32 [B], the photograph's index in the source, -1
for padding; and, if requested, 'region' float32 [B, S, S, 1], 1 inside the
region.
"""

Row = dict[str, np.ndarray]
"""One example: the arrays of a batch without B, and without 'padding_mask'."""

ENGINES = ('auto', 'threads', 'tf.data')
"""Values of `engine` arguments."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The batches to load.

  Attributes:
    load: `number -> row`, a pure function; examples are numbered consecutively
      over all batches.
    padding: the row that fills up incomplete batches, with the same names,
      shapes and dtypes as all other rows; its 'index' is -1.
    batch_size: examples in each batch of this shard.
    start: number of the first batch.
    stop: number of the batch after the last one; None for an endless stream.
  """
  load: Callable[[int], Row]
  padding: Row
  batch_size: int
  start: int
  stop: int | None


class BatchStream(Iterator[Batch]):
  """Batches loaded ahead in the background; close it or use `with`."""

  def __init__(self, batches: Generator[Batch, None, None]):
    """Wraps a generator whose `close` ends the background work."""
    self._batches = batches
    # The finalizer also runs when the stream is garbage-collected and when the
    # process ends. Otherwise the threads of tf.data would wait forever for the
    # interpreter.
    self._end = weakref.finalize(self, batches.close)

  def __next__(self) -> Batch:
    """Waits for the next batch and returns it."""
    return next(self._batches)

  def __enter__(self) -> 'BatchStream':
    """Returns the stream itself."""
    return self

  def __exit__(self, *exc_info) -> None:
    """Closes the stream."""
    self.close()

  def close(self) -> None:
    """Ends the background work; the stream yields no more batches."""
    self._end()


def load_batch(plan: Plan, batch: int) -> Batch:
  """Loads one batch in the calling thread.

  Args:
    plan: the batches.
    batch: number of the batch.

  Returns:
    The batch.
  """
  first = batch * plan.batch_size
  rows = [plan.load(n) for n in range(first, first + plan.batch_size)]
  return _as_batch({
      name: np.stack([row[name] for row in rows]) for name in plan.padding})


def stream(plan: Plan, *, engine: str, prefers_tf_data: bool = False,
           num_threads: int | None = None, prefetch: int = 2) -> BatchStream:
  """Loads batches in parallel and ahead of time, and yields them in order.

  Args:
    plan: the batches.
    engine: 'threads', 'tf.data', or 'auto': tf.data if `prefers_tf_data` and
      TensorFlow is installed, else threads.
    prefers_tf_data: see Source.
    num_threads: examples loaded at the same time, by default one per processor.
    prefetch: number of batches to load ahead.

  Returns:
    The stream. If `load` raises an exception, the stream raises it at the batch
    concerned.

  Raises:
    ValueError: `engine` is not one of ENGINES, or TensorFlow is not installed.
  """
  if engine not in ENGINES:
    raise ValueError(f'engine must be one of {ENGINES}, got {engine!r}')
  if engine == 'auto':
    with_tf = prefers_tf_data and importlib.util.find_spec('tensorflow')
    engine = 'tf.data' if with_tf else 'threads'
  run = _with_tf_data if engine == 'tf.data' else _with_threads
  return BatchStream(run(plan, num_threads or _num_processors(), prefetch))


def _num_processors() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _as_batch(arrays: dict[str, np.ndarray]) -> Batch:
  return arrays | {'padding_mask': (arrays['index'] >= 0).astype(np.float32)}


def _with_threads(plan: Plan, num_threads: int, prefetch: int
                  ) -> Generator[Batch, None, None]:
  is_closed = threading.Event()

  def fill(arrays, row, number):
    # Tasks still queued when the stream is closed must return at once.
    if not is_closed.is_set():
      for name, value in plan.load(number).items():
        arrays[name][row] = value

  def submit(batch):
    size = plan.batch_size
    arrays = {name: np.empty((size, *value.shape), value.dtype)
              for name, value in plan.padding.items()}
    return arrays, [pool.submit(fill, arrays, i, batch * size + i)
                    for i in range(size)]

  pool = concurrent.futures.ThreadPoolExecutor(
      num_threads, thread_name_prefix='colorjax-data')
  pending: collections.deque = collections.deque()
  upcoming = plan.start
  try:
    while True:
      while len(pending) <= prefetch and (
          plan.stop is None or upcoming < plan.stop):
        pending.append(submit(upcoming))
        upcoming += 1
      if not pending:
        return
      arrays, rows = pending.popleft()
      for row in rows:
        row.result()
      yield _as_batch(arrays)
  finally:
    is_closed.set()
    pool.shutdown(wait=True, cancel_futures=True)


def _with_tf_data(plan: Plan, num_threads: int, prefetch: int
                  ) -> Generator[Batch, None, None]:
  tf = _import_tensorflow()
  is_closed = threading.Event()
  # tf.data turns a Python exception into text; the exception is kept here.
  failures: dict[int, Exception] = {}

  def load(number):
    if is_closed.is_set():
      # Nobody reads this row. An exception would make tf.data print a
      # traceback.
      return tuple(plan.padding.values())
    try:
      row = plan.load(int(number))
    except Exception as error:
      failures[int(number)] = error
      raise
    return tuple(row[name] for name in plan.padding)

  batches = _tf_dataset(
      tf, plan, load, num_threads, prefetch).as_numpy_iterator()
  try:
    while True:
      try:
        arrays = next(batches)
      except StopIteration:
        return
      except tf.errors.OpError:
        if not failures:
          raise
        break
      yield _as_batch(dict(zip(plan.padding, arrays, strict=True)))
    raise failures[min(failures)]
  finally:
    is_closed.set()
    # Deleting the iterator makes tf.data end its threads.
    del batches


def _tf_dataset(tf, plan: Plan, load: Callable, num_threads: int,
                prefetch: int):
  """A data set of batches, as tuples of arrays in the order of the padding."""
  size = plan.batch_size
  padding = list(plan.padding.values())

  def load_in_graph(number):
    arrays = tf.numpy_function(
        load, [number], [tf.as_dtype(value.dtype) for value in padding])
    return tuple(tf.ensure_shape(array, value.shape)
                 for array, value in zip(arrays, padding, strict=True))

  options = tf.data.Options()
  options.threading.private_threadpool_size = num_threads
  stop = tf.int64.max // size if plan.stop is None else plan.stop
  return (
      tf.data.Dataset.range(plan.start * size, stop * size)
      .map(load_in_graph, num_parallel_calls=num_threads, deterministic=True)
      .batch(size, drop_remainder=True).prefetch(prefetch)
      .with_options(options))


def _import_tensorflow():
  if importlib.util.find_spec('tensorflow') is None:
    raise ValueError("engine 'tf.data' needs TensorFlow: "
                     "pip install 'colorjax[tf]', or use engine 'threads'")
  import tensorflow as tf
  # Otherwise TensorFlow would reserve the memory of the GPUs that JAX uses.
  tf.config.set_visible_devices([], 'GPU')
  return tf
