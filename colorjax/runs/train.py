"""From a method's settings to a trained, measured and reported run.

Every experiment ends here: an experiment is flags and a Colorizer, and there
is one way to train, evaluate and report. It imports JAX, so scripts import it
inside their main.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from absl import flags

from colorjax import inference, parallel
from colorjax.colorizer import Colorizer, Spec, Variables
from colorjax.data import masks
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.runs.photographs import (
  Feed,
  measure,
  open_photos,
  say_exclusions,
)
from colorjax.training import loop, optimizers, totals
from colorjax.training import state as state_lib
from colorjax.training import steps as steps_lib
from colorjax.training.checkpoint import (
  DIRECTORY,
  restore_variables,
  steps,
)
from colorjax.training.workdir import claim_workdir
from experiments import common, run_report

FLAGS = flags.FLAGS

# What may differ between a run and its continuation: it alters where, how fast
# and how often things are written, never a number of the run.
_HARMLESS = frozenset({
    'workdir', 'data_dir', 'engine', 'num_threads', 'keep_checkpoints',
    'num_proposals', 'report_photos', 'test_data', 'embedding_dir',
    'class_names', 'report'})


@dataclasses.dataclass(frozen=True)
class _Feeds:
  """The photographs of a run, by what they are for."""
  train: Feed
  validation: Feed
  test: Feed


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
  """What a run begins with, and what each step does to it."""
  variables: Variables
  optimizer: optax.GradientTransformation
  cadence: loop.Cadence
  schedule: optax.Schedule | None = None
  ema_decay: float | None = None
  accumulate: int = 1


_MakePlan = Callable[[Colorizer, _Feeds, pathlib.Path], _Plan]

EmbedPhotos = Callable[[Colorizer, Variables, Screen, str, pathlib.Path],
                       np.ndarray]
"""`(colorizer, variables, photographs, --data, workdir) -> [N, E]`."""


def train(
    method: str,
    settings: Mapping[str, Any],
    *,
    regions: masks.MaskSource | None = None,
    eval_regions: masks.MaskSource | None = None,
    embed_photos: EmbedPhotos | None = None,
    row_titles: run_report.RowTitles | None = None,
) -> int:
  """Trains a method as the flags say, then measures and reports it.

  Args:
    method: import path of a module in `colorjax.methods`.
    settings: keyword arguments of its `build`, JSON values.
    regions: where batch['region'] of training comes from, if the method wants
      it.
    eval_regions: the same for held-out photographs; `regions` if not given.
    embed_photos: what computes batch['embedding'] before the first step; None
      for batches without it.
    row_titles: what stands above each photograph of the report's sheet.

  Returns:
    The exit code: 0 for a finished run (one that was finished before too),
    128 + signal for an interrupted one.
  """
  spec = Spec(method, dict(settings), FLAGS.image_size,
              'best' if FLAGS.patience else 'latest')
  return _run(spec, _training, regions=regions, eval_regions=eval_regions,
              embed_photos=embed_photos, row_titles=row_titles)


def settle(
    method: str,
    settings: Mapping[str, Any],
    *,
    variables_from: Callable[[Variables, Feed], Variables],
) -> int:
  """Measures and reports a method that needs no training.

  The run is one of `train` with a single step that changes nothing, so that
  its work directory is like any other.

  Args:
    method: import path of a module in `colorjax.methods`.
    settings: keyword arguments of its `build`, JSON values.
    variables_from: what `init` gives and the training photographs, to the
      method's variables.

  Returns:
    The exit code, as of `train`.
  """
  def plan(colorizer: Colorizer, feeds: _Feeds, workdir: pathlib.Path) -> _Plan:
    del workdir
    return _Plan(
        variables=variables_from(_init(colorizer), feeds.train),
        optimizer=optax.set_to_zero(), cadence=loop.Cadence(num_steps=1))

  return _run(Spec(method, dict(settings), FLAGS.image_size), plan)


def _run(
    spec: Spec,
    make_plan: _MakePlan,
    *,
    regions: masks.MaskSource | None = None,
    eval_regions: masks.MaskSource | None = None,
    embed_photos: EmbedPhotos | None = None,
    row_titles: run_report.RowTitles | None = None,
) -> int:
  """Carries out a plan in a work directory; see `train`."""
  workdir = pathlib.Path(FLAGS.workdir)
  colorizer = spec.build()
  _check_settings(colorizer)
  feeds = _open_feeds(regions, eval_regions)
  plan = make_plan(colorizer, feeds, workdir)
  with claim_workdir(workdir, common.flags_text(), harmless=_HARMLESS):
    spec.save(workdir / inference.SPEC_FILE)
    figures_path = workdir / run_report.FIGURES_FILE
    if embed_photos is not None and not figures_path.exists():
      feeds = _embedded(feeds, embed_photos, colorizer, plan, workdir)
    result = _timed_fit(colorizer, feeds, workdir, plan)
    if result.signal is not None:
      return result.exit_code
    if result.status == 'was_finished' and figures_path.exists():
      print(f'{workdir}: this run is finished at step '
            f'{int(result.state.step)}; a new --workdir starts another')
      return 0
    if not FLAGS.report:
      print(f'{workdir}: trained to step {int(result.state.step)}; no report, '
            'as --noreport asks')
      return 0
    variables = restore_variables(workdir, which=spec.checkpoint)
    summary = measure(answers.of_colorizer(
        colorizer, image_size=FLAGS.image_size,
        num_proposals=FLAGS.num_proposals,
        mean_color=feeds.train.mean_color()), variables, feeds.test)
    run_report.write(workdir, colorizer, variables, feeds.test, summary,
                     row_titles=row_titles)
  for field in dataclasses.fields(feeds):
    say_exclusions(getattr(feeds, field.name).photos, field.name)
  return 0


def _timed_fit(colorizer: Colorizer, feeds: _Feeds, workdir: pathlib.Path,
               plan: _Plan) -> loop.Result:
  """`_fit`, with a note of how long it took beside the run.

  `seconds` are by the clock, evaluations and compilation included, and
  `stepping_seconds` leave both out; `seconds_per_step` are those of the last
  steps. Seconds of all processors stand beside
  them: on a machine that others use too, only they compare.

  In a file of its own: metrics.jsonl and checkpoints hold nothing that a
  second run of the same command would not repeat to the last bit.
  """
  def last() -> int:
    return max(steps(workdir / DIRECTORY), default=0)

  first, begin, cpu = last(), time.monotonic(), time.process_time()
  result = _fit(colorizer, feeds, workdir, plan)
  if last() > first:
    with (workdir / common.SESSIONS_FILE).open('a') as file:
      print(json.dumps({'from_step': first, 'to_step': last(),
                        'seconds': round(time.monotonic() - begin, 1),
                        'cpu_seconds': round(time.process_time() - cpu, 1),
                        'stepping_seconds': round(result.stepping_seconds, 1),
                        'seconds_per_step': result.seconds_per_step}),
            file=file)
  return result


def _check_settings(colorizer: Colorizer) -> None:
  """Refuses before the run what the network would refuse in its middle."""
  size = FLAGS.image_size

  def dry_run(key):
    return colorizer.propose(colorizer.init(key, (size, size)),
                             jax.numpy.zeros((1, size, size, 1)),
                             colorizer.num_proposals(FLAGS.num_proposals))

  jax.eval_shape(dry_run, jax.random.key(0))


def _backbone_weights(colorizer: Colorizer, workdir: pathlib.Path
                      ) -> pathlib.Path | None:
  """The file to take the backbone's weights from; None: not from a file.

  A run that goes on has them in its checkpoints, and needs no file.
  """
  if colorizer.backbone is None or steps(workdir / DIRECTORY):
    return None
  if FLAGS.backbone_weights == 'random':
    print(f'{colorizer.backbone}: random weights')
    return None
  if FLAGS.backbone_weights is None:
    assert colorizer.download_backbone is not None
    return colorizer.download_backbone()
  path = pathlib.Path(FLAGS.backbone_weights)
  if not path.is_file():  # Said now: networks take their time to be made.
    raise UserError(f'--backbone_weights={path}: no such file')
  return path


def _open_feeds(regions: masks.MaskSource | None,
                eval_regions: masks.MaskSource | None) -> _Feeds:
  options = common.photo_options()
  shared = {'options': options, 'batch_size': FLAGS.batch_size,
            'image_size': FLAGS.image_size, 'seed': FLAGS.seed,
            'crop_scale': FLAGS.crop_scale}

  def opened(data: str, train: bool) -> Screen:
    return open_photos(data, options, train=train)

  validation = Feed(photos=opened(FLAGS.eval_data, False),
                    regions=eval_regions or regions, **shared)
  test = FLAGS.test_data and opened(FLAGS.test_data, False)
  return _Feeds(
      train=Feed(photos=opened(FLAGS.data, True), regions=regions, **shared),
      validation=validation,
      test=dataclasses.replace(validation, photos=test) if test
      else validation)


def _embedded(feeds: _Feeds, embed_photos: EmbedPhotos, colorizer: Colorizer,
              plan: _Plan, workdir: pathlib.Path) -> _Feeds:
  """The feeds that the loss reads, with embeddings.

  A run that goes on has its frozen network in its checkpoints and not in its
  plan.
  """
  variables = (restore_variables(workdir, which='latest')
               if steps(workdir / DIRECTORY) else plan.variables)

  def embedded(feed: Feed, data: str) -> Feed:
    return dataclasses.replace(feed, embeddings=embed_photos(
        colorizer, variables, feed.photos, data, workdir))

  return dataclasses.replace(
      feeds, train=embedded(feeds.train, FLAGS.data),
      validation=embedded(feeds.validation, FLAGS.eval_data))


def _init(colorizer: Colorizer) -> Variables:
  """What a run begins with where no file says otherwise."""
  return jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(FLAGS.seed), (FLAGS.image_size, FLAGS.image_size))


def _training(colorizer: Colorizer, feeds: _Feeds, workdir: pathlib.Path
              ) -> _Plan:
  """Training as the flags say, begun with the backbone's weights of a file."""
  del feeds
  weights = _backbone_weights(colorizer, workdir)
  variables = _init(colorizer)
  if weights is not None:
    assert colorizer.load_backbone is not None
    variables = colorizer.load_backbone(variables, weights)
  schedule = optimizers.make_schedule(
      FLAGS.schedule, learning_rate=FLAGS.learning_rate,
      num_steps=FLAGS.num_steps, warmup_steps=FLAGS.warmup_steps,
      halve_every=FLAGS.halve_every)
  optimizer = optimizers.make_optimizer(
      FLAGS.optimizer, learning_rate=schedule,
      clip_norm=FLAGS.clip_norm or None, weight_decay=FLAGS.weight_decay,
      momentum=FLAGS.momentum, b1=FLAGS.adam_b1)
  cadence = loop.Cadence(
      num_steps=FLAGS.num_steps, log_every=FLAGS.log_every,
      eval_every=FLAGS.eval_every, checkpoint_every=FLAGS.checkpoint_every,
      keep=FLAGS.keep_checkpoints, patience=FLAGS.patience or None)
  return _Plan(
      variables=variables, optimizer=optimizer, cadence=cadence,
      schedule=schedule, ema_decay=FLAGS.ema_decay or None,
      accumulate=FLAGS.accumulate)


