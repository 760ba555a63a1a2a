"""Colors photographs with a trained method.

    python -m experiments.colorize --checkpoint=runs/quickstart \\
        --input=photo.jpg --output=colored --proposals=8

A photograph becomes OUTPUT/<stem>.png in its own resolution, with its own
lightness, alpha and EXIF. With --proposals=K it becomes OUTPUT/<stem>.0.png and
so on, most probable first, and OUTPUT/<stem>.sheet.png shows them all.

Folders are searched whole and mirrored under OUTPUT. Photographs of one folder
that share a stem (a.jpg and a.png) keep their whole name: a.jpg.png, a.png.png.
A file that is there already is kept, so that a run that was stopped goes on;
with --overwrite it is made again. No photograph of the input is ever replaced.

Exit code: 0 if every photograph was colored, 1 if some were refused (each with
a line on stderr; the others are colored), 2 for wrong usage. Image files of
other formats (.heic, .dng, ...) and folders that cannot be entered count as
refused.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import common

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Work directory of a training run.', required=True)
_INPUT = flags.DEFINE_string(
    'input', None, 'A photograph, or a folder of photographs.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the colorings; made if it is not there.',
    required=True)
_PROPOSALS = flags.DEFINE_integer(
    'proposals', 0, 'Write this many different colorings of each photograph, '
    'and a sheet of them; 0 writes the best single one.', lower_bound=0)
_FORMAT = flags.DEFINE_enum(
    'format', 'png', ['png', 'jpg', 'tiff', 'webp', 'same'], 'File format of '
    'the colorings. png and tiff keep 16 bits; all but jpg keep the lightness '
    'to the last bit. same: the format of the photograph, png for gif.')
_MASK = flags.DEFINE_string(
    'mask', None, 'Color only inside a mask: an image, or a folder with one '
    'image for each photograph, of the same name. White is inside; the rest '
    'stays grey.')
_HINTS = flags.DEFINE_string(
    'hints', None, 'Colors that you give: a copy of the photograph with '
    'strokes on it, or a transparent layer of its size; or a folder with one '
    'for each photograph, of the same name.')
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'A color photograph whose colors are wanted, for a '
    'method that takes one: welsh and reinhard of experiments.baselines.')
_OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Color photographs again whose colorings are there.')

common.define_asking_flags()


def main(argv: Sequence[str]) -> int:
  """Colors what the flags name; the exit code is described above."""
  del argv
  # Imported here: --help does not wait for it.
  from colorjax.runs import colorize

  output = _path(_OUTPUT.value)
  done = colorize.colorize_all(
      _path(_CHECKPOINT.value), _path(_INPUT.value), output,
      num_proposals=_PROPOSALS.value, file_format=_FORMAT.value,
      overwrite=_OVERWRITE.value,
      mask=_path(_MASK.value) if _MASK.value else None,
      hints=_path(_HINTS.value) if _HINTS.value else None,
      reference=_path(_REFERENCE.value) if _REFERENCE.value else None,
      options=common.asked())
  print(f'{done.colored} colored into {output}'
        + (f', {done.kept} there already (--overwrite colors them again)'
           if done.kept else '')
        + (f', {done.refused} refused' if done.refused else ''))
  return 1 if done.refused else 0


def _path(value: str) -> pathlib.Path:
  """A path of a flag, `~` replaced by the home folder."""
  return pathlib.Path(os.path.expanduser(value))


if __name__ == '__main__':
  common.run(main)
