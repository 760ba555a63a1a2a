"""Checks the runs of a sweep against the flag definitions of the script.

Scripts are asked in a process of their own (`python -m launch.flag_check`), for
absl's flags are global, and two scripts that define the same flag cannot be
imported together. The scripts of `experiments` import no JAX for that.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from colorjax.errors import UserError
from launch import grid

_OWN = ('workdir', 'flagfile', 'undefok')
"""Flags that a sweep sets itself or cannot vary."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
  """A sweep whose flags are valid.

  Attributes:
    flags: the flags that all runs share, a word each, flagfiles read.
    effective: the value of each flag of the script that these words set.
    swept: by swept flag: the value that it has without the sweep.
    repeated: the swept flags that are given once for each of their values.
    runs: values by flag of each run, written in one way: 1e-3 and 0.001 are
      one value.
  """
  flags: Sequence[str]
  effective: Mapping[str, str]
  swept: Mapping[str, str]
  repeated: Sequence[str]
  runs: Sequence[Mapping[str, str | list[str]]]


def check(module: str, words: Sequence[str],
          axes: Sequence[Sequence[grid.Assignment]], *, cwd: str | None = None
          ) -> Checked:
  """Asks the script; nothing is started or written.

  Args:
    module: of the script, such as experiments.mbm.
    words: flags that all runs share, --flagfile among them.
    axes: see `grid.axes`.
    cwd: directory that paths of flagfiles are relative to.

  Returns:
    The runs, each once.

  Raises:
    UserError: there is no such script or flag, or a value that it refuses.
  """
  paths = [str(pathlib.Path(__file__).parents[1]),
           *filter(None, [os.environ.get('PYTHONPATH')])]
  done = subprocess.run(
      [sys.executable, '-m', 'launch.flag_check'], cwd=cwd, text=True,
      input=json.dumps({'module': module, 'words': words, 'axes': axes}),
      capture_output=True, check=False,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)})
  answer = done.stdout.splitlines()[-1:]
  if done.returncode or not answer:
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    raise UserError(f'--experiment: {module} cannot be imported: '
                    f'{"".join(last) or "it ended without a word"}')
  answer = json.loads(answer[0])
  if 'error' in answer:
    raise UserError(answer['error'])
  return Checked(**answer)


def flags_of(checked: Checked, values: Mapping[str, str | list[str]]
             ) -> list[str]:
  """All flags of one run, a word each.

  Args:
    checked: of the sweep.
    values: of the run.
  """
  return run_flags(checked.flags, checked.repeated, values)


def run_flags(shared: Sequence[str], repeated: Sequence[str],
              values: Mapping[str, str | list[str]]) -> list[str]:
  """The shared flags, then those of a run.

  A flag that is given once for each value adds up, so that an earlier one is
  left out where the run has its own.

  Args:
    shared: flags that all runs share.
    repeated: the swept flags that add up.
    values: of the run.
  """
  words = [word for word in shared
           if word.lstrip('-').partition('=')[0] not in
           set(repeated) & values.keys()]
  for name, value in values.items():
    if isinstance(value, list):
      words += [f'--{name}={each}' for each in value]
    else:
      words.append(f'--{name}={value}')
  return words


class _Refused(Exception):
  """One line for a person."""


def _answer(module: str, words: list[str], axes: list[list[dict[str, Any]]]
            ) -> dict[str, Any]:
  """In the process of its own: imports the script and asks its flags."""
  from absl import flags

  try:
    with contextlib.redirect_stdout(sys.stderr):
      importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not module.startswith(str(error.name)):
      raise
    raise _Refused(f'--experiment: there is no script {module}') from None
  defined = flags.FLAGS
  shared = _expanded(defined, words)
  _parse(defined, [*shared, '--workdir=.'] if 'workdir' in defined else shared)
  effective = {
      name: _text(defined[name]) for name in defined
      if defined[name].present and name not in _OWN}
  names = list(dict.fromkeys(
      name for axis in axes for values in axis for name in values))
  for name in names:
    if name in _OWN:
      raise _Refused(f'--set={name}: the sweep sets it for each run itself')
    if name not in defined:
      raise _Refused(_unknown(defined, name, module))
  swept = {name: _text(defined[name]) for name in names}
  repeated = [name for name in names
              if isinstance(defined[name], flags.MultiFlag)]
  written = [[{name: _written(defined, name, value)
               for name, value in values.items()} for values in axis]
             for axis in axes]
  runs: list[Any] = grid.product(written)
  for values in runs:
    _check_run(defined, run_flags(shared, repeated, values), values)
  return {'flags': shared, 'effective': effective, 'swept': swept,
          'repeated': repeated, 'runs': runs}


