"""Colors photographs with a trained method.

    python -m experiments.colorize --input=photo.jpg --output=colored
    python -m experiments.colorize --input=photo.jpg --output=colored \\
        --checkpoint=runs/quickstart --proposals=8

--model chooses a model that comes with colorjax, --checkpoint one of yours.

The coloring of a photograph is written to OUTPUT/<stem>.png, with the
resolution, lightness, alpha and EXIF data of the photograph. With
--proposals=K, the files are OUTPUT/<stem>.0.png and so on, most probable first,
and OUTPUT/<stem>.sheet.png shows them all.

Folders are searched recursively and mirrored under OUTPUT. Photographs of one
folder with the same stem (a.jpg and a.png) keep their full name: a.jpg.png,
a.png.png. Existing colorings are kept, so that an interrupted command can be
resumed; --overwrite makes them again. No photograph of the input is ever
replaced.

Exit code: 0 if every photograph was colored; 1 if some were refused, each with
a line on stderr (in a large folder, again at the end), and the others were
colored; 2 for wrong usage. Image files of unsupported formats (.heic, .dng,
...) and folders that cannot be entered count as refused.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from colorjax import zoo
from experiments import model_flags, replica_flags, script

model_flags.define_checkpoint_flags()
model_flags.define_ask_flag()
replica_flags.define_replica_flag()
flags.adopt_module_key_flags(replica_flags)
flags.adopt_module_key_flags(model_flags)

_INPUT = flags.DEFINE_string(
    'input', None, 'A photograph, or a folder of photographs.', required=True)
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the colorings; made if it does not exist.',
    required=True)
_PROPOSALS = flags.DEFINE_integer(
    'proposals', 0, 'Number of different colorings to write for each '
    'photograph, with a sheet of them; 0 writes the best single coloring.',
    lower_bound=0)
_FORMAT = flags.DEFINE_enum(
    'format', 'png', ['png', 'jpg', 'tiff', 'webp', 'same'], 'File format of '
    'the colorings. png and tiff keep 16 bits; all but jpg keep the lightness '
    'exactly. same: the format of the photograph, but png for gif.')
_MASK = flags.DEFINE_string(
    'mask', None, 'Color only where the mask is white; the rest stays grey. '
    'The mask is an image, or a folder with an image of the same name for each '
    'photograph.')
_HINTS = flags.DEFINE_string(
    'hints', None, 'Color hints: a copy of the photograph with colored strokes '
    'on it, or a transparent layer of the same size with strokes; or a folder '
    'with one of the same name for each photograph; or a .json file with '
    'points and strokes, see experiments/README.md.')
_SATURATION = flags.DEFINE_float(
    'saturation', None, 'Factor of the chroma: 0 is grey, and above 1 the '
    'colors are stronger; if not given, that of the model.', lower_bound=0)
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'A color photograph whose palette the colorings get.')
_SEED = flags.DEFINE_integer(
    'seed', None, 'Draw random colorings with this seed in place of the most '
    'probable ones.', lower_bound=0)
_OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Color photographs again whose colorings exist.')

_SCREEN = 20
"""With more photographs than this, the lines about the refused ones may have
left the screen at the end, so they are printed again."""


def main(argv: Sequence[str]) -> int:
  """Colors photographs; the exit code is described above."""
  del argv
  # Imported late, so that --help and wrong flags do not wait for it.
  from colorjax.runs import colorize

  options = model_flags.ask_options()
  if _SATURATION.value is not None:
    options['saturation'] = _SATURATION.value
  output = _path(_OUTPUT.value)
  done = colorize.colorize_all(
      _path(model_flags.checkpoint() or zoo.path(zoo.MODELS[0])),
      _path(_INPUT.value), output,
      num_proposals=_PROPOSALS.value, file_format=_FORMAT.value,
      overwrite=_OVERWRITE.value,
      mask=_path(_MASK.value) if _MASK.value else None,
      hints=_path(_HINTS.value) if _HINTS.value else None,
      reference=_path(_REFERENCE.value) if _REFERENCE.value else None,
      seed=_SEED.value, options=options, replica=flags.FLAGS.replica)
  if done.colored + done.kept + done.refused > _SCREEN:
    for line in done.reasons:
      print(f'refused: {line}', file=sys.stderr)
  print(f'{done.colored} colored into {output}'
        + (f', {done.kept} existed already (--overwrite colors them again)'
           if done.kept else '')
        + (f', {done.refused} refused' if done.refused else ''))
  return 1 if done.refused else 0


def _path(value: str | os.PathLike) -> pathlib.Path:
  """The value of a flag as a path, with `~` replaced by the home directory."""
  return pathlib.Path(os.path.expanduser(value))


if __name__ == '__main__':
  script.run(main)
