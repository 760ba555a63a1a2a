"""From a method's settings to a trained, measured and reported run.

Scripts and notebooks end here: there is one way to train, evaluate and report,
and it takes plain arguments.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
import optax

from colorjax import files, hosts, keys, parallel, saved
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import region_sources
from colorjax.data.engines import BatchStream
from colorjax.data.screening import Screen
from colorjax.data.source import SourceError
from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.runs import photo_stamps, pretrained, run_report
from colorjax.runs.options import HARMLESS, Optimizing, TrainOptions, text_of
from colorjax.runs.photographs import (
  Feed,
  gather_exclusions,
  measure,
  open_photos,
  say_exclusions,
)
from colorjax.runs.workdir import claim_workdir
from colorjax.training import loop, optimizers, totals
from colorjax.training import state as state_lib
from colorjax.training import steps as steps_lib
from colorjax.training.checkpoint import (
  DIRECTORY,
  restore_variables,
  steps,
)

SESSIONS_FILE = 'sessions.jsonl'
"""In a work directory: a line for each time that training ran, and how long."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """How a run ended.

  Attributes:
    workdir: its directory.
    step: the last step.
    status: as of `training.loop.train`: 'finished', 'was_finished', ...
    exit_code: 0 for a finished run, 128 + signal for an interrupted one.
  """
  workdir: pathlib.Path
  step: int
  status: str
  exit_code: int


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
  optimizer: state_lib.Optimizers
  cadence: loop.Cadence
  schedule: optax.Schedule | Mapping[str, optax.Schedule] | None = None
  ema_decay: float | None = None
  accumulate: int = 1


_MakePlan = Callable[[Colorizer, _Feeds, TrainOptions], _Plan]

EmbedPhotos = Callable[[Colorizer, Variables, Screen, str, pathlib.Path],
                       np.ndarray]
"""`(colorizer, variables, photographs, data, workdir) -> [N, E]`; `data` is the
text that names the photographs."""


def train(
    method: str,
    settings: Mapping[str, Any],
    options: TrainOptions,
    *,
    asking: Mapping[str, Any] | None = None,
    regions: region_sources.RegionSource | None = None,
    eval_regions: region_sources.RegionSource | None = None,
    embed_photos: EmbedPhotos | None = None,
    row_titles: run_report.RowTitles | None = None,
    told: str | None = None,
    harmless: Collection[str] = HARMLESS,
    command: str = '',
) -> Outcome:
  """Trains a method, then measures and reports it.

  Args:
    method: import path of a module that has a `build`, see `saved.Record`.
    settings: keyword arguments of its `build`, JSON values.
    options: of the run.
    asking: options of asking that differ from the method's defaults.
    regions: where batch['region'] of training comes from, if the method wants
      it.
    eval_regions: the same for held-out photographs; `regions` if not given.
    embed_photos: what computes batch['embedding'] before the first step; None
      for batches without it.
    row_titles: what stands above each photograph of the report's sheet.
    told: all that the run was told, for `claim_workdir`. None: the options
      themselves and the method.
    harmless: names in `told` that may differ when a run is gone on with.
    command: what a person types to get the run again, for the report.

  Returns:
    How it ended; a run that was finished before is not trained again.

  Raises:
    UserError: an argument, a file or the work directory, in one line.
  """
  record = _record(method, settings, options, asking)
  return _run(record, options, _training, regions=regions,
              eval_regions=eval_regions, embed_photos=embed_photos,
              row_titles=row_titles, told=told, harmless=harmless,
              command=command)


def settle(
    method: str,
    settings: Mapping[str, Any],
    options: TrainOptions,
    *,
    variables_from: Callable[[Variables, Feed], Variables],
    asking: Mapping[str, Any] | None = None,
    told: str | None = None,
    harmless: Collection[str] = HARMLESS,
    command: str = '',
) -> Outcome:
  """Measures and reports a method that needs no training.

  The run is one of `train` with a single step that changes nothing, so that
  its work directory is like any other.

  Args:
    method: see `train`.
    settings: see `train`.
    options: see `train`; those of optimization are not looked at.
    variables_from: what `init` gives and the training photographs, to the
      method's variables.
    asking: see `train`.
    told: see `train`.
    harmless: see `train`.
    command: see `train`.

  Returns:
    As `train`.
  """
  def plan(colorizer: Colorizer, feeds: _Feeds, options: TrainOptions
           ) -> _Plan:
    return _Plan(
        variables=variables_from(_init(colorizer, options), feeds.train),
        optimizer=optax.set_to_zero(), cadence=loop.Cadence(num_steps=1))

  record = saved.Record(
      method=method, settings=dict(settings), asking=dict(asking or {}),
      image_size=options.image_size)
  return _run(record, options, plan, told=told, harmless=harmless,
              command=command)


def check(method: str, settings: Mapping[str, Any], options: TrainOptions, *,
          asking: Mapping[str, Any] | None = None) -> None:
  """Refuses what `train` would refuse of settings; touches no file.

  Args:
    method: see `train`.
    settings: see `train`.
    options: see `train`.
    asking: see `train`.

  Raises:
    UserError: settings that do not fit each other, the method or the size.
  """
  colorizer = _record(method, settings, options, asking).build()
  _check_settings(colorizer, options)


def _record(method: str, settings: Mapping[str, Any], options: TrainOptions,
            asking: Mapping[str, Any] | None) -> saved.Record:
  return saved.Record(
      method=method, settings=dict(settings), asking=dict(asking or {}),
      image_size=options.image_size,
      checkpoint='best' if options.patience else 'latest')


def _run(
    record: saved.Record,
    options: TrainOptions,
    make_plan: _MakePlan,
    *,
    told: str | None,
    harmless: Collection[str],
    command: str,
    regions: region_sources.RegionSource | None = None,
    eval_regions: region_sources.RegionSource | None = None,
    embed_photos: EmbedPhotos | None = None,
    row_titles: run_report.RowTitles | None = None,
) -> Outcome:
  """Carries out a plan in a work directory; see `train`."""
  workdir = pathlib.Path(options.workdir).expanduser()
  colorizer = record.build()
  _check_settings(colorizer, options)
  feeds = _open_feeds(options, regions, eval_regions)
  plan = make_plan(colorizer, feeds, options)
  if told is None:
    told = _told(record, options, feeds)
  with claim_workdir(workdir, told, harmless=harmless):
    figures_path = workdir / run_report.FIGURES_FILE
    is_reported = hosts.on_main(figures_path.exists)
    sources = {'data': feeds.train.photos.source,
               'eval_data': feeds.validation.photos.source}
    photo_stamps.check_agreed(sources)
    if hosts.is_main():
      is_begun = bool(steps(workdir / DIRECTORY))
      if not is_reported:
        photo_stamps.check(workdir, sources, is_begun=is_begun)
      _write_record(workdir / saved.FILE, record, is_begun=is_begun)
    if embed_photos is not None and not is_reported:
      feeds = _embedded(feeds, embed_photos, colorizer, plan, options)
    result = _timed_fit(colorizer, feeds, options, plan)
    outcome = Outcome(workdir=workdir, step=int(result.state.step),
                      status=result.status, exit_code=result.exit_code)
    if result.signal is not None:
      return outcome
    if result.status == 'was_finished' and is_reported:
      print(f'{workdir}: this run is finished at step {outcome.step}; a new '
            'work directory starts another')
      return outcome
    if options.report:
      _report(workdir, record, colorizer, feeds.test, options,
              mean_color=feeds.train.mean_color(), row_titles=row_titles,
              command=command)
    else:
      print(f'{workdir}: trained to step {outcome.step}; no report was asked '
            'for')
  _say_all_exclusions(feeds)
  return outcome


def _report(workdir: pathlib.Path, record: saved.Record, colorizer: Colorizer,
            feed: Feed, options: TrainOptions, *, mean_color: np.ndarray,
            row_titles: run_report.RowTitles | None, command: str) -> None:
  """Measures the checkpoint that stands for the run and reports it.

  All processes measure, the main one writes.
  """
  variables = restore_variables(workdir, which=record.checkpoint)
  summary = measure(answers.of_colorizer(
      colorizer, image_size=options.image_size,
      num_proposals=options.num_proposals, mean_color=mean_color),
      variables, feed)
  hosts.on_main(lambda: run_report.write(
      workdir, colorizer, variables, feed.whole(), summary,
      num_proposals=options.num_proposals, num_photos=options.report_photos,
      row_titles=row_titles, command=command))


def _say_all_exclusions(feeds: _Feeds) -> None:
  """Says which photographs were left out, those of one set once."""
  said: list[Screen] = []
  for field in dataclasses.fields(feeds):
    photos = getattr(feeds, field.name).photos
    if not any(photos is other for other in said):
      gather_exclusions(photos)
      say_exclusions(photos, field.name)
      said.append(photos)


def _told(record: saved.Record, options: TrainOptions, feeds: _Feeds) -> str:
  """What a run was told where no script says it."""
  more = {'method': record.method, 'settings': record.settings,
          'asking': record.asking}
  for name, feed in (('regions', feeds.train),
                     ('eval_regions', feeds.validation)):
    if feed.regions is not None:
      more[name] = feed.regions.name
  return text_of(options, more)


def _write_record(path: pathlib.Path, record: saved.Record, *, is_begun: bool
                  ) -> None:
  """Writes the record; UserError where another one was trained.

  The text that a run was told may name files, whose content has changed.
  """
  if not is_begun or not path.exists():
    record.save(path)
    return
  before = saved.Record.load(path)
  settings = [name for name in sorted(before.settings.keys()
                                      | record.settings.keys())
              if before.settings.get(name) != _json(
                  record.settings.get(name))]
  if before.method != record.method:
    settings.append('method')
  if settings:
    raise UserError(
        f'{path}: the run was begun with another {", ".join(settings)}: '
        'choose another work directory, or the values that it was begun with')


def _json(value: Any) -> Any:
  """A value as it comes back from JSON: tuples are lists."""
  return json.loads(json.dumps(value))


def _timed_fit(colorizer: Colorizer, feeds: _Feeds, options: TrainOptions,
               plan: _Plan) -> loop.TrainingResult:
  """`_fit`, with a note of how long it took beside the run.

  `seconds` are by the clock, evaluations and compilation included, and
  `stepping_seconds` leave both out; `seconds_per_step` are those of the last
  steps. Seconds of all processors stand beside
  them: on a machine that others use too, only they compare.

  In a file of its own: metrics.jsonl and checkpoints hold nothing that a
  second run of the same command would not repeat to the last bit.
  """
  workdir = pathlib.Path(options.workdir).expanduser()

  def last() -> int:
    return max(steps(workdir / DIRECTORY), default=0)

  first, begin, cpu = last(), time.monotonic(), time.process_time()
  result = _fit(colorizer, feeds, options, plan)
  if last() > first and hosts.is_main():
    path = workdir / SESSIONS_FILE
    before = files.read_text(path) if path.exists() else ''
    line = json.dumps({
        'from_step': first, 'to_step': last(),
        'seconds': round(time.monotonic() - begin, 1),
        'cpu_seconds': round(time.process_time() - cpu, 1),
        'stepping_seconds': round(result.stepping_seconds, 1),
        'seconds_per_step': result.seconds_per_step})
    files.write_text(path, f'{before}{line}\n')
  return result


def _check_settings(colorizer: Colorizer, options: TrainOptions) -> None:
  """Refuses before the run what the network would refuse in its middle."""
  size = options.image_size

  def dry_run(key):
    inputs = {'lightness': jax.numpy.zeros((1, size, size, 1))}
    return colorizer.propose(colorizer.init(key, (size, size)), inputs,
                             colorizer.num_proposals(options.num_proposals))

  jax.eval_shape(dry_run, jax.random.key(0))


def _open_feeds(options: TrainOptions,
                regions: region_sources.RegionSource | None,
                eval_regions: region_sources.RegionSource | None) -> _Feeds:
  """All photographs of a run; UserError where one set has none to show."""
  parallel.check_batch_size(options.batch_size)

  def opened(name: str, *, train: bool) -> Screen:
    photos = open_photos(getattr(options, name), options.photos, train=train)
    try:
      photos.read_from(0)  # Found out now, and not when training is over.
    except SourceError as error:
      raise UserError(f'{name}={error}') from error
    return photos

  def feed(photos: Screen, regions: region_sources.RegionSource | None) -> Feed:
    return Feed(photos=photos, options=options.photos, regions=regions,
                batch_size=options.batch_size, image_size=options.image_size,
                seed=options.seed, crop_scale=options.crop_scale,
                shard=hosts.shard())

  train = feed(opened('data', train=True), regions)
  validation = feed(opened('eval_data', train=False), eval_regions or regions)
  if options.test_data is None:
    return _Feeds(train=train, validation=validation, test=validation)
  test = opened('test_data', train=False)
  return _Feeds(train=train, validation=validation,
                test=dataclasses.replace(validation, photos=test))


def _embedded(feeds: _Feeds, embed_photos: EmbedPhotos, colorizer: Colorizer,
              plan: _Plan, options: TrainOptions) -> _Feeds:
  """The feeds that the loss reads, with embeddings.

  A run that goes on has its frozen network in its checkpoints and not in its
  plan.
  """
  workdir = pathlib.Path(options.workdir).expanduser()
  variables = (restore_variables(workdir, which='latest')
               if steps(workdir / DIRECTORY) else plan.variables)

  def embedded(feed: Feed, data: str) -> Feed:
    return dataclasses.replace(feed, embeddings=hosts.main_first(
        lambda: embed_photos(colorizer, variables, feed.photos, data,
                             workdir)))

  return dataclasses.replace(
      feeds, train=embedded(feeds.train, options.data),
      validation=embedded(feeds.validation, options.eval_data))


def _init(colorizer: Colorizer, options: TrainOptions) -> Variables:
  """What a run begins with where no file says otherwise."""
  return jax.jit(colorizer.init, static_argnums=1)(
      keys.of_run(options.seed, 'init'),
      (options.image_size, options.image_size))


def _training(colorizer: Colorizer, feeds: _Feeds, options: TrainOptions
              ) -> _Plan:
  """Training, begun with the backbone's weights of a file."""
  del feeds
  # A run that goes on has the weights in its checkpoints.
  checkpoints = pathlib.Path(options.workdir).expanduser() / DIRECTORY
  weights = {} if steps(checkpoints) else pretrained.find(
      colorizer, options.backbone_weights)
  variables = pretrained.load(colorizer, _init(colorizer, options), weights)
  optimizer, schedule = _optimizers(colorizer, options)
  cadence = loop.Cadence(
      num_steps=options.num_steps, log_every=options.log_every,
      eval_every=options.eval_every, checkpoint_every=options.checkpoint_every,
      keep=options.keep_checkpoints, patience=options.patience or None)
  return _Plan(
      variables=variables, optimizer=optimizer, cadence=cadence,
      schedule=schedule, ema_decay=options.ema_decay or None,
      accumulate=options.accumulate)


