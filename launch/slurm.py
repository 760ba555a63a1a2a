"""Runs of a sweep under SLURM, submitted as one job array by submitit.

A run is the same on a cluster as on a laptop: `launch.supervisor` starts it and
keeps its record. What is special here:

* Before a time limit, and when a job is preempted, SLURM sends SIGUSR2. The run
  saves, and its job goes back into the queue. This costs no retry.
* A run that failed with an error, or crashed too often, ends its job with its
  own exit code, and is not queued again.
* SLURM is asked only which jobs are still in its queue (`squeue`); how a run
  ended is in its work directory. Accounting (`sacct`) is not needed.
"""

import contextlib
import dataclasses
import getpass
import io
import os
import pathlib
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from colorjax import files
from colorjax.errors import UserError
from launch import status, supervisor
from launch.options import Options
from launch.supervisor import Supervisor, Task

FOLDER = 'slurm'
"""Name of the folder of a sweep for scripts and logs of SLURM."""

_SUBMITTED = 'submitted.json'
_POLL_SECONDS = 1.0
_PHASES = {'RUNNING': 'started', 'COMPLETING': 'ending', 'COMPLETED': '',
           'FAILED': '', 'CANCELLED': '', 'TIMEOUT': '', 'NODE_FAIL': ''}
_ALWAYS = 1_000_000  # a run may reach its time limit as often as it needs


class Attempt:
  """What SLURM calls: one start of one run. submitit pickles it."""

  def __init__(self, task: Task):
    """Takes the run to start."""
    self.task = task
    self._supervisor: Supervisor | None = None

  def __call__(self) -> None:
    """Supervises the run; SystemExit with its code if it did not finish.

    Of the processes of one run, one on each node, the first keeps the record.
    The others wait for the end of the job where they were interrupted, because
    an exit could end the first one while it saves.
    """
    if self.task.is_finished():
      return  # It ended while it was told to save, and was queued again.
    is_first = os.environ.get('SLURM_PROCID', '0') == '0'
    job = os.environ.get('SLURM_ARRAY_JOB_ID', os.environ.get('SLURM_JOB_ID'))
    part = os.environ.get('SLURM_ARRAY_TASK_ID')
    place = f'SLURM {job}{"_" + part if part else ""} on {platform.node()}'
    self._supervisor = Supervisor(
        dataclasses.replace(self.task, place=place), keeps_record=is_first)
    with supervisor.handing_on(self._supervisor):
      code = self._supervisor.run()
    if code and is_first:
      sys.exit(code)
    if code > 128:
      time.sleep(60)

  def checkpoint(self) -> Any:
    """Called by submitit at SIGUSR2: saves, and returns what to queue again.

    None, so that nothing is queued, where the run has meanwhile ended.
    """
    from submitit.helpers import DelayedSubmission

    if self._supervisor is not None and not self._supervisor.preempt(
        signal.SIGUSR2):
      return None
    return DelayedSubmission(Attempt(self.task))


def submit(folder: pathlib.Path, tasks: Sequence[Task], options: Options
           ) -> list[str]:
  """Submits tasks as one job array.

  Args:
    folder: where scripts, logs and the names of jobs are kept; on a disk that
      all nodes share.
    tasks: those to submit, started in one directory; none of them is in the
      queue.
    options: of the executor.

  Returns:
    The job of each task.

  Raises:
    UserError: SLURM or submitit is not there, or SLURM refuses the job.
  """
  if not tasks:
    return []
  folder = folder.absolute()
  executor = _executor(folder, options)
  try:
    # What sbatch says is in the error; submitit prints it too.
    with (_in_directory(tasks[0].cwd or '.'),
          contextlib.redirect_stderr(io.StringIO()), executor.batch()):
      jobs = [executor.submit(Attempt(task)) for task in tasks]
  except (OSError, subprocess.SubprocessError, RuntimeError) as error:
    raise UserError('SLURM refuses the job: '
                    f'{" ".join(str(error).split())[:500]}') from error
  identities = [str(job.job_id) for job in jobs]
  files.write_json(folder / _SUBMITTED, {
      **_submitted(folder),
      **{task.name: job for task, job in zip(tasks, identities, strict=True)}})
  return identities


