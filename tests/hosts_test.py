"""Compares runs of several processes with runs of a single process.

The processes are real. Each of several processes has two CPU devices.
"""

import json
import os
import pathlib
import shutil
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
from colorjax.runs.photographs import Feed, PhotoOptions
from colorjax.training.checkpoint import restore_variables, steps

ROOT = pathlib.Path(__file__).parent.parent
NUM_STEPS = 40

# A small version of the default mixture, with dropout.
TINY = [
    f'--num_steps={NUM_STEPS}', '--batch_size=8', '--image_size=16',
    '--filters=16', '--prior_width=8', '--num_components=2',
    '--num_proposals=2', '--report_photos=2', '--optimizer=sgd',
    '--learning_rate=0.01', '--warmup_steps=1', '--log_every=1',
    '--eval_every=20', '--checkpoint_every=5', '--keep_checkpoints=20']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of 13 photographs, which are 1.6 batches, and a bad file."""
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
  """Processes that run one command, and the output of each."""

  def __init__(self, count, *command):
    """Starts the processes.

    Args:
      count: number of processes. A single one gets no flags of `connection`.
      *command: name of the script's module, and flags.
    """
    port = _free_port()
    self.files = [
        tempfile.TemporaryFile('w+')  # noqa: SIM115
        for _ in range(count)]
    self.processes = []
    devices = 2 if count > 1 else 1
    for i, file in enumerate(self.files):
      host_flags = [f'--coordinator_address=127.0.0.1:{port}',
                    f'--num_processes={count}', f'--process_id={i}']
      self.processes.append(subprocess.Popen(
          [sys.executable, '-m', *command,
           *(host_flags if count > 1 else [])],
          cwd=ROOT, stdout=file, stderr=file, env={
              **os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu',
              'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') +
                           ' --xla_force_host_platform_device_count='
                           f'{devices}'}))

  def wait(self, seconds=900):
    """Returns exit codes and outputs; kills processes that take too long."""
    end = time.monotonic() + seconds
    try:
      codes = [process.wait(max(0, end - time.monotonic()))
               for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()
        process.wait()
    outputs = []
    for file in self.files:
      with file:
        file.seek(0)
        outputs.append(file.read())
    return codes, outputs

  def wait_until(self, condition):
    """Waits until a condition holds; all processes must be running."""
    while not condition():
      if any(process.poll() is not None for process in self.processes):
        pytest.fail(str(self.wait(10)))
      time.sleep(0.005)


def _train(count, folder, workdir, *flags):
  return Run(count, 'experiments.mbm', f'--data=folder:{folder}',
             f'--eval_data=folder:{folder}', f'--workdir={workdir}', *TINY,
             *flags)


@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
  """Work directories of complete runs, by the number of processes."""
  workdirs = {count: tmp_path_factory.mktemp('trained') / str(count)
              for count in (1, 2)}
  runs = {count: _train(count, folder, workdir, '--report')
          for count, workdir in workdirs.items()}
  for count, run in runs.items():
    codes, outputs = run.wait()
    assert codes == [0] * count, outputs
    # Only the main process prints progress.
    for text in outputs[1:]:
      assert str(workdirs[count]) not in text, text
  return workdirs


def _assert_same_run(found, expected):
  """Compares parameters to 1e-6 and all logged metrics to 1e-5."""
  _assert_same_parameters(found, expected)
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


def _assert_same_parameters(found, expected):
  ours, theirs = (
      restore_variables(workdir, which='latest')['params']
      for workdir in (found, expected))
  for ours_leaf, theirs_leaf in zip(_leaves(ours), _leaves(theirs),
                                    strict=True):
    np.testing.assert_allclose(ours_leaf, theirs_leaf, atol=1e-6, rtol=0)


def _only_checkpoint(workdir, step, copy):
  """Copies a work directory with one of its checkpoints."""
  shutil.copytree(workdir / f'checkpoints/{step}', copy / f'checkpoints/{step}')
  return copy


def _leaves(tree):
  if not isinstance(tree, dict):
    return [tree]
  return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]


def test_two_processes_train_as_a_single_one(trained):
  _assert_same_run(trained[2], trained[1])


def test_training_moved_the_parameters(trained):
  """If they did not move, the comparison of parameters would be empty."""
  lines = [json.loads(line) for line in
           (trained[1] / 'metrics.jsonl').read_text().splitlines()]
  rates = [line['learning_rate'] * line['grad_norm'] for line in lines
           if line['split'] == 'train']
  assert sum(rates) > 1e-3


def test_two_processes_report_the_metrics_of_a_single_one(trained):
  found, expected = (
      json.loads((trained[count] / 'report/metrics.json').read_text())
      for count in (2, 1))
  assert found.keys() == expected.keys()
  for name, figure in expected.items():
    for part, value in figure.items():
      # These are metrics of 8-bit pictures, so a pixel may round differently.
      np.testing.assert_allclose(found[name][part], value, rtol=2e-3,
                                 atol=1e-3, err_msg=name)
  assert (trained[2] / 'report/proposals.png').exists()


def test_two_processes_evaluate_as_a_single_one(folder, tmp_path):
  runs = {count: Run(
      count, 'experiments.evaluate', '--reference=grey',
      f'--data=folder:{folder}', f'--workdir={tmp_path / str(count)}',
      '--batch_size=8', '--report_photos=2', '--image_size=16')
          for count in (1, 2)}
  figures = []
  for count, run in runs.items():
    workdir = tmp_path / str(count)
    codes, outputs = run.wait()
    assert codes == [0] * count, outputs
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
  """Four processes start a run, then two, then one; it ends as one run."""
  workdir = tmp_path / 'run'
  saved = NUM_STEPS // 2

  # After SIGKILL of one process, the others print one line and exit.
  run = _train(4, folder, workdir, '--noreport')
  run.wait_until(lambda: saved in steps(workdir / 'checkpoints'))
  begin = time.monotonic()
  run.processes[2].kill()
  codes, outputs = run.wait()
  assert time.monotonic() - begin < 60
  assert codes[2] == -signal.SIGKILL
  assert codes[:2] + codes[3:] == [connection.EXIT_LOST] * 3, outputs
  for i in (0, 1, 3):
    assert outputs[i].count('another process has been killed') == 1, outputs[i]
    assert 'Traceback' not in outputs[i]
  _assert_same_parameters(
      _only_checkpoint(workdir, saved, tmp_path / 'four'),
      _only_checkpoint(trained[1], saved, tmp_path / 'one'))

  # After SIGTERM to one process, all save at the same step and exit.
  first = max(steps(workdir / 'checkpoints'))
  run = _train(2, folder, workdir, '--noreport')
  run.wait_until(lambda: max(steps(workdir / 'checkpoints')) > first)
  run.processes[1].send_signal(signal.SIGTERM)
  codes, outputs = run.wait()
  assert codes == [128 + signal.SIGTERM] * 2, outputs
  assert f'resuming from step {first}' in outputs[0]
  last = max(steps(workdir / 'checkpoints'))
  assert f'SIGTERM at step {last}: saved' in outputs[0]
  assert last < NUM_STEPS

  codes, outputs = _train(1, folder, workdir, '--noreport').wait()
  assert codes == [0], outputs
  assert f'resuming from step {last}' in outputs[0]
  _assert_same_run(workdir, trained[1])


def _start(folder, what, process_ids=(0, 1)):
  """Starts processes of `hosts_problem.py`, each in its own directory."""
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


def test_processes_exchange_values_and_end_with_the_same_error(tmp_path):
  processes = _start(tmp_path, 'exchange')
  outputs = {i: process.communicate(timeout=100)
          for i, process in processes.items()}
  assert [p.returncode for p in processes.values()] == [2, 2], outputs
  assert outputs[0][1].splitlines()[-1] == (
      'process 1 of 2 ended: error: the disk is full')
  assert outputs[1][1].splitlines()[-1] == 'error: the disk is full'
  assert 'checked by 0' in outputs[0][0]
  assert 'checked by' not in outputs[1][0]  # Only the main process prints.


def test_processes_that_cannot_connect_report_it(tmp_path):
  """Process 0 is missing, or process 1 is."""
  processes = _start(tmp_path, 'alone', [1])
  _, output = processes[1].communicate(timeout=100)
  assert processes[1].returncode == 2, output
  assert 'could not connect to process 0 within 5 s' in output
  assert len(output.splitlines()) == 1

  (tmp_path / 'alone1').rmdir()
  processes = _start(tmp_path, 'alone', [0])
  _, output = processes[0].communicate(timeout=100)
  assert processes[0].returncode == 2, output
  assert output.splitlines()[-1].startswith(
      'error: process 0 of 2: not all processes connected to ')


def test_processes_end_if_another_one_stops_responding(tmp_path):
  """Process 0 or process 1 stops. Both cases take 30 s, so they run at once."""
  pairs = {}
  for stopped in (0, 1):
    (tmp_path / str(stopped)).mkdir()
    pairs[stopped] = _start(tmp_path / str(stopped), 'wait')
  for stopped, processes in pairs.items():
    while 'begun' not in processes[0].stdout.readline():
      assert processes[0].poll() is None
    processes[stopped].send_signal(signal.SIGSTOP)
  begin = time.monotonic()
  for stopped, processes in pairs.items():
    other = processes[1 - stopped]
    try:
      _, output = other.communicate(timeout=100)
    finally:
      processes[stopped].kill()
      processes[stopped].communicate()
    assert time.monotonic() - begin < 60
    assert other.returncode == connection.EXIT_LOST, output
    assert 'another process has been killed or cannot be reached' in (
        output.splitlines()[-1])


@pytest.mark.parametrize('count', [2, 4])
def test_shares_of_processes_are_the_rows_of_the_whole_batch(count):
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


def test_a_single_process_does_not_communicate():
  value = {'x': (1, 2)}
  assert hosts.on_main(lambda: value) is value
  assert hosts.gather([1]) == [[1]]
  assert hosts.gather_bytes(b'a') == [b'a']
  assert hosts.shard() == (0, 1)
  assert hosts.is_main()
  hosts.barrier('no other process')
  hosts.check_agreed({'a': 1}, 'unused')
