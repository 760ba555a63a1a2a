"""Several real processes, of two devices each, against a single one."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from PIL import Image

from colorjax import connection, hosts
from colorjax.data.screening import Screen
from colorjax.data.source import from_arrays
from colorjax.errors import UserError
from colorjax.runs.photographs import Feed, PhotoOptions
from colorjax.training.checkpoint import restore_variables, steps

ROOT = pathlib.Path(__file__).parent.parent
NUM_STEPS = 40

# The default mixture, its dropout included, in small.
TINY = [
    f'--num_steps={NUM_STEPS}', '--batch_size=8', '--image_size=16',
    '--filters=16', '--prior_width=8', '--num_components=2',
    '--num_proposals=2', '--report_photos=2', '--optimizer=sgd',
    '--learning_rate=0.01', '--warmup_steps=1', '--log_every=1',
    '--eval_every=20', '--checkpoint_every=5', '--keep_checkpoints=20']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Photographs for two batches, the second one short, and a bad file."""
  path = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i in range(13):
    pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path / f'{i}.png')
  (path / 'broken.png').write_bytes(b'not a photograph')
  return path


def _free_port():
  with socket.socket() as listener:
    listener.bind(('', 0))
    return listener.getsockname()[1]


class Run:
  """Processes of one command, with all that each of them printed."""

  def __init__(self, count, *command):
    """Starts them.

    Args:
      count: how many; a single one is told of no others.
      *command: the script and its flags.
    """
    port = _free_port()
    self.files = [
        tempfile.TemporaryFile('w+')  # noqa: SIM115
        for _ in range(count)]
    self.processes = []
    devices = 2 if count > 1 else 1
    for i, file in enumerate(self.files):
      told = [f'--coordinator_address=127.0.0.1:{port}',
              f'--num_processes={count}', f'--process_id={i}']
      self.processes.append(subprocess.Popen(
          [sys.executable, '-m', *command, *(told if count > 1 else [])],
          cwd=ROOT, stdout=file, stderr=file, env={
              **os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu',
              'XLA_FLAGS': '--xla_force_host_platform_device_count='
                           f'{devices}'}))

  def wait(self, seconds=900):
    """The exit codes and what was printed; whoever is late is killed."""
    end = time.monotonic() + seconds
    try:
      codes = [process.wait(max(0, end - time.monotonic()))
               for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()
        process.wait()
    said = []
    for file in self.files:
      with file:
        file.seek(0)
        said.append(file.read())
    return codes, said

  def wait_for(self, path, lines):
    """Waits until a file has so many lines."""
    while not path.exists() or path.read_bytes().count(b'\n') < lines:
      if any(process.poll() is not None for process in self.processes):
        pytest.fail(str(self.wait(10)))
      time.sleep(0.001)


def _train(count, folder, workdir, *flags):
  return Run(count, 'experiments.mbm', f'--data=folder:{folder}',
             f'--eval_data=folder:{folder}', f'--workdir={workdir}', *TINY,
             *flags)


@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
  """Work directories of the whole run by the number of processes."""
  workdirs = {count: tmp_path_factory.mktemp('trained') / str(count)
              for count in (1, 2, 4)}
  runs = {count: _train(count, folder, workdir,
                        '--noreport' if count == 4 else '--report')
          for count, workdir in workdirs.items()}
  for count, run in runs.items():
    codes, said = run.wait()
    assert codes == [0] * count, said
    # Only the main process speaks.
    for text in said[1:]:
      assert str(workdirs[count]) not in text, text
  return workdirs


def _assert_same_run(found, expected):
  """Parameters to 1e-6, all figures to 1e-5."""
  ours, theirs = (
      restore_variables(workdir, which='latest')['params']
      for workdir in (found, expected))
  for ours_leaf, theirs_leaf in zip(_leaves(ours), _leaves(theirs),
                                    strict=True):
    np.testing.assert_allclose(ours_leaf, theirs_leaf, atol=1e-6, rtol=0)
  lines, wanted = (
      [json.loads(line) for line in
       (workdir / 'metrics.jsonl').read_text().splitlines()]
      for workdir in (found, expected))
  assert len(lines) == len(wanted) == NUM_STEPS + 2
  for line, want in zip(lines, wanted, strict=True):
    assert line.keys() == want.keys()
    assert line['split'] == want.pop('split')
    for name, value in want.items():
      np.testing.assert_allclose(line[name], value, atol=1e-5, rtol=1e-5,
                                 err_msg=f'{line["step"]} {name}')


def _leaves(tree):
  if not isinstance(tree, dict):
    return [tree]
  return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]


