"""Files of PyTorch, written by hand, are read, and no code in them is run."""

import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from colorjax.backbones import torch_files, weights_files
from colorjax.errors import UserError

NUMBERS = np.arange(24, dtype=np.float32)


class _Named:
  """Is pickled as the import of a name, or as a call if it has arguments."""

  def __init__(self, name, *arguments):
    self.module, _, self.name = name.rpartition('.')
    self.arguments = arguments

  def __reduce__(self):
    return (self, self.arguments)


class _Storage:
  """Is pickled as a reference to a storage."""

  def __init__(self, key, kind='Float', length=24, *rest):
    self.value = ('storage', _Named(f'torch.{kind}Storage'), key, 'cpu',
                  length, *rest)


class _Pickler(pickle._Pickler):
  """Python's pickler, extended to write any name."""

  def persistent_id(self, thing):
    return thing.value if isinstance(thing, _Storage) else None

  def save(self, thing, save_persistent_id=True):
    if isinstance(thing, _Named):
      if thing.arguments:
        self.save(_Named(f'{thing.module}.{thing.name}'))
        self.save(thing.arguments)
        self.write(pickle.REDUCE)
      else:
        self.write(f'c{thing.module}\n{thing.name}\n'.encode())
      return
    super().save(thing, save_persistent_id)


def _pickled(thing, path_of_bytes, protocol=2):
  path_of_bytes.parent.mkdir(exist_ok=True)
  with path_of_bytes.open('wb') as file:
    _Pickler(file, protocol).dump(thing)
  return path_of_bytes.read_bytes()


def _tensor(storage, shape, strides, offset=0):
  return _Named('torch._utils._rebuild_tensor_v2', storage, offset, shape,
                strides, False, {})


def _whole(key='0', kind='Float'):
  return {'w': _tensor(_Storage(key, kind), (4, 6), (6, 1))}


def _zip(path, described, records=None, *, compression=zipfile.ZIP_STORED,
         root='archive', protocol=2):
  """A file as torch.save writes it; `described` may be a pickle as bytes."""
  if not isinstance(described, bytes):
    described = _pickled(described, path.parent / 'pickles/data.pkl', protocol)
  if records is None:
    records = {'data/0': NUMBERS.tobytes()}
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr(f'{root}/data.pkl', described)
    for name, data in records.items():
      archive.writestr(f'{root}/{name}', data)
  return path


