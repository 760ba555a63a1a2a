"""Many runs of one experiment: started, watched, put into a table, ended.

    python -m launch.sweep run --experiment=mbm \\
        --flagfile=launch/flags/quickstart.flags \\
        --set=num_components=4,8,16 --set=learning_rate=log:1e-4:1e-2:8 \\
        --set=seed=0,1 --sweepdir=runs/sweep
    python -m launch.sweep status --sweepdir=runs/sweep
    python -m launch.sweep results --sweepdir=runs/sweep

`run` starts what is missing: the same command again goes on, and one with more
values adds runs. `retry` runs what failed. `stop` ends a sweep so that each run
saves. launch/README.md explains the sets and the executors.

Exit codes: 0 all is well, 1 a run did not finish, 2 wrong usage, 130 stopped.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from colorjax import files
from colorjax.errors import UserError
from launch import (
  dry_run,
  executors,
  flag_check,
  grid,
  manifest,
  slurm,
  status,
)
from launch.executors import Options
from launch.manifest import Run, Sweep
from launch.status import Standing

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130

_SECONDS_BETWEEN_TABLES = 5.0
_GO_ON = '`run --sweepdir={0}` goes on'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one of the commands; returns the exit code."""
  words = list(sys.argv[1:] if argv is None else argv)
  end = words.index('--') if '--' in words else len(words)
  given = _parser().parse_args(words[:end])
  try:
    if end < len(words) and given.command is not _run:
      raise UserError('flags after -- belong to `run`')
    if given.command is _run:
      given.flags = words[end + 1:]
    given.sweepdir = pathlib.Path(given.sweepdir).expanduser()
    return given.command(given)
  except UserError as error:
    print(f'error: {" ".join(str(error).splitlines())}', file=sys.stderr)
    return EXIT_USAGE
  except KeyboardInterrupt:
    print(f'stopped; {_GO_ON.format(given.sweepdir)}', file=sys.stderr)
    return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='python -m launch.sweep', description=__doc__, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
    found = commands.add_parser(name, help=text, description=text,
                                allow_abbrev=False)
    found.set_defaults(command=function)
    found.add_argument('--sweepdir', required=True,
                       help='Directory of the sweep.')
    return found

  run = command('run', _run, 'Start the runs that are missing, and wait. Flags '
                'after -- are given to every run.')
  run.add_argument('--experiment', help='Script of experiments/, such as mbm, '
                   'or the module of a script of your own. Without it the '
                   'sweep of --sweepdir goes on.')
  run.add_argument('--flagfile', action='append', default=[],
                   help='Flags that all runs share.')
  run.add_argument('--set', action='append', default=[], dest='sets',
                   metavar='FLAG=VALUES', help='Values of one flag: 4,8,16 | '
                   'log:LOW:HIGH:NUMBER | linear:LOW:HIGH:NUMBER | '
                   'uniform:LOW:HIGH | loguniform:LOW:HIGH | choice:A,B. '
                   'Repeat it for each flag; the runs are all combinations.')
  run.add_argument('--list', metavar='FILE', dest='listed', help='Values that '
                   'go together: the flags of one run on each line.')
  run.add_argument('--num_samples', type=int, help='How often the random flags '
                   'are drawn.')
  run.add_argument('--sample_seed', type=int, default=0,
                   help='Of these draws.')
  _add_options(run)
  _add_options(command(
      'retry', _retry, 'Run again what failed or was lost; options that are '
      'not given are those of the last time.'))
  shown = command('status', _status, 'Show how each run stands.')
  shown.add_argument('--watch', action='store_true',
                     help='Show it again and again until all runs are over.')
  results = command('results', _results, 'Write results.md, results.csv and '
                    'plots of the metrics of finished runs.')
  results.add_argument('--metrics', help='Names of metrics for table and '
                       'plots, with commas between; all for all. '
                       'results.csv always has all.')
  command('stop', _stop, 'End a sweep: each run saves and ends.')
  return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
  """The fields of `Options`; those not given are None."""
  texts = {
      'executor': 'local, slurm, or dry_run, which prints the commands.',
      'max_retries': 'How often a run starts again after a crash; one that '
                     'failed for its own reasons never does.',
      'backoff_seconds': 'Pause before the first of these, then doubled.',
      'gpus_per_run': 'GPUs of one run, over all its nodes.',
      'gpus': 'local: numbers of the GPUs, or none; all if not given.',
      'runs_per_gpu': 'local: runs that share one GPU and its memory.',
      'runs_at_once': 'local, without GPUs: runs that share the processors.',
      'array_parallelism': 'slurm: runs at once.',
      'nodes_per_run': 'slurm: nodes of one run, one process on each.',
      'cpus_per_run': 'slurm: processors of each process.',
      'partition': 'slurm: where to run.',
      'account': 'slurm: who pays.',
      'qos': 'slurm: quality of service.',
      'constraint': 'slurm: features that nodes must have.',
      'time': 'slurm: minutes after which a run saves and is queued again.',
      'signal_seconds': 'slurm: so long before that it is told to save.',
  }
  group = parser.add_argument_group('executor')
  for field in dataclasses.fields(Options):
    if field.name in ('setup', 'sbatch'):
      continue
    default = '' if field.default == '' else f' Default: {field.default}.'
    group.add_argument(f'--{field.name}', type=type(field.default),
                       help=texts[field.name] + default)
  group.add_argument('--setup', action='append', help='slurm: a line of shell '
                     'before each run, such as "module load cuda".')
  group.add_argument('--sbatch', action='append', metavar='NAME=VALUE',
                     help='slurm: any other option of sbatch.')
  group.add_argument('--nowait', action='store_true',
                     help='slurm: submit, and do not wait.')


