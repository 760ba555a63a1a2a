"""Flags that every training experiment shares, and how a script is run.

Nothing here imports JAX at import time: `--help` must answer at once, and the
XLA flags have to be in the environment before JAX is first imported.
"""

import ast
import contextlib
import dataclasses
import errno
import importlib.metadata
import io
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from absl import app, flags, logging

from colorjax.errors import UserError

if TYPE_CHECKING:
  from colorjax.runs.options import TrainOptions
  from colorjax.runs.photographs import PhotoOptions

Record = TypeVar('Record')

YNN_FLAG = '--xla_cpu_experimental_ynn_fusion_type'

DATA_FORM = ('bundled | folder:PATH | tfds:NAME[/CONFIG][:SPLIT] | '
             'prepared:PATH[:SPLIT].')
"""What a flag that names photographs takes, for its help."""

EXIT_USAGE = 2
"""Exit code for what the user can mend: flags, files, directories."""


EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


_HOST_FLAGS = ('coordinator_address', 'num_processes', 'process_id')

# More than one task: this process is one of several.
_NUM_TASKS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_BYTE_ORDER_MARK = '\ufeff'

# ~ at the beginning of a path, of a part of a list, or after what names it.
_HOME = re.compile(r'(?:^|(?<=,))((?:folder|prepared):|\w+=)?(~[^/,]*)')


_TUNE_XLA = flags.DEFINE_bool(
    'tune_xla', True, f'Set {YNN_FLAG}= to nothing where this jaxlib knows it: '
    'faster convolutions on CPUs. Named in XLA_FLAGS, it is left alone.')


def define_training_flags() -> None:
  """Defines the flags of a training run; called once by each experiment."""
  define_measuring_flags()
  _define_optimization_flags()
  _define_run_flags()


def define_host_flags() -> None:
  """Which of several processes this is; srun and Open MPI say it themselves.

  They are no settings of a run: it may go on with other values.
  """
  flags.DEFINE_string(
      'coordinator_address', None, 'HOST:PORT of process 0, where the '
      'processes of a run meet.')
  flags.DEFINE_integer('num_processes', None, 'Processes of the run.',
                       lower_bound=1)
  flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.',
                       lower_bound=0)


def define_measuring_flags() -> None:
  """Those of a run that measures a method and does not train it."""
  define_host_flags()
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


def define_rebalancing_flags() -> None:
  """How rare colors are given more weight."""
  flags.DEFINE_string(
      'prior', None, 'File that experiments.measure_prior wrote: the color '
      'bins, and how often each occurs in the training data. If not given, '
      '--rebalance measures it and keeps it in the work directory.')
  flags.DEFINE_float(
      'rebalance', None, 'Give rare colors more weight: lambda of Zhang et '
      'al. 2016, 0.5 as published; 0 weighs by the inverse prior, 1 weighs all '
      'alike. No weights if not given.', 0, 1)


def photo_options() -> 'PhotoOptions':
  """How the flags of `define_photo_flags` have photographs read."""
  # This imports JAX, which --help does not wait for.
  from colorjax.runs.photographs import PhotoOptions

  return _from_flags(PhotoOptions)


def train_options() -> 'TrainOptions':
  """What the flags tell a training run; defaults where there is no flag."""
  from colorjax.runs.options import Optimizing, TrainOptions

  return _from_flags(TrainOptions, photos=photo_options(),
                     optimizing=_from_flags(Optimizing))


def _from_flags(kind: type[Record], **values: Any) -> Record:
  """A dataclass whose fields are flags of the same name, as far as there are.

  Args:
    kind: the dataclass.
    **values: fields that are no flags.
  """
  assert dataclasses.is_dataclass(kind)
  found: dict[str, Any] = {
      field.name: flags.FLAGS[field.name].value
      for field in dataclasses.fields(kind)
      if field.name in flags.FLAGS and field.name not in values}
  return kind(**found, **values)


def train(
    method: str, settings: Mapping[str, Any], *,
    player_optimizing: Mapping[str, Mapping[str, Any]] | None = None,
    **more: Any) -> int:
  """Trains a method as the flags say, then measures and reports it.

  Args:
    method: see `colorjax.runs.train.train`.
    settings: see there.
    player_optimizing: what differs from the flags in the optimizers of single
      players, fields of `options.Optimizing`.
    **more: further arguments of it.

  Returns:
    The exit code: 0 for a finished run (one that was finished before too),
    128 + signal for an interrupted one.
  """
  from colorjax.runs import train as runs

  options = train_options()
  players = {
      name: dataclasses.replace(options.optimizing, **own)
      for name, own in (player_optimizing or {}).items()}
  return runs.train(
      method, settings,
      dataclasses.replace(options, player_optimizing=players), **_told(),
      **more).exit_code


