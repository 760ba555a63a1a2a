"""Flags that every training experiment shares, and how a script is run.

Nothing here imports JAX at import time: `--help` must answer at once, and the
XLA flags have to be in the environment before JAX is first imported.
"""

import importlib.metadata
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

from colorjax.errors import UserError

if TYPE_CHECKING:
  from colorjax.runs.photographs import PhotoOptions

YNN_FLAG = '--xla_cpu_experimental_ynn_fusion_type'

DATA_FORM = ('bundled | folder:PATH | tfds:NAME[/CONFIG][:SPLIT] | '
             'prepared:PATH[:SPLIT].')
"""What a flag that names photographs takes, for its help."""

SESSIONS_FILE = 'sessions.jsonl'
"""In a work directory: a line for each time that training ran, and how long."""

EXIT_USAGE = 2
"""Exit code for what the user can mend: flags, files, directories."""


EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


_TUNE_XLA = flags.DEFINE_bool(
    'tune_xla', True, f'Set {YNN_FLAG}= to nothing where this jaxlib knows it: '
    'faster convolutions on CPUs. Named in XLA_FLAGS, it is left alone.')


def define_training_flags() -> None:
  """Defines the flags of a training run; called once by each experiment."""
  define_measuring_flags()
  _define_optimization_flags()
  _define_run_flags()


def define_measuring_flags() -> None:
  """Those of a run that measures a method and does not train it."""
  flags.DEFINE_string(
      'workdir', None, 'Directory of the run: checkpoints, metrics.jsonl, '
      'flags.txt and report/. A killed run started again with the same flags '
      'goes on where it was.', required=True)
  _define_data_flags()
  define_photo_flags()
  _define_report_flags()


def define_photo_flags() -> None:
  """How photographs are read; for every script that reads some."""
  flags.DEFINE_string('data_dir', None,
                      'Where TFDS keeps prepared data sets; its own default '
                      'if not given.')
  flags.DEFINE_enum('fit', 'crop', ['crop', 'squash'], 'How a held-out '
                    'photograph becomes a square: its center, or squeezed.')
  flags.DEFINE_enum('on_bad_image', 'skip', ['skip', 'fail'],
                    'What to do with a file that cannot be read. Skipped ones '
                    'are counted and listed at the end.')
  flags.DEFINE_float('min_chroma', 0.0, 'Leave out photographs that are grey '
                     'by nature: those whose ab chroma stays under this, in '
                     'Lab units; 2 is sensible, 0 keeps all.', lower_bound=0)
  flags.DEFINE_enum('engine', 'auto', ['auto', 'threads', 'tf.data'],
                    'What runs the input pipeline. Batches are the same to '
                    'the last bit; auto takes tf.data for TFDS data sets if '
                    'TensorFlow is installed.')
  flags.DEFINE_integer('num_threads', None, 'Threads that read photographs; '
                       'one for each processor if not given.', lower_bound=1)


def _define_data_flags() -> None:
  """Where photographs come from, how they are cut and put into batches."""
  flags.DEFINE_string('data', 'bundled',
                      f'Training photographs: {DATA_FORM}')
  flags.DEFINE_string('eval_data', 'bundled', 'Held-out photographs for the '
                      f'validation loss: {DATA_FORM}')
  flags.DEFINE_string('test_data', None, 'Held-out photographs for the final '
                      'figures; those of --eval_data if not given: '
                      f'{DATA_FORM}')
  flags.DEFINE_integer('image_size', 64, 'Side of the square that the network '
                       'sees, in pixels.', lower_bound=8)
  flags.DEFINE_float('crop_scale', 0.5, 'Smallest share of the area that a '
                     'random training crop takes.', 0.01, 1.0)
  flags.DEFINE_integer('batch_size', 32, 'Photographs a step, over all '
                       'devices.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Of initialization, data order, crops and '
                       'dropout.')


def _define_optimization_flags() -> None:
  """Length, optimizer, schedule and compute type."""
  flags.DEFINE_integer('accumulate', 1, 'Parts into which each batch is cut, '
                       'gradients averaged, to save memory.', lower_bound=1)
  flags.DEFINE_integer('num_steps', 1000, 'Updates in all.', lower_bound=1)
  flags.DEFINE_enum('optimizer', 'adamw', ['adamw', 'adam', 'sgd'],
                    'Update rule.')
  flags.DEFINE_float('learning_rate', 1e-3, 'Peak learning rate.',
                     lower_bound=0)
  flags.DEFINE_enum('schedule', 'cosine', ['cosine', 'constant', 'halving'],
                    'Learning rate over time.')
  flags.DEFINE_integer('warmup_steps', 100, 'Steps of linear warm-up.',
                       lower_bound=0)
  flags.DEFINE_integer('halve_every', 1000, 'Steps between halvings, with '
                       '--schedule=halving.', lower_bound=1)
  flags.DEFINE_float('weight_decay', 0.01, 'Decoupled weight decay of AdamW.',
                     lower_bound=0)
  flags.DEFINE_float('momentum', 0.9, 'Of SGD.', 0, 1)
  flags.DEFINE_float('adam_b1', 0.9, 'Decay of the first moment of AdamW and '
                     'Adam.', 0, 1)
  flags.DEFINE_float('clip_norm', 1.0, 'Largest global norm of the gradient; '
                     '0 does not clip.', lower_bound=0)
  flags.DEFINE_float('ema_decay', 0.995, 'Decay of the moving average of '
                     'parameters that is evaluated; 0 keeps none.', 0, 1)
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'],
                    'Compute type of the network; parameters and losses stay '
                    'float32.')


