"""Compares methods: runs trials, trainings and evaluations as jobs.

Each job is a script of `experiments` with its own work directory, which shows
whether the job is finished and from which it is resumed. This process only
starts the jobs; it uses no device until the table is made.
"""

import dataclasses
import json
import math
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence

from colorjax import files
from colorjax.errors import UserError
from colorjax.evaluation import answers, result
from colorjax.evaluation.protocol import FOLDER
from colorjax.runs import run_report
from colorjax.runs.photographs import PhotoOptions
from colorjax.runs.workdir import FLAGS, SESSIONS
from launch import executors, local, supervisor
from launch.options import Options
from launch.supervisor import Task

REFERENCES = answers.REFERENCES
"""Rows of every table; values of `EvaluateOptions.reference`."""

BASELINES: Mapping[str, Sequence[str]] = {
    # The energy of the paper has no unique minimum where lightness is constant.
    'mean_color': (), 'marginal': (), 'levin': ('--levin_form=equations',)}
"""Rows that need no training, with their flags for `experiments.baselines`."""

_TRIAL_STEPS = 64  # almost two epochs of a small set, which is then in memory
_BUDGET_FILE = 'budget.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
  """The options of a comparison.

  Attributes:
    workdir: directory for runs, evaluations, logs and the table.
    data: training photographs, in the form of `sources.parse`.
    eval_data: held-out photographs, for validation losses and for the table.
    methods: rows to train, by their names: the script of `experiments`, or the
      name itself for a row of BASELINES.
    flagfiles: path of the flagfile of a trained row; {} stands for the name of
      the row.
    seeds: training seeds.
    budget_seconds: seconds of training for each run on this machine; 0 takes
      the number of steps from the flagfiles.
    runs: work directories of finished training runs to measure, by row: one for
      each seed.
    outputs: folders of pictures by other programs to measure, by row.
    evaluations: work directories of finished evaluations, by row: one for each
      seed.
    against: the row against which significance is tested.
    metrics: columns of the table, names of `catalogue.METRICS`.
    drop_near_duplicates: whether to leave out photographs of `eval_data` that
      are also in `data`.
    mixed_protocols: whether to allow rows with other protocols or photographs.
    launch: where jobs run. By default, one job at a time runs on each GPU, or
      one at a time on all processors.
    evaluate_flags: further flags for `experiments.evaluate`, one word each.
    photos: how photographs are read.
  """
  workdir: str
  data: str = 'bundled'
  eval_data: str = 'bundled'
  methods: Mapping[str, str] = dataclasses.field(default_factory=dict)
  flagfiles: str = 'launch/flags/{}_small.flags'
  seeds: Sequence[int] = (0,)
  budget_seconds: float = 0
  runs: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
  evaluations: Mapping[str, Sequence[str]] = dataclasses.field(
      default_factory=dict)
  against: str = 'grey'
  metrics: Sequence[str] = ('ab_distance', 'psnr', 'ssim')
  drop_near_duplicates: bool = True
  mixed_protocols: bool = False
  launch: Options = dataclasses.field(default_factory=Options)
  evaluate_flags: Sequence[str] = ()
  photos: PhotoOptions = dataclasses.field(default_factory=PhotoOptions)

  def __post_init__(self):
    """Checks the options.

    Raises:
      UserError: the name of a row, a seed, the budget or a flagfile is wrong.
    """
    names = self.names()
    for name in names:
      # Each row has a folder of its name in the work directory.
      if name in ('', '.', '..') or '/' in name or '\0' in name:
        raise UserError(f'a row cannot be called {name!r}: choose a name that '
                        'a folder can have, without /')
    twice = [name for name in names if names.count(name) > 1]
    if twice:
      raise UserError(f'two rows are called {twice[0]}: choose another name '
                      'for one of them')
    if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(
        self.seeds) < 0:
      raise UserError(f'seeds={",".join(map(str, self.seeds))}: give different '
                      'integers of at least 0')
    if not 0 <= self.budget_seconds < math.inf:
      raise UserError(f'budget_seconds={self.budget_seconds}: give a finite '
                      'number of at least 0')
    for name in self.trained():
      if not self.flagfile(name).is_file():
        raise UserError(f'flagfiles: there is no file {self.flagfile(name)}; '
                        '{} stands for the name of the row')

  @property
  def directory(self) -> pathlib.Path:
    """`workdir` as a path, with `~` replaced by the home directory."""
    return pathlib.Path(self.workdir).expanduser()

  def names(self) -> list[str]:
    """The names of all rows, references first."""
    return [*REFERENCES, *self.methods, *self.runs, *self.outputs,
            *self.evaluations]

  def trained(self) -> list[str]:
    """The names of the rows that need training."""
    return [name for name in self.methods if name not in BASELINES]

  def flagfile(self, name: str) -> pathlib.Path:
    """The flagfile of a trained row."""
    return pathlib.Path(self.flagfiles.replace('{}', name)).expanduser()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedRow:
  """A row of the table, as work directories.

  Attributes:
    name: name of the row.
    evaluations: work directory of a finished evaluation for each seed.
    runs: work directory of the training run of each; [] if there was none.
  """
  name: str
  evaluations: Sequence[pathlib.Path]
  runs: Sequence[pathlib.Path] = ()