def settle(method: str, settings: Mapping[str, Any], **more: Any) -> int:
  """Measures and reports a method that needs no training; see `train`.

  Args:
    method: see `colorjax.runs.train.settle`.
    settings: see there.
    **more: further arguments of it.
  """
  from colorjax.runs import train as runs

  return runs.settle(method, settings, train_options(), **_told(),
                     **more).exit_code


def rebalancing(
    method: str, settings: Mapping[str, Any], *, block_size: int,
    num_neighbors: int | None = None, sigma: float | None = None,
) -> dict[str, Any]:
  """The settings `bins`, `prior` and `rebalance` that the flags stand for.

  With --rebalance and without --prior the colors of the training photographs
  are measured, once, and kept in the work directory.

  Args:
    method: the method that takes them.
    settings: its other settings.
    block_size: side of the blocks of pixels that the method takes for one.
    num_neighbors: bins that its targets are spread over, if they are.
    sigma: width of that spread, if there is one.

  Returns:
    The three settings, None where not given.

  Raises:
    UserError: the file holds no prior, or one that does not fit the method.
  """
  rebalance = flags.FLAGS.rebalance
  given = flags.FLAGS.prior
  if given is None and rebalance is None:
    return {'bins': None, 'prior': None, 'rebalance': None}
  from colorjax import quantize
  from colorjax.runs import prior as priors
  from colorjax.runs import train as runs
  from colorjax.runs.workdir import claim_workdir

  options = train_options()
  spread = {'num_neighbors': num_neighbors, 'sigma': sigma}
  how = {'image_size': options.image_size, 'block_size': block_size}
  if given is not None:
    found = priors.read(pathlib.Path(given))
    wrong = priors.differences(found, **spread)
    if wrong:
      raise UserError(f'prior={given}: was measured with {", ".join(wrong)}')
    for difference in priors.differences(found, data=options.data, **how):
      print(f'note: --prior={given} was measured with --{difference}')
    return {**found.settings(), 'rebalance': rebalance}
  # Wrong settings are found now, and not after the photographs were read.
  count = len(quantize.published_bins())
  runs.check(method, {**settings, 'prior': [1 / count] * count,
                      'rebalance': rebalance}, options)
  workdir = pathlib.Path(flags.FLAGS.workdir)
  told = _told()
  with claim_workdir(workdir, told['told'], harmless=told['harmless']):
    found = priors.kept(
        workdir / priors.FILE, options.data, options.photos,
        batch_size=options.batch_size, **how,
        **{name: x for name, x in spread.items() if x is not None})
  return {**found.settings(), 'rebalance': rebalance}


def define_asking_flags() -> None:
  """Defines what may be chosen when a trained method is asked."""
  flags.DEFINE_multi_string(
      'ask', [], 'NAME=VALUE: an option that the method lets be chosen when it '
      'is asked, such as temperature=0.2 or readout=mode of classification; '
      'repeat the flag for each.')


