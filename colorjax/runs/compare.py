"""A comparison: trials, trainings and evaluations as jobs, then one table.

Each job is a script of `experiments` in a work directory of its own, which says
by itself whether it is finished and goes on where it was stopped. This process
only starts them; it uses no device until the table is made.
"""

import dataclasses
import json
import math
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence

from colorjax import files
from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.evaluation.protocol import FOLDER
from colorjax.runs.photographs import PhotoOptions
from launch import executors, local, supervisor
from launch.options import Options
from launch.supervisor import Task

REFERENCES = answers.REFERENCES
"""Rows of every table: `reference` of an evaluation."""

BASELINES: Mapping[str, Sequence[str]] = {
    # The energy of the paper has no unique solution where lightness is flat.
    'mean_color': (), 'marginal': (), 'levin': ('--levin_form=equations',)}
"""Rows that need no training, and the flags of `experiments.baselines`."""

_TRIAL_STEPS = 64  # nearly two epochs of a small set: it is in memory then
_METRICS_FILE = 'metrics.json'
_SESSIONS_FILE = 'sessions.jsonl'
_BUDGET_FILE = 'budget.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
  """A comparison.

  Attributes:
    workdir: directory for runs, evaluations, logs and the table.
    data: training photographs, as `sources.parse` understands them.
    eval_data: held-out photographs, of validation losses and of the table.
    methods: rows to train: the script of `experiments` by the row's name; or
      for a name of BASELINES that name.
    flagfiles: flagfile of a trained row; {} stands for the row's name.
    seeds: of training.
    budget_seconds: seconds of training for each run on this machine; 0 for the
      steps of the flagfiles.
    runs: finished training runs to measure: the seeds of each row.
    outputs: pictures by other programs to measure: a folder for each row.
    evaluations: finished evaluations: the seeds of each row.
    against: the row that significance is against.
    metrics: columns of the table, names of `catalogue.METRICS`.
    drop_near_duplicates: whether photographs of `eval_data` that are in `data`
      too are left out.
    mixed_protocols: whether rows of other protocols or photographs may join.
    launch: where jobs are started; by default one at a time on each GPU, or
      one at a time with all processors.
    evaluate_flags: more flags for `experiments.evaluate`, a word each.
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
    """UserError for arguments that name no comparison."""
    names = self.names()
    for name in names:
      # A row is a folder of the work directory.
      if name in ('', '.', '..') or '/' in name or '\0' in name:
        raise UserError(f'a row cannot be called {name!r}: its name has to be '
                        'that of a folder, without /')
    twice = [name for name in names if names.count(name) > 1]
    if twice:
      raise UserError(f'two rows are called {twice[0]}: name them apart')
    if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(
        self.seeds) < 0:
      raise UserError(f'seeds={",".join(map(str, self.seeds))}: whole numbers '
                      'from 0, each once')
    if not 0 <= self.budget_seconds < math.inf:
      raise UserError(f'budget_seconds={self.budget_seconds}: has to be a '
                      'number of seconds from 0')
    for name in self.trained():
      if not self.flagfile(name).is_file():
        raise UserError(f'flagfiles: {self.flagfile(name)} is no file; {{}} in '
                        'it stands for the row')

  def names(self) -> list[str]:
    """The rows that there will be, references first."""
    return [*REFERENCES, *self.methods, *self.runs, *self.outputs,
            *self.evaluations]

  def trained(self) -> list[str]:
    """The rows that need training."""
    return [name for name in self.methods if name not in BASELINES]

  def flagfile(self, name: str) -> pathlib.Path:
    """The flagfile of a trained row."""
    return pathlib.Path(self.flagfiles.replace('{}', name)).expanduser()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
  """A row of the table to be, as folders.

  Attributes:
    name: of the row.
    evaluations: a finished evaluation for each seed.
    runs: the training run of each, [] where there was none.
  """
  name: str
  evaluations: Sequence[pathlib.Path]
  runs: Sequence[pathlib.Path] = ()


def finish(options: CompareOptions) -> list[Evaluated]:
  """Does all that is missing.

  Args:
    options: of the comparison.

  Returns:
    The rows, references first.

  Raises:
    UserError: a job failed: it names its log. The others have been done all
      the same.
  """
  trained = options.trained()
  steps = _budget(options, trained) if options.budget_seconds else {}
  runs = {name: [_workdir(options) / 'runs' / name] if name in BASELINES else [
      _rundir(options, name, seed) for seed in options.seeds]
          for name in options.methods}
  baselines = [_baseline(options, name, runs[name][0]) for name in runs
               if name in BASELINES]
  # Seed by seed: a comparison that is stopped has whole rows of fewer.
  _run(options, baselines + [
      _training(options, name, seed, runs[name][i], steps.get(name))
      for i, seed in enumerate(options.seeds) for name in trained])
  return _evaluated(options, runs)


def _workdir(options: CompareOptions) -> pathlib.Path:
  return pathlib.Path(options.workdir).expanduser()


def _run(options: CompareOptions, wanted: Sequence[Task]) -> None:
  try:
    failed = executors.run(wanted, options.launch,
                           _workdir(options) / 'slurm')
  except OSError as error:  # the log of a job
    raise UserError(f'workdir={options.workdir}: {error.filename or "logs"} '
                    f'cannot be written: {error.strerror or error}') from error
  if failed:
    first = failed[0]
    raise UserError(f'{len(failed)} of {len(wanted)} jobs failed; the first, '
                    f'{first.name}: {supervisor.last_line(first.log)} (all of '
                    f'it is in {first.log}). The same command goes on')


def _photo_flags(options: CompareOptions) -> list[str]:
  return [f'--{name}={value}'
          for name, value in dataclasses.asdict(options.photos).items()
          if value is not None]


def _rundir(options: CompareOptions, name: str, seed: int) -> pathlib.Path:
  return _workdir(options) / 'runs' / name / f'seed{seed}'


def _job(options: CompareOptions, name: str, folder: pathlib.Path,
         command: Sequence[str], is_done: Callable[[], bool]) -> Task:
  log = name.replace(' ', '_').replace('/', '_')
  return Task(
      name=name, command=command, is_done=is_done, workdir=folder,
      log=_workdir(options) / 'logs' / f'{log}.log',
      # Seeds and evaluations of one method are the same programs.
      environment=local.compilation_cache(_workdir(options) / 'compiled'))


def _command(options: CompareOptions, name: str, run: pathlib.Path,
             *more: str) -> list[str]:
  """What trains a method; a flag in `more` wins over that of its flagfile."""
  # What is computed once a photograph is shared by all runs that need it. A
  # row that rebalances measures the prior that fits it.
  workdir = _workdir(options)
  shared = ['--undefok=embedding_dir',
            f'--embedding_dir={workdir / "embeddings"}']
  # No early end, for all have the same time; evaluations come afterwards.
  return local.python(
      f'experiments.{options.methods[name]}',
      f'--flagfile={options.flagfile(name)}',
      f'--data={options.data}', f'--eval_data={options.eval_data}',
      *_photo_flags(options), *shared, *more, '--patience=0', '--noreport',
      f'--workdir={run}')


def _is_trained(run: pathlib.Path) -> bool:
  """Whether a run has made all the steps that its flags ask for."""
  steps = [int(line.partition('=')[2]) for line in _flags_of(run)
           if line.startswith('--num_steps=')]
  return any(session.get('to_step') in steps for session in _sessions(run))


def _flags_of(workdir: pathlib.Path) -> list[str]:
  """The flags of a work directory, one a line; [] where there are none yet."""
  try:
    return files.read_text(workdir / 'flags.txt').splitlines()
  except UserError:
    return []


def _budget(options: CompareOptions, trained: Sequence[str]) -> dict[str, int]:
  """Steps of each method that fill the time, measured once and then kept."""
  workdir = _workdir(options)
  path = workdir / _BUDGET_FILE
  steps: dict[str, int] = {}
  if path.is_file():
    steps = files.read_json(path)
    if not isinstance(steps, dict) or not all(
        isinstance(number, int) and number > 0 for number in steps.values()):
      raise UserError(f'{path} is damaged: remove it, and the trials are read '
                      'again')
  missing = [name for name in trained if name not in steps]
  _run(options, [_trial(options, name) for name in missing])
  for name in missing:
    sessions = _sessions(workdir / 'trials' / name)
    seconds = sessions[-1].get('seconds_per_step') if sessions else None
    if not seconds:
      raise UserError(f'{workdir / "trials" / name} does not say how long its '
                      'steps took: remove the folder and start again')
    steps[name] = max(1, round(options.budget_seconds / seconds))
  files.write_json(path, steps)
  return steps


def _trial(options: CompareOptions, name: str) -> Task:
  run = _workdir(options) / 'trials' / name
  # Two photographs are enough to evaluate what only the clock is read of.
  return _job(options, f'{name} trial', run, _command(
      options, name, run, f'--num_steps={_TRIAL_STEPS}', '--schedule=constant',
      '--warmup_steps=0', '--eval_data=bundled'), lambda: _is_trained(run))


def _training(options: CompareOptions, name: str, seed: int, run: pathlib.Path,
              steps: int | None) -> Task:
  # Two evaluations in all: what is compared is the end of training.
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
      (run / 'report' / _METRICS_FILE).is_file)


def _value_of(name: str, words: Sequence[str]) -> str | None:
  """The last value of a flag, --NAME=VALUE or --NAME VALUE; None without."""
  value = None
  for i, word in enumerate(words):
    flag, equals, text = word.partition('=')
    if word.startswith('-') and flag.lstrip('-') == name:
      value = text if equals else ''.join(words[i + 1:i + 2])
  return value


def _evaluated(options: CompareOptions,
               runs: Mapping[str, Sequence[pathlib.Path]]) -> list[Evaluated]:
  """Evaluates all rows; those of one name are its seeds."""
  folder = _workdir(options) / 'evaluations'
  rows = [Evaluated(name=name, evaluations=[folder / name])
          for name in REFERENCES]
  wanted = [_evaluation(options, row.name, row.evaluations[0],
                        f'--reference={row.name}') for row in rows]
  for name, paths in {**runs, **{
      name: _paths(given) for name, given in options.runs.items()}}.items():
    folders = [folder / name / str(i) for i in range(len(paths))]
    wanted += [_evaluation(options, name, one, f'--checkpoint={path}')
               for one, path in zip(folders, paths, strict=True)]
    rows.append(Evaluated(name=name, evaluations=folders, runs=paths))
  for name, pictures in options.outputs.items():
    wanted.append(_evaluation(
        options, name, folder / name, f'--outputs={pictures}'))
    rows.append(Evaluated(name=name, evaluations=[folder / name]))
  _run(options, wanted)
  return rows + [Evaluated(name=name, evaluations=_paths(given))
                 for name, given in options.evaluations.items()]


def _paths(texts: Sequence[str]) -> list[pathlib.Path]:
  return [pathlib.Path(text).expanduser() for text in texts]


def _evaluation(options: CompareOptions, name: str, folder: pathlib.Path,
                judged: str) -> Task:
  # To count what is in the training set too, one row will do.
  drops = options.drop_near_duplicates
  train = ([f'--train_data={options.data}', f'--drop_near_duplicates={drops}']
           if drops or name == 'truth' else [])
  photos = _photo_flags(options)
  if _value_of('protocol', options.evaluate_flags) not in (None, FOLDER):
    photos = [flag for flag in photos if not flag.startswith('--fit=')]

  def is_done() -> bool:
    # A result of another flag is refused by the command itself.
    return (folder / _METRICS_FILE).is_file() and judged in _flags_of(folder)

  name = f'evaluate {"/".join(folder.parts[-2:])}'
  return _job(options, name, folder, local.python(
      'experiments.evaluate', judged, f'--data={options.eval_data}', *train,
      *photos, *options.evaluate_flags, f'--workdir={folder}'), is_done)


def seconds_of(run: pathlib.Path) -> float | None:
  """Seconds in which a run trained, steps alone; None if it kept no record."""
  sessions = _sessions(run)
  if not sessions or any(
      'stepping_seconds' not in session for session in sessions):
    return None
  return sum(session['stepping_seconds'] for session in sessions)


def _sessions(run: pathlib.Path) -> list[dict]:
  """The sessions of a run; {} for a line that was not written to its end."""
  path = run / _SESSIONS_FILE
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
  """The words of a command line.

  Args:
    text: the command line.
    name: of the argument that it was given by, for the error.

  Raises:
    UserError: a quote is not closed.
  """
  try:
    return shlex.split(text)
  except ValueError as error:
    raise UserError(f'{name}={text!r}: {error}') from error
