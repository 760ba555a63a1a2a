"""Where photographs come from, as one text: the value of a `--data` flag."""

import os

from colorjax.data.folders import bundled, folder
from colorjax.data.source import Source, SourceError, from_arrays, in_memory

__all__ = ['SPECS', 'Source', 'SourceError', 'bundled', 'folder',
           'from_arrays', 'in_memory', 'parse']

SPECS = ('bundled', 'folder:PATH', 'tfds:NAME[/CONFIG][:SPLIT]',
         'prepared:PATH[:SPLIT]')
"""What `parse` understands."""


def parse(spec: str, *, train: bool,
          data_dir: str | os.PathLike | None = None) -> Source:
  """Opens the photographs that a text speaks of.

    bundled                      scikit-image's color photographs
    folder:PATH                  a folder of photographs, any nesting
    tfds:NAME[/CONFIG][:SPLIT]   a TFDS data set that is prepared in data_dir
    prepared:PATH[:SPLIT]        the folder of a prepared TFDS data set

  Args:
    spec: one of these. Splits are those of TFDS, `train[:90%]` included. With
      none given it is `train` for training; for evaluation `validation`, or
      `test` where there is no validation.
    train: whether the photographs are for training. `bundled` has different
      photographs for training and evaluation.
    data_dir: where TFDS data sets are; by default TFDS's own choice
      (TFDS_DATA_DIR or ~/tensorflow_datasets).

  Returns:
    The source.

  Raises:
    SourceError: there is no such thing, or not there; one line.
  """
  kind, _, rest = spec.partition(':')
  if spec == 'bundled':
    return bundled(train=train)
  if kind == 'folder' and rest:
    return folder(rest)
  if kind in ('tfds', 'prepared') and rest:
    # TFDS takes a second to import.
    from colorjax.data import tfds_source
    if kind == 'tfds':
      return tfds_source.from_name(rest, train=train, data_dir=data_dir)
    return tfds_source.from_folder(rest, train=train)
  raise SourceError(f'data {spec!r} is not one of {", ".join(SPECS)}')