def run_jobs(options: CompareOptions) -> list[EvaluatedRow]:
  """Runs all trials, trainings and evaluations that are not finished.

  Args:
    options: options of the comparison.

  Returns:
    The rows, references first.

  Raises:
    UserError: a job failed; the message names its log. The other jobs have
      been run nevertheless.
  """
  trained = options.trained()
  steps = _budget(options, trained) if options.budget_seconds else {}
  folder = options.directory / 'runs'
  runs = {name: [folder / name] if name in BASELINES else [
      folder / name / f'seed{seed}' for seed in options.seeds]
          for name in options.methods}
  baselines = [_baseline(options, name, runs[name][0]) for name in runs
               if name in BASELINES]
  # Seed by seed: a comparison that is stopped then has all rows, with fewer
  # seeds.
  _run(options, baselines + [
      _training(options, name, seed, runs[name][i], steps.get(name))
      for i, seed in enumerate(options.seeds) for name in trained])
  return _evaluated(options, runs)


def _run(options: CompareOptions, wanted: Sequence[Task]) -> None:
  try:
    failed = executors.run(wanted, options.launch, options.directory / 'slurm')
  except OSError as error:  # the log of a job
    raise UserError(f'workdir={options.workdir}: {error.filename or "logs"} '
                    f'cannot be written: {error.strerror or error}') from error
  if failed:
    first = failed[0]
    raise UserError(f'{len(failed)} of {len(wanted)} jobs failed; the first, '
                    f'{first.name}: {supervisor.last_line(first.log)} (see '
                    f'{first.log}); run the same command again to resume')


def _photo_flags(options: CompareOptions) -> list[str]:
  return [f'--{name}={value}'
          for name, value in dataclasses.asdict(options.photos).items()
          if value is not None]


def _job(options: CompareOptions, name: str, workdir: pathlib.Path,
         command: Sequence[str], is_done: Callable[[], bool]) -> Task:
  log = name.replace(' ', '_').replace('/', '_')
  return Task(
      name=name, command=command, is_done=is_done, workdir=workdir,
      log=options.directory / 'logs' / f'{log}.log',
      # All seeds of a method compile the same programs.
      environment=local.compilation_cache(options.directory / 'compiled'))


def _command(options: CompareOptions, name: str, run: pathlib.Path,
             *more: str) -> list[str]:
  """The command that trains a row; flags in `more` override its flagfile."""
  # All runs share one cache of embeddings. Scripts that have no such flag
  # ignore it.
  shared = ['--undefok=embedding_dir',
            f'--embedding_dir={options.directory / "embeddings"}']
  # No early stopping, so that all runs train for the same time. No report,
  # because the evaluation follows.
  return local.python(
      f'experiments.{options.methods[name]}',
      f'--flagfile={options.flagfile(name)}',
      f'--data={options.data}', f'--eval_data={options.eval_data}',
      *_photo_flags(options), *shared, *more, '--patience=0', '--noreport',
      f'--workdir={run}')


def _is_trained(run: pathlib.Path) -> bool:
  """Whether a run has made the number of steps that its flags require."""
  steps = [int(line.partition('=')[2]) for line in _flags_of(run)
           if line.startswith('--num_steps=')]
  return any(session.get('to_step') in steps for session in _sessions(run))


def _flags_of(workdir: pathlib.Path) -> list[str]:
  """The flags of a work directory, one per line; [] if there are none yet."""
  try:
    return files.read_text(workdir / FLAGS).splitlines()
  except UserError:
    return []


def _budget(options: CompareOptions, trained: Sequence[str]) -> dict[str, int]:
  """Number of steps of each method that takes `budget_seconds`.

  It is measured by a trial run and then kept in a file.
  """
  workdir = options.directory
  path = workdir / _BUDGET_FILE
  steps: dict[str, int] = {}
  if path.is_file():
    steps = files.read_json(path)
    if not isinstance(steps, dict) or not all(
        isinstance(number, int) and number > 0 for number in steps.values()):
      raise UserError(f'{path} is damaged: delete it, and it is made again '
                      'from the trial runs')
  missing = [name for name in trained if name not in steps]
  _run(options, [_trial(options, name) for name in missing])
  for name in missing:
    sessions = _sessions(workdir / 'trials' / name)
    seconds = sessions[-1].get('seconds_per_step') if sessions else None
    if not seconds:
      raise UserError(f'{workdir / "trials" / name / SESSIONS} has no '
                      'seconds_per_step: delete that folder and start again')
    steps[name] = max(1, round(options.budget_seconds / seconds))
  files.write_json(path, steps)
  return steps


def _trial(options: CompareOptions, name: str) -> Task:
  run = options.directory / 'trials' / name
  # Evaluated on the two bundled photographs, because only the speed matters.
  return _job(options, f'{name} trial', run, _command(
      options, name, run, f'--num_steps={_TRIAL_STEPS}', '--schedule=constant',
      '--warmup_steps=0', '--eval_data=bundled'), lambda: _is_trained(run))


