"""From a method's settings to a trained, measured and reported run.

Every experiment ends here: an experiment is flags and a Colorizer, and there
is one way to train, evaluate and report. It imports JAX, so scripts import it
inside their main.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags

from colorjax import evaluation, inference
from colorjax.colorizer import Colorizer, Spec, Variables
from colorjax.data import augment, pipeline, sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.training import loop, optimizers, parallel, totals
from colorjax.training import state as state_lib
from colorjax.training import steps as steps_lib
from colorjax.training.checkpoint import restore_variables
from colorjax.training.workdir import claim_workdir
from experiments import run_report

FLAGS = flags.FLAGS

# What may differ between a run and its continuation: it alters where, how fast
# and how often things are written, never a number of the run.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'keep_checkpoints',
    'num_proposals', 'report_photos', 'test_data'})

_MEAN_COLOUR_PHOTOS = 1024  # enough for a mean of two numbers


@dataclasses.dataclass(frozen=True)
class _Photos:
  """The photographs of a run, by what they are for."""
  train: Screen
  validation: Screen
  test: Screen


def train(method: str, settings: Mapping[str, Any]) -> int:
  """Trains a method as the flags say, then measures and reports it.

  Args:
    method: import path of a module in `colorjax.methods`.
    settings: keyword arguments of its `build`, JSON values.

  Returns:
    The exit code: 0 for a finished run (one that was finished before too),
    128 + signal for an interrupted one.
  """
  workdir = pathlib.Path(FLAGS.workdir)
  spec = Spec(method, dict(settings), FLAGS.image_size,
              'best' if FLAGS.patience else 'latest')
  colorizer = spec.build()
  _check_settings(colorizer)
  photos = _open_photos()
  with claim_workdir(workdir, _flags_text(), harmless=_HARMLESS):
    spec.save(workdir / inference.SPEC_FILE)
    result = _fit(colorizer, photos, workdir)
    if result.signal is not None:
      return result.exit_code
    figures_path = workdir / run_report.FIGURES_FILE
    if result.status == 'was_finished' and figures_path.exists():
      print(f'{workdir}: this run is finished at step '
            f'{int(result.state.step)}; a new --workdir starts another')
      return 0
    variables = restore_variables(workdir, which=spec.checkpoint)
    summary = _measure(colorizer, variables, photos)
    run_report.write(workdir, colorizer, variables, photos.test, summary)
  _say_exclusions(photos)
  return 0


def _check_settings(colorizer: Colorizer) -> None:
  """Refuses before the run what the network would refuse in its middle."""
  size = FLAGS.image_size

  def dry_run(key):
    return colorizer.propose(colorizer.init(key, (size, size)),
                             jax.numpy.zeros((1, size, size, 1)),
                             FLAGS.num_proposals)

  jax.eval_shape(dry_run, jax.random.key(0))


def _flags_text() -> str:
  """All flags of our scripts, one a line, as --flagfile reads them."""
  lines = {
      flag.name: flag.serialize()
      for module, defined in FLAGS.flags_by_module_dict().items()
      # The script itself goes by its path.
      if module.startswith('experiments.') or module.endswith('.py')
      for flag in defined}
  return ''.join(f'{lines[name]}\n' for name in sorted(lines) if lines[name])


def _open_photos() -> _Photos:

  def open_one(text, *, train):
    source = sources.parse(text, train=train, data_dir=FLAGS.data_dir)
    return Screen(sources.in_memory(source), min_chroma=FLAGS.min_chroma,
                  on_bad_image=FLAGS.on_bad_image)

  validation = open_one(FLAGS.eval_data, train=False)
  return _Photos(
      train=open_one(FLAGS.data, train=True), validation=validation,
      test=(open_one(FLAGS.test_data, train=False) if FLAGS.test_data
            else validation))


def _train_stream(photos: Screen, start: int, num_steps: int) -> BatchStream:
  spec = pipeline.TrainSpec(
      batch_size=FLAGS.batch_size, image_size=FLAGS.image_size,
      augment=augment.Augment(scale=(FLAGS.crop_scale, 1.0)))
  return pipeline.train_stream(
      photos, spec, FLAGS.seed, start_step=start, num_steps=num_steps,
      engine=FLAGS.engine, num_threads=FLAGS.num_threads)


def _eval_stream(photos: Screen) -> BatchStream:
  return pipeline.eval_stream(
      photos, batch_size=FLAGS.batch_size, image_size=FLAGS.image_size,
      fit=FLAGS.fit, engine=FLAGS.engine, num_threads=FLAGS.num_threads)


def _fit(colorizer: Colorizer, photos: _Photos, workdir: pathlib.Path
         ) -> loop.Result:
  """The training run itself."""
  schedule = optimizers.make_schedule(
      FLAGS.schedule, learning_rate=FLAGS.learning_rate,
      num_steps=FLAGS.num_steps, warmup_steps=FLAGS.warmup_steps,
      halve_every=FLAGS.halve_every)
  optimizer = optimizers.make_optimizer(
      FLAGS.optimizer, learning_rate=schedule,
      clip_norm=FLAGS.clip_norm or None, weight_decay=FLAGS.weight_decay,
      momentum=FLAGS.momentum)
  variables = jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(FLAGS.seed), (FLAGS.image_size, FLAGS.image_size))
  step = parallel.pmap_step(steps_lib.make_train_step(
      colorizer.loss, optimizer, seed=FLAGS.seed, schedule=schedule,
      ema_decay=FLAGS.ema_decay or None, accumulate=FLAGS.accumulate,
      axis_name=parallel.AXIS))
  eval_step = parallel.pmap_step(steps_lib.make_eval_step(
      colorizer.loss, axis_name=parallel.AXIS), donate=False)

  def batches(start: int) -> BatchStream:
    return _train_stream(photos.train, start, FLAGS.num_steps - start)

  def validate(state: state_lib.TrainState) -> dict[str, float]:
    with _eval_stream(photos.validation) as stream:
      return totals.evaluate(eval_step, state.variables, stream)

  return loop.fit(
      state_lib.create_state(variables, optimizer, ema=FLAGS.ema_decay > 0),
      step, batches, workdir=workdir, cadence=_cadence(),
      evaluations={'validation': validate},
      images=run_report.image_hook(colorizer, photos.validation),
      describe=lambda batch: [
          photos.train.source.label(int(i)) for i in batch['index'] if i >= 0])


def _cadence() -> loop.Cadence:
  return loop.Cadence(
      num_steps=FLAGS.num_steps, log_every=FLAGS.log_every,
      eval_every=FLAGS.eval_every, checkpoint_every=FLAGS.checkpoint_every,
      keep=FLAGS.keep_checkpoints, patience=FLAGS.patience or None)


def _measure(colorizer: Colorizer, variables: Variables, photos: _Photos
             ) -> dict[str, Any]:
  """Held-out figures with their intervals, baselines among them."""
  some = min(photos.train.source.size, _MEAN_COLOUR_PHOTOS)
  with _train_stream(photos.train, 0, -(-some // FLAGS.batch_size)) as stream:
    mean_ab = evaluation.mean_colour(stream)
  measure = jax.jit(evaluation.per_photo(
      colorizer, num_proposals=FLAGS.num_proposals, mean_ab=mean_ab))
  with _eval_stream(photos.test) as stream:
    values = evaluation.collect(
        lambda batch: measure(variables, {
            name: batch[name] for name in ('image', 'mask')}), stream)
  return evaluation.summarize(values)


def _say_exclusions(photos: _Photos) -> None:
  for name in ('train', 'validation', 'test'):
    screen = getattr(photos, name)
    if screen.exclusions:
      print(f'{name}: {len(screen.exclusions)} photographs left out')
      print('\n'.join(screen.exclusions.lines(most=20)))
