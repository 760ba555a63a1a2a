"""The jobs of a comparison: trials, trainings, evaluations. No JAX here.

Each job is a command of this project in a work directory of its own, which
says by itself whether it is finished and goes on where it was stopped.
"""

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from colorjax.errors import UserError
from launch import jobs

FLAGS = flags.FLAGS

_TRIAL_STEPS = 64  # nearly two epochs of a small set: it is in memory then
REFERENCES = ('truth', 'grey')
"""Rows of every table: `--reference` of `experiments.evaluate`."""

BASELINES: Mapping[str, Sequence[str]] = {
    # The energy of the paper has no unique solution where lightness is flat.
    'mean_color': (), 'marginal': (), 'levin': ('--levin_form=equations',)}
"""Rows that need no training, and the flags of `experiments.baselines`."""

_METRICS_FILE = 'metrics.json'
_BUDGET_FILE = 'budget.json'
_PRIOR_FILE = 'prior.json'


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


def names() -> list[str]:
  """The rows that the flags ask for; UserError for wrong flags."""
  _check()
  rows = [*REFERENCES, *_methods()]
  for flag in ('runs', 'outputs', 'evaluations'):
    rows += _grouped(flag)
  twice = [name for name in rows if rows.count(name) > 1]
  if twice:
    raise UserError(f'two rows are called {twice[0]}: name them apart')
  return rows


def finish(workdir: pathlib.Path) -> list[Evaluated]:
  """Does all that is missing.

  Args:
    workdir: of the comparison.

  Returns:
    The rows, references first.

  Raises:
    UserError: a job failed: it names its log. The others have been done all
      the same.
  """
  trained = [name for name in _methods() if name not in BASELINES]
  if trained:
    _run(workdir, _prior(workdir, trained))
  steps = _budget(workdir, trained) if FLAGS.budget_seconds else {}
  runs = {name: [workdir / 'runs' / name] if name in BASELINES else [
      _rundir(workdir, name, seed) for seed in FLAGS.seeds]
          for name in _methods()}
  baselines = [_baseline(workdir, name, runs[name][0]) for name in runs
               if name in BASELINES]
  # Seed by seed: a comparison that is stopped has whole rows of fewer.
  _run(workdir, baselines + [
      _training(workdir, name, seed, runs[name][i], steps.get(name))
      for i, seed in enumerate(FLAGS.seeds) for name in trained])
  return _evaluated(workdir, runs)


def _check() -> None:
  scripts = pathlib.Path(__file__).parent
  for name, script in _methods().items():
    if name in BASELINES:
      continue
    if not (scripts / f'{script}.py').is_file():
      raise UserError(f'--methods: {script} is no experiment, and none of '
                      f'{", ".join([*REFERENCES, *BASELINES])}')
    if not pathlib.Path(_flagfile(name)).is_file():
      raise UserError(f'--flagfiles: {_flagfile(name)} is no file; {{}} in it '
                      'stands for the method')
  seeds = FLAGS.seeds
  if (not seeds or len(set(seeds)) < len(seeds)
      or not all(seed.isascii() and seed.isdigit() for seed in seeds)):
    raise UserError(f'--seeds={",".join(seeds)}: whole numbers from 0, each '
                    'once, with commas between')
  if len(_methods()) < sum(
      entry not in REFERENCES for entry in FLAGS.methods):
    raise UserError('--methods: two rows have one name; ROW=EXPERIMENT gives '
                    'another')


def _methods() -> dict[str, str]:
  """The experiment of each row by the row's name.

  The references stand in every table, asked for or not.
  """
  return {entry.partition('=')[0]: entry.rpartition('=')[2]
          for entry in FLAGS.methods if entry not in REFERENCES}


def _flagfile(name: str) -> str:
  return FLAGS.flagfiles.format(name)


