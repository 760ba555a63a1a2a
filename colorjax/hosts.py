"""Collective operations of processes that train or evaluate together.

Each process has its own devices and reads its own share of every batch. Process
0, the main process, writes all files and prints all output. `connection`
connects and ends the processes. With a single process, no function here
communicates, and each returns its input or calls its argument.

All processes must call a function that communicates, in the same order.
"""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from colorjax.errors import UserError

Value = TypeVar('Value')

Arrays = Mapping[str, np.ndarray]


def index() -> int:
  """Returns the number of this process, from 0."""
  return jax.process_index()


def count() -> int:
  """Returns the number of processes."""
  return jax.process_count()


def shard() -> tuple[int, int]:
  """Returns (index, count): this process reads share `index` of a batch."""
  return index(), count()


def is_main() -> bool:
  """Returns whether this is process 0, which writes files and prints."""
  return index() == 0


def barrier(name: str) -> None:
  """Waits until all processes have called it.

  Args:
    name: name of the barrier, the same in all processes.
  """
  if count() > 1:
    multihost_utils.sync_global_devices(name)


def gather_bytes(content: bytes) -> list[bytes]:
  """Sends bytes of each process to all processes.

  Args:
    content: bytes of this process. The length may differ between processes.

  Returns:
    The bytes of all processes, in the order of their numbers.
  """
  if count() == 1:
    return [content]
  lengths = multihost_utils.process_allgather(
      np.array(len(content), np.uint32))
  padded = np.zeros(_rounded(int(lengths.max())), np.uint8)
  padded[:len(content)] = np.frombuffer(content, np.uint8)
  return [row[:length].tobytes() for row, length in zip(
      multihost_utils.process_allgather(padded), lengths, strict=True)]


def gather(value: Any) -> list[Any]:
  """Sends a JSON value of each process to all processes.

  Args:
    value: JSON value of this process.

  Returns:
    The values of all processes, in the order of their numbers.
  """
  return [json.loads(text) for text in gather_bytes(json.dumps(value).encode())]


def on_main(call: Callable[[], Any]) -> Any:
  """Calls a function in the main process and sends its result to all.

  If the function raises an exception, all processes end: see
  `connection.connected`.

  Args:
    call: function that returns a JSON value.

  Returns:
    The result, in all processes.
  """
  value = call() if is_main() else None
  return value if count() == 1 else gather(value)[0]


def main_first(call: Callable[[], Value]) -> Value:
  """Calls a function in the main process, then in the others.

  Use it if the function computes something and stores it in a file: the other
  processes then read the file.

  Args:
    call: the function.

  Returns:
    The result of the call in this process.
  """
  if is_main():
    value = call()
    barrier('main first')
    return value
  barrier('main first')
  return call()


def gather_rows(arrays: Arrays) -> dict[str, np.ndarray]:
  """Concatenates the arrays of all processes, in all processes.

  Args:
    arrays: arrays [N, ...] by name. The names must be the same in all
      processes; N may differ.

  Returns:
    Arrays [sum of all N, ...] by name, in the order of the processes.
  """
  if count() == 1:
    return dict(arrays)
  with io.BytesIO() as file:
    np.savez(file, allow_pickle=False, **arrays)
    packed = gather_bytes(file.getvalue())
  parts = []
  for content in packed:
    with np.load(io.BytesIO(content)) as part:
      parts.append(dict(part))
  return {name: np.concatenate([part[name] for part in parts])
          for name in arrays}


def from_main(arrays: Arrays) -> dict[str, np.ndarray]:
  """Sends arrays of the main process to all processes, without rounding.

  Args:
    arrays: arrays by name. Names, shapes and dtypes must be the same in all
      processes. The values are used only in the main process.

  Returns:
    The arrays of the main process, by name.
  """
  if count() == 1:
    return dict(arrays)
  whole = b''.join(np.ascontiguousarray(x).tobytes() for x in arrays.values())
  chunk = _rounded(min(len(whole), _CHUNK))
  received = b''.join(
      np.asarray(multihost_utils.broadcast_one_to_all(np.pad(part, (
          0, chunk - len(part))))).tobytes()[:len(part)]
      for part in (np.frombuffer(whole[i:i + chunk], np.uint8)
                   for i in range(0, len(whole), chunk)))
  found, place = {}, 0
  for name, x in arrays.items():
    found[name] = np.frombuffer(
        received, x.dtype, x.size, place).reshape(x.shape).copy()
    place += x.nbytes
  return found


_CHUNK = 1 << 26  # largest number of bytes per broadcast


def _rounded(length: int) -> int:
  """Rounds up to a power of two, because XLA compiles for each length."""
  return max(1 << 10, 1 << max(length - 1, 0).bit_length())


def check_agreed(value: Mapping[str, Any], advice: str) -> None:
  """Checks that all processes have the same values.

  Args:
    value: JSON values of this process, by name.
    advice: what the user should do, for the error message.

  Raises:
    UserError: a value differs between processes; raised in all processes.
  """
  everyone = gather(dict(value))
  first = everyone[0]
  for number, other in enumerate(everyone):
    differing = [
        f'{name} is {first.get(name, "not set")} in process 0 and '
        f'{other.get(name, "not set")} in process {number}'
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)]
    if differing:
      raise UserError(f'{"; ".join(differing)}: {advice}')
