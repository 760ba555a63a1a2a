"""What lies beside the checkpoints of a run: how to build its method again.

`colorizer.json` in a work directory holds a `Record`. Its schema has a version:
records of earlier schemas are read by fixed rules, later ones are refused.
"""

import dataclasses
import importlib
import inspect
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any, Literal

import jax

import colorjax
from colorjax import files
from colorjax.colorizer import Colorizer, Variables
from colorjax.errors import UserError
from colorjax.training import checkpoint

FILE = 'colorizer.json'
"""Name of the record in a work directory."""

SCHEMA = 2
"""Version of the record's fields. 1: without a version; see `Record.load`."""

_UNVERSIONED = 'colorjax 0.1 or earlier'
_REMOVED = ('axis_name',)  # arguments of schema 1 that meant nothing by then
_ASKED = {'colorjax.methods.classification': (
    'temperature', 'readout', 'sampling')}  # settings of schema 1
_BASELINES = ('grey', 'levin', 'marginal', 'mean_color', 'mean_colour',
              'reinhard', 'untrained', 'welsh')
_TEXTS = ('method', 'colorjax_version', 'jax_version')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """How to build a method again, and what wrote this.

  Attributes:
    method: import path of a module whose `build(**settings)` returns a
      Colorizer, for example `colorjax.methods.mbm`.
    settings: keyword arguments of `build`, what was trained; JSON values.
    asking: what is chosen when the method is asked, where that differs from
      the method's own defaults; JSON values.
    image_size: side of the square, in pixels, that the network is trained on
      and that a photograph is brought to before it is colored.
    checkpoint: the checkpoint that stands for the run, in its figures and when
      photographs are colored: 'best' by validation loss, or 'latest'.
    schema: version of these fields.
    colorjax_version: of the package that trained.
    jax_version: the same for JAX.
    commit: of the git checkout that trained; None outside of one.
    path: the file that the record was read from, for errors; not stored.
  """
  method: str
  settings: Mapping[str, Any]
  image_size: int
  asking: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  checkpoint: Literal['best', 'latest'] = 'latest'
  schema: int = SCHEMA
  colorjax_version: str = colorjax.__version__
  jax_version: str = jax.__version__
  commit: str | None = dataclasses.field(default_factory=lambda: _commit())
  path: pathlib.Path | None = dataclasses.field(default=None, compare=False)

  def build(self) -> Colorizer:
    """The method's record of functions.

    Raises:
      UserError: there is no such method, or its `build` takes other arguments
        than those of the record; one line.
    """
    try:
      module = importlib.import_module(self.method)
    except ModuleNotFoundError as error:
      raise UserError(
          f'{self._origin()}no method {self.method!r}: {error}; it is the '
          'import path of a module with a build function') from error
    takes = inspect.signature(module.build).parameters
    takes_any = any(x.kind is x.VAR_KEYWORD for x in takes.values())
    asked = {name: value for name, value in self.asking.items()
             if name in takes}
    given = {**self.settings, **asked}
    unknown = [] if takes_any else sorted(given.keys() - takes.keys())
    missing = sorted(
        name for name, x in takes.items()
        if x.default is x.empty and x.kind is x.KEYWORD_ONLY
        and name not in given)
    for names, what in ((unknown, 'does not take'), (missing, 'needs')):
      if names:
        raise UserError(
            f'{self._origin()}{self.method} {what} the argument '
            f'{", ".join(names)} (the record was written by {self._writer()}, '
            f'this is colorjax {colorjax.__version__}): use that version, or '
            'train again')
    colorizer = module.build(**given)
    rest = {name: value for name, value in self.asking.items()
            if name not in takes}
    if not rest:
      return colorizer
    ask = getattr(colorizer, 'ask', None)
    if ask is None:
      raise UserError(f'{self._origin()}{self.method} has no option '
                      f'{", ".join(sorted(rest))} to ask with')
    return ask(**rest)

  def save(self, path: pathlib.Path) -> None:
    """Writes the record whole or not at all; UserError where it cannot be."""
    fields = dataclasses.asdict(self)
    del fields['path']
    files.write_json(path, {'schema': fields.pop('schema'), **fields})

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Record':
    """Reads what `save` wrote, or what earlier versions did.

    A record without a version is of schema 1. Of its settings `axis_name` is
    dropped, since no method has it any more. The settings `temperature`,
    `readout` and `sampling` of classification become options of asking.
    Baselines are looked for where they are now.

    Raises:
      UserError: the file cannot be read, is damaged, lacks a field, or is of a
        later schema; one line.
    """
    fields = files.read_json(path)
    if not isinstance(fields, dict):
      raise UserError(f'{path} is no colorizer record: it holds no JSON object')
    schema = fields.get('schema', 1)
    if schema == 1:
      fields = _from_schema_1(fields)
    elif schema != SCHEMA:
      raise UserError(
          f'{path}: schema={schema!r} is not known to colorjax '
          f'{colorjax.__version__}, which reads 1 to {SCHEMA}: the record was '
          f'written by colorjax {fields.get("colorjax_version", "unknown")}, '
          'use that version')
    known = {field.name: field for field in dataclasses.fields(cls)
             if field.name != 'path'}
    required = set(known) if schema == SCHEMA else {
        'method', 'settings', 'image_size'}
    for names, what in ((required - fields.keys(), 'lacks'),
                        (fields.keys() - known.keys(), 'has the unknown')):
      if names:
        raise UserError(
            f'{path} is no colorizer record: it {what} field '
            f'{", ".join(sorted(names))} (written by colorjax '
            f'{fields.get("colorjax_version") or "of an unknown version"})')
    wrong = _wrong_field(fields)
    if wrong:
      raise UserError(f'{path} is no colorizer record: {wrong}='
                      f'{fields[wrong]!r} is not of the right kind')
    return cls(**fields, path=path)

  def _origin(self) -> str:
    return '' if self.path is None else f'{self.path}: '

  def _writer(self) -> str:
    if not self.colorjax_version:
      return _UNVERSIONED
    commit = f', commit {self.commit[:12]}' if self.commit else ''
    return f'colorjax {self.colorjax_version}{commit}'


