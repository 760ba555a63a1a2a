"""Operations of several processes that train or evaluate together.

Each process has its own devices and reads its own share of every batch. Process
0, the main process, writes all files and prints all output. `connection` starts
and ends such a group. Without a connection there is a single process, and the
functions here have no effect beyond a plain call.
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
  """The number of this process, from 0."""
  return jax.process_index()


def count() -> int:
  """The number of processes."""
  return jax.process_count()


def shard() -> tuple[int, int]:
  """The part of each global batch that this process reads: (which, of)."""
  return index(), count()


def is_main() -> bool:
  """Whether this is the process that writes files and prints."""
  return index() == 0


def barrier(name: str) -> None:
  """Waits until all processes are here.

  Args:
    name: the same on all processes.
  """
  if count() > 1:
    multihost_utils.sync_global_devices(name)


def gather_bytes(content: bytes) -> list[bytes]:
  """What each process gives, on all processes; all have to call it.

  Args:
    content: of any length, which may differ between processes.

  Returns:
    The contents in the order of the processes.
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
  """The JSON value of each process, on all processes; all have to call it."""
  return [json.loads(text) for text in gather_bytes(json.dumps(value).encode())]


def on_main(call: Callable[[], Any]) -> Any:
  """Calls something on the main process; the others wait for it.

  Args:
    call: returns a JSON value.

  Returns:
    That value, on all processes. What `call` raises ends all processes, see
    `connection.connected`.
  """
  value = call() if is_main() else None
  return value if count() == 1 else gather(value)[0]


def main_first(call: Callable[[], Value]) -> Value:
  """Calls something on the main process, then on the others.

  For what the main process keeps in a file, where the others find it.
  """
  if is_main():
    value = call()
    barrier('main first')
    return value
  barrier('main first')
  return call()


def gather_rows(arrays: Arrays) -> dict[str, np.ndarray]:
  """Arrays of all processes put together; all have to call it.

  Args:
    arrays: [N, ...] by name, the same names on all processes; N may differ.

  Returns:
    Arrays [sum of N, ...] by name, those of process 0 first.
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
  """The arrays of the main process, on all processes, to the last bit.

  Args:
    arrays: by name. Names, shapes and types are the same on all processes; the
      numbers of the others do not matter.
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


_CHUNK = 1 << 26  # bytes broadcast at a time


def _rounded(length: int) -> int:
  """A power of two, so that few sizes are compiled."""
  return max(1 << 10, 1 << max(length - 1, 0).bit_length())


def check_agreed(value: Mapping[str, Any], advice: str) -> None:
  """Refuses processes that were told different things.

  Args:
    value: JSON values by name, of this process.
    advice: what to do, for the message.

  Raises:
    UserError: on all processes, naming what differs.
  """
  everyone = gather(dict(value))
  for number, other in enumerate(everyone):
    differing = [
        f'{name} is {everyone[0].get(name, "not set")} for process 0 and '
        f'{other.get(name, "not set")} for process {number}'
        for name in sorted(everyone[0].keys() | other.keys())
        if everyone[0].get(name) != other.get(name)]
    if differing:
      raise UserError(f'{"; ".join(differing)}: {advice}')
