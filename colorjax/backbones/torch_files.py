"""State dicts in PyTorch's own files, read without PyTorch.

Two formats are read. Both hold a pickle that describes the tensors, and
beside it the numbers ("storages"):

  zip      since PyTorch 1.6: NAME/data.pkl, and NAME/data/KEY for each storage
  legacy   before: five pickles one behind the other, then the storages

The pickle is read by `colorjax.backbones.pickles`, which runs nothing. It may
speak of tensors, parameters and the containers around them; everything else is
refused by name. Sizes are checked before numbers are read: no tensor is larger
than its storage, and no storage larger than what the file has for it.
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
  """What a pickle says of one storage.

  Attributes:
    key: its name in the file.
    dtype: type of its numbers.
    length: how many there are.
  """
  key: str
  dtype: np.dtype
  length: int


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict.

  Args:
    path: what `torch.save(model.state_dict(), path)` wrote. A checkpoint that
      holds the state dict as `state_dict`, `model_state_dict` or `model` will
      do if all else in it is plain values and tensors.

  Returns:
    Arrays by name, in the type that they have in the file.

  Raises:
    UserError: the file is damaged, holds no state dict, or speaks of anything
      but tensors; one line that names it.
  """
  try:
    if zipfile.is_zipfile(path):
      return _read_zip(path)
    return _read_legacy(path.read_bytes())
  except (PickleError, OSError, EOFError, zipfile.BadZipFile,
          NotImplementedError) as error:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(f'{path} is not read as weights of PyTorch: {line}'
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
      # PyTorch never compresses, so nothing is larger than the file.
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
            f'storage {key} has {len(data)} bytes, and {length} numbers of '
            f'{dtype.itemsize} bytes are announced')
      if order == 'big':
        data = np.frombuffer(data, f'u{dtype.itemsize}').byteswap().tobytes()
      found[key] = np.frombuffer(data, dtype)
  return _tensors(described.value, found.get)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
  # Other files are not worth the attempt.
  if data[:1] != b'\x80':
    raise PickleError('it is neither a zip archive nor in the old format')
  file = io.BytesIO(data)
  if pickles.load(file).value != _MAGIC:
    raise PickleError('it does not begin as a file of torch.save')
  version = pickles.load(file).value
  if version != _VERSION:
    raise PickleError(f'its format has the version {version}; {_VERSION} is '
                      'the one that is known')
  system = pickles.load(file).value
  if not isinstance(system, dict) or system.get('little_endian') is not True:
    raise PickleError('it is in the old format and of a big-endian machine; '
                      'save it again with PyTorch 1.6 or later')
  described = pickles.load(file, _NAMES)
  announced = {storage.key: storage
               for storage in map(_storage, described.references)}
  found: dict[str, np.ndarray] = {}
  keys = pickles.load(file).value
  for key in keys if isinstance(keys, list) else ():
    if not isinstance(key, str) or key not in announced:
      raise PickleError(f'storage {key} belongs to no tensor')
    _, dtype, length = announced[key]
    if (held := int.from_bytes(file.read(8), 'little')) != length:
      raise PickleError(f'storage {key} holds {held} numbers, and {length} are '
                        'announced')
    numbers = file.read(length * dtype.itemsize)
    if len(numbers) != length * dtype.itemsize:
      raise PickleError(f'the file ends within storage {key}')
    found[key] = np.frombuffer(numbers, dtype)
  return _tensors(described.value, found.get)


def _storage(reference: Any) -> _Storage:
  """What a pickle says of a storage."""
  match reference:
    case Reference(('storage', Name() as kind, str(key), _, int(length), *rest)
                   ) if kind in _STORAGES and length >= 0 and rest in (
                       [], [None]):
      return _Storage(key, _STORAGES[kind], length)
  raise PickleError('the pickle refers to what is no storage')


def _tensors(described: Any, numbers: Callable[[str], np.ndarray | None]
             ) -> dict[str, np.ndarray]:
  """The tensors of a state dict.

  Args:
    described: the value of the pickle.
    numbers: the storages by key; None where there is no such storage.
  """
  state = described
  for name in _WRAPPERS:
    if isinstance(described, dict) and isinstance(described.get(name), dict):
      state = described[name]
      break
  if not isinstance(state, dict) or not state:
    raise PickleError('it holds no state dict')
  found = {}
  for name, value in state.items():
    if isinstance(value, Call) and value.function == _PARAMETER:
      value = value.arguments[0] if value.arguments else None
    if (not isinstance(name, str) or not isinstance(value, Call)
        or value.function not in (_TENSOR, _OLD_TENSOR)):
      raise PickleError(f'it holds no state dict: {name!r} is no tensor')
    found[name] = _tensor(name, value.arguments, numbers)
  return found


def _tensor(name: str, arguments: tuple[Any, ...],
            numbers: Callable[[str], np.ndarray | None]) -> np.ndarray:
  """One tensor, a view of its storage."""
  if len(arguments) < 4:
    raise PickleError(f'{name} lacks its shape')
  storage = _storage(arguments[0])
  offset, shape, strides = arguments[1], *map(_sides, arguments[2:4])
  if not isinstance(offset, int) or offset < 0 or len(shape) != len(strides):
    raise PickleError(f'{name} has no shape that can be')
  held = numbers(storage.key)
  if held is None:
    raise PickleError(f'there is no storage {storage.key} for {name}')
  # Several tensors may share a storage, each with what it says of it.
  if held.dtype != storage.dtype or len(held) != storage.length:
    raise PickleError(f'storage {storage.key} is described in two ways')
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
    raise PickleError('a shape is no list of numbers')
  return tuple(value)