def _fit(colorizer: Colorizer, feeds: _Feeds, workdir: pathlib.Path,
         plan: _Plan) -> loop.Result:
  """The run itself."""
  step = parallel.pmap_step(steps_lib.make_train_step(
      colorizer.players or colorizer.loss, plan.optimizer, seed=FLAGS.seed,
      schedule=plan.schedule, ema_decay=plan.ema_decay,
      accumulate=plan.accumulate, axis_name=parallel.AXIS))
  eval_step = parallel.pmap_step(steps_lib.make_eval_step(
      colorizer.loss, axis_name=parallel.AXIS), donate=False)

  def batches(start: int) -> BatchStream:
    return feeds.train.train(start, plan.cadence.num_steps - start)

  def validate(state: state_lib.TrainState) -> dict[str, float]:
    with feeds.validation.held_out() as stream:
      return totals.evaluate(eval_step, state.variables, stream)

  return loop.fit(
      state_lib.create_state(
          plan.variables, plan.optimizer, ema=plan.ema_decay is not None,
          players=colorizer.players),
      step, batches, workdir=workdir, cadence=plan.cadence,
      evaluations={'validation': validate},
      images=run_report.image_hook(colorizer, feeds.validation.photos),
      describe=lambda batch: [
          feeds.train.photos.source.label(int(i))
          for i in batch['index'] if i >= 0])
