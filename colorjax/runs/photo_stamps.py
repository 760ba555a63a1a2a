"""The photographs that a run was started with, to detect changes.

A batch is a function of (seed, step) only as long as the photographs do not
change. The work directory therefore keeps the names, sizes and modification
times of their files. Other names or sizes stop a run that is resumed. Other
times alone do not, because a copy has them too, for example on the disk of
another machine.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from colorjax import files, hosts
from colorjax.data.source import Source
from colorjax.errors import UserError

FILE = 'photographs.json'
"""Name of the record in a work directory."""

_MAX_LISTED = 20_000  # up to this number, each photograph has its own entry
_MAX_NAMED = 3  # photographs that an error message names


def check(workdir: pathlib.Path, sources: Mapping[str, Source], *,
          has_checkpoint: bool) -> None:
  """Records the photographs of a new run, or compares those of a resumed one.

  If only modification times differ, it prints a line that says so.

  Args:
    workdir: work directory of the run.
    sources: photographs by the name of the option that selects them.
    has_checkpoint: whether the run has a checkpoint. If not, the photographs
      are recorded again.

  Raises:
    UserError: names or sizes of photographs have changed.
  """
  path = workdir / FILE
  found = {name: _describe(source) for name, source in sources.items()}
  if not has_checkpoint or not path.exists():
    files.write_json(path, found)
    return
  before = files.read_json(path)
  for name, source in sources.items():
    if before.get(name) == found[name]:
      continue
    if 'contents' not in before.get(name, {}):
      print(f'{name}={source.name}: an earlier version of colorjax recorded '
            'the photographs: they are not checked for changes')
      continue
    start = (f'{name}={source.name}: the photographs have changed since the '
             f'run in {workdir} was started')
    if before[name]['contents'] != found[name]['contents']:
      raise UserError(f'{start} ({_changes(before[name], found[name])}): '
                      'restore them, or choose another work directory')
    print(f'{start}, but only in their modification times: they are taken for '
          'copies of the same photographs')


def check_agreed(sources: Mapping[str, Source]) -> None:
  """Checks that all processes have the same photographs.

  It compares the number and names of the photographs, not their modification
  times, because each machine may have its own copy. For a prepared data set it
  compares the number of photographs and the name of the first one.

  Args:
    sources: photographs by the name of the option that selects them.

  Raises:
    UserError: the photographs differ between processes; raised in all
      processes.
  """
  if hosts.count() == 1:
    return
  found = {}
  for name, source in sources.items():
    digest = hashlib.sha256()
    for i in range(1 if source.prefers_tf_data else source.size):
      digest.update(source.label(i).encode('utf-8', 'surrogateescape') + b'\n')
    found[name] = f'{source.size} photographs ({digest.hexdigest()[:8]})'
  hosts.check_agreed(
      found, 'give all processes the same photographs with the same names')


def _describe(source: Source) -> dict[str, Any]:
  # The name of a photograph of a prepared data set cannot be had quickly.
  is_listed = not source.prefers_tf_data and source.size <= _MAX_LISTED
  contents, modified = hashlib.sha256(), hashlib.sha256()
  photographs = []
  for i in range(source.size):
    stamp = source.stamp(i)
    contents.update(_encoded(stamp.content))
    modified.update(_encoded(stamp.modified))
    if is_listed:
      photographs.append([source.label(i), hashlib.sha256(
          _encoded(stamp.content)).hexdigest()[:16]])
  listed = {'photographs': photographs} if is_listed else {}
  return {'count': source.size, 'contents': contents.hexdigest(),
          'modified': modified.hexdigest(), **listed}


def _encoded(text: str) -> bytes:
  return text.encode('utf-8', 'surrogateescape') + b'\n'


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """Describes the difference in words."""
  if 'photographs' not in before or 'photographs' not in now:
    if before['count'] == now['count']:
      return 'other names or sizes of files'
    return f'there were {before["count"]}, there are {now["count"]}'
  old, new = dict(before['photographs']), dict(now['photographs'])
  kinds = {
      'new': [name for name in new if name not in old],
      'gone': [name for name in old if name not in new],
      'changed': [name for name in new
                  if name in old and old[name] != new[name]]}
  return '; '.join(f'{kind}: {_named(names)}'
                   for kind, names in kinds.items() if names)


def _named(names: Sequence[str]) -> str:
  more = len(names) - _MAX_NAMED
  return ', '.join(names[:_MAX_NAMED]) + (f' and {more} more' if more > 0
                                          else '')
