"""Sweeps on a real SLURM of one node; see slurm_cluster.py."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
import slurm_cluster
import sweep_cli
from sweep_cli import wait_for

pytest.importorskip('submitit')

ROOT = pathlib.Path(__file__).parents[2]

TINY = ['--num_steps=2', '--batch_size=8', '--image_size=16', '--filters=16',
        '--prior_width=8', '--num_components=2', '--optimizer=sgd',
        '--warmup_steps=1', '--log_every=1', '--eval_every=1', '--noreport']


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  missing = slurm_cluster.missing()
  if missing:
    assert not os.environ.get(slurm_cluster.REQUIRED), missing
    pytest.skip(missing)
  found = slurm_cluster.Cluster(tmp_path_factory.mktemp('slurm'))
  try:
    found.start()
    yield found
  finally:
    found.stop()


@pytest.fixture
def place(cluster, tmp_path):
  return sweep_cli.Place(tmp_path, cluster.environment)


@pytest.fixture(scope='module', autouse=True)
def limited(cluster, tmp_path_factory):
  """A run that meets its time limit while the other tests run.

  SLURM counts limits in minutes and looks at them every half minute.
  """
  place = sweep_cli.Place(tmp_path_factory.mktemp('limited'),
                          cluster.environment)
  place.run('--set=seed=0', '--executor=slurm', '--nowait', '--time=1',
            '--signal_seconds=58', '--', '--mode=long', '--num_steps=900')
  return place


def _submit(place, *words, rc=0):
  return place.run('--executor=slurm', '--time=5', '--backoff_seconds=0.2',
                   *words, rc=rc)


def _job(place, run):
  path = place.folder / 'out/slurm/submitted.json'
  return json.loads(path.read_text()).get(run) if path.exists() else None


def test_an_array_of_runs_and_those_that_fail(place):
  said = _submit(place, '--set=mode=good,nan,crash,crash_once',
                 '--array_parallelism=2', rc=1)
  assert '4 runs: 2 finished, 2 failed' in said
  def ended(mode):
    record = place.record(f'mode={mode}')
    return record['state'], record['exit_code'], record['starts']
  assert ended('good') == ('finished', 0, 1)
  assert ended('nan') == ('failed', 2, 1)
  assert ended('crash') == ('failed', 1, 2)
  assert ended('crash_once') == ('finished', 0, 2)
  assert 'mode=nan: failed: error: step 2: loss nan' in said
  # One array, and each run knows the directory of the command.
  jobs = [_job(place, name) for name in place.names()]
  assert len({job.partition('_')[0] for job in jobs}) == 1
  assert place.place('mode=good')['cwd'] == str(place.folder)
  # What is finished is not submitted again.
  assert 'submitted' not in _submit(
      place, '--set=mode=good,nan,crash,crash_once', rc=1)


def test_a_preempted_run_is_queued_again_and_goes_on(place, cluster):
  process = place.begin('run', '--experiment=mine.toy', '--executor=slurm',
                        '--set=seed=0', '--time=5', '--', '--mode=long',
                        '--num_steps=100')
  wait_for(lambda: len(place.steps('seed=0')) > 5)
  cluster.run('scancel', '--signal=USR2', _job(place, 'seed=0'))
  wait_for((place.path('seed=0') / 'saved').exists)
  wait_for(lambda: place.record('seed=0')['state'] == 'preempted')
  assert 'queued' in place.sweep('status')
  # In the queue: not submitted twice.
  job = _job(place, 'seed=0')
  place.sweep('run', '--nowait')
  assert _job(place, 'seed=0') == job
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, out + err
  assert place.record('seed=0')['starts'] == 2
  assert place.record('seed=0')['from_step'] > 5
  assert place.steps('seed=0') == list(range(1, 101))


def test_stop_saves_what_runs_and_empties_the_queue(place, cluster):
  process = place.begin('run', '--experiment=mine.toy', '--executor=slurm',
                        '--set=seed=0,1,2', '--array_parallelism=1',
                        '--time=5', '--', '--mode=long', '--num_steps=1000')
  wait_for(lambda: place.steps('seed=0'))
  assert place.sweep('status').count('queued') == 3  # and in the last line
  place.sweep('stop')
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert place.record('seed=0')['place'].startswith(
      f'SLURM {_job(place, "seed=0")} on ')
  assert (place.path('seed=0') / 'saved').exists()
  assert place.record('seed=0')['state'] == 'interrupted'
  assert place.record('seed=1')['state'] is None, 'it never began'
  jobs = cluster.run('squeue', '-h', '--array', '-o', '%i')
  assert _job(place, 'seed=1') not in jobs.split()


def test_scancel_lets_a_run_save(place, cluster):
  """SIGTERM reaches the supervisor and the run, which gets it twice."""
  place.run('--executor=slurm', '--nowait', '--set=seed=0', '--time=5', '--',
            '--mode=long', '--num_steps=1000')
  wait_for(lambda: place.steps('seed=0'))
  cluster.run('scancel', _job(place, 'seed=0'))
  wait_for((place.path('seed=0') / 'saved').exists)
  wait_for(lambda: place.record('seed=0')['state'] == 'interrupted')


def test_a_killed_slurmd_does_not_change_what_is_true(place, cluster):
  place.run('--executor=slurm', '--nowait', '--set=seed=0', '--time=5', '--',
            '--mode=long', '--num_steps=60')
  wait_for(lambda: place.steps('seed=0'))
  cluster.kill_node()
  assert 'seed=0  running' in place.sweep('status')
  cluster.start_node()
  wait_for(lambda: place.record('seed=0')['state'] == 'finished')
  assert place.steps('seed=0') == list(range(1, 61))
  assert 'seed=0  finished' in place.sweep('status')


def test_a_run_of_two_processes_has_one_record(place):
  """Two tasks on the one node stand for two nodes."""
  said = _submit(place, '--set=seed=0', '--sbatch=ntasks=2',
                 '--sbatch=ntasks-per-node=2')
  assert said.splitlines()[-1] == '1 runs: 1 finished'
  assert place.record('seed=0')['starts'] == 1
  log = (place.path('seed=0') / 'log.txt').read_text()
  assert log.count('going on from step') == 1
  others = list((place.folder / 'out/slurm').glob('*_1_log.out'))
  assert len(others) == 1
  # SLURM calls the job finished after its first task.
  wait_for(lambda: 'going on from step' in others[0].read_text(), 60)


def test_two_tasks_of_srun_are_one_run(cluster, tmp_path):
  """Without any flag, they find each other through jax.distributed."""
  def train(name, *launcher):
    done = subprocess.run(
        [*launcher, sys.executable, '-m', 'experiments.mbm', *TINY,
         f'--workdir={tmp_path / name}'], check=False, cwd=ROOT,
        env=cluster.environment | {'JAX_PLATFORMS': 'cpu'}, text=True,
        capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
    return done, [json.loads(line)['loss'] for line in lines]

  _, alone = train('alone')
  done, together = train('together', 'srun', '--ntasks=2', '--overcommit',
                         '--label', '--time=5')
  assert together == pytest.approx(alone, rel=1e-5)
  assert len(together) == 4, 'two steps, with training and validation'
  # Only the first task prints and writes; two separate runs would both.
  said = (done.stdout + done.stderr).splitlines()
  assert any(line.startswith('0: step 2/2') for line in said)
  assert not [line for line in said
              if line.startswith('1:') and '[Gloo]' not in line]


def test_options_reach_sbatch(place):
  _submit(place, '--set=seed=0', '--partition=main', '--cpus_per_run=2',
          '--setup=export CUDA_VISIBLE_DEVICES=5', '--sbatch=comment=hello')
  assert place.place('seed=0')['gpu'] == '5'
  (script,) = (place.folder / 'out/slurm').glob('*submission.sh')
  text = script.read_text()
  for line in ('partition=main', 'cpus-per-task=2', 'comment=hello',
               'signal=USR2@90', 'time=5', 'requeue'):
    assert f'#SBATCH --{line}\n' in text
  said = _submit(place, '--set=seed=1', '--partition=nowhere', rc=2)
  assert said.startswith('error: SLURM refuses the job: ')
  assert 'partition' in said


def test_a_job_that_leaves_no_record(place):
  """As where the nodes do not see the directory, or cannot start Python."""
  said = _submit(place, '--set=seed=0', '--setup=exit 3', rc=1)
  assert 'seed=0: lost: its job ended without a word; is the directory' in said
  assert place.sweep('retry', '--setup=true').splitlines()[-1] == (
      '1 runs: 1 finished')


def test_without_slurm_it_is_said(tmp_path):
  place = sweep_cli.Place(tmp_path)
  place.environment['PATH'] = '/nowhere'
  said = place.run('--executor=slurm', '--set=seed=0', rc=2)
  assert 'there is no srun here' in said


def test_a_time_limit_is_no_end(limited):
  """Last, so that the half minute has gone by."""
  record = limited.path('seed=0')
  begun = time.monotonic()
  wait_for(lambda: limited.record('seed=0')['starts'] == 2, 90)
  assert (record / 'saved').exists()
  assert time.monotonic() - begun < 90
  wait_for(lambda: limited.record('seed=0')['state'] == 'finished', 90)
  assert limited.steps('seed=0') == list(range(1, 901))
  assert pathlib.Path(record / 'report').exists()