def _options(given: argparse.Namespace, before: dict[str, Any]) -> Options:
  """Those given on the command line, over those of the last time."""
  values = {field.name: getattr(given, field.name)
            for field in dataclasses.fields(Options)}
  return executors.options_from(
      {**before, **{name: value for name, value in values.items()
                    if value is not None}})


def _run(given: argparse.Namespace) -> int:
  """`run`."""
  if given.experiment is None:
    new = [name for name in ('flagfile', 'sets', 'listed', 'flags')
           if getattr(given, name)]
    if new:
      raise UserError('--experiment: is needed to begin a sweep or to add runs')
    sweep = manifest.load(given.sweepdir)
    options = _options(given, dict(sweep.launch))
  else:
    options = _options(given, {})
    experiment = (given.experiment if '.' in given.experiment else
                  f'experiments.{given.experiment}')
    words = [*(f'--flagfile={path}' for path in given.flagfile), *given.flags]
    checked = flag_check.check(experiment, words, grid.axes(
        given.sets, num_samples=given.num_samples,
        sample_seed=given.sample_seed, listed=_listed(given.listed)))
    if options.executor == 'dry_run':
      return _dry_run(given, experiment, checked, words)
    if options.executor == 'local':
      executors.slots(options)  # Wrong options are found before anything else.
    with manifest.claimed(given.sweepdir):
      sweep = manifest.extend(
          given.sweepdir, experiment=experiment, cwd=os.getcwd(),
          checked=checked, launch=dataclasses.asdict(options))
  return _start(sweep, options, status.STARTED_AGAIN, given)


def _listed(path: str | None) -> list[dict[str, str]]:
  """Values that go together, of a file with the flags of a run on each line."""
  import shlex

  if path is None:
    return []
  found = []
  for line in files.read_text(path).splitlines():
    values = {}
    for word in shlex.split(line, comments=True):
      name, equals, value = word.lstrip('-').partition('=')
      if not equals:
        raise UserError(f'{path}: {word!r} is no --flag=value')
      values[name] = value
    if values:
      found.append(values)
  if not found:
    raise UserError(f'{path}: holds no flags')
  return found


