"""Reads state dicts from the files of `torch.save`, without PyTorch.

There are two formats. Both contain a pickle that describes the tensors, and the
numbers of the tensors ("storages"):

  zip      since PyTorch 1.6: NAME/data.pkl, and NAME/data/KEY for each storage
  legacy   before 1.6: five pickles in sequence, then the storages

The pickle is read by `colorjax.backbones.pickles`, which runs no code. It may
contain tensors, parameters and containers of them; everything else is refused,
with its name in the error. Sizes are checked before numbers are read: no tensor
may be larger than its storage, and no storage larger than its data in the file.
"""

import io
import math
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from colorjax.backbones import pickles
from colorjax.backbones.pickles import Call, Name, PickleError, Reference
from colorjax.errors import UserError

_STORAGES: dict[Name, np.dtype] = {
    Name('torch', f'{name}Storage'): np.dtype(dtype) for name, dtype in {
        'Double': np.float64, 'Float': np.float32, 'Half': np.float16,
        'BFloat16': ml_dtypes.bfloat16, 'Long': np.int64, 'Int': np.int32,
        'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8,
        'Bool': np.bool_}.items()}
_TENSOR = Name('torch._utils', '_rebuild_tensor_v2')
_OLD_TENSOR = Name('torch._utils', '_rebuild_tensor')
_PARAMETER = Name('torch._utils', '_rebuild_parameter')
_SIZE = Name('torch', 'Size')
_NAMES = frozenset({*_STORAGES, _TENSOR, _OLD_TENSOR, _PARAMETER, _SIZE})

_MAGIC = 0x1950a86a20f9469cfc6c  # the first pickle of the legacy format
_VERSION = 1001  # the second
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')


