"""From the runs of a sweep to tasks, and to the executor that starts them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from colorjax.errors import UserError
from launch import local, manifest
from launch.manifest import Run, Sweep
from launch.supervisor import Task

EXECUTORS = ('local', 'slurm', 'dry_run')
"""Where runs are started; dry_run only prints their commands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How runs are started.

  Attributes:
    executor: one of EXECUTORS.
    max_retries: how often a run is started again after a crash.
    backoff_seconds: pause before the first of these, doubled for each next.
    gpus_per_run: GPUs of one run, over all its nodes.
    gpus: local: numbers of the GPUs, 'none' for processors only; '' for all
      that there are.
    runs_per_gpu: local: runs that share one GPU.
    runs_at_once: local, without GPUs: runs at once.
    array_parallelism: SLURM: runs at once.
    nodes_per_run: SLURM: nodes of one run, one process on each.
    cpus_per_run: SLURM: processors of one process; the cluster's default if 0.
    partition: SLURM.
    account: SLURM.
    qos: SLURM.
    constraint: SLURM: features of nodes.
    time: SLURM: limit of one start in minutes; a run that needs longer is
      started again and goes on.
    signal_seconds: SLURM: so long before the limit a run saves and ends.
    setup: SLURM: lines of shell before a run.
    sbatch: SLURM: further options of sbatch, NAME=VALUE each.
  """
  executor: str = 'local'
  max_retries: int = 1
  backoff_seconds: float = 10.0
  gpus_per_run: int = 0
  gpus: str = ''
  runs_per_gpu: int = 1
  runs_at_once: int = 1
  array_parallelism: int = 256
  nodes_per_run: int = 1
  cpus_per_run: int = 0
  partition: str = ''
  account: str = ''
  qos: str = ''
  constraint: str = ''
  time: int = 60
  signal_seconds: int = 90
  setup: Sequence[str] = ()
  sbatch: Sequence[str] = ()

  def __post_init__(self):
    """UserError for values that cannot be."""
    if self.executor not in EXECUTORS:
      raise UserError(f'--executor={self.executor}: one of '
                      f'{", ".join(EXECUTORS)}')
    for name, least in (('max_retries', 0), ('backoff_seconds', 0),
                        ('gpus_per_run', 0), ('runs_per_gpu', 1),
                        ('runs_at_once', 1), ('array_parallelism', 1),
                        ('nodes_per_run', 1), ('cpus_per_run', 0),
                        ('time', 1), ('signal_seconds', 0)):
      if getattr(self, name) < least:
        raise UserError(f'--{name}={getattr(self, name)}: at least {least}')
    if self.gpus_per_run % self.nodes_per_run:
      raise UserError(f'--gpus_per_run={self.gpus_per_run}: does not divide '
                      f'among --nodes_per_run={self.nodes_per_run}')
    if self.executor != 'slurm':
      changed = [field.name for field in dataclasses.fields(self)
                 if field.name in _SLURM_ONLY
                 and getattr(self, field.name) != field.default]
      if changed:
        raise UserError(f'--{changed[0]}: only with --executor=slurm')


_SLURM_ONLY = frozenset({
    'array_parallelism', 'nodes_per_run', 'cpus_per_run', 'partition',
    'account', 'qos', 'constraint', 'time', 'signal_seconds', 'setup',
    'sbatch'})


def options_from(values: dict[str, Any]) -> Options:
  """Options from a manifest, which another version may have written."""
  names = {field.name for field in dataclasses.fields(Options)}
  known: dict[str, Any] = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values.items() if name in names}
  return Options(**known)


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


def run_locally(sweep: Sweep, runs: Sequence[Run], options: Options,
                say: Callable[[str], None]) -> None:
  """Runs them on this machine, and waits."""
  local.run([task_of(sweep, run, options) for run in runs],
            slots=slots(options), say=say)
