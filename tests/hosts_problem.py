"""One of two processes that `hosts_test.py` starts; it trains no network.

    python tests/hosts_problem.py ADDRESS PROCESS_ID WHAT

WHAT is `exchange`, `wait`, or `alone` for a process whose partner is missing.
Each process must have its own current directory.
"""

import sys

import numpy as np
import pytest

from colorjax import connection, hosts
from colorjax.errors import UserError
from colorjax.membership import Membership
from colorjax.runs.workdir import WorkdirError, claim_workdir


def exchange():
  """Checks the operations of `hosts`; then process 1 raises an error."""
  me = hosts.index()
  assert hosts.count() == 2
  assert hosts.gather({'me': me}) == [{'me': 0}, {'me': 1}]
  assert hosts.gather_bytes(b'x' * me * 3000) == [b'', b'x' * 3000]
  assert hosts.on_main(lambda: [me, 'é']) == [0, 'é']
  rows = hosts.gather_rows({'a': np.full((1 + me, 2), me + 1 / 3)})['a']
  np.testing.assert_array_equal(rows[:, 0], np.array([1, 4, 4]) / 3)
  assert rows.dtype == np.float64

  rng = np.random.default_rng(me)
  mine = {'x': rng.random((300, 7)), 'step': np.array(me, np.int32),
          'failed': np.array(bool(me)), 'none': np.zeros((0, 3), np.float32)}
  found = hosts.from_main(mine)
  theirs = np.random.default_rng(0).random((300, 7))
  assert found['x'].tobytes() == theirs.tobytes()
  assert found['step'] == 0
  assert not found['failed']
  assert {name: x.dtype for name, x in found.items()} == {
      name: x.dtype for name, x in mine.items()}

  hosts.check_agreed({'seed': 3}, 'unused')
  with pytest.raises(UserError, match='seed is 0 in process 0 and 1 in proc'):
    hosts.check_agreed({'seed': me}, 'use the same seed')
  # The current directories differ, so 'run' is not the same directory.
  with (pytest.raises(WorkdirError,
                      match='not the same directory for all processes: proc'),
        claim_workdir('run', '--seed=1\n')):
    pass
  with (pytest.raises(UserError, match='seed is 0'),
        claim_workdir('run', f'--seed={me}\n')):
    pass
  print('checked by', me, flush=True)
  if me:
    raise UserError('the disk is full')
  hosts.barrier('process 1 never calls this')


def wait():
  """Calls a barrier in an endless loop."""
  print('begun', flush=True)
  while True:
    hosts.barrier('again')


def main(address, process_id, what):
  """Connects to the other process and runs a function."""
  this = Membership(coordinator_address=address, num_processes=2,
                    process_id=int(process_id))
  with connection.connected(this, seconds=5 if what == 'alone' else 60):
    {'exchange': exchange, 'wait': wait}[what]()


if __name__ == '__main__':
  main(*sys.argv[1:])