class _Storage(NamedTuple):
  """The description of one storage in a pickle.

  Attributes:
    key: its name in the file.
    dtype: type of its numbers.
    length: number of its numbers.
  """
  key: str
  dtype: np.dtype
  length: int


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict.

  Args:
    path: a file written by `torch.save(model.state_dict(), path)`. Checkpoints
      with the state dict as `state_dict`, `model_state_dict` or `model` can
      also be read, if everything else in them is plain values and tensors.

  Returns:
    Arrays by name, with the types of the file.

  Raises:
    UserError: the file is damaged, has no state dict, or contains objects other
      than tensors.
  """
  try:
    if zipfile.is_zipfile(path):
      return _read_zip(path)
    return _read_legacy(path.read_bytes())
  except (PickleError, OSError, EOFError, zipfile.BadZipFile,
          NotImplementedError) as error:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(f'{path} is not a state dict that can be read: {line}'
                    ) from error


def _read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    records = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix('data.pkl') for name in records
             if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(roots) != 1:
      raise PickleError('the archive has no data.pkl')
    root = roots[0]

    def record(name: str) -> bytes:
      info = records.get(f'{root}{name}')
      if info is None:
        raise PickleError(f'the archive has no {name}')
      # PyTorch does not compress. So no record is larger than the file.
      if info.compress_type != zipfile.ZIP_STORED:
        raise PickleError(f'{name} is compressed')
      return archive.read(info)

    order = 'little'
    if f'{root}byteorder' in records:
      order = record('byteorder').decode('ascii', 'replace').strip()
    if order not in ('little', 'big'):
      raise PickleError(f'the byte order {order!r} is neither little nor big')

    described = pickles.load(io.BytesIO(record('data.pkl')), _NAMES)
    found: dict[str, np.ndarray] = {}
    for key, dtype, length in map(_storage, described.references):
      if key in found:
        continue
      data = record(f'data/{key}')
      if len(data) != length * dtype.itemsize:
        raise PickleError(
            f'storage {key} has {len(data)} bytes instead of {length} numbers '
            f'of {dtype.itemsize} bytes')
      if order == 'big':
        data = np.frombuffer(data, f'u{dtype.itemsize}').byteswap().tobytes()
      found[key] = np.frombuffer(data, dtype)
  return _tensors(described.value, found.get)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
  if data[:1] != b'\x80':
    raise PickleError('it is neither a zip archive nor in the legacy format')
  file = io.BytesIO(data)
  if pickles.load(file).value != _MAGIC:
    raise PickleError('it does not start like a file of torch.save')
  version = pickles.load(file).value
  if version != _VERSION:
    raise PickleError(f'its format has version {version} instead of '
                      f'{_VERSION}')
  system = pickles.load(file).value
  if not isinstance(system, dict) or system.get('little_endian') is not True:
    raise PickleError('it is in the legacy format of a big-endian machine; '
                      'save it again with PyTorch 1.6 or later')
  described = pickles.load(file, _NAMES)
  announced = {storage.key: storage
               for storage in map(_storage, described.references)}
  found: dict[str, np.ndarray] = {}
  keys = pickles.load(file).value
  for key in keys if isinstance(keys, list) else ():
    if not isinstance(key, str) or key not in announced:
      raise PickleError(f'no tensor uses storage {key}')
    _, dtype, length = announced[key]
    if (held := int.from_bytes(file.read(8), 'little')) != length:
      raise PickleError(f'storage {key} has {held} numbers instead of '
                        f'{length}')
    numbers = file.read(length * dtype.itemsize)
    if len(numbers) != length * dtype.itemsize:
      raise PickleError(f'the file ends within storage {key}')
    found[key] = np.frombuffer(numbers, dtype)
  return _tensors(described.value, found.get)


def _storage(reference: Any) -> _Storage:
  """The storage that a reference describes."""
  match reference:
    case Reference(('storage', Name() as kind, str(key), _, int(length), *rest)
                   ) if kind in _STORAGES and length >= 0 and rest in (
                       [], [None]):
      return _Storage(key, _STORAGES[kind], length)
  raise PickleError('the pickle has a reference that is not a storage')


def _tensors(described: Any, numbers: Callable[[str], np.ndarray | None]
             ) -> dict[str, np.ndarray]:
  """The tensors of a state dict.

  Args:
    described: the value of the pickle.
    numbers: returns the storage of a key; None if there is no such storage.
  """
  state = described
  for name in _WRAPPERS:
    if isinstance(described, dict) and isinstance(described.get(name), dict):
      state = described[name]
      break
  if not isinstance(state, dict) or not state:
    raise PickleError('it has no state dict')
  found = {}
  for name, value in state.items():
    if isinstance(value, Call) and value.function == _PARAMETER:
      value = value.arguments[0] if value.arguments else None
    if (not isinstance(name, str) or not isinstance(value, Call)
        or value.function not in (_TENSOR, _OLD_TENSOR)):
      raise PickleError(f'it has no state dict: {name!r} is not a tensor')
    found[name] = _tensor(name, value.arguments, numbers)
  return found


def _tensor(name: str, arguments: tuple[Any, ...],
            numbers: Callable[[str], np.ndarray | None]) -> np.ndarray:
  """One tensor, a view of its storage."""
  if len(arguments) < 4:
    raise PickleError(f'{name} has no shape')
  storage = _storage(arguments[0])
  offset, shape, strides = arguments[1], *map(_sides, arguments[2:4])
  if not isinstance(offset, int) or offset < 0 or len(shape) != len(strides):
    raise PickleError(f'{name} has an invalid offset, shape or strides')
  held = numbers(storage.key)
  if held is None:
    raise PickleError(f'storage {storage.key} of {name} is missing')
  # Tensors may share a storage, and each of them describes it.
  if held.dtype != storage.dtype or len(held) != storage.length:
    raise PickleError(f'storage {storage.key} has two different descriptions')
  size = math.prod(shape)
  last = offset + sum((side - 1) * stride for side, stride
                      in zip(shape, strides, strict=True))
  if size and (last >= len(held) or size > len(held)):
    raise PickleError(f'{name} is larger than its storage of {len(held)} '
                      'numbers')
  if not size:
    return np.zeros(shape, held.dtype)
  return np.lib.stride_tricks.as_strided(
      held[offset:], shape, [stride * held.itemsize for stride in strides],
      writeable=False)


def _sides(value: Any) -> tuple[int, ...]:
  """A shape or strides."""
  if isinstance(value, Call) and value.function == _SIZE and value.arguments:
    value = value.arguments[0]
  if (not isinstance(value, tuple | list)
      or not all(type(x) is int and x >= 0 for x in value)):
    raise PickleError('a shape is not a list of integers of at least 0')
  return tuple(value)
