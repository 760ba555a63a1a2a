"""Tests which process of several this one is, and which GPUs it uses."""

import pytest

from colorjax import membership
from colorjax.errors import UserError
from colorjax.membership import Membership

SLURM = {'SLURM_STEP_NUM_TASKS': '4', 'SLURM_PROCID': '3',
         'SLURM_LOCALID': '1', 'SLURM_NODEID': '1',
         'SLURM_STEP_TASKS_PER_NODE': '2(x2)'}
OPEN_MPI = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1',
            'OMPI_COMM_WORLD_LOCAL_RANK': '1',
            'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
            'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911'}


def test_membership_follows_flags_and_launchers():
  assert membership.detect(environment={}) is None
  assert membership.detect('a:1', 2, 0, environment={}) == Membership(
      coordinator_address='a:1', num_processes=2, process_id=0)
  # A single process has no others to connect to.
  assert membership.detect(environment=SLURM | {
      'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'}) is None
  assert membership.detect(None, 1, 0, environment={}) is None
  assert membership.detect('a:1', 1, 0, environment={}) is None
  # The script of a job, which srun has not started, is a single process.
  assert membership.detect(environment={
      'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}) is None
  assert membership.detect(environment=SLURM) == Membership(
      num_processes=4, process_id=3)
  assert membership.detect(environment=OPEN_MPI) == Membership(
      num_processes=2, process_id=1)
  # Flags take precedence.
  assert membership.detect(None, 1, 0, environment=SLURM) is None
  assert membership.detect('a:1', environment=SLURM) == Membership(
      coordinator_address='a:1', num_processes=4, process_id=3)


@pytest.mark.parametrize(('environment', 'expected'), [
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', **SLURM}, [2, 3]),
    ({'CUDA_VISIBLE_DEVICES': '0,1', **OPEN_MPI}, [1]),
    # Each task sees only its own GPUs.
    ({'CUDA_VISIBLE_DEVICES': '0', **SLURM}, []),
    ({'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_PER_TASK': '2', **SLURM}, []),
    # A task that is alone on its machine uses all GPUs.
    ({'CUDA_VISIBLE_DEVICES': '0,1', **SLURM,
      'SLURM_STEP_TASKS_PER_NODE': '3,1'}, []),
    ({'CUDA_VISIBLE_DEVICES': '0,1', **SLURM, 'SLURM_NODEID': '2',
      'SLURM_STEP_TASKS_PER_NODE': '2(x2),1'}, []),
    ({'CUDA_VISIBLE_DEVICES': '', **SLURM}, []),
])
def test_tasks_of_a_machine_share_its_gpus(environment, expected):
  found = membership.detect(environment=environment)
  assert list(found.gpus) == expected


@pytest.mark.parametrize(('given', 'environment', 'message'), [
    (('a:1', None, None), {},
     'num_processes is not set and process_id is not set: '),
    ((None, 2, None), {},
     'coordinator_address is not set and process_id is not set: '),
    (('a:1', 2, 2), {}, 'process_id=2 is wrong .* from 0 to 1'),
    (('a', 2, 0), {}, 'coordinator_address=a is not of the form HOST:PORT'),
    (('a:99999', 2, 0), {}, 'is not of the form HOST:PORT'),
    ((None, None, None), {
        name: value for name, value in OPEN_MPI.items() if 'uri' not in name},
     'coordinator_address is not set, .* Open MPI'),
    ((None, None, None), {'CUDA_VISIBLE_DEVICES': '0,1,2', **SLURM},
     '2 tasks on one machine cannot share its 3 GPUs'),
])
def test_wrong_settings_are_refused(given, environment, message):
  with pytest.raises(UserError, match=message):
    membership.detect(*given, environment=environment)