def _executor(folder: pathlib.Path, options: Options) -> Any:
  try:
    import submitit
  except ImportError as error:
    raise UserError("--executor=slurm: needs submitit: pip install "
                    "'colorjax[slurm]'") from error
  try:
    executor = submitit.SlurmExecutor(folder, max_num_timeout=_ALWAYS)
  except RuntimeError as error:
    raise UserError('--executor=slurm: there is no srun here; start this '
                    'command where jobs are submitted') from error
  # The package need not be installed on the nodes.
  paths = [str(pathlib.Path(__file__).absolute().parents[1]),
           *filter(None, [os.environ.get('PYTHONPATH')])]
  setup = [f'export PYTHONPATH={shlex.quote(os.pathsep.join(paths))}',
           *options.setup]
  given: dict[str, Any] = {
      'job_name': folder.parent.name,
      'time': options.time, 'nodes': options.nodes_per_run,
      'ntasks_per_node': 1, 'signal_delay_s': options.signal_seconds,
      'array_parallelism': options.array_parallelism, 'setup': setup,
      'stderr_to_stdout': True}
  for name in ('partition', 'account', 'qos', 'constraint'):
    if getattr(options, name):
      given[name] = getattr(options, name)
  if options.cpus_per_run:
    given['cpus_per_task'] = options.cpus_per_run
  if options.gpus_per_run:
    given['gpus_per_node'] = options.gpus_per_run // options.nodes_per_run
  more: dict[str, Any] = {'requeue': True}
  for text in options.sbatch:
    name, equals, value = text.lstrip('-').partition('=')
    # As submitit writes it: an option of ours is replaced and not repeated.
    more[name.replace('-', '_')] = value if equals else True
  executor.update_parameters(**given, additional_parameters=more)
  return executor


@contextlib.contextmanager
def _in_directory(path: str) -> Iterator[None]:
  """SLURM starts jobs in the directory that they were submitted from."""
  before = os.getcwd()
  os.chdir(path)
  try:
    yield
  finally:
    os.chdir(before)


def _submitted(folder: pathlib.Path) -> dict[str, str]:
  """The last job of each task that was submitted."""
  path = folder / _SUBMITTED
  return files.read_json(path) if path.is_file() else {}


def queue(folder: pathlib.Path) -> dict[str, str]:
  """What SLURM says of the tasks that were submitted.

  Args:
    folder: see `submit`.

  Returns:
    By name: 'pending', 'started' or 'ending', which may be followed by
    'pending'; '' for a job that it no longer knows.
    Where SLURM does not answer, every task counts as pending, so that none is
    submitted twice.
  """
  submitted = _submitted(folder)
  if not submitted:
    return {}
  states = _squeue()
  if states is None:
    return dict.fromkeys(submitted, 'pending')
  found = {}
  for run, job in submitted.items():
    state = states.get(job)
    found[run] = _PHASES.get(state, 'pending') if state else ''
  return found


def _squeue() -> dict[str, str] | None:
  """State by job, 12 or 12_3; None where SLURM does not answer."""
  try:
    listed = subprocess.run(
        ['squeue', '--noheader', '--array', '--format=%i %T',
         f'--user={getpass.getuser()}'],
        capture_output=True, text=True, check=True, timeout=60)
  except (OSError, subprocess.SubprocessError):
    return None
  pairs = [line.split() for line in listed.stdout.splitlines()]
  return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def wait(folder: pathlib.Path, workdirs: Mapping[str, pathlib.Path],
         say: Callable[[str], None]) -> None:
  """Says how tasks come along until none is queued or runs.

  Args:
    folder: see `submit`.
    workdirs: their work directories by name.
    say: called with a line when something changes.
  """
  known: Mapping[str, str] = {}
  while True:
    standings = status.read(workdirs, queue(folder))
    for standing in standings:
      name, state = standing.name, standing.state
      if known.get(name, state) != state:
        reason = f' ({standing.reason})' if standing.reason else ''
        say(f'{name}: {state}{reason}')
    known = {standing.name: standing.state for standing in standings}
    if not any(standing.state in status.UNDER_WAY for standing in standings):
      return
    time.sleep(_POLL_SECONDS)


def cancel_pending(folder: pathlib.Path) -> None:
  """Takes the jobs out of the queue that have not started."""
  queued = queue(folder)
  jobs = [job for name, job in _submitted(folder).items()
          if queued.get(name) == 'pending']
  if jobs:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
      subprocess.run(['scancel', '--state=PENDING', *jobs], check=False,
                     capture_output=True, timeout=60)
