"""Starts, watches, compares and stops many runs of one experiment.

    python -m launch.sweep run --experiment=mbm \\
        --flagfile=launch/flags/quickstart.flags \\
        --set=num_components=4,8,16 --set=learning_rate=log:1e-4:1e-2:8 \\
        --set=seed=0,1 --sweepdir=runs/sweep
    python -m launch.sweep status --sweepdir=runs/sweep
    python -m launch.sweep results --sweepdir=runs/sweep

`run` starts what is missing: the same command again goes on, and one with more
values adds runs. `retry` runs what failed. `stop` tells each run to save
and end. launch/README.md explains the sets and the executors.

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
  options,
  slurm,
  status,
)
from launch.manifest import Sweep
from launch.options import Options
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
  _add_executor(run)
  _add_executor(command(
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


def _add_executor(parser: argparse.ArgumentParser) -> None:
  """How runs are started."""
  options.add_flags(parser)
  parser.add_argument('--nowait', action='store_true',
                      help='slurm: submit, and do not wait.')


def _run(given: argparse.Namespace) -> int:
  """`run`."""
  if given.experiment is None:
    new = [name for name in ('flagfile', 'sets', 'listed', 'flags')
           if getattr(given, name)]
    if new:
      raise UserError('--experiment: is needed to begin a sweep or to add runs')
    sweep = manifest.load(given.sweepdir)
    how = options.from_flags(given, sweep.launch)
  else:
    how = options.from_flags(given, {})
    experiment = (given.experiment if '.' in given.experiment else
                  f'experiments.{given.experiment}')
    words = [*(f'--flagfile={path}' for path in given.flagfile), *given.flags]
    checked = flag_check.check(experiment, words, grid.axes(
        given.sets, num_samples=given.num_samples,
        sample_seed=given.sample_seed, listed=_listed(given.listed)))
    if how.executor == 'dry_run':
      return _dry_run(given, experiment, checked, words)
    if how.executor == 'local':
      executors.slots(how)  # Wrong options are found before anything else.
    with manifest.claimed(given.sweepdir):
      sweep = manifest.extend(
          given.sweepdir, experiment=experiment, cwd=os.getcwd(),
          checked=checked, launch=dataclasses.asdict(how))
  return _start(sweep, how, status.STARTED_AGAIN, given)


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
  how = options.from_flags(given, sweep.launch)
  return _start(sweep, how, status.RETRIED, given)


def _start(sweep: Sweep, how: Options, states: Sequence[str],
           given: argparse.Namespace) -> int:
  """Starts the runs of certain states, waits, and says how it went."""
  if how.executor == 'dry_run':
    raise UserError('--executor=dry_run: needs the --experiment and the sets')
  folder = sweep.directory / slurm.FOLDER
  with manifest.claimed(sweep.directory):
    sweep.stop_file.unlink(missing_ok=True)
    standings = _standings(sweep)
    wanted = {standing.name for standing in standings
              if standing.state in (*states, *status.UNDER_WAY)}
    tasks = [executors.task_of(sweep, run, how) for run in sweep.runs
             if run.name in wanted]
    print(status.counts(standings), flush=True)
    if how.executor == 'local':
      executors.run(tasks, how, folder, _say)
    else:
      executors.submit(tasks, how, folder, _say)
  if how.executor == 'slurm':
    if given.nowait:
      return 0
    try:
      slurm.wait(folder, sweep.workdirs(), _say)
    except KeyboardInterrupt:
      print('the runs go on under SLURM; `status` shows them, `stop` ends them',
            file=sys.stderr)
      return EXIT_STOPPED
  return _ended(sweep)


def _say(line: str) -> None:
  print(line, flush=True)


def _ended(sweep: Sweep) -> int:
  """Says how a sweep ended; the exit code."""
  standings = _standings(sweep)
  print(status.counts(standings))
  bad = [standing for standing in standings if standing.state != 'finished']
  for standing in bad:
    print(f'{standing.name}: {standing.state}: {standing.reason}')
  if any(standing.state == 'failed' for standing in bad):
    print(f'`retry --sweepdir={sweep.directory}` runs again what failed')
  if bad and sweep.stop_file.exists():
    return EXIT_STOPPED
  return EXIT_FAILED if bad else 0


def _standings(sweep: Sweep) -> list[Standing]:
  return status.read(sweep.workdirs(),
                     slurm.queue(sweep.directory / slurm.FOLDER))


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
  slurm.cancel_pending(sweep.directory / slurm.FOLDER)
  said = -1
  while True:
    running = [standing.name for standing in _standings(sweep)
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
