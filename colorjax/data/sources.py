"""Opens sources of photographs by a text, the value of a `--data` flag."""

import os
import re

from colorjax.data.folders import bundled, folder
from colorjax.data.source import (
    Source,
    SourceError,
    concatenate,
    from_arrays,
    in_memory,
)

__all__ = ['SPECS', 'Source', 'SourceError', 'bundled', 'concatenate',
           'folder', 'from_arrays', 'in_memory', 'parse']

SPECS = ('bundled', 'folder:PATH', 'tfds:NAME[/CONFIG][:SPLIT]',
         'prepared:PATH[:SPLIT]')
"""The texts that `parse` accepts, alone or several with commas in between."""

# A comma inside a path does not separate two sources.
_SEPARATOR = re.compile(r',(?=(?:\d+\*)?(?:bundled\b|folder:|tfds:|prepared:))')
_REPEATED = re.compile(r'(?:(?P<times>\d+)\*)?(?P<source>.*)', re.DOTALL)


def parse(spec: str, *, train: bool,
          data_dir: str | os.PathLike | None = None) -> Source:
  """Opens the photographs that a text describes.

    bundled                      scikit-image's color photographs
    folder:PATH                  a folder of photographs, with its subfolders
    tfds:NAME[/CONFIG][:SPLIT]   a TFDS data set that is prepared in data_dir
    prepared:PATH[:SPLIT]        the folder of a prepared TFDS data set

  Several of them, separated by commas, are joined. `8*folder:PATH` repeats a
  source eight times in each epoch, which balances a small one with a large one.

  Args:
    spec: one or several of these. SPLIT is a TFDS split, for example
      `train[:90%]`. The default is `train` for training and, for evaluation,
      `validation`, or `test` if there is no validation split.
    train: whether the photographs are for training. `bundled` has different
      photographs for training and evaluation.
    data_dir: folder of the TFDS data sets; by default that of TFDS
      (TFDS_DATA_DIR or ~/tensorflow_datasets).

  Returns:
    The source.

  Raises:
    SourceError: the text is not one of these, a number of repeats is 0, or the
      photographs are not available.
  """
  parts = [_REPEATED.fullmatch(part) for part in _SEPARATOR.split(spec)]
  repeats = [int(part['times'] or 1) for part in parts if part]
  if 0 in repeats:
    raise SourceError(f'data {spec!r}: repeat a source at least once')
  found = [_parse_one(part['source'], train=train, data_dir=data_dir)
           for part in parts if part]
  return found[0] if len(found) == 1 and repeats == [1] else concatenate(
      found, repeats=repeats)


def _parse_one(spec: str, *, train: bool,
               data_dir: str | os.PathLike | None) -> Source:
  """Opens a single source, see `parse`."""
  kind, _, rest = spec.partition(':')
  if spec == 'bundled':
    return bundled(train=train)
  if kind == 'folder' and rest:
    return folder(rest)
  if kind in ('tfds', 'prepared') and rest:
    # Imported only when needed, since importing TFDS takes a second.
    from colorjax.data import tfds_source
    if kind == 'tfds':
      return tfds_source.from_name(rest, train=train, data_dir=data_dir)
    return tfds_source.from_folder(rest, train=train)
  raise SourceError(f'data {spec!r} is unknown; use one of {", ".join(SPECS)}')