@pytest.mark.parametrize('count', [2, 4])
def test_processes_end_with_the_parameters_and_figures_of_one(trained, count):
  _assert_same_run(trained[count], trained[1])


def test_training_moved_the_parameters(trained):
  """Otherwise equal parameters would prove nothing."""
  lines = [json.loads(line) for line in
           (trained[1] / 'metrics.jsonl').read_text().splitlines()]
  rates = [line['learning_rate'] * line['grad_norm'] for line in lines
           if line['split'] == 'train']
  assert sum(rates) > 1e-3


def test_the_report_of_two_processes_is_that_of_one(trained):
  found, expected = (
      json.loads((trained[count] / 'report/metrics.json').read_text())
      for count in (2, 1))
  assert found.keys() == expected.keys()
  for name, figure in expected.items():
    for part, value in figure.items():
      # Figures of 8-bit pictures: a value may round the other way.
      np.testing.assert_allclose(found[name][part], value, rtol=2e-3,
                                 atol=1e-3, err_msg=name)
  assert (trained[2] / 'report/proposals.png').exists()


def test_an_evaluation_by_two_processes_is_that_of_one(folder, tmp_path):
  runs = {count: Run(
      count, 'experiments.evaluate', '--reference=grey',
      f'--data=folder:{folder}', f'--workdir={tmp_path / str(count)}',
      '--batch_size=8', '--report_photos=2', '--image_size=16')
          for count in (1, 2)}
  figures = []
  for count, run in runs.items():
    workdir = tmp_path / str(count)
    codes, said = run.wait()
    assert codes == [0] * count, said
    figures.append(json.loads((workdir / 'metrics.json').read_text()))
    protocol = json.loads((workdir / 'protocol.json').read_text())
    assert len(protocol['photographs']) == 13
    assert len(protocol['left_out']) == 1
  one, two = figures
  assert one.keys() == two.keys()
  for name, figure in one.items():
    for part, value in figure.items():
      np.testing.assert_allclose(two[name][part], value, rtol=2e-3,
                                 atol=1e-3, err_msg=name)


def test_a_run_survives_signals_kills_and_other_numbers_of_processes(
    trained, folder, tmp_path):
  """Two processes, then four, then one: the run of one process."""
  workdir = tmp_path / 'run'
  metrics = workdir / 'metrics.jsonl'

  # SIGTERM to one: all save at the same step and end with the usual code.
  run = _train(2, folder, workdir, '--noreport')
  run.wait_for(metrics, 3)
  run.processes[1].send_signal(signal.SIGTERM)
  codes, said = run.wait()
  assert codes == [128 + signal.SIGTERM] * 2, said
  saved = max(steps(workdir / 'checkpoints'))
  assert f'SIGTERM at step {saved}: saved' in said[0]
  assert saved < NUM_STEPS

  # SIGKILL of one: the others end with one clear line and EXIT_LOST.
  run = _train(4, folder, workdir, '--noreport')
  run.wait_for(metrics, saved + 3)
  begin = time.monotonic()
  run.processes[2].kill()
  codes, said = run.wait()
  assert time.monotonic() - begin < 60
  assert codes[2] == -signal.SIGKILL
  assert codes[:2] + codes[3:] == [connection.EXIT_LOST] * 3, said
  for i in (0, 1, 3):
    assert said[i].count('another process has been killed') == 1, said[i]
    assert 'Traceback' not in said[i]
  assert f'going on from step {saved}' in said[0]

  codes, said = _train(1, folder, workdir, '--noreport').wait()
  assert codes == [0], said
  assert 'going on from step' in said[0]
  _assert_same_run(workdir, trained[1])