def _dry_run(given: argparse.Namespace, experiment: str,
             checked: flag_check.Checked, words: Sequence[str]) -> int:
  runs = manifest.named(checked.runs)
  sweep = Sweep(
      directory=given.sweepdir, experiment=experiment, cwd=os.getcwd(),
      flags=checked.flags, effective=checked.effective, swept=checked.swept,
      repeated=checked.repeated, launch={}, runs=runs)
  for line in dry_run.commands(sweep, runs, words):
    print(line)
  return 0


def _retry(given: argparse.Namespace) -> int:
  """`retry`."""
  sweep = manifest.load(given.sweepdir)
  options = _options(given, dict(sweep.launch))
  return _start(sweep, options, status.RETRIED, given)


def _start(sweep: Sweep, options: Options, states: Sequence[str],
           given: argparse.Namespace) -> int:
  """Starts the runs of certain states, waits, and says how it went."""
  if options.executor == 'dry_run':
    raise UserError('--executor=dry_run: only where a sweep is begun')
  with manifest.claimed(sweep.directory):
    sweep.stop_file.unlink(missing_ok=True)
    standings = _standings(sweep)
    runs = [standing.run for standing in standings
            if standing.state in (*states, 'running', 'retrying')]
    print(status.counts(standings), flush=True)
    if options.executor == 'local':
      executors.run_locally(sweep, runs, options, _say)
    else:
      _submit(sweep, [run for run in runs if run.name not in {
          standing.run.name for standing in standings
          if standing.state in status.UNDER_WAY}], options)
  if options.executor == 'slurm':
    if given.nowait:
      return 0
    try:
      slurm.wait(sweep, _say)
    except KeyboardInterrupt:
      print('the runs go on under SLURM; `status` shows them, `stop` ends them',
            file=sys.stderr)
      return EXIT_STOPPED
  return _ended(sweep)


def _submit(sweep: Sweep, runs: Sequence[Run], options: Options) -> None:
  jobs = slurm.submit(sweep, runs, options)
  if jobs:
    print(f'{len(jobs)} runs submitted, job {jobs[0].partition("_")[0]}',
          flush=True)


def _say(line: str) -> None:
  print(line, flush=True)


def _ended(sweep: Sweep) -> int:
  """Says how a sweep ended; the exit code."""
  standings = _standings(sweep)
  print(status.counts(standings))
  bad = [standing for standing in standings if standing.state != 'finished']
  for standing in bad:
    print(f'{standing.run.name}: {standing.state}: {standing.reason}')
  if any(standing.state == 'failed' for standing in bad):
    print(f'`retry --sweepdir={sweep.directory}` runs again what failed')
  if bad and sweep.stop_file.exists():
    return EXIT_STOPPED
  return EXIT_FAILED if bad else 0


def _standings(sweep: Sweep) -> list[Standing]:
  return status.read(sweep, slurm.queue(sweep))


def _status(given: argparse.Namespace) -> int:
  """`status`."""
  sweep = manifest.load(given.sweepdir)
  while True:
    standings = _standings(sweep)
    table = status.table(standings)
    if not given.watch:
      print(table)
      return 0
    # Cursor home, and clear: a table in the place of the last one.
    home = '\033[H\033[J' if sys.stdout.isatty() else ''
    print(f'{home}{status.stamp()}\n{table}', flush=True)
    if all(standing.state in status.OVER for standing in standings):
      return 0
    time.sleep(_SECONDS_BETWEEN_TABLES)


def _results(given: argparse.Namespace) -> int:
  """`results`."""
  from launch import results

  sweep = manifest.load(given.sweepdir)
  print(results.write(sweep, metrics=given.metrics))
  return 0


def _stop(given: argparse.Namespace) -> int:
  """`stop`."""
  sweep = manifest.load(given.sweepdir)
  files.write_text(sweep.stop_file, '')
  slurm.cancel_pending(sweep)
  said = -1
  while True:
    running = [standing.run.name for standing in _standings(sweep)
               if standing.state in status.UNDER_WAY]
    if not running:
      break
    if len(running) != said:
      said = len(running)
      _say(f'{said} runs save and end')
    time.sleep(0.2)
  print(f'{status.counts(_standings(sweep))}; '
        f'{_GO_ON.format(sweep.directory)}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
