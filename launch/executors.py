"""Starts tasks where the options say, and waits for them."""

import pathlib
from collections.abc import Callable, Sequence

from colorjax.errors import UserError
from launch import local, manifest, slurm, status
from launch.manifest import Run, Sweep
from launch.options import Options
from launch.supervisor import Task


def task_of(sweep: Sweep, run: Run, options: Options) -> Task:
  """The task that is one run."""
  workdir = sweep.workdir(run).absolute()
  return Task(
      name=run.name, workdir=workdir, log=workdir / manifest.LOG,
      command=local.python(
          sweep.experiment, f'--flagfile={workdir / manifest.FLAGFILE}',
          f'--workdir={workdir}'),
      cwd=sweep.cwd, stop_file=sweep.stop_file.absolute(),
      environment=local.compilation_cache(sweep.directory / 'compiled'),
      max_retries=options.max_retries, backoff_seconds=options.backoff_seconds)


def slots(options: Options) -> list[local.Slot]:
  """What runs of this machine are started on.

  Raises:
    UserError: the options do not fit the machine.
  """
  gpus = ([] if options.gpus == 'none' else
          options.gpus.split(',') if options.gpus else local.gpus())
  if gpus:
    if options.runs_at_once > 1:
      raise UserError('--runs_at_once is for machines without a GPU; '
                      '--runs_per_gpu has runs share one, --gpus=none uses '
                      'processors only')
    return local.gpu_slots(gpus, gpus_per_run=options.gpus_per_run or 1,
                           runs_per_gpu=options.runs_per_gpu)
  if options.gpus_per_run or options.runs_per_gpu > 1:
    raise UserError('--gpus_per_run and --runs_per_gpu: this machine has no '
                    'GPU; --runs_at_once shares its processors out')
  return local.cpu_slots(options.runs_at_once)


def run(tasks: Sequence[Task], options: Options, folder: pathlib.Path,
        say: Callable[[str], None] = print) -> list[Task]:
  """Runs the tasks that are not done, and waits.

  Args:
    tasks: the tasks, in the order in which they are started.
    options: where, and how.
    folder: for scripts and logs of SLURM.
    say: called with a line when something changes.

  Returns:
    The tasks that did not finish.

  Raises:
    UserError: the options do not fit the machine, or SLURM refuses.
    KeyboardInterrupt: it was interrupted; tasks of this machine have saved,
      those of SLURM go on.
  """
  if options.executor == 'dry_run':
    raise UserError('--executor=dry_run: only `sweep run` prints commands')
  if options.executor == 'local':
    return local.run(tasks, slots=slots(options), say=say)
  submit(tasks, options, folder, say)
  slurm.wait(folder, {task.name: task.workdir for task in tasks}, say)
  return [task for task in tasks if not task.is_finished()]


def submit(tasks: Sequence[Task], options: Options, folder: pathlib.Path,
           say: Callable[[str], None] = print) -> None:
  """Gives those tasks to SLURM that are not done and not in its hands."""
  standings = status.read({task.name: task.workdir for task in tasks},
                          slurm.queue(folder))
  jobs = slurm.submit(
      folder, [task for task, standing in zip(tasks, standings, strict=True)
               if standing.state not in status.UNDER_WAY
               and not task.is_finished()], options)
  if jobs:
    say(f'{len(jobs)} runs submitted, job {jobs[0].partition("_")[0]}')