def _expanded(defined: Any, words: list[str]) -> list[str]:
  """Words with flagfiles read in their place."""
  # That of the scripts passes over byte order marks.
  script = sys.modules.get('experiments.script')
  try:
    words = (script.read_flagfiles(words) if script else
             defined.read_flags_from_files(words, force_gnu=False))
  except (OSError, ValueError) as error:
    raise _Refused(f'--flagfile: {error}') from None
  except Exception as error:  # absl has its own kind for a missing file
    if type(error).__module__.startswith('absl'):
      raise _Refused(f'--flagfile: {error}') from None
    raise
  stray = [word for word in words if not word.startswith('-')]
  if stray:
    raise _Refused(f'unexpected {stray[0]!r} among the flags; every setting is '
                   'a --flag=value')
  return words


def _parse(defined: Any, words: Sequence[str]) -> None:
  from absl import flags

  try:
    defined(['script', *words])
  except flags.Error as error:
    raise _Refused(' '.join(str(error).split())) from None


def _check_run(defined: Any, words: Sequence[str], values: Any) -> None:
  """Validators that look at several flags see a whole run."""
  from absl.testing import flagsaver

  with flagsaver.flagsaver():
    defined.unparse_flags()
    try:
      _parse(defined, [*words, '--workdir=.'] if 'workdir' in defined
             else words)
    except _Refused as error:
      shown = ', '.join(f'{name}={_shown(value)}'
                        for name, value in values.items())
      raise _Refused(f'the run {shown}: {error}') from None


def _unknown(defined: Any, name: str, module: str) -> str:
  import difflib

  close = difflib.get_close_matches(name, list(defined), n=1)
  return (f'--set={name}: {module} has no such flag'
          + (f'; did you mean {close[0]}?' if close else ''))


def _written(defined: Any, name: str, value: Any) -> str | list[str]:
  """A value in the one way in which it is written; _Refused if it is wrong."""
  from absl import flags

  flag = defined[name]
  kind = flag.flag_type()
  is_several = isinstance(flag, flags.MultiFlag) or 'list' in kind
  if isinstance(value, float) and 'int' in kind:
    value = str(round(value))
  if isinstance(value, list) and not is_several:
    raise _Refused(f'--set={name}={_shown(value)}: the flag takes one value, '
                   'not a list')
  single = value if isinstance(value, list) else [str(value)]
  try:
    if isinstance(flag, flags.MultiFlag):
      return [_plain(flag.parser.parse(each)) for each in single]
    parsed = flag.parser.parse(','.join(single))
  except (ValueError, TypeError) as error:
    given = _shown(value)
    raise _Refused(f'--set={name}={given}: {" ".join(str(error).split())}'
                   ) from None
  if 'list' in kind:
    return ','.join(map(str, parsed))
  return _plain(parsed)


def _plain(value: Any) -> str:
  return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
  return f'[{",".join(value)}]' if isinstance(value, list) else str(value)


def _text(flag: Any) -> str:
  """The value of a flag in the way of `_written`, lists with commas."""
  value = flag.value
  if isinstance(value, (list, tuple)):
    return ','.join(map(_plain, value))
  return _plain(value)


def main() -> int:
  """Reads a question from stdin and writes the answer, JSON both."""
  sys.path.insert(0, os.getcwd())
  question = json.load(sys.stdin)
  try:
    answer = _answer(**question)
  except _Refused as error:
    answer = {'error': str(error)}
  print(json.dumps(answer))
  return 0


if __name__ == '__main__':
  sys.exit(main())
