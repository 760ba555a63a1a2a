"""Finds out which of several processes this one is.

Flags say so, or the environment variables that SLURM's srun and Open MPI set.
Nothing here imports JAX or connects anything; `connection` does.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from colorjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Membership:
  """Describes which process of a run this is, and how it finds the others.

  Attributes:
    num_processes: number of processes.
    process_id: number of this process, from 0.
    coordinator_address: 'HOST:PORT' at which process 0 listens. If it is None,
      JAX reads it from the variables of SLURM or Open MPI.
    gpus: numbers of the GPUs that this process uses. If it is empty, the
      process uses all GPUs that it sees.
  """
  num_processes: int
  process_id: int
  coordinator_address: str | None = None
  gpus: Sequence[int] = ()

  def __str__(self) -> str:
    """Returns the name of the process in error messages."""
    return f'process {self.process_id} of {self.num_processes}'


def detect(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Membership | None:
  """Detects which process this is, from flags and the environment.

  Arguments take precedence over the environment. A launcher that has started
  only one task is ignored.

  Args:
    coordinator_address: 'HOST:PORT' at which process 0 listens.
    num_processes: number of processes.
    process_id: number of this process, from 0.
    environment: environment variables by name.

  Returns:
    The membership of this process; None if it is the only process.

  Raises:
    UserError: a value is missing or wrong, or the tasks of a machine cannot
      share its GPUs evenly.
  """
  launched = _launched(environment)
  given = (coordinator_address, num_processes, process_id)
  if launched is None and given == (None, None, None):
    return None
  if launched is not None:
    size = launched.num_processes if num_processes is None else num_processes
    number = launched.process_id if process_id is None else process_id
  elif num_processes == 1:
    return None
  else:
    missing = [name for name, value in (
        ('coordinator_address', coordinator_address),
        ('num_processes', num_processes), ('process_id', process_id))
               if value is None]
    if missing:
      names = ' and '.join(f'{name} is not set' for name in missing)
      raise UserError(
          f'{names}: to run several processes, give each '
          'coordinator_address=HOST:PORT (where process 0 listens), '
          'num_processes=N and process_id=0 to N - 1')
    assert num_processes is not None
    assert process_id is not None
    size, number = num_processes, process_id
  if not 0 <= number < size:
    raise UserError(f'process_id={number} is wrong for num_processes={size}: '
                    f'use a number from 0 to {size - 1}')
  if size == 1:
    return None
  if coordinator_address is not None:
    split_address(coordinator_address)
  elif 'OMPI_COMM_WORLD_SIZE' in environment and (
      'OMPI_MCA_orte_hnp_uri' not in environment):
    raise UserError(
        'coordinator_address is not set, and this version of Open MPI does not '
        'say where process 0 runs; give coordinator_address=HOST:PORT')
  return Membership(num_processes=size, process_id=number,
                    coordinator_address=coordinator_address,
                    gpus=_own_gpus(environment))


def split_address(address: str) -> tuple[str, int]:
  """Splits 'HOST:PORT' into host and port.

  Args:
    address: the address; an IPv6 host is written in brackets.

  Returns:
    The host, without brackets, and the port.

  Raises:
    UserError: the address is not of the form HOST:PORT.
  """
  host, colon, port = address.rpartition(':')
  if not colon or not host or not port.isdecimal() or (
      not 0 < int(port) < 1 << 16):
    raise UserError(
        f'coordinator_address={address} is not of the form HOST:PORT: give the '
        'host of process 0 and a free port there')
  return host.strip('[]'), int(port)


def _launched(environment: Mapping[str, str]) -> Membership | None:
  """Reads the variables of srun or Open MPI; None if there is one task."""
  for number, size in (('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
                       ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')):
    if int(environment.get(size, 1)) > 1 and number in environment:
      return Membership(num_processes=int(environment[size]),
                        process_id=int(environment[number]))
  return None


def _own_gpus(environment: Mapping[str, str]) -> Sequence[int]:
  """Selects this task's GPUs if all tasks of the machine see the same ones.

  Returns:
    Numbers of GPUs. Empty if the task uses all GPUs that it sees: the launcher
    has given each task its own, or there is only one task or GPU.
  """
  if int(environment.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
    number = int(environment.get('SLURM_LOCALID', 0))
    tasks = _tasks_on_node(environment)
    if any(name in environment for name in (
        'SLURM_GPUS_PER_TASK', 'SLURM_TRES_PER_TASK')):
      return ()
  elif int(environment.get('OMPI_COMM_WORLD_SIZE', 1)) > 1:
    number = int(environment.get('OMPI_COMM_WORLD_LOCAL_RANK', 0))
    tasks = int(environment.get('OMPI_COMM_WORLD_LOCAL_SIZE', 1))
  else:
    return ()
  gpus = _num_gpus(environment)
  if tasks < 2 or gpus < 2:
    return ()
  if gpus % tasks:
    raise UserError(
        f'{tasks} tasks on one machine cannot share its {gpus} GPUs evenly: '
        'start one task per GPU, or one task per machine')
  share = gpus // tasks
  return range(number * share, (number + 1) * share)


def _tasks_on_node(environment: Mapping[str, str]) -> int:
  """Returns the number of tasks that srun has started on this machine.

  SLURM_STEP_TASKS_PER_NODE lists the number for each machine, and '(xN)'
  repeats a number N times: '4', '4(x2)', '4(x2),3'.
  """
  counts: list[int] = []
  for part in environment.get('SLURM_STEP_TASKS_PER_NODE', '1').split(','):
    tasks, _, times = part.rstrip(')').partition('(x')
    counts += [int(tasks)] * int(times or 1)
  return counts[int(environment.get('SLURM_NODEID', 0)) % len(counts)]


def _num_gpus(environment: Mapping[str, str]) -> int:
  """Counts the NVIDIA GPUs that this process sees, without starting CUDA."""
  visible = environment.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return len([x for x in visible.split(',') if x])
  try:
    return len(os.listdir('/proc/driver/nvidia/gpus'))
  except OSError:
    return 0