def _training(options: CompareOptions, name: str, seed: int, run: pathlib.Path,
              steps: int | None) -> Task:
  # Only two evaluations, because only the last checkpoint is compared.
  length = [] if steps is None else [
      f'--num_steps={steps}', f'--warmup_steps={steps // 10}',
      f'--eval_every={-(-steps // 2)}', f'--checkpoint_every={-(-steps // 4)}']
  return _job(options, f'{name} seed {seed}', run, _command(
      options, name, run, f'--seed={seed}', *length),
      lambda: _is_trained(run))


def _baseline(options: CompareOptions, name: str, run: pathlib.Path
              ) -> Task:
  size = _value_of('image_size', options.evaluate_flags)
  sizes = [] if size is None else [f'--image_size={size}']
  return _job(options, name, run, local.python(
      'experiments.baselines', f'--method={name}', *BASELINES[name], *sizes,
      f'--data={options.data}', f'--eval_data={options.eval_data}',
      *_photo_flags(options), f'--workdir={run}'),
      (run / run_report.METRICS_FILE).is_file)


def _value_of(name: str, words: Sequence[str]) -> str | None:
  """The last value of a flag, --NAME=VALUE or --NAME VALUE, or None."""
  value = None
  for i, word in enumerate(words):
    flag, equals, text = word.partition('=')
    if word.startswith('-') and flag.lstrip('-') == name:
      value = text if equals else ''.join(words[i + 1:i + 2])
  return value


def _evaluated(options: CompareOptions,
               runs: Mapping[str, Sequence[pathlib.Path]]
               ) -> list[EvaluatedRow]:
  """Evaluates all rows.

  Args:
    options: options of the comparison.
    runs: work directories of the training runs of this comparison, by row.
  """
  folder = options.directory / 'evaluations'
  rows = [EvaluatedRow(name=name, evaluations=[folder / name])
          for name in REFERENCES]
  wanted = [_evaluation(options, row.name, row.evaluations[0],
                        f'--reference={row.name}') for row in rows]
  for name, paths in {**runs, **{
      name: _paths(given) for name, given in options.runs.items()}}.items():
    folders = [folder / name / str(i) for i in range(len(paths))]
    wanted += [_evaluation(options, name, one, f'--checkpoint={path}')
               for one, path in zip(folders, paths, strict=True)]
    rows.append(EvaluatedRow(name=name, evaluations=folders, runs=paths))
  for name, pictures in options.outputs.items():
    wanted.append(_evaluation(
        options, name, folder / name, f'--outputs={pictures}'))
    rows.append(EvaluatedRow(name=name, evaluations=[folder / name]))
  _run(options, wanted)
  return rows + [EvaluatedRow(name=name, evaluations=_paths(given))
                 for name, given in options.evaluations.items()]


def _paths(texts: Sequence[str]) -> list[pathlib.Path]:
  return [pathlib.Path(text).expanduser() for text in texts]


def _evaluation(options: CompareOptions, name: str, folder: pathlib.Path,
                subject: str) -> Task:
  """The job that evaluates a row; `subject` is the flag that selects it."""
  # If near-duplicates are only counted, one row is enough.
  drops = options.drop_near_duplicates
  train = ([f'--train_data={options.data}', f'--drop_near_duplicates={drops}']
           if drops or name == 'truth' else [])
  photos = _photo_flags(options)
  if _value_of('protocol', options.evaluate_flags) not in (None, FOLDER):
    photos = [flag for flag in photos if not flag.startswith('--fit=')]

  def is_done() -> bool:
    # If the folder holds the result of another subject, the command fails.
    return ((folder / result.METRICS_FILE).is_file()
            and subject in _flags_of(folder))

  name = f'evaluate {"/".join(folder.parts[-2:])}'
  return _job(options, name, folder, local.python(
      'experiments.evaluate', subject, f'--data={options.eval_data}', *train,
      *photos, *options.evaluate_flags, f'--workdir={folder}'), is_done)


def seconds_of(run: pathlib.Path) -> float | None:
  """Seconds that a run spent in training steps; None if it is not recorded."""
  sessions = _sessions(run)
  if not sessions or any(
      'stepping_seconds' not in session for session in sessions):
    return None
  return sum(session['stepping_seconds'] for session in sessions)


def _sessions(run: pathlib.Path) -> list[dict]:
  """The sessions of a run; {} for an incomplete line."""
  path = run / SESSIONS
  if not path.is_file():
    return []
  return [_session(line) for line in files.read_text(path).splitlines()]


def _session(line: str) -> dict:
  try:
    session = json.loads(line)
  except ValueError:
    return {}
  return session if isinstance(session, dict) else {}


def split_words(text: str, *, name: str = 'evaluate_flags') -> list[str]:
  """Splits a command line into words.

  Args:
    text: the command line.
    name: the argument that gave it, for the error message.

  Raises:
    UserError: a quote is not closed.
  """
  try:
    return shlex.split(text)
  except ValueError as error:
    raise UserError(f'{name}={text!r}: {error}') from error
