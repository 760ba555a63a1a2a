"""Where photographs come from, as one text: the value of a `--data` flag."""

from colorjax.data.files import bundled, folder
from colorjax.data.source import Source, SourceError, from_arrays, in_memory

__all__ = ['SPECS', 'Source', 'SourceError', 'bundled', 'folder',
           'from_arrays', 'in_memory', 'parse']

SPECS = ('bundled', 'folder:PATH')
"""What `parse` understands."""


def parse(spec: str, *, train: bool) -> Source:
  """Opens the photographs that a text speaks of.

    bundled      scikit-image's colour photographs
    folder:PATH  a folder of photographs, any nesting

  Args:
    spec: one of these.
    train: whether the photographs are for training. `bundled` has different
      photographs for training and evaluation.

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
  raise SourceError(f'data {spec!r} is not one of {", ".join(SPECS)}')
