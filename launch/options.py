"""How runs are started: the options of the executors, and their flags."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from colorjax.errors import UserError

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
      raise UserError(f'--executor={self.executor}: choose '
                      f'from {", ".join(EXECUTORS)}')
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


def options_from(values: Mapping[str, Any]) -> Options:
  """Options from a manifest, which another version may have written."""
  names = {field.name for field in dataclasses.fields(Options)}
  known: dict[str, Any] = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values.items() if name in names}
  return Options(**known)


def add_flags(parser: argparse.ArgumentParser) -> None:
  """The fields of `Options`; those not given are None."""
  texts = {
      'executor': 'local, slurm, or dry_run, which prints the commands.',
      'max_retries': 'How often a run starts again after a crash; a run '
                     'that failed with an error never does.',
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


def from_flags(given: argparse.Namespace, before: Mapping[str, Any]) -> Options:
  """Options of flags of `add_flags`, over those of an earlier time."""
  values = {field.name: getattr(given, field.name)
            for field in dataclasses.fields(Options)}
  return options_from(
      {**before, **{name: value for name, value in values.items()
                    if value is not None}})


class _Parser(argparse.ArgumentParser):
  """One that raises what it has to say."""

  def error(self, message: str) -> Any:
    raise UserError(message)


def from_words(words: Sequence[str]) -> Options:
  """Options of flags, a word each.

  Raises:
    UserError: a flag that is not there, or a wrong value.
  """
  parser = _Parser(add_help=False, allow_abbrev=False)
  add_flags(parser)
  return from_flags(parser.parse_args(list(words)), {})
