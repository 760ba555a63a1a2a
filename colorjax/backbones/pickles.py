"""Pickles as data: read without importing, calling or building anything.

Python's own unpickler imports what a file names and calls it, so a file of
weights can run any program. Here a small stack machine goes through the
opcodes that PyTorch writes (protocol 2 and later). Python's plain values are
made as usual; a name such as `torch.FloatStorage` becomes a `Name`, a call of
it a `Call`, and a reference to data outside the pickle a `Reference`. They are
records that the caller looks at. Names that the caller does not list are
refused, and so is every opcode that is not needed.
"""

import pickletools
from collections.abc import Collection, Sequence
from typing import Any, BinaryIO, NamedTuple


class PickleError(ValueError):
  """Why a pickle is not read, in one line."""


class Name(NamedTuple):
  """What a pickle would have imported."""
  module: str
  name: str

  def __str__(self) -> str:
    """The dotted name."""
    return f'{self.module}.{self.name}'


class Call(NamedTuple):
  """What a pickle would have called.

  Attributes:
    function: its name.
    arguments: what it would have been given.
  """
  function: Name
  arguments: tuple[Any, ...]


class Reference(NamedTuple):
  """A reference to data that stand outside the pickle.

  Attributes:
    value: what the pickle says of it.
  """
  value: Any


class _Mark:
  """Where the arguments of an opcode begin on the stack."""


# Opcodes that push their argument or a value of their own.
_ARGUMENT = frozenset({
    'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
    'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES',
    'SHORT_BINBYTES'})
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False,
              'EMPTY_TUPLE': ()}
_EMPTY: dict[str, type] = {'EMPTY_LIST': list, 'EMPTY_DICT': dict}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_PASSED_OVER = frozenset({'PROTO', 'FRAME'})

ORDERED_DICT = Name('collections', 'OrderedDict')
"""The one call that is carried out: it gives a dict."""


class Contents(NamedTuple):
  """What a pickle holds.

  Attributes:
    value: None, truth values, numbers, text, bytes, tuples, lists and dicts
      with keys of text or integers; `Name`, `Call` and `Reference` among them.
    references: all of them, in the order of the pickle.
  """
  value: Any
  references: list[Reference]


def load(file: BinaryIO, names: Collection[Name] = ()) -> Contents:
  """Reads one pickle.

  Args:
    file: at the beginning of a pickle; it is left at its end.
    names: the names that the pickle may hold, besides ORDERED_DICT.

  Returns:
    Its contents. The attributes that a pickle sets on an OrderedDict are
    dropped.

  Raises:
    PickleError: another name, an unknown opcode, or a damaged pickle.
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
        # It ends at STOP, or complains that there is none.
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
      raise PickleError('the pickle is damaged: values are left over')
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
    elif opcode not in _PASSED_OVER:
      raise PickleError(f'the pickle has the opcode {opcode}, which no '
                        'weights need')

  def _name(self, module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
      raise PickleError('the pickle is damaged: a name is no text')
    found = Name(module, name)
    if found not in self._names:
      raise PickleError(f'it names {found}, which no weights need; nothing was '
                        'run')
    return found

  def _call(self, function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
      raise PickleError('the pickle calls what is no function')
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
      raise PickleError(
          f'the pickle puts values into what is no {kind.__name__}')
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
    """Takes so many values from the stack, in the order they were put."""
    return tuple(self._pop() for _ in range(count))[::-1]

  def _since_mark(self) -> list[Any]:
    """Takes what stands above the last mark, and the mark."""
    for i in range(len(self._stack) - 1, -1, -1):
      if isinstance(self._stack[i], _Mark):
        values = self._stack[i + 1:]
        del self._stack[i:]
        return values
    raise PickleError('the pickle is damaged: a mark is missing')


def _key(key: Any) -> str | int:
  """A key of a dict; others could be nested deeper than Python can hash."""
  if not isinstance(key, str | int):
    raise PickleError('the pickle has a key that is neither text nor an '
                      'integer')
  return key