def _meet(folder, what, process_ids=(0, 1)):
  """Processes of `hosts_problem.py`, each in a directory of its own."""
  address = f'127.0.0.1:{_free_port()}'
  processes = {}
  for i in process_ids:
    (folder / f'{what}{i}').mkdir()
    processes[i] = subprocess.Popen(
        [sys.executable, '-u', str(ROOT / 'tests/hosts_problem.py'), address,
         str(i), what], cwd=folder / f'{what}{i}', text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'})
  return processes


def test_what_processes_say_to_each_other_and_how_one_ends_all(tmp_path):
  processes = _meet(tmp_path, 'exchange')
  said = {i: process.communicate(timeout=100)
          for i, process in processes.items()}
  assert [p.returncode for p in processes.values()] == [2, 2], said
  assert said[0][1].splitlines()[-1] == (
      'process 1 of 2 ended: error: the disk is full')
  assert said[1][1].splitlines()[-1] == 'error: the disk is full'
  assert 'said by 0' in said[0][0]
  assert 'said by' not in said[1][0]  # Only the main process speaks.


def test_processes_that_do_not_meet_say_so(tmp_path):
  """A coordinator that is not there, and a process that never arrives."""
  processes = _meet(tmp_path, 'alone', [1])
  _, said = processes[1].communicate(timeout=100)
  assert processes[1].returncode == 2, said
  assert 'found no process 0 there within 5 s' in said
  assert len(said.splitlines()) == 1

  (tmp_path / 'alone1').rmdir()
  processes = _meet(tmp_path, 'alone', [0])
  _, said = processes[0].communicate(timeout=100)
  assert processes[0].returncode == 2, said
  assert said.splitlines()[-1].startswith(
      'error: process 0 of 2: not all processes came together within 5 s')


def test_a_machine_that_falls_silent_ends_the_others(tmp_path):
  """The main one, or another one; both take half a minute, hence together."""
  pairs = {}
  for stopped in (0, 1):
    (tmp_path / str(stopped)).mkdir()
    pairs[stopped] = _meet(tmp_path / str(stopped), 'wait')
  for stopped, processes in pairs.items():
    while 'begun' not in processes[0].stdout.readline():
      assert processes[0].poll() is None
    processes[stopped].send_signal(signal.SIGSTOP)
  begin = time.monotonic()
  for stopped, processes in pairs.items():
    other = processes[1 - stopped]
    try:
      _, said = other.communicate(timeout=100)
    finally:
      processes[stopped].kill()
      processes[stopped].communicate()
    assert time.monotonic() - begin < 60
    assert other.returncode == connection.EXIT_LOST, said
    assert 'another process has been killed or cannot be reached' in (
        said.splitlines()[-1])


@pytest.mark.parametrize('count', [2, 4])
def test_shares_of_processes_make_up_the_batch_pixel_by_pixel(count):
  rng = np.random.default_rng(0)
  photos = Screen(from_arrays(
      [rng.integers(0, 256, (20, 20, 3), np.uint8) for _ in range(11)]))
  whole = Feed(photos=photos, options=PhotoOptions(), batch_size=8,
               image_size=16)
  shares = [Feed(photos=photos, options=PhotoOptions(), batch_size=8,
                 image_size=16, shard=(i, count)) for i in range(count)]
  for open_stream in (lambda feed: feed.train(3, 4), Feed.held_out):
    expected = list(open_stream(whole))
    assert len(expected) in (4, 2)
    parts = [list(open_stream(share)) for share in shares]
    for n, batch in enumerate(expected):
      for name, rows in batch.items():
        found = np.concatenate([part[n][name] for part in parts])
        np.testing.assert_array_equal(found, rows)


SLURM = {'SLURM_STEP_NUM_TASKS': '4', 'SLURM_PROCID': '3',
         'SLURM_LOCALID': '1', 'SLURM_NODEID': '1',
         'SLURM_STEP_TASKS_PER_NODE': '2(x2)'}
OPEN_MPI = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1',
            'OMPI_COMM_WORLD_LOCAL_RANK': '1',
            'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
            'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911'}


