"""Which photographs a run was begun with, so that it goes on over the same.

A batch is a function of (seed, step) only as long as the photographs stay what
they are: names, sizes and times of their files are kept in the work directory.
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

_MOST_KEPT = 20_000  # of these the record can say which one changed
_MOST_NAMED = 3


def check(workdir: pathlib.Path, sources: Mapping[str, Source], *,
          is_begun: bool) -> None:
  """Notes the photographs of a run, or finds them as they were noted.

  Args:
    workdir: of the run.
    sources: photographs by the name of the option that names them.
    is_begun: whether the run has made steps already. If not, the photographs
      are noted anew.

  Raises:
    UserError: photographs were added, removed or replaced; one line.
  """
  path = workdir / FILE
  found = {name: _describe(source) for name, source in sources.items()}
  if not is_begun or not path.exists():
    files.write_json(path, found)
    return
  before = files.read_json(path)
  for name, source in sources.items():
    if name in before and before[name]['digest'] != found[name]['digest']:
      raise UserError(
          f'{name}={source.name}: not the photographs that the run in '
          f'{workdir} was begun with ({_changes(before[name], found[name])}): '
          'bring them back, or choose another work directory')


def check_agreed(sources: Mapping[str, Source]) -> None:
  """Refuses processes that do not have the same photographs.

  Only names are compared: copies on the disks of several machines have times
  of their own.

  Args:
    sources: by what they are for.

  Raises:
    UserError: on all processes.
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
      found, 'give all processes the same photographs, under the same names')


def _describe(source: Source) -> dict[str, Any]:
  # A prepared data set is written as a whole: the first stamp speaks for all.
  count = 1 if source.prefers_tf_data else source.size
  stamps = [source.stamp(i) for i in range(count)]
  digest = hashlib.sha256(f'{source.size}\n'.encode())
  for stamp in stamps:
    digest.update(stamp.encode('utf-8', 'surrogateescape') + b'\n')
  description: dict[str, Any] = {
      'count': source.size, 'digest': digest.hexdigest()}
  if count == source.size <= _MOST_KEPT:
    description['photographs'] = [
        [source.label(i), hashlib.sha256(stamp.encode(
            'utf-8', 'surrogateescape')).hexdigest()[:16]]
        for i, stamp in enumerate(stamps)]
  return description


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """What differs, in words."""
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
  more = len(names) - _MOST_NAMED
  return ', '.join(names[:_MOST_NAMED]) + (f' and {more} more' if more > 0
                                           else '')
