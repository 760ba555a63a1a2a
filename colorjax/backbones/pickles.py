"""Reads pickles as data, without importing or calling anything.

Python's unpickler imports and calls whatever a file names, so a file of weights
can run any code. This module is a small stack machine for the opcodes that
PyTorch writes (protocol 2 and later). It creates Python's plain values as
usual. A name such as `torch.FloatStorage` becomes a `Name`, a call of it a
`Call`, and a reference to data outside the pickle a `Reference`: records that
the caller interprets. Names that the caller does not list are refused, and so
is every opcode that weights do not need.
"""

import pickletools
from collections.abc import Collection, Sequence
from typing import Any, BinaryIO, NamedTuple


class PickleError(ValueError):
  """A pickle cannot be read; the message is one line."""


class Name(NamedTuple):
  """An object that the unpickler would import."""
  module: str
  name: str

  def __str__(self) -> str:
    """The dotted name."""
    return f'{self.module}.{self.name}'


class Call(NamedTuple):
  """A call that the unpickler would make.

  Attributes:
    function: name of the function.
    arguments: its arguments.
  """
  function: Name
  arguments: tuple[Any, ...]


class Reference(NamedTuple):
  """A reference to data outside the pickle.

  Attributes:
    value: description of the data.
  """
  value: Any


class _Mark:
  """Marks where the arguments of an opcode start on the stack."""


# Opcodes that push their argument.
_ARGUMENT = frozenset({
    'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
    'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES',
    'SHORT_BINBYTES'})
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False,
              'EMPTY_TUPLE': ()}
_EMPTY: dict[str, type] = {'EMPTY_LIST': list, 'EMPTY_DICT': dict}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_IGNORED = frozenset({'PROTO', 'FRAME'})

ORDERED_DICT = Name('collections', 'OrderedDict')
"""The only function that is called; the result is a dict."""


class Contents(NamedTuple):
  """The contents of a pickle.

  Attributes:
    value: None, Booleans, numbers, strings, bytes, `Name`, `Call`, `Reference`,
      and tuples, lists and dicts of these. Keys are strings or integers.
    references: all references in `value`, in the order of the pickle.
  """
  value: Any
  references: list[Reference]


def load(file: BinaryIO, names: Collection[Name] = ()) -> Contents:
  """Reads one pickle.

  Args:
    file: a file at the start of a pickle; it is left at the end of the pickle.
    names: the names that the pickle may contain, in addition to ORDERED_DICT.

  Returns:
    Its contents, without the attributes that the pickle sets on an OrderedDict.

  Raises:
    PickleError: the pickle contains another name or opcode, or is damaged.
  """
  machine = _Machine(names)
  return Contents(machine.run(file), machine.references)


class _Machine:
  """The state while one pickle is read."""

  def __init__(self, names: Collection[Name]) -> None:
    self._names = {ORDERED_DICT, *names}
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self.references: list[Reference] = []

  def run(self, file: BinaryIO) -> Any:
    try:
      for opcode, argument, _ in pickletools.genops(file):
        # genops ends at STOP, and raises ValueError if there is none.
        if opcode.name != 'STOP':
          self._step(opcode.name, argument)
    except PickleError:
      raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError,
            MemoryError) as error:
      line = (str(error).splitlines() or [type(error).__name__])[0]
      raise PickleError(f'the pickle is damaged: {line}') from error
    result = self._pop()
    if self._stack:
      raise PickleError('the pickle is damaged: it has more than one value')
    return result

  def _step(self, opcode: str, argument: Any) -> None:
    stack = self._stack
    if opcode in _ARGUMENT:
      stack.append(argument)
    elif opcode in _CONSTANTS:
      stack.append(_CONSTANTS[opcode])
    elif opcode in _EMPTY:
      stack.append(_EMPTY[opcode]())
    elif opcode in _TUPLES:
      stack.append(self._last(_TUPLES[opcode]))
    elif opcode in ('BINPUT', 'LONG_BINPUT'):
      self._memo[argument] = self._top()
    elif opcode == 'MEMOIZE':
      self._memo[len(self._memo)] = self._top()
    elif opcode in ('BINGET', 'LONG_BINGET'):
      stack.append(self._memo[argument])
    elif opcode == 'MARK':
      stack.append(_Mark())
    elif opcode == 'TUPLE':
      stack.append(tuple(self._since_mark()))
    elif opcode in ('APPEND', 'APPENDS'):
      items = self._since_mark() if opcode == 'APPENDS' else [self._pop()]
      self._container(list).extend(items)
    elif opcode in ('SETITEM', 'SETITEMS'):
      self._set_items(self._since_mark() if opcode == 'SETITEMS'
                      else self._last(2))
    elif opcode == 'GLOBAL':
      stack.append(self._name(*argument.split(' ', 1)))
    elif opcode == 'STACK_GLOBAL':
      stack.append(self._name(*self._last(2)))
    elif opcode == 'REDUCE':
      stack.append(self._call(*self._last(2)))
    elif opcode == 'BUILD':
      self._pop()
      self._container(dict)
    elif opcode == 'BINPERSID':
      self.references.append(Reference(self._pop()))
      stack.append(self.references[-1])
    elif opcode not in _IGNORED:
      raise PickleError(f'the pickle has the opcode {opcode}, which weights '
                        'do not need')

  def _name(self, module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
      raise PickleError('the pickle is damaged: a name is not a string')
    found = Name(module, name)
    if found not in self._names:
      raise PickleError(f'the pickle imports {found}, which weights do not '
                        'need; no code was run')
    return found

  def _call(self, function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
      raise PickleError('the pickle calls something that is not a function')
    if function != ORDERED_DICT:
      return Call(function, arguments)
    made: dict[Any, Any] = {}
    for key, value in arguments[0] if arguments else ():
      made[_key(key)] = value
    return made

  def _set_items(self, items: Sequence[Any]) -> None:
    if len(items) % 2:
      raise PickleError('the pickle is damaged: a key without a value')
    container = self._container(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
      container[_key(key)] = value

  def _container(self, kind: type) -> Any:
    """The top of the stack, which is a list or a dict."""
    top = self._top()
    if type(top) is not kind:
      raise PickleError('the pickle adds values to something that is not a '
                        f'{kind.__name__}')
    return top

  def _top(self) -> Any:
    if not self._stack or isinstance(self._stack[-1], _Mark):
      raise PickleError('the pickle is damaged: a value is missing')
    return self._stack[-1]

  def _pop(self) -> Any:
    top = self._top()
    del self._stack[-1]
    return top

  def _last(self, count: int) -> tuple[Any, ...]:
    """Pops `count` values from the stack, in the order they were pushed."""
    return tuple(self._pop() for _ in range(count))[::-1]

  def _since_mark(self) -> list[Any]:
    """Pops the values above the last mark, and the mark."""
    for i in range(len(self._stack) - 1, -1, -1):
      if isinstance(self._stack[i], _Mark):
        values = self._stack[i + 1:]
        del self._stack[i:]
        return values
    raise PickleError('the pickle is damaged: a mark is missing')


def _key(key: Any) -> str | int:
  """Checks a key. Nested tuples could be deeper than Python can hash."""
  if not isinstance(key, str | int):
    raise PickleError('the pickle has a key that is neither a string nor an '
                      'integer')
  return key