def _define_run_flags() -> None:
  """Checkpoints, evaluation, early stopping."""
  flags.DEFINE_integer('checkpoint_every', 200, 'Steps between checkpoints.',
                       lower_bound=1)
  flags.DEFINE_integer('keep_checkpoints', 2, 'Last checkpoints kept, beside '
                       'the best.', lower_bound=1)
  flags.DEFINE_integer('eval_every', 200, 'Steps between evaluations on '
                       '--eval_data.', lower_bound=1)
  flags.DEFINE_integer('log_every', 20, 'Steps between lines of metrics.',
                       lower_bound=1)
  flags.DEFINE_integer('patience', 0, 'Stop after this many evaluations '
                       'without a better loss; 0 never stops early.',
                       lower_bound=0)


def _define_report_flags() -> None:
  """What a report shows."""
  flags.DEFINE_bool('report', True, 'Measure the run and write report/ at its '
                    'end; the same command with --report does so later.')
  flags.DEFINE_integer('num_proposals', 8, 'Colorings shown and measured for '
                       'each photograph; fewer if the method has no more.',
                       lower_bound=1)
  flags.DEFINE_integer('report_photos', 12, 'Held-out photographs in the '
                       "report's pictures.", lower_bound=1)


def photo_options() -> 'PhotoOptions':
  """How the flags of `define_photo_flags` have photographs read."""
  # This imports JAX, which --help does not wait for.
  from colorjax.runs.photographs import PhotoOptions

  names = ('data_dir', 'fit', 'on_bad_image', 'min_chroma', 'engine',
           'num_threads')
  values: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
  return PhotoOptions(**values)


def define_backbone_flags() -> None:
  """Defines where the weights of a pretrained network come from."""
  flags.DEFINE_string(
      'backbone_weights', None, 'Weights of the pretrained network inside: a '
      'FILE of Keras (.h5, .weights.h5) or of PyTorch (.safetensors, .pth), '
      'or random to begin without. Where there are several networks '
      '(--loss=mse+0.1*perceptual brings one of its own), NAME=FILE,NAME=FILE. '
      'For a network without a file the public Keras file is downloaded once.')


LOSS_HELP = (
    'What is minimized: mse, l1, huber, smooth (Charbonnier), edges, ssim, '
    'colorfulness, perceptual, one that you have added, or a sum of them with '
    'weights and settings, as in huber(delta=0.01)+0.1*perceptual. In network '
    'ab, Lab units / 110.')
"""Help of --loss, where it names regression losses."""


def flags_text() -> str:
  """All flags of our scripts, one a line, as --flagfile reads them."""
  lines = {
      flag.name: flag.serialize()
      for module, defined in flags.FLAGS.flags_by_module_dict().items()
      # The script itself goes by its path.
      if module.startswith('experiments.') or module.endswith('.py')
      for flag in defined}
  return ''.join(f'{lines[name]}\n' for name in sorted(lines) if lines[name])


def prepare_xla() -> None:
  """Turns off XLA's YNNPACK fusions, which slow convolutions on CPUs.

  The flag is known to jaxlib 0.10 to 0.12, and an unknown flag would end the
  process, so other versions are left alone. Whoever sets the flag in XLA_FLAGS
  keeps that setting. `python -m experiments.benchmarks.training` measures what
  it is worth.
  """
  version = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
  given = os.environ.get('XLA_FLAGS', '')
  if (0, 10) <= version <= (0, 12) and YNN_FLAG not in given:
    os.environ['XLA_FLAGS'] = f'{given} {YNN_FLAG}='.strip()


def run(main: Callable[[Sequence[str]], int | None]) -> None:
  """Runs a script: flags parsed, XLA prepared, user errors on one line.

  Args:
    main: the script; its return value is the exit code. A `UserError` is
      printed without a traceback and exits with 2; wrong flags do too.
  """
  def guarded(argv):
    # Paths that are not UTF-8 can be printed, too.
    if isinstance(sys.stdout, io.TextIOWrapper):
      sys.stdout.reconfigure(errors='backslashreplace')
    if len(argv) > 1:
      return _refuse(f'unexpected argument {argv[1]!r}; every setting is a '
                     '--flag=value')
    if _TUNE_XLA.value:
      prepare_xla()
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    try:
      return main(argv)
    except UserError as error:
      return _refuse(str(error))
    except KeyboardInterrupt:
      # Training saves first and never gets here; the others keep what is done.
      print('interrupted; the same command goes on', file=sys.stderr)
      return EXIT_INTERRUPTED

  app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    message = ' '.join(str(error).split())
    sys.exit(_refuse(f'{message} (--help lists the flags)'))


def _refuse(message: str) -> int:
  """Prints one line for a person and returns the exit code for it."""
  print(f'error: {message}', file=sys.stderr)
  return EXIT_USAGE