def _run(workdir: pathlib.Path, wanted: Sequence[jobs.Job]) -> None:
  failed = jobs.run(wanted, devices=FLAGS.devices, environment={
      # Seeds and evaluations of one method are the same programs.
      'JAX_COMPILATION_CACHE_DIR': os.environ.get(
          'JAX_COMPILATION_CACHE_DIR', str((workdir / 'compiled').resolve())),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'})
  if failed:
    raise UserError(f'{len(failed)} of {len(wanted)} jobs failed; the first, '
                    f'{failed[0].name}: {jobs.last_line(failed[0].log)} (all '
                    f'of it is in {failed[0].log}). The same command goes on')


def _photo_flags() -> list[str]:
  given = [f'--{name}={FLAGS[name].value}' for name in (
      'fit', 'on_bad_image', 'min_chroma', 'engine')]
  return given + [f'--{name}={FLAGS[name].value}' for name in (
      'data_dir', 'num_threads') if FLAGS[name].value is not None]


def _rundir(workdir: pathlib.Path, name: str, seed: str) -> pathlib.Path:
  return workdir / 'runs' / name / f'seed{seed}'


def _job(workdir: pathlib.Path, name: str, command: Sequence[str],
         is_done: Callable[[], bool]) -> jobs.Job:
  return jobs.Job(
      name=name, command=command, is_done=is_done,
      log=workdir / 'logs' / f'{name.replace(" ", "_")}.log')


def _prior(workdir: pathlib.Path, trained: Sequence[str]) -> list[jobs.Job]:
  """Measures the colors of the training data, for rows that rebalance."""
  if not any(wants_prior(_flagfile(name)) for name in trained):
    return []
  path = workdir / _PRIOR_FILE
  return [_job(workdir, 'prior', jobs.python(
      'experiments.measure_prior', f'--data={FLAGS.data}', '--block_size=2',
      f'--output={path}', *_photo_flags()), path.is_file)]


def _command(workdir: pathlib.Path, name: str, run: pathlib.Path,
             *more: str) -> list[str]:
  """What trains a method; a flag in `more` wins over that of its flagfile."""
  # What is computed once a photograph is shared by all runs that embed.
  shared = ['--undefok=embedding_dir',
            f'--embedding_dir={workdir / "embeddings"}']
  if wants_prior(_flagfile(name)):
    shared.append(f'--prior={workdir / _PRIOR_FILE}')
  # No early end, for all have the same time; evaluations come afterwards.
  return jobs.python(
      f'experiments.{_methods()[name]}', f'--flagfile={_flagfile(name)}',
      f'--data={FLAGS.data}', f'--eval_data={FLAGS.eval_data}',
      *_photo_flags(), *shared, *more, '--patience=0', '--noreport',
      f'--workdir={run}')


def _is_trained(run: pathlib.Path) -> bool:
  """Whether a run has made all the steps that its flags ask for."""
  try:
    lines = (run / 'flags.txt').read_text().splitlines()
  except OSError:
    return False
  steps = [int(line.partition('=')[2]) for line in lines
           if line.startswith('--num_steps=')]
  return any(session['to_step'] in steps for session in _sessions(run))


def _budget(workdir: pathlib.Path, trained: Sequence[str]) -> dict[str, int]:
  """Steps of each method that fill the time, measured once and then kept."""
  path = workdir / _BUDGET_FILE
  steps: dict[str, int] = {}
  if path.is_file():
    try:
      steps = json.loads(path.read_text())
    except ValueError as error:
      raise UserError(f'{path} is damaged ({error}): remove it, and the trials '
                      'are read again') from error
  missing = [name for name in trained if name not in steps]
  _run(workdir, [_trial(workdir, name) for name in missing])
  for name in missing:
    sessions = _sessions(workdir / 'trials' / name)
    seconds = sessions[-1]['seconds_per_step'] if sessions else None
    if not seconds:
      raise UserError(f'{workdir / "trials" / name} does not say how long its '
                      'steps took: remove the folder and start again')
    steps[name] = max(1, round(FLAGS.budget_seconds / seconds))
  unfinished = path.with_suffix('.tmp')
  unfinished.write_text(json.dumps(steps, indent=2))
  unfinished.replace(path)
  return steps


def _trial(workdir: pathlib.Path, name: str) -> jobs.Job:
  run = workdir / 'trials' / name
  # Two photographs are enough to evaluate what only the clock is read of.
  return _job(workdir, f'{name} trial', _command(
      workdir, name, run, f'--num_steps={_TRIAL_STEPS}', '--schedule=constant',
      '--warmup_steps=0', '--eval_data=bundled'), lambda: _is_trained(run))


def _training(workdir: pathlib.Path, name: str, seed: str, run: pathlib.Path,
              steps: int | None) -> jobs.Job:
  # Two evaluations in all: what is compared is the end of training.
  length = [] if steps is None else [
      f'--num_steps={steps}', f'--warmup_steps={steps // 10}',
      f'--eval_every={-(-steps // 2)}', f'--checkpoint_every={-(-steps // 4)}']
  return _job(workdir, f'{name} seed {seed}', _command(
      workdir, name, run, f'--seed={seed}', *length),
      lambda: _is_trained(run))


def _baseline(workdir: pathlib.Path, name: str, run: pathlib.Path
              ) -> jobs.Job:
  size = [word for word in shlex.split(FLAGS.evaluate_flags)
          if word.startswith('--image_size=')]
  return _job(workdir, name, jobs.python(
      'experiments.baselines', f'--method={name}', *BASELINES[name], *size,
      f'--data={FLAGS.data}', f'--eval_data={FLAGS.eval_data}',
      *_photo_flags(), f'--workdir={run}'),
      (run / 'report' / _METRICS_FILE).is_file)


def _evaluated(workdir: pathlib.Path,
               runs: Mapping[str, Sequence[pathlib.Path]]) -> list[Evaluated]:
  """Evaluates all rows; those of one name are its seeds."""
  rows = [Evaluated(name=name, evaluations=[workdir / 'evaluations' / name])
          for name in REFERENCES]
  wanted = [_evaluation(workdir, row.name, row.evaluations[0],
                        f'--reference={row.name}') for row in rows]
  for name, paths in {**runs, **_grouped('runs')}.items():
    folders = [workdir / 'evaluations' / name / str(i)
               for i in range(len(paths))]
    wanted += [_evaluation(workdir, name, folder, f'--checkpoint={path}')
               for folder, path in zip(folders, paths, strict=True)]
    rows.append(Evaluated(name=name, evaluations=folders, runs=paths))
  for name, paths in _grouped('outputs').items():
    folder = workdir / 'evaluations' / name
    wanted.append(_evaluation(workdir, name, folder, f'--outputs={paths[0]}'))
    rows.append(Evaluated(name=name, evaluations=[folder]))
  _run(workdir, wanted)
  return rows + [Evaluated(name=name, evaluations=paths)
                 for name, paths in _grouped('evaluations').items()]


def _evaluation(workdir: pathlib.Path, name: str, folder: pathlib.Path,
                judged: str) -> jobs.Job:
  # To count what is in the training set too, one row will do.
  drops = FLAGS.drop_near_duplicates
  train = ([f'--train_data={FLAGS.data}', f'--drop_near_duplicates={drops}']
           if drops or name == 'truth' else [])

  def is_done() -> bool:
    # A result of another flag is refused by the command itself.
    return (folder / _METRICS_FILE).is_file() and (
        judged in (folder / 'flags.txt').read_text().splitlines())

  return _job(workdir, f'evaluate {"/".join(folder.parts[-2:])}', jobs.python(
      'experiments.evaluate', judged, f'--data={FLAGS.eval_data}', *train,
      *_photo_flags(), *shlex.split(FLAGS.evaluate_flags),
      f'--workdir={folder}'), is_done)


def _grouped(flag: str) -> dict[str, list[pathlib.Path]]:
  """Paths by name of a flag of NAME=PATH entries."""
  groups: dict[str, list[pathlib.Path]] = {}
  for entry in FLAGS[flag].value or ():
    name, equals, path = entry.partition('=')
    if not equals or not name or not path:
      raise UserError(f'--{flag}={entry}: NAME=PATH is meant')
    groups.setdefault(name, []).append(pathlib.Path(path))
  if flag == 'outputs' and any(len(paths) > 1 for paths in groups.values()):
    raise UserError('--outputs: one folder for each name')
  return groups


def wants_prior(flagfile: str) -> bool:
  """Whether a flagfile asks for rebalancing and names no prior itself."""
  words = flags.FLAGS.read_flags_from_files([f'--flagfile={flagfile}'])
  named = {word.lstrip('-').partition('=')[0] for word in words}
  return 'rebalance' in named and 'prior' not in named


def seconds_of(run: pathlib.Path) -> float | None:
  """Seconds in which a run trained, steps alone; None if it kept no record."""
  sessions = _sessions(run)
  if not sessions or any(
      'stepping_seconds' not in session for session in sessions):
    return None
  return sum(session['stepping_seconds'] for session in sessions)


def _sessions(run: pathlib.Path) -> list[dict]:
  path = run / 'sessions.jsonl'
  if not path.is_file():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]
