"""From the settings of a method to a trained, measured and reported run.

Scripts and notebooks both call these functions: there is one way to train,
measure and report, and it takes plain arguments.
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

from colorjax import files, hosts, records
from colorjax.colorizer import Colorizer, Variables
from colorjax.data import region_sources
from colorjax.data.engines import BatchStream
from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.runs import feeds as feeds_lib
from colorjax.runs import photo_stamps, replica_options, run_report
from colorjax.runs import plan as plans
from colorjax.runs import program as programs
from colorjax.runs.feeds import EmbedPhotos, RunFeeds
from colorjax.runs.options import HARMLESS, TrainOptions, text_of
from colorjax.runs.photographs import Feed, measure
from colorjax.runs.plan import Plan
from colorjax.runs.workdir import SESSIONS, claim_workdir
from colorjax.training import loop, replicas
from colorjax.training.checkpoint import (
  DIRECTORY,
  restore_variables,
  steps,
)
from colorjax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """How a run ended.

  Attributes:
    workdir: its work directory.
    step: number of the last step.
    status: as in `training.run_state.TrainingResult`: 'finished',
      'was_finished', ...
    exit_code: 0 for a finished run, 128 + signal for an interrupted one.
  """
  workdir: pathlib.Path
  step: int
  status: str
  exit_code: int


_MakePlan = Callable[[Colorizer, RunFeeds, TrainOptions], Plan]


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
    configuration: str | None = None,
    harmless: Collection[str] = HARMLESS,
    command: str = '',
) -> Outcome:
  """Trains a method, then measures and reports it.

  A run that was interrupted is resumed. A run that is finished is not trained
  again.

  Args:
    method: import path of a module that has a `build`, see `records.Record`.
    settings: keyword arguments of its `build`, JSON values.
    options: options of the run.
    asking: options of prediction (`Colorizer.ask`) that differ from the
      defaults of the method; JSON values.
    regions: source of batch['region'] for training batches; None for batches
      without regions.
    eval_regions: the same for held-out batches; None for `regions`.
    embed_photos: computes batch['embedding'] before the first step; None for
      batches without embeddings.
    row_titles: makes the line above each photograph in the report's sheet.
    configuration: text for `claim_workdir`, one `name=value` per line, that a
      resumed run must agree with. None: `options`, `method` and `settings`.
    harmless: names in `configuration` that may differ when a run is resumed.
    command: the command line that repeats the run, for the report.

  Returns:
    How the run ended.

  Raises:
    UserError: an argument, a file or the work directory is wrong.
  """
  def make_plan(colorizer: Colorizer, feeds: RunFeeds, options: TrainOptions
                ) -> Plan:
    del feeds
    return plans.of_training(colorizer, options)

  record = _record(method, settings, options, asking)
  return _run(record, options, make_plan, regions=regions,
              eval_regions=eval_regions, embed_photos=embed_photos,
              row_titles=row_titles, configuration=configuration,
              harmless=harmless, command=command)


def run_without_training(
    method: str,
    settings: Mapping[str, Any],
    options: TrainOptions,
    *,
    variables_from: Callable[[Variables, Feed], Variables],
    asking: Mapping[str, Any] | None = None,
    configuration: str | None = None,
    harmless: Collection[str] = HARMLESS,
    command: str = '',
) -> Outcome:
  """Measures and reports a method that needs no training.

  The run has a single step, which changes nothing, so that its work directory
  is like that of a training run.

  Args:
    method: as in `train`.
    settings: as in `train`.
    options: as in `train`; the options of optimization are ignored.
    variables_from: `(initial variables, training photographs) -> variables`
      of the method.
    asking: as in `train`.
    configuration: as in `train`.
    harmless: as in `train`.
    command: as in `train`.

  Returns:
    How the run ended.

  Raises:
    UserError: an argument, a file or the work directory is wrong.
  """
  def make_plan(colorizer: Colorizer, feeds: RunFeeds, options: TrainOptions
                ) -> Plan:
    initial = plans.initial_variables(colorizer, options)
    return Plan(variables=variables_from(initial, feeds.train),
                optimizer=optax.set_to_zero(),
                cadence=loop.Cadence(num_steps=1))

  record = records.Record(
      method=method, settings=dict(settings), asking=dict(asking or {}),
      image_size=options.image_size)
  return _run(record, options, make_plan, configuration=configuration,
              harmless=harmless, command=command)


def check(method: str, settings: Mapping[str, Any], options: TrainOptions, *,
          asking: Mapping[str, Any] | None = None) -> None:
  """Raises the errors that `train` would raise about settings.

  It reads and writes no file.

  Args:
    method: as in `train`.
    settings: as in `train`.
    options: as in `train`.
    asking: as in `train`.

  Raises:
    UserError: the settings do not fit each other, the method or the image
      size.
  """
  colorizer = _record(method, settings, options, asking).build()
  _check_settings(colorizer, options)
  programs.check_film(colorizer, options, has_embeddings=False)


def _record(method: str, settings: Mapping[str, Any], options: TrainOptions,
            asking: Mapping[str, Any] | None) -> records.Record:
  return records.Record(
      method=method, settings=dict(settings), asking=dict(asking or {}),
      image_size=options.image_size,
      checkpoint='best' if options.patience else 'latest',
      replicas=replica_options.differences(options))


def _run(
    record: records.Record,
    options: TrainOptions,
    make_plan: _MakePlan,
    *,
    configuration: str | None,
    harmless: Collection[str],
    command: str,
    regions: region_sources.RegionSource | None = None,
    eval_regions: region_sources.RegionSource | None = None,
    embed_photos: EmbedPhotos | None = None,
    row_titles: run_report.RowTitles | None = None,
) -> Outcome:
  """Runs a plan in a work directory; see `train`."""
  workdir = options.directory
  colorizer = record.build()
  _check_settings(colorizer, options)
  programs.check_film(colorizer, options,
                      has_embeddings=embed_photos is not None)
  feeds = feeds_lib.open_feeds(options, regions, eval_regions)
  plan = make_plan(colorizer, feeds, options)
  if configuration is None:
    configuration = _configuration(record, options, feeds)
  with claim_workdir(workdir, configuration, harmless=harmless):
    has_checkpoint = bool(steps(workdir / DIRECTORY))
    is_reported = hosts.on_main((workdir / run_report.METRICS_FILE).exists)
    sources = {'data': feeds.train.photos.source,
               'eval_data': feeds.validation.photos.source}
    photo_stamps.check_agreed(sources)
    if hosts.is_main():
      if not is_reported:
        photo_stamps.check(workdir, sources, has_checkpoint=has_checkpoint)
      _write_record(workdir / records.FILE, record,
                    has_checkpoint=has_checkpoint)
    if embed_photos is not None and not is_reported:
      # A run that is resumed has its frozen network in its checkpoints only.
      variables = (_models(workdir, 'latest', record)[0] if has_checkpoint
                   else plan.variables)
      feeds = feeds_lib.with_embeddings(
          feeds, embed_photos, colorizer, variables, options)
    result = _timed_fit(colorizer, feeds, options, plan)
    outcome = Outcome(workdir=workdir, step=int(result.state.step),
                      status=result.status, exit_code=result.exit_code)
    if result.signal is not None:
      return outcome
    if result.status == 'was_finished' and is_reported:
      print(f'{workdir}: this run is already finished at step {outcome.step}; '
            'choose another work directory to start a new run')
      return outcome
    if options.report:
      _report(workdir, record, colorizer, feeds.test, options,
              failed=np.atleast_1d(result.state.failed),
              mean_color=feeds.train.mean_color(), row_titles=row_titles,
              command=command)
    else:
      print(f'{workdir}: trained to step {outcome.step}, without a report')
  feeds_lib.say_exclusions(feeds)
  return outcome


def _models(workdir: pathlib.Path, which: Any, record: records.Record
            ) -> list[Variables]:
  """The stored variables of the model of a run, or of each replica."""
  stored = restore_variables(workdir, which=which)
  return [replicas.pick(stored, i) for i in range(len(record.replicas))] or [
      stored]


def _report(workdir: pathlib.Path, record: records.Record, colorizer: Colorizer,
            feed: Feed, options: TrainOptions, *, failed: np.ndarray,
            mean_color: np.ndarray, row_titles: run_report.RowTitles | None,
            command: str) -> None:
  """Measures the checkpoint that represents the run and writes the report.

  All processes measure; the main process writes. Replicas that have failed are
  left out.
  """
  models = _models(workdir, record.checkpoint, record)
  left = [i for i in range(len(models)) if not failed[i]]
  answer = answers.of_colorizer(
      colorizer, image_size=options.image_size,
      num_proposals=options.num_proposals, mean_color=mean_color)
  summaries = measure(answer, [models[i] for i in left], feed)
  hosts.on_main(lambda: run_report.write(
      workdir, colorizer, [run_report.Measured(
          variables=models[i], summary=summary,
          replica={'replica': i, **record.replicas[i]} if record.replicas
          else None)
                           for i, summary in zip(left, summaries, strict=True)],
      feed.whole(), num_proposals=options.num_proposals,
      num_photos=options.report_photos, row_titles=row_titles, command=command))


def _configuration(record: records.Record, options: TrainOptions,
                   feeds: RunFeeds) -> str:
  """The arguments of a run as text, for calls that pass no configuration."""
  more = {'method': record.method, 'settings': record.settings,
          'asking': record.asking}
  for name, feed in (('regions', feeds.train),
                     ('eval_regions', feeds.validation)):
    if feed.regions is not None:
      more[name] = feed.regions.name
  return text_of(options, more)


def _write_record(path: pathlib.Path, record: records.Record, *,
                  has_checkpoint: bool) -> None:
  """Writes the record of a run.

  `claim_workdir` has compared the configuration, but that may name files, and
  their content may have changed. Settings are therefore compared here.

  Raises:
    UserError: the run was started with another method or other settings.
  """
  if not has_checkpoint or not path.exists():
    record.save(path)
    return
  before = records.Record.load(path)
  settings = [name for name in sorted(before.settings.keys()
                                      | record.settings.keys())
              if before.settings.get(name) != _json(
                  record.settings.get(name))]
  if before.method != record.method:
    settings.append('method')
  if settings:
    raise UserError(
        f'{path}: the run was started with another {", ".join(settings)}: '
        'use the same values again, or choose another work directory')


def _json(value: Any) -> Any:
  """A value after a round trip through JSON, where tuples become lists."""
  return json.loads(json.dumps(value))


def _timed_fit(colorizer: Colorizer, feeds: RunFeeds, options: TrainOptions,
               plan: Plan) -> loop.TrainingResult:
  """Calls `_fit` and appends a line about its duration to SESSIONS.

  `seconds` is wall-clock time, including evaluations and compilation;
  `stepping_seconds` excludes both, and `seconds_per_step` is the mean over the
  last few steps. `cpu_seconds` is the time of all processors, which is the one
  to compare on a machine that others use too.

  These times have a file of their own because metrics.jsonl and checkpoints
  must be the same to the last bit when a command is repeated.
  """
  workdir = options.directory

  def last_step() -> int:
    return max(steps(workdir / DIRECTORY), default=0)

  first, start, cpu = last_step(), time.monotonic(), time.process_time()
  result = _fit(colorizer, feeds, options, plan)
  last = last_step()
  if last > first and hosts.is_main():
    path = workdir / SESSIONS
    before = files.read_text(path) if path.exists() else ''
    line = json.dumps({
        'from_step': first, 'to_step': last,
        'seconds': round(time.monotonic() - start, 1),
        'cpu_seconds': round(time.process_time() - cpu, 1),
        'stepping_seconds': round(result.stepping_seconds, 1),
        'seconds_per_step': result.seconds_per_step})
    files.write_text(path, f'{before}{line}\n')
  return result


def _check_settings(colorizer: Colorizer, options: TrainOptions) -> None:
  """Traces the method, so that wrong settings fail before the run starts."""
  size = options.image_size

  def dry_run(key):
    inputs = {'lightness': jax.numpy.zeros((1, size, size, 1))}
    return colorizer.propose(colorizer.init(key, (size, size)), inputs,
                             colorizer.num_proposals(options.num_proposals))

  jax.eval_shape(dry_run, jax.random.key(0))


def _fit(colorizer: Colorizer, feeds: RunFeeds, options: TrainOptions,
         plan: Plan) -> loop.TrainingResult:
  """Runs the training loop."""
  program = programs.of_plan(colorizer, options, plan)

  def batches(start: int) -> BatchStream:
    return feeds.train.train(start, plan.cadence.num_steps - start)

  def validate(state: TrainState) -> dict[str, float]:
    with feeds.validation.held_out() as stream:
      return program.evaluate(state, stream)

  pictures = run_report.image_hook(
      colorizer, feeds.validation, num_proposals=options.num_proposals,
      num_photos=options.report_photos)
  return loop.train(
      program.state, program.step, batches, workdir=options.directory,
      cadence=plan.cadence, evaluations={'validation': validate},
      images=lambda state: pictures(program.shown(state)),
      describe=lambda batch: [
          feeds.train.photos.source.label(int(i))
          for i in batch['index'] if i >= 0])