def load(workdir: pathlib.Path) -> tuple[Colorizer, Variables, int]:
  """A trained method from the work directory of its run.

  Args:
    workdir: holds `colorizer.json` and `checkpoints/`; it is only read.

  Returns:
    The method, its variables and the side of its square input in pixels.

  Raises:
    UserError: the directory holds no run, a record that cannot be used, or no
      sound checkpoint.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.is_file():
    raise UserError(
        f'{workdir} holds no {FILE}: name the work directory of a training run')
  record = Record.load(path)
  colorizer = record.build()
  side = (record.image_size, record.image_size)
  like = jax.eval_shape(
      lambda key: colorizer.init(key, side), jax.random.key(0))
  variables = checkpoint.restore_variables(
      workdir, which=record.checkpoint, like=like)
  return colorizer, variables, record.image_size


def _from_schema_1(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a record without a version, as they are called now."""
  found = {'colorjax_version': '', 'jax_version': '', 'commit': None, **fields}
  found['schema'] = SCHEMA
  method, settings = found.get('method'), found.get('settings')
  if not isinstance(method, str) or not isinstance(settings, dict):
    return found
  asked = _ASKED.get(method, ())
  found['asking'] = {name: settings[name] for name in asked
                     if name in settings}
  found['settings'] = {name: value for name, value in settings.items()
                       if name not in asked and name not in _REMOVED}
  package, _, name = method.rpartition('.')
  if package == 'colorjax.methods' and name in _BASELINES:
    name = name.replace('colour', 'color')
    found['method'] = f'colorjax.methods.baselines.{name}'
  return found


def _wrong_field(fields: Mapping[str, Any]) -> str | None:
  """The name of a field of another type than a record has, if there is one."""
  for name, value in fields.items():
    if name in _TEXTS:
      is_right = isinstance(value, str)
    elif name in ('settings', 'asking'):
      is_right = isinstance(value, dict)
    elif name == 'image_size':
      is_right = type(value) is int and value > 0
    elif name == 'checkpoint':
      is_right = value in ('best', 'latest')
    else:
      is_right = name != 'commit' or value is None or isinstance(value, str)
    if not is_right:
      return name
  return None


def _commit() -> str | None:
  """The commit of the git checkout that this code lies in, if it does."""
  root = pathlib.Path(__file__).resolve().parent.parent
  if not (root / '.git').exists():
    return None
  try:
    done = subprocess.run(
        ['git', '-C', str(root), 'rev-parse', 'HEAD'], capture_output=True,
        text=True, timeout=10, check=True)
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip() or None
