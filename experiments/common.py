"""Flags that several scripts share, and the runs that they describe.

Nothing here imports JAX at import time, because `--help` must print at once.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from absl import flags

from experiments import replica_flags, script

if TYPE_CHECKING:
  from colorjax.runs.options import TrainOptions
  from colorjax.runs.photographs import PhotoOptions

flags.adopt_module_key_flags(script)

Record = TypeVar('Record')

DATA_FORM = ('bundled | folder:PATH | tfds:NAME[/CONFIG][:SPLIT] | '
             'prepared:PATH[:SPLIT]; several are separated by commas, and '
             '8*SOURCE shows a source eight times in each epoch.')
"""Values of a flag that selects photographs, for its help."""

LOSS_HELP = (
    'Training loss: mse, l1, huber, smooth (Charbonnier), edges, ssim, '
    'colorfulness, perceptual, one that you have added, or a weighted sum of '
    'them with settings, such as huber(delta=0.01)+0.1*perceptual. The unit is '
    'network ab, Lab units / 110.')
"""Help of --loss for scripts with regression losses."""


def define_training_flags() -> None:
  """Defines the flags of a training run."""
  define_measuring_flags()
  flags.DEFINE_float(
      'film', 0.0, 'Share of the training photographs whose lightness is that '
      'of an imitated scan of an old print: another response to colors, '
      'contrast, blur, grain, fading, scratches, JPEG. 0: none.', 0, 1)
  _define_optimization_flags()
  _define_checkpoint_flags()
  replica_flags.define_training_flags()
  flags.adopt_module_key_flags(replica_flags)


def define_measuring_flags() -> None:
  """Defines the flags of a run that measures a method without training it."""
  script.define_host_flags()
  flags.adopt_module_key_flags(script)
  flags.DEFINE_string(
      'workdir', None, 'Work directory of the run: checkpoints, metrics.jsonl, '
      'flags.txt and report/. A run that was interrupted is resumed if it is '
      'started again with the same flags.', required=True)
  _define_data_flags()
  define_photo_flags()
  _define_report_flags()


def define_photo_flags() -> None:
  """Defines how photographs are read."""
  flags.DEFINE_string('data_dir', None,
                      'Folder of prepared TFDS data sets; if not given, the '
                      'default of TFDS.')
  flags.DEFINE_enum('fit', 'crop', ['crop', 'squash'], 'How a held-out '
                    'photograph becomes a square: crop takes its center, '
                    'squash changes its aspect ratio.')
  flags.DEFINE_enum('on_bad_image', 'skip', ['skip', 'fail'],
                    'What to do with a file that cannot be read. Skipped files '
                    'are counted and listed at the end.')
  flags.DEFINE_float('min_chroma', 0.0, 'Leave out photographs that are grey '
                     'or almost grey: those with a lower chroma than this, in '
                     'Lab units. 2 is a sensible value; 0 keeps all.',
                     lower_bound=0)
  flags.DEFINE_enum('engine', 'auto', ['auto', 'threads', 'tf.data'],
                    'What runs the input pipeline. Batches are the same to '
                    'the last bit; auto uses tf.data for TFDS data sets if '
                    'TensorFlow is installed, and threads otherwise.')
  flags.DEFINE_integer('num_threads', None, 'Number of threads that read '
                       'photographs; if not given, one per processor.',
                       lower_bound=1)


def _define_data_flags() -> None:
  """Defines which photographs are used, and how they are cut and batched."""
  flags.DEFINE_string('data', 'bundled',
                      f'Training photographs: {DATA_FORM}')
  flags.DEFINE_string('eval_data', 'bundled', 'Held-out photographs for the '
                      f'validation loss: {DATA_FORM}')
  flags.DEFINE_string('test_data', None, 'Held-out photographs for the final '
                      'metrics; if not given, those of --eval_data: '
                      f'{DATA_FORM}')
  flags.DEFINE_integer('image_size', 64, 'Side of the square that the network '
                       'sees, in pixels.', lower_bound=8)
  flags.DEFINE_float('crop_scale', 0.5, 'Smallest fraction of the area that a '
                     'random training crop covers.', 0.01, 1.0)
  flags.DEFINE_integer('batch_size', 32, 'Photographs per step, over all '
                       'devices.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Seed of initialization, data order, crops '
                       'and dropout.')


def _define_optimization_flags() -> None:
  """Defines length, optimizer, schedule and compute type."""
  flags.DEFINE_integer('accumulate', 1, 'Number of microbatches that each '
                       'batch is divided into, to save memory. Their gradients '
                       'are averaged.', lower_bound=1)
  flags.DEFINE_bool('remat', False, 'Compute norms, activations and losses a '
                    'second time in the backward pass and keep only the '
                    'results of convolutions and dense layers, to save memory. '
                    'It changes no result beyond rounding.')
  flags.DEFINE_integer('num_steps', 1000, 'Number of updates.', lower_bound=1)
  flags.DEFINE_enum('optimizer', 'adamw', ['adamw', 'adam', 'sgd'],
                    'Optimizer.')
  flags.DEFINE_float('learning_rate', 1e-3, 'Peak learning rate.',
                     lower_bound=0)
  flags.DEFINE_enum('schedule', 'cosine', ['cosine', 'constant', 'halving'],
                    'Learning-rate schedule.')
  flags.DEFINE_integer('warmup_steps', 100, 'Number of steps of linear '
                       'warm-up.', lower_bound=0)
  flags.DEFINE_integer('halve_every', 1000, 'Steps between halvings, with '
                       '--schedule=halving.', lower_bound=1)
  flags.DEFINE_float('weight_decay', 0.01, 'Decoupled weight decay of AdamW.',
                     lower_bound=0)
  flags.DEFINE_float('momentum', 0.9, 'Momentum of SGD.', 0, 1)
  flags.DEFINE_float('adam_b1', 0.9, 'Decay rate of the first moment of AdamW '
                     'and Adam.', 0, 1)
  flags.DEFINE_float('clip_norm', 1.0, 'Largest global norm of the gradient; '
                     '0 does not clip.', lower_bound=0)
  flags.DEFINE_float('ema_decay', 0.995, 'Decay rate of the moving average of '
                     'parameters, which is what is evaluated; 0 keeps no '
                     'average.', 0, 1)
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'],
                    'Compute type of the network; parameters and losses are '
                    'always float32.')


def _define_checkpoint_flags() -> None:
  """Defines how often a run saves, evaluates and logs, and early stopping."""
  flags.DEFINE_integer('checkpoint_every', 200, 'Steps between checkpoints.',
                       lower_bound=1)
  flags.DEFINE_integer('keep_checkpoints', 2, 'Number of latest checkpoints to '
                       'keep, in addition to the best one.', lower_bound=1)
  flags.DEFINE_integer('eval_every', 200, 'Steps between evaluations on '
                       '--eval_data.', lower_bound=1)
  flags.DEFINE_integer('log_every', 20, 'Steps between lines of metrics.',
                       lower_bound=1)
  flags.DEFINE_integer('patience', 0, 'Stop after this many evaluations '
                       'without a lower loss; 0 never stops early.',
                       lower_bound=0)


def _define_report_flags() -> None:
  """Defines what a report shows."""
  flags.DEFINE_bool('report', True, 'Measure the run and write report/ at its '
                    'end. After a run with --noreport, the same command with '
                    '--report does so.')
  flags.DEFINE_integer('num_proposals', 8, 'Number of colorings shown and '
                       'measured for each photograph; fewer if the method has '
                       'no more.', lower_bound=1)
  flags.DEFINE_integer('report_photos', 12, 'Number of held-out photographs in '
                       'the pictures of the report.', lower_bound=1)


def define_rebalancing_flags() -> None:
  """Defines how rare colors are given more weight."""
  flags.DEFINE_string(
      'prior', None, 'File written by experiments.measure_prior: the color '
      'bins, and how often each occurs in the training data. If not given, '
      '--rebalance measures it and stores it in the work directory.')
  flags.DEFINE_float(
      'rebalance', None, 'Give rare colors more weight: lambda of Zhang et '
      'al. 2016. 0.5 as published; 0 weights by the inverse prior, 1 weights '
      'all colors equally. If not given, there are no weights.', 0, 1)


def photo_options() -> 'PhotoOptions':
  """Returns the values of the flags of `define_photo_flags`."""
  # This imports JAX, which --help must not wait for.
  from colorjax.runs.photographs import PhotoOptions

  return _from_flags(PhotoOptions)


def train_options() -> 'TrainOptions':
  """Returns the options of a run; defaults for flags that are not defined."""
  from colorjax.runs.options import Optimizing, TrainOptions

  return _from_flags(
      TrainOptions, photos=photo_options(), optimizing=_from_flags(Optimizing),
      vmap=replica_flags.swept() if 'vmap' in flags.FLAGS else None)


def _from_flags(kind: type[Record], **values: Any) -> Record:
  """Makes a dataclass from the flags that have the names of its fields.

  Args:
    kind: the dataclass.
    **values: fields that do not come from flags.
  """
  assert dataclasses.is_dataclass(kind)
  found: dict[str, Any] = {
      field.name: flags.FLAGS[field.name].value
      for field in dataclasses.fields(kind)
      if field.name in flags.FLAGS and field.name not in values}
  return kind(**found, **values)


@dataclasses.dataclass(frozen=True)
class Training:
  """A training run without its options: what is special to one script.

  Attributes:
    method: as in `colorjax.runs.train.train`.
    settings: as in `colorjax.runs.train.train`.
    player_optimizing: fields of `options.Optimizing` that differ from the flags
      for single players, by the names of the players.
    more: further arguments of `colorjax.runs.train.train`.
  """
  method: str
  settings: Mapping[str, Any]
  player_optimizing: Mapping[str, Mapping[str, Any]] = dataclasses.field(
      default_factory=dict)
  more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def options(self) -> 'TrainOptions':
    """The options of the run, from the flags."""
    options = train_options()
    players = {
        name: dataclasses.replace(options.optimizing, **own)
        for name, own in self.player_optimizing.items()}
    return dataclasses.replace(options, player_optimizing=players)


def train(training: Training) -> int:
  """Trains a method as the flags say, then measures and reports it.

  Args:
    training: the method, its settings and what it needs.

  Returns:
    The exit code: 0 for a finished run, also if it was finished before;
    128 + signal for an interrupted one.
  """
  from colorjax.runs import train as runs

  return runs.train(
      training.method, training.settings, training.options(),
      **run_arguments(), **training.more).exit_code


def run_without_training(
    method: str, settings: Mapping[str, Any], **more: Any) -> int:
  """Measures and reports a method that needs no training.

  Args:
    method: as in `colorjax.runs.train.run_without_training`.
    settings: as in `colorjax.runs.train.run_without_training`.
    **more: further arguments of that function.

  Returns:
    The exit code, as `train`.
  """
  from colorjax.runs import train as runs

  return runs.run_without_training(
      method, settings, train_options(), **run_arguments(), **more).exit_code


def run_arguments() -> dict[str, Any]:
  """Returns the arguments of a run that describe its flags."""
  from colorjax.runs.options import HARMLESS

  name = pathlib.Path(sys.argv[0]).stem
  return {
      'configuration': script.flags_text(),
      'harmless': HARMLESS | {'embedding_dir', 'class_names'},
      'command': f'python -m experiments.{name} --flagfile='
                 f'{pathlib.Path(flags.FLAGS.workdir) / "flags.txt"}'}
