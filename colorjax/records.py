"""The record of how a method was built.

`colorizer.json` in a work directory holds a `Record`. Its schema has a version.
Records of earlier schemas are converted when they are read; records of later
schemas are refused.
"""

import dataclasses
import importlib
import inspect
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

import colorjax
from colorjax import files
from colorjax.colorizer import Colorizer
from colorjax.errors import UserError
from colorjax.fallbacks import with_candidates, with_saturation

FILE = 'colorizer.json'
"""Name of the record in a work directory."""

SCHEMA = 2
"""Version of the record's schema. A record without a version has schema 1."""

_UNVERSIONED = 'colorjax 0.1 or earlier'

# Settings of schema 1 that no longer exist.
_REMOVED_SETTINGS = ('axis_name',)

# Settings of schema 1 that are options now.
_FORMER_SETTINGS = {'colorjax.methods.classification': (
    'temperature', 'readout', 'sampling')}

# Methods of schema 1 that have moved to `colorjax.methods.baselines`.
_BASELINES = ('grey', 'levin', 'marginal', 'mean_color', 'mean_colour',
              'reinhard', 'untrained', 'welsh')

_STRING_FIELDS = ('method', 'colorjax_version', 'jax_version')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """How a method was built, and by which software.

  Attributes:
    method: import path of a module whose `build(**settings)` returns a
      Colorizer, for example `colorjax.methods.mbm`.
    settings: keyword arguments of `build` in training; JSON values.
    asking: options (see `colorjax.colorizer`) whose values differ from the
      defaults of the method; JSON values.
    image_size: side of the network's square input, in pixels.
    checkpoint: the checkpoint to use for metrics and for coloring: 'best' by
      validation loss, or 'latest'.
    replicas: what each replica of the run differs in, values by the name of
      the option; JSON values. () for a run of one model. It is stored only if
      there are replicas.
    schema: version of these fields.
    colorjax_version: version of colorjax in training.
    jax_version: version of JAX in training.
    commit: git commit of colorjax in training; None without a git checkout.
    path: the file that the record was read from, for error messages; it is not
      stored.
  """
  method: str
  settings: Mapping[str, Any]
  image_size: int
  asking: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  checkpoint: Literal['best', 'latest'] = 'latest'
  replicas: Sequence[Mapping[str, Any]] = ()
  schema: int = SCHEMA
  colorjax_version: str = colorjax.__version__
  jax_version: str = jax.__version__
  commit: str | None = dataclasses.field(default_factory=lambda: _commit())
  path: pathlib.Path | None = dataclasses.field(default=None, compare=False)

  def build(self) -> Colorizer:
    """Builds the method, with the options `saturation` and `candidates`.

    A method without random samples has no `candidates`.

    Raises:
      UserError: there is no such method, or its `build` has other arguments
        than the record, or it has no such option.
    """
    try:
      module = importlib.import_module(self.method)
    except ModuleNotFoundError as error:
      raise UserError(
          f'{self._origin()}no method {self.method!r}: {error}; give the '
          'import path of a module with a build function') from error
    parameters = inspect.signature(module.build).parameters
    # `build` may take options as arguments too.
    arguments = dict(self.settings)
    options: dict[str, Any] = {}
    for name, value in self.asking.items():
      (arguments if name in parameters else options)[name] = value
    self._check_arguments(arguments, parameters)
    try:
      colorizer = with_candidates(module.build(**arguments))
      return with_saturation(colorizer).ask(**options)
    except UserError as error:
      raise UserError(f'{self._origin()}{error}') from error

  def _check_arguments(self, arguments: Mapping[str, Any],
                       parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raises UserError unless `build` can be called with these arguments."""
    takes_any = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
    unknown = [] if takes_any else sorted(arguments.keys() - parameters.keys())
    missing = sorted(
        name for name, x in parameters.items()
        if x.default is x.empty and x.kind is x.KEYWORD_ONLY
        and name not in arguments)
    for names, verb in ((unknown, 'does not take'), (missing, 'needs')):
      if names:
        raise UserError(
            f'{self._origin()}{self.method} {verb} the argument '
            f'{", ".join(names)} (the record was written by {self._writer()}, '
            f'this is colorjax {colorjax.__version__}): use that version, or '
            'train again')

  def save(self, path: pathlib.Path) -> None:
    """Writes the record atomically.

    Raises:
      UserError: the file cannot be written.
    """
    files.write_json(path, self.to_json())

  def to_json(self) -> dict[str, Any]:
    """Returns the fields as JSON values, for `from_json`."""
    fields = dataclasses.asdict(self)
    del fields['path']
    if not fields['replicas']:
      del fields['replicas']
    return {'schema': fields.pop('schema'), **fields}

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Record':
    """Reads a record of this or an earlier version of colorjax.

    Args:
      path: the file.

    Returns:
      The record.

    Raises:
      UserError: the file cannot be read, or as in `from_json`.
    """
    return cls.from_json(files.read_json(path), path)

  @classmethod
  def from_json(cls, fields: Any, path: pathlib.Path) -> 'Record':
    """Checks and converts the JSON values of a record.

    A record without a version has schema 1 and is converted: the setting
    `axis_name` is dropped, the settings `temperature`, `readout` and `sampling`
    of classification become options, and baselines get their new import paths.

    Args:
      fields: what `to_json` returned, in this or an earlier version.
      path: the file that they are from, for error messages.

    Returns:
      The record.

    Raises:
      UserError: a field is missing, unknown or wrong, or the schema is later.
    """
    if not isinstance(fields, dict):
      raise UserError(
          f'{path} is not a colorizer record: it holds no JSON object')
    schema = fields.get('schema', 1)
    if schema == 1:
      fields = _from_schema_1(fields)
    elif schema != SCHEMA:
      raise UserError(
          f'{path}: schema={schema!r} is not known to colorjax '
          f'{colorjax.__version__}, which reads 1 to {SCHEMA}: use the version '
          'that wrote the record '
          f'({fields.get("colorjax_version", "unknown")})')
    known = {field.name: field for field in dataclasses.fields(cls)
             if field.name != 'path'}
    required = known.keys() - {'replicas'} if schema == SCHEMA else {
        'method', 'settings', 'image_size'}
    for names, verb in ((required - fields.keys(), 'lacks the'),
                        (fields.keys() - known.keys(), 'has the unknown')):
      if names:
        raise UserError(
            f'{path} is not a valid colorizer record: it {verb} field '
            f'{", ".join(sorted(names))} (written by colorjax '
            f'{fields.get("colorjax_version") or "of an unknown version"})')
    wrong = _wrong_field(fields)
    if wrong:
      raise UserError(f'{path} is not a valid colorizer record: {wrong}='
                      f'{fields[wrong]!r} has the wrong type or value')
    return cls(**fields, path=path)

  def _origin(self) -> str:
    """The file of the record as the start of an error message."""
    return '' if self.path is None else f'{self.path}: '

  def _writer(self) -> str:
    """The version of colorjax that wrote the record."""
    if not self.colorjax_version:
      return _UNVERSIONED
    commit = f', commit {self.commit[:12]}' if self.commit else ''
    return f'colorjax {self.colorjax_version}{commit}'


def _from_schema_1(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Converts the fields of a record without a version to the current schema."""
  converted = {
      'colorjax_version': '', 'jax_version': '', 'commit': None, **fields,
      'schema': SCHEMA}
  method, settings = fields.get('method'), fields.get('settings')
  if not isinstance(method, str) or not isinstance(settings, dict):
    return converted
  options = _FORMER_SETTINGS.get(method, ())
  converted['asking'] = {name: settings[name] for name in options
                         if name in settings}
  converted['settings'] = {
      name: value for name, value in settings.items()
      if name not in options and name not in _REMOVED_SETTINGS}
  package, _, name = method.rpartition('.')
  if package == 'colorjax.methods' and name in _BASELINES:
    name = name.replace('colour', 'color')
    converted['method'] = f'colorjax.methods.baselines.{name}'
  return converted


def _wrong_field(fields: Mapping[str, Any]) -> str | None:
  """The name of a field with a wrong type or value, None if there is none."""
  for name, value in fields.items():
    if name in _STRING_FIELDS:
      is_valid = isinstance(value, str)
    elif name in ('settings', 'asking'):
      is_valid = isinstance(value, dict)
    elif name == 'replicas':
      is_valid = isinstance(value, list) and all(
          isinstance(one, dict) for one in value)
    elif name == 'image_size':
      is_valid = type(value) is int and value > 0
    elif name == 'checkpoint':
      is_valid = value in ('best', 'latest')
    else:
      is_valid = name != 'commit' or value is None or isinstance(value, str)
    if not is_valid:
      return name
  return None


def _commit() -> str | None:
  """The commit of the git checkout that holds this code; None without one."""
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