def _optimizers(colorizer: Colorizer, options: TrainOptions
                ) -> tuple[Any, Any]:
  """Optimizer and schedule; of each player, where one has its own."""
  own = options.player_optimizing
  if not own:
    return _optimizer(options.optimizing, options.num_steps)
  if unknown := own.keys() - colorizer.players.keys():
    raise UserError(f'player_optimizing: the method has no player '
                    f'{min(unknown)!r}; it has '
                    f'{", ".join(colorizer.players) or "none"}')
  made = {name: _optimizer(own.get(name, options.optimizing),
                           options.num_steps) for name in colorizer.players}
  return ({name: optimizer for name, (optimizer, _) in made.items()},
          {name: schedule for name, (_, schedule) in made.items()})


def _optimizer(given: Optimizing, num_steps: int
               ) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """An optimizer and its learning rate over `num_steps` steps."""
  schedule = optimizers.make_schedule(
      given.schedule, learning_rate=given.learning_rate, num_steps=num_steps,
      warmup_steps=given.warmup_steps, halve_every=given.halve_every)
  return optimizers.make_optimizer(
      given.optimizer, learning_rate=schedule,
      clip_norm=given.clip_norm or None, weight_decay=given.weight_decay,
      momentum=given.momentum, b1=given.adam_b1), schedule