def asked() -> dict[str, Any]:
  """The options that --ask names; numbers and truth values are read as such."""
  options = {}
  for text in flags.FLAGS.ask:
    name, equals, value = text.partition('=')
    if not equals or not name.isidentifier():
      raise UserError(f'--ask={text}: NAME=VALUE is meant')
    try:
      options[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      options[name] = value
  return options


def _told() -> dict[str, Any]:
  """What the flags say to a run about itself."""
  from colorjax.runs.options import HARMLESS

  script = pathlib.Path(sys.argv[0]).stem
  return {
      'told': flags_text(),
      'harmless': HARMLESS | {'embedding_dir', 'class_names'},
      'command': f'python -m experiments.{script} --flagfile='
                 f'{pathlib.Path(flags.FLAGS.workdir) / "flags.txt"}'}


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
  lines = {flag.name: flag.serialize() for flag in _own_flags()
           if flag.name not in _HOST_FLAGS}
  return ''.join(f'{lines[name]}\n' for name in sorted(lines) if lines[name])


def _own_flags() -> list[flags.Flag]:
  """The flags that scripts of experiments/ define."""
  return [flag for module, defined
          in flags.FLAGS.flags_by_module_dict().items()
          # The script itself goes by its path.
          if module.startswith('experiments.') or module.endswith('.py')
          for flag in defined]


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
    # A name of a file may hold bytes that are no text.
    for stream in (sys.stdout, sys.stderr):
      if hasattr(stream, 'reconfigure'):
        stream.reconfigure(errors='backslashreplace')
    try:
      with _together():
        return main(argv)
    except UserError as error:
      return _refuse(_with_dashes(str(error)))
    except OSError as error:
      if error.errno not in _DISK_ERRORS:
        raise
      what = f'{error.filename}: ' if error.filename else ''
      return _refuse(f'{what}{error.strerror}; the same command goes on')
    except KeyboardInterrupt:
      # Training saves first and never gets here; the others keep what is done.
      print('interrupted; the same command goes on', file=sys.stderr)
      return EXIT_INTERRUPTED

  app.run(guarded, flags_parser=_parse)


def _together() -> contextlib.AbstractContextManager[None]:
  """Connects this process with the others of its run, if there are any."""
  if 'coordinator_address' not in flags.FLAGS:
    return contextlib.nullcontext()
  given: Any = {name: flags.FLAGS[name].value for name in _HOST_FLAGS}
  if all(value is None for value in given.values()) and all(
      os.environ.get(name, '1') == '1' for name in _NUM_TASKS):
    return contextlib.nullcontext()
  from colorjax import hosts

  where = hosts.meeting(**given)
  if where is None:
    return contextlib.nullcontext()
  return hosts.connected(where, judge=_judge)


def _judge(error: BaseException) -> tuple[str, int] | None:
  """The line and the exit code for an exception; None for a bug."""
  if isinstance(error, UserError):
    return f'error: {_with_dashes(str(error))}', EXIT_USAGE
  if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
    what = f'{error.filename}: ' if error.filename else ''
    return (f'error: {what}{error.strerror}; the same command goes on',
            EXIT_USAGE)
  if isinstance(error, KeyboardInterrupt):
    return 'interrupted; the same command goes on', EXIT_INTERRUPTED
  return None


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    words = flags.FLAGS([argv[0], *read_flagfiles(argv[1:])])
  except flags.Error as error:
    message = ' '.join(str(error).split())
    sys.exit(_refuse(f'{message} (--help lists the flags)'))
  except UserError as error:
    sys.exit(_refuse(str(error)))
  _expand_home()
  return words


def read_flagfiles(words: Sequence[str]) -> list[str]:
  """Words of a command line, those of --flagfile=FILE in its place.

  A byte order mark at the beginning of a file is passed over.

  Args:
    words: without the program's name.

  Raises:
    UserError: a file holds no UTF-8 text.
  """
  words = list(words)
  while True:
    try:
      words = flags.FLAGS.read_flags_from_files(words, force_gnu=False)
    except UnicodeDecodeError as error:
      raise UserError('a flagfile holds no UTF-8 text: '
                      f'{error.reason}') from error
    marked = [i for i, word in enumerate(words)
              if word.startswith(_BYTE_ORDER_MARK)]
    if not marked:
      return words
    for i in reversed(marked):
      word = words[i].lstrip(_BYTE_ORDER_MARK).strip()
      # The first line of a file may be a comment, a blank, or a flagfile.
      is_comment = not word or word.startswith(('#', '//'))
      words[i:i + 1] = [] if is_comment else [word]


def _expand_home() -> None:
  """Puts the home directory in the place of ~ in the flags of our scripts.

  A shell does so only at the beginning of a word, and not after --flag=.
  """
  for flag in _own_flags():
    if isinstance(flag.value, str):
      flag.value = expanded(flag.value)
    elif isinstance(flag.value, list):
      flag.value = [expanded(x) if isinstance(x, str) else x
                    for x in flag.value]


def expanded(text: str) -> str:
  """A path, folder:PATH, NAME=PATH or list of these, its ~ expanded."""
  return _HOME.sub(
      lambda found: (found[1] or '') + os.path.expanduser(found[2]), text)


def _with_dashes(message: str) -> str:
  """An error that speaks of arguments, NAME=VALUE, as one of flags."""
  return re.sub(
      r'(?<![\w./=-])([a-z][a-z0-9_]*)(?==| was | is not set)',
      lambda found: (f'--{found[1]}' if found[1] in flags.FLAGS
                     else found[1]), message)


def _refuse(message: str) -> int:
  """Prints one line for a person and returns the exit code for it."""
  print(f'error: {" ".join(message.splitlines())}', file=sys.stderr)
  return EXIT_USAGE