def _legacy(path, described, storages, *, little_endian=True,
            version=1001, magic=0x1950a86a20f9469cfc6c):
  """A file as torch.save wrote it before 1.6."""
  system = {'protocol_version': 1001, 'little_endian': little_endian,
            'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
  parts = [_pickled(thing, path.parent / 'pickles/part')
           for thing in (magic, version, system, described, list(storages))]
  for data, length in storages.values():
    parts.append(struct.pack('<q', length) + data)
  path.write_bytes(b''.join(parts))
  return path


def _refused(path, *parts):
  with pytest.raises(UserError) as caught:
    torch_files.read(path)
  message = str(caught.value)
  assert '\n' not in message
  for part in (str(path), *parts):
    assert part in message, message


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_a_state_dict(tmp_path, protocol):
  path = _zip(tmp_path / 'x.pth', _whole(), protocol=protocol)
  found = torch_files.read(path)
  assert list(found) == ['w']
  np.testing.assert_array_equal(found['w'], NUMBERS.reshape(4, 6))
  assert found['w'].dtype == np.float32


def test_views_share_a_storage(tmp_path):
  storage = _Storage('0')
  path = _zip(tmp_path / 'x.pth', {
      'transposed': _tensor(storage, (6, 4), (1, 6)),
      'part': _tensor(storage, (2, 3), (6, 2), offset=7),
      'scalar': _tensor(storage, (), (), offset=5),
      'empty': _tensor(storage, (0, 3), (3, 1)),
      'parameter': _Named('torch._utils._rebuild_parameter',
                          _tensor(storage, (24,), (1,)), True, {})})
  found = torch_files.read(path)
  square = NUMBERS.reshape(4, 6)
  np.testing.assert_array_equal(found['transposed'], square.T)
  np.testing.assert_array_equal(found['part'], square[1:3, 1:6:2])
  assert found['scalar'] == 5
  assert found['empty'].shape == (0, 3)
  np.testing.assert_array_equal(found['parameter'], NUMBERS)


@pytest.mark.parametrize(('kind', 'dtype'), [
    ('Double', np.float64), ('Half', np.float16),
    ('BFloat16', ml_dtypes.bfloat16), ('Long', np.int64), ('Int', np.int32),
    ('Short', np.int16), ('Char', np.int8), ('Byte', np.uint8),
    ('Bool', np.bool_)])
@pytest.mark.parametrize('order', ['little', 'big'])
def test_types_and_byte_orders(tmp_path, kind, dtype, order):
  numbers = (NUMBERS % 2 if dtype == np.bool_ else NUMBERS + 0.5).astype(dtype)
  words = numbers.view(f'u{numbers.itemsize}')
  data = words.astype(words.dtype.newbyteorder(
      '<' if order == 'little' else '>')).tobytes()
  path = _zip(tmp_path / 'x.pth', _whole(kind=kind), {
      'byteorder': order.encode(), 'data/0': data})
  found = torch_files.read(path)['w']
  assert found.dtype == dtype
  np.testing.assert_array_equal(
      found.astype(np.float64), numbers.astype(np.float64).reshape(4, 6))


def test_the_legacy_format(tmp_path):
  described = _whole('77') | {
      'h': _tensor(_Storage('9', 'Half', 3, None), (3,), (1,))}
  path = _legacy(tmp_path / 'x.pth', described, {
      '9': (np.float16([1, 2, 4]).tobytes(), 3),
      '77': (NUMBERS.tobytes(), 24)})
  found = torch_files.read(path)
  np.testing.assert_array_equal(found['w'], NUMBERS.reshape(4, 6))
  np.testing.assert_array_equal(found['h'], [1, 2, 4])


@pytest.mark.parametrize('name', ['state_dict', 'model'])
def test_a_checkpoint_that_contains_a_state_dict(tmp_path, name):
  path = _zip(tmp_path / 'x.pth', {
      'epoch': 3, 'loss': 0.5, 'notes': ['a', b'b', None, True, (1, -2**40)],
      'optimizer': {0: _tensor(_Storage('0'), (24,), (1,))}, name: _whole()},
      protocol=3)
  assert list(torch_files.read(path)) == ['w']


@pytest.mark.parametrize('ending', weights_files.PICKLES)
def test_weights_files_reads_every_suffix_of_torch(tmp_path, ending):
  path = _zip(tmp_path / f'x{ending}', _whole())
  with weights_files.open_weights(path) as contents:
    assert contents.naming == 'torch'
    assert contents.tensors['w'].shape == (4, 6)


@pytest.mark.parametrize('call', [
    _Named('os.system', 'touch RAN'),
    _Named('posix.system', 'touch RAN'),
    _Named('builtins.eval', "open('RAN', 'w')"),
    _Named('builtins.exec', "open('RAN', 'w')"),
    _Named('builtins.getattr', 'x', 'y'),
    _Named('subprocess.Popen', 'touch RAN', -1),
    _Named('importlib.import_module', 'antigravity'),
    _Named('torch.load', 'other.pth'),
    _Named('torch.storage._load_from_bytes', b'\x80\x02.'),
    _Named('torch.hub.load', 'someone/something'),
    _Named('torch._utils._rebuild_tensor_v2.__globals__', 1),
    _Named('numpy.core.multiarray._reconstruct', 0),
    _Named('collections.OrderedDict.fromkeys', 'ab'),
    _Named('copyreg._reconstructor', object)])
@pytest.mark.parametrize('place', ['alone', 'inside', 'legacy'])
def test_other_names_than_those_of_tensors_are_refused(
    tmp_path, monkeypatch, call, place):
  monkeypatch.chdir(tmp_path)
  if any(argument is object for argument in call.arguments):
    call = _Named(f'{call.module}.{call.name}', 1)
  described = call if place == 'alone' else _whole() | {'x': call}
  path = tmp_path / 'x.pth'
  if place == 'legacy':
    _legacy(path, described, {'0': (NUMBERS.tobytes(), 24)})
  else:
    _zip(path, described)
  _refused(path, f'{call.module}.{call.name}', 'no code was run')
  assert not os.path.exists('RAN')


@pytest.mark.parametrize(('described', 'message'), [
    # A name that is not allowed, in protocol 4.
    (b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.', 'os.system'),
    # The class of an instance, in protocol 0.
    (b'(cos\nsystem\no.', 'os.system'),
    (b'(ios\nsystem\n.', 'INST'), (b'S"ls"\n.', 'STRING'),
    # The extension registry, and instances of a class.
    (b'\x82\x01.', 'EXT1'),
    (b'ccollections\nOrderedDict\n)\x81.', 'NEWOBJ'),
    # Attributes of a name or a list.
    (b'ctorch\nFloatStorage\n}b.', 'not a dict'),
    (b']}b.', 'not a dict'),
    # A call of a number; arguments that are not a tuple.
    (b'\x80\x02K\x01)R.', 'not a function'),
    (b'ccollections\nOrderedDict\n]R.', 'not a function'),
    # A key that is a tuple.
    (b'})K\x01s.', 'neither a string nor an integer'),
    # Damage.
    (b'', 'exhausted'), (b'\x80\x02}', 'exhausted'), (b'.', 'missing'),
    (b'h\x05.', 'damaged'), (b'\x86.', 'missing'), (b'\xff', 'damaged'),
    (b'}}.', 'more than one value'), (b't.', 'mark is missing'),
    (b'}(K\x01u.', 'without a value'), (b'X\xff\xff\xff\x7fabc.', 'damaged'),
    (b'(.', 'missing'), (b'\x80\x02K\x07Q.', 'not a storage')])
def test_invalid_pickles_are_refused(tmp_path, described, message):
  _refused(_zip(tmp_path / 'x.pth', described), message)


def _with(tensor, **others):
  return {'w': tensor, **others}


@pytest.mark.parametrize(('described', 'message'), [
    (_with(_tensor(_Storage('0'), (5, 6), (6, 1))), 'larger than its storage'),
    (_with(_tensor(_Storage('0'), (4, 6), (6, 1), offset=1)), 'larger'),
    (_with(_tensor(_Storage('0'), (4, 6), (7, 1))), 'larger'),
    # One number repeated 2^50 times.
    (_with(_tensor(_Storage('0'), (2**50,), (0,))), 'larger'),
    (_with(_tensor(_Storage('0'), (-1, 6), (6, 1))), 'not a list of integers'),
    (_with(_tensor(_Storage('0'), (4, 6), (-6, 1))), 'not a list of integers'),
    (_with(_tensor(_Storage('0'), (4, 6), (6, 1), offset=-3)),
     'invalid offset'),
    (_with(_tensor(_Storage('0'), (4, 6), (6,))), 'invalid offset'),
    (_with(_tensor(_Storage('0', length=25), (4, 6), (6, 1))), '96 bytes'),
    (_with(_tensor(_Storage('0', 'Double'), (4, 6), (6, 1))), '96 bytes'),
    (_with(_tensor(_Storage('0', length=-24), (4, 6), (6, 1))),
     'not a storage'),
    (_with(_tensor(_Storage('../data.pkl'), (4, 6), (6, 1))), 'has no data/'),
    (_with(_tensor(_Storage('1'), (4, 6), (6, 1))), 'has no data/1'),
    (_with(_tensor(_Storage('0'), (24,), (1,)),
           v=_tensor(_Storage('0', 'Int'), (24,), (1,))), 'two different'),
    (_with(_tensor(7, (4, 6), (6, 1))), 'not a storage'),
    (_with(_Named('torch._utils._rebuild_tensor_v2', 1)), 'has no shape'),
    (_with(3), "'w' is not a tensor"), ({}, 'no state dict'),
    ([1], 'no state dict'),
    (_with(_Named('torch._utils._rebuild_parameter', 3)),
     "'w' is not a tensor"),
    ({0: _tensor(_Storage('0'), (4, 6), (6, 1))}, '0 is not a tensor')])
def test_sizes_are_checked(tmp_path, described, message):
  _refused(_zip(tmp_path / 'x.pth', described), message)


def test_damaged_archives(tmp_path):
  whole = _zip(tmp_path / 'whole.pth', _whole()).read_bytes()
  path = tmp_path / 'x.pth'
  for length in (5, 100, len(whole) // 2, len(whole) - 5):
    path.write_bytes(whole[:length])
    _refused(path)
  flipped = bytearray(whole)
  flipped[whole.index(NUMBERS.tobytes()) + 9] ^= 1
  path.write_bytes(flipped)
  _refused(path, 'CRC')
  _refused(_zip(path, _whole(), {}), 'has no data/0')
  _refused(_zip(path, _whole(), compression=zipfile.ZIP_DEFLATED),
           'is compressed')
  _refused(_zip(path, _whole(), {'byteorder': b'middle',
                                 'data/0': NUMBERS.tobytes()}), "'middle'")
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/other', 'x')
  _refused(path, 'no data.pkl')


def test_damaged_files_of_the_legacy_format(tmp_path):
  path, storages = tmp_path / 'x.pth', {'0': (NUMBERS.tobytes(), 24)}
  whole = _legacy(path, _whole(), storages).read_bytes()
  for length in (5, 60, len(whole) - 300, len(whole) - 1):
    path.write_bytes(whole[:length])
    _refused(path)
  _refused(_legacy(path, _whole(), {'0': (NUMBERS.tobytes(), 23)}),
           'has 23 numbers instead of 24')
  _refused(_legacy(path, _whole(), storages | {'1': (b'', 0)}),
           'no tensor uses storage 1')
  _refused(_legacy(path, _whole('2'), {}), 'storage 2 of w is missing')
  _refused(_legacy(path, _whole(), storages, little_endian=False),
           'big-endian')
  _refused(_legacy(path, _whole(), storages, version=1002), 'version 1002')
  _refused(_legacy(path, _whole(), storages, magic=3), 'start like')
