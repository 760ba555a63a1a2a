"""The photographs that a run was started with, to detect changes.

A batch is a function of (seed, step) only as long as the photographs do not
change. The work directory therefore keeps the names, sizes and modification
times of their files.
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

  Args:
    workdir: work directory of the run.
    sources: photographs by the name of the option that selects them.
    has_checkpoint: whether the run has a checkpoint. If not, the photographs
      are recorded again.

  Raises:
    UserError: photographs were added, removed or replaced.
  """
  path = workdir / FILE
  found = {name: _describe(source) for name, source in sources.items()}
  if not has_checkpoint or not path.exists():
    files.write_json(path, found)
    return
  before = files.read_json(path)
  for name, source in sources.items():
    if name in before and before[name]['digest'] != found[name]['digest']:
      raise UserError(
          f'{name}={source.name}: the photographs have changed since the run '
          f'in {workdir} was started ({_changes(before[name], found[name])}): '
          'restore them, or choose another work directory')


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
  # A prepared data set is written as a whole, so the first stamp is enough.
  count = 1 if source.prefers_tf_data else source.size
  stamps = [source.stamp(i) for i in range(count)]
  digest = hashlib.sha256(f'{source.size}\n'.encode())
  for stamp in stamps:
    digest.update(stamp.encode('utf-8', 'surrogateescape') + b'\n')
  description: dict[str, Any] = {
      'count': source.size, 'digest': digest.hexdigest()}
  if count == source.size <= _MAX_LISTED:
    description['photographs'] = [
        [source.label(i), hashlib.sha256(stamp.encode(
            'utf-8', 'surrogateescape')).hexdigest()[:16]]
        for i, stamp in enumerate(stamps)]
  return description


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """Describes the difference in words."""
  if 'photographs' not in before or 'photographs' not in now:
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