def test_who_a_process_is():
  assert connection.meeting(environment={}) is None
  assert connection.meeting('a:1', 2, 0, environment={}) == connection.Meeting(
      coordinator_address='a:1', num_processes=2, process_id=0)
  # A single task starts no coordinator, and a single process needs none.
  assert connection.meeting(environment=SLURM | {
      'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'}) is None
  assert connection.meeting(None, 1, 0, environment={}) is None
  assert connection.meeting('a:1', 1, 0, environment={}) is None
  # A job script that is not started by srun has no step.
  assert connection.meeting(environment={
      'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}) is None
  assert connection.meeting(environment=SLURM) == connection.Meeting(
      num_processes=4, process_id=3)
  assert connection.meeting(environment=OPEN_MPI) == connection.Meeting(
      num_processes=2, process_id=1)
  # Flags come first.
  assert connection.meeting(None, 1, 0, environment=SLURM) is None
  assert connection.meeting('a:1', environment=SLURM) == connection.Meeting(
      coordinator_address='a:1', num_processes=4, process_id=3)


@pytest.mark.parametrize(('environment', 'expected'), [
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', **SLURM}, [2, 3]),
    ({'CUDA_VISIBLE_DEVICES': '0,1', **OPEN_MPI}, [1]),
    # Each task sees its own.
    ({'CUDA_VISIBLE_DEVICES': '0', **SLURM}, []),
    ({'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_PER_TASK': '2', **SLURM}, []),
    # One task a machine has all.
    ({'CUDA_VISIBLE_DEVICES': '0,1', **SLURM,
      'SLURM_STEP_TASKS_PER_NODE': '3,1'}, []),
    ({'CUDA_VISIBLE_DEVICES': '0,1', **SLURM, 'SLURM_NODEID': '2',
      'SLURM_STEP_TASKS_PER_NODE': '2(x2),1'}, []),
    ({'CUDA_VISIBLE_DEVICES': '', **SLURM}, []),
])
def test_which_gpus_a_task_has(environment, expected):
  where = connection.meeting(environment=environment)
  assert list(where.gpus) == expected


@pytest.mark.parametrize(('given', 'environment', 'message'), [
    (('a:1', None, None), {}, 'num_processes and process_id is missing'),
    ((None, 2, None), {}, 'coordinator_address and process_id is missing'),
    (('a:1', 2, 2), {}, 'process_id=2: .* 0 to 1'),
    (('a', 2, 0), {}, 'coordinator_address=a: HOST:PORT is meant'),
    (('a:99999', 2, 0), {}, 'HOST:PORT is meant'),
    ((None, None, None), {
        name: value for name, value in OPEN_MPI.items() if 'uri' not in name},
     'this Open MPI does not say'),
    ((None, None, None), {'CUDA_VISIBLE_DEVICES': '0,1,2', **SLURM},
     '2 tasks of one machine cannot share its 3 GPUs'),
])
def test_wrong_meetings_are_refused(given, environment, message):
  with pytest.raises(UserError, match=message):
    connection.meeting(*given, environment=environment)


def test_alone_everything_is_a_plain_call():
  value = {'x': (1, 2)}
  assert hosts.on_main(lambda: value) is value
  assert hosts.gather([1]) == [[1]]
  assert hosts.gather_bytes(b'a') == [b'a']
  assert hosts.shard() == (0, 1)
  assert hosts.is_main()
  hosts.barrier('nobody to wait for')
  hosts.check_agreed({'a': 1}, 'never said')