def _fit(colorizer: Colorizer, feeds: _Feeds, options: TrainOptions,
         plan: _Plan) -> loop.TrainingResult:
  """The run itself."""
  step = parallel.pmap_step(steps_lib.make_train_step(
      colorizer.players or colorizer.loss, plan.optimizer, seed=options.seed,
      schedule=plan.schedule, ema_decay=plan.ema_decay,
      accumulate=plan.accumulate))
  eval_step = parallel.pmap_step(
      steps_lib.make_eval_step(colorizer.loss), donate=False)

  def batches(start: int) -> BatchStream:
    return feeds.train.train(start, plan.cadence.num_steps - start)

  def validate(state: state_lib.TrainState) -> dict[str, float]:
    with feeds.validation.held_out() as stream:
      return totals.evaluate(eval_step, state.variables, stream)

  return loop.train(
      state_lib.create_state(
          plan.variables, plan.optimizer, ema=plan.ema_decay is not None,
          players=colorizer.players),
      step, batches, workdir=pathlib.Path(options.workdir).expanduser(),
      cadence=plan.cadence,
      evaluations={'validation': validate},
      images=run_report.image_hook(
          colorizer, feeds.validation, num_proposals=options.num_proposals,
          num_photos=options.report_photos),
      describe=lambda batch: [
          feeds.train.photos.source.label(int(i))
          for i in batch['index'] if i >= 0])
