"""Sweeps on this machine, as a user starts, watches, ends and reads them."""

import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import sweep_cli
from PIL import Image
from sweep_cli import ROOT, wait_for

from colorjax.errors import UserError
from launch import record


@pytest.fixture
def place(tmp_path):
  return sweep_cli.Place(tmp_path)


def test_help_is_quick_and_imports_no_jax():
  code = ('import sys; sys.argv = ["sweep", "--help"]\n'
          'from launch import sweep\n'
          'try: sweep.main()\n'
          'except SystemExit: pass\n'
          'sys.exit(bool({"jax", "numpy", "submitit"} & sys.modules.keys()))')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT,
                 capture_output=True)
  begun = os.times()
  subprocess.run([sys.executable, '-m', 'launch.sweep', '--help'], check=True,
                 cwd=ROOT, capture_output=True)
  used = os.times()
  assert (used.children_user - begun.children_user) < 1


def test_runs_are_all_combinations_and_only_the_missing_start(place):
  said = place.run('--set=rate=0.1,1e-1,2', '--set=seed=0,1')
  assert said.splitlines()[-1] == '4 runs: 4 finished'
  # 0.1 and 1e-1 are one value.
  assert place.names() == ['rate=0.1__seed=0', 'rate=0.1__seed=1',
                           'rate=2.0__seed=0', 'rate=2.0__seed=1']
  assert (place.path('rate=2.0__seed=1') / 'launch.flags').read_text() == (
      '--rate=2.0\n--seed=1\n')
  before = place.record('rate=0.1__seed=0')
  said = place.run('--set=rate=2,0.1,3', '--set=seed=0,1')
  assert [line for line in said.splitlines() if 'started' in line] == [
      'rate=3.0__seed=0: started', 'rate=3.0__seed=1: started']
  assert place.record('rate=0.1__seed=0') == before
  said = place.sweep('run')
  assert said.splitlines() == ['6 runs: 6 finished'] * 2


def test_the_manifest_comes_first(place):
  process = place.begin('run', '--experiment=mine.toy', '--set=seed=0,1',
                        '--', '--mode=long', '--num_steps=1000')
  wait_for(lambda: place.steps('seed=0'))
  assert place.names() == ['seed=0', 'seed=1']
  assert (place.path('seed=1') / 'launch.flags').exists()
  table = place.sweep('status')
  assert 'seed=0  running' in table
  assert 'seed=1  waiting' in table
  # Nobody starts the same sweep a second time.
  said = place.sweep('run', rc=2)
  assert 'another command is running this sweep' in said
  assert place.sweep('stop').splitlines()[0] == '1 runs save and end'
  out, err = process.communicate(timeout=30)
  assert process.returncode == 130, out + err
  assert (place.path('seed=0') / 'saved').exists()
  assert place.record('seed=0')['state'] == 'interrupted'
  assert place.record('seed=1')['state'] is None
  # It goes on where it was.
  process = place.begin('run')
  wait_for(lambda: place.record('seed=0')['starts'] == 2)
  first = place.record('seed=0')['from_step']
  assert first > 0
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert place.steps('seed=0') == list(range(1, len(place.steps('seed=0')) + 1))


def test_failures_by_kind(place):
  said = place.run(
      '--set=mode=good,nan,crash,crash_once,kill', '--runs_at_once=2',
      '--backoff_seconds=0.2', rc=1)
  assert '5 runs: 2 finished, 3 failed' in said
  def ended(mode):
    record = place.record(f'mode={mode}')
    return record['state'], record['exit_code'], record['starts']
  assert ended('good') == ('finished', 0, 1)
  # For its own reasons: not started again.
  assert ended('nan') == ('failed', 2, 1)
  assert ended('crash') == ('failed', 1, 2)
  assert ended('crash_once') == ('finished', 0, 2)
  assert ended('kill') == ('failed', 137, 2)
  assert 'mode=nan: failed: error: step 2: loss nan' in said
  assert 'mode=crash: failed: RuntimeError: the device is gone' in said
  assert 'mode=kill: failed: killed by SIGKILL' in said
  assert '`retry --sweepdir=out`' in said
  table = place.sweep('status')
  assert 'error: step 2: loss nan' in table
  # The same command leaves them alone.
  said = place.sweep('run', rc=1)
  assert 'started' not in said
  # A cause that was mended.
  (place.path('mode=nan') / 'launch.flags').write_text('--mode=good\n')
  said = place.sweep('retry', '--max_retries=0', rc=1)
  assert sum('started' in line for line in said.splitlines()) == 3
  assert ended('nan') == ('finished', 0, 2)
  assert ended('crash') == ('failed', 1, 3)


def test_a_killed_launcher_leaves_runs_that_are_taken_up(place):
  process = place.begin('run', '--experiment=mine.toy', '--set=seed=0,1', '--',
                        '--mode=long', '--num_steps=60')
  wait_for(lambda: place.steps('seed=0'))
  process.kill()
  process.communicate()
  assert place.sweep('status').count('running') == 2  # and in the last line
  said = place.sweep('run')
  assert 'seed=0: runs already, started by another command' in said
  assert said.splitlines()[-1] == '2 runs: 2 finished'
  assert place.record('seed=0')['starts'] == 1


def test_a_killed_supervisor_is_seen_and_its_run_goes_on(place):
  process = place.begin('run', '--experiment=mine.toy', '--set=seed=0',
                        '--', '--mode=long', '--num_steps=100')
  wait_for(lambda: place.steps('seed=0'))
  os.kill(place.record('seed=0')['pid'], signal.SIGKILL)
  out, _ = process.communicate(timeout=30)
  assert process.returncode == 1
  assert 'seed=0: lost: ended without a word' in out
  # The run was told, and has saved.
  wait_for((place.path('seed=0') / 'saved').exists)
  assert place.sweep('retry').splitlines()[-1] == '1 runs: 1 finished'
  assert place.steps('seed=0') == list(range(1, 101))


def test_cores_are_shared_out(place):
  count = len(os.sched_getaffinity(0))
  if count < 2:
    pytest.skip('one processor')
  place.run('--set=seed=0,1', '--runs_at_once=2')
  shares = [place.place(f'seed={i}')['cores'] for i in (0, 1)]
  assert sorted(shares[0] + shares[1]) == sorted(os.sched_getaffinity(0))


def test_gpus_are_pinned(place):
  place.run('--set=seed=0,1,2,3', '--gpus=4,7', '--runs_per_gpu=2',
            '--', '--mode=long', '--num_steps=20')
  places = [place.place(f'seed={i}') for i in range(4)]
  assert sorted(where['gpu'] for where in places) == ['4', '4', '7', '7']
  assert {where['memory'] for where in places} == {'0.450'}
  shutil.rmtree(place.folder / 'out')
  place.run('--set=seed=0', '--gpus=4,7', '--gpus_per_run=2')
  where = place.place('seed=0')
  assert (where['gpu'], where['memory']) == ('4,7', None)


def test_flags_that_take_several_values(place):
  (place.folder / 'base.flags').write_text('--width=8\n--width=9\n--tags=a,b\n')
  place.run('--flagfile=base.flags', '--set=width=[3,4],5', '--set=flip=true',
            '--set=tags=[x,y]')
  assert place.names() == ['width=3-4__flip=true__tags=x-y-' + name[-6:]
                           for name in place.names()[:1]] + [
                               'width=5__flip=true__tags=x-y-' + name[-6:]
                               for name in place.names()[1:]]
  assert place.place(place.names()[0])['widths'] == [3, 4]
  assert place.place(place.names()[1])['widths'] == [5]
  assert place.place(place.names()[1])['tags'] == ['x', 'y']


def test_integers_stay_integers(place):
  place.run('--set=num_steps=linear:1:5:3')
  assert place.names() == ['num_steps=1', 'num_steps=3', 'num_steps=5']


@pytest.mark.parametrize(('words', 'message'), [
    (['--set=rat=1'], '--set=rat: mine.toy has no such flag; did you mean rate?'
     ),
    (['--set=rate=fast'], '--set=rate=fast: '),
    (['--set=rate=1,11'], '--set=rate=11: '),
    (['--set=rate=7'], 'the run rate=7.0: flag --rate=7.0: seven is unlucky'),
    (['--set=mode=bad'], '--set=mode=bad: '),
    (['--set=rate=[1,2]'], 'the flag takes one value, not a list'),
    (['--set=workdir=x'], '--set=workdir: the sweep sets it'),
    (['--', '--nothing=1'], "Unknown command line flag 'nothing'"),
    (['--', 'word'], "unexpected 'word'"),
    (['--flagfile=no.flags'], 'no.flags'),
    (['--experiment=mine.other'], 'there is no script mine.other'),
    (['--experiment=nothing'], 'there is no script experiments.nothing'),
    (['--executor=cloud'], '--executor=cloud: choose from local, slurm'),
    (['--qos=high'], '--qos: only with --executor=slurm'),
    (['--runs_at_once=999'], '--runs_at_once=999: from 1 to'),
    (['--runs_per_gpu=2'], 'this machine has no GPU'),
    (['--gpus=0', '--gpus_per_run=2'], '--gpus_per_run=2: there are 1 GPUs'),
    (['--max_retries=-1'], '--max_retries=-1: at least 0')])
def test_wrong_usage_is_one_line_and_nothing_is_begun(place, words, message):
  said = place.run(*words, rc=2)
  assert said.startswith('error: ')
  assert len(said.splitlines()) == 1
  assert message in said
  assert not (place.folder / 'out').exists()


def test_another_sweep_in_the_same_folder_is_refused(place):
  place.run('--set=seed=0', '--', '--rate=1')
  said = place.run('--set=seed=0', '--', '--rate=2', rc=2)
  assert '--rate was 1.0, is 2.0' in said
  assert place.names() == ['seed=0']
  assert 'holds no sweep.json' in place.sweep('status', '--sweepdir=no', rc=2)


def test_dry_run_prints_commands_that_do_the_same(place):
  (place.folder / 'base.flags').write_text('--num_steps=2\n')
  words = ['--flagfile=base.flags', '--set=seed=0,1']
  said = place.run(*words, '--executor=dry_run')
  assert said.splitlines() == [
      f'python -m mine.toy --flagfile=base.flags --seed={i} '
      f'--workdir=out/runs/seed={i}' for i in (0, 1)]
  assert not (place.folder / 'out').exists()
  said = place.run('--flagfile=base.flags', '--set=width=3,4',
                   '--executor=dry_run', '--', '--width=1')
  assert said.splitlines()[0] == (
      'python -m mine.toy --num_steps=2 --width=3 --workdir=out/runs/width=3')


def test_listed_runs(place):
  (place.folder / 'runs.txt').write_text(
      '# two runs\n--rate=1 --seed=3\n\n--rate=2 --seed=4\n')
  place.run('--list=runs.txt')
  assert place.names() == ['rate=1.0__seed=3', 'rate=2.0__seed=4']


def test_results(place):
  said = place.run('--set=rate=0.1,4', '--set=seed=0,1', '--set=mode=good,nan',
                   '--runs_at_once=2', rc=1)
  assert '4 finished, 4 failed' in said
  text = place.sweep('results', '--metrics=psnr,validation_loss')
  with (place.folder / 'out/results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 8
  found = {(row['rate'], row['seed']): row for row in rows
           if row['state'] == 'finished'}
  assert float(found['4.0', '1']['psnr']) == 25
  assert float(found['4.0', '1']['validation_loss']) == pytest.approx(
      4 + 1 / 3)
  assert float(found['0.1', '0']['count']) == 3
  assert {row['psnr'] for row in rows if row['state'] == 'failed'} == {''}
  # Two seeds: 12.706 * (difference 1) / 2.
  assert '| 0.1 | good | 2 of 2 | 20.6 ± 6.4 |' in text
  assert '| 4.0 | nan | 0 of 2 |  |  |' in text
  assert '4 of 8 runs are not finished' in text
  assert (place.folder / 'out/results.md').read_text() in text
  names = sorted(path.name for path in (place.folder / 'out/plots').iterdir())
  assert names == ['psnr.png', 'validation_loss.png']
  with Image.open(place.folder / 'out/plots/psnr.png') as picture:
    assert picture.width > 300
  assert "no finished run has 'beauty'" in place.sweep(
      'results', '--metrics=beauty', rc=2)


def test_a_full_disk_does_not_keep_a_run_from_saying_so(tmp_path, monkeypatch):
  record.write(tmp_path, record.began(starts=1, reason='x' * 40))

  def full(*_, **__):
    raise UserError('no space left')

  monkeypatch.setattr(record.files, 'write_json', full)
  record.write(tmp_path, record.began(starts=9, reason='the disk is full'))
  found = record.read(tmp_path)
  assert (found.starts, found.reason) == (9, 'the disk is full')


def test_status_is_watched_until_the_end(place):
  process = place.begin('run', '--experiment=mine.toy', '--set=seed=0', '--',
                        '--mode=long', '--num_steps=30')
  wait_for(lambda: place.steps('seed=0'))
  begun = time.monotonic()
  said = place.sweep('status', '--watch')
  assert time.monotonic() - begun > 1
  assert 'seed=0  running' in said
  assert said.splitlines()[-1] == '1 runs: 1 finished'
  process.communicate(timeout=30)


def test_a_damaged_record_is_named(place):
  place.run('--set=seed=0')
  (place.path('seed=0') / 'launch.json').write_text('{')
  said = place.sweep('status', rc=2)
  assert f'{pathlib.Path("out/runs/seed=0/launch.json")} is damaged' in said


def test_a_real_experiment(place):
  """Its own flags, and figures without a report."""
  (place.folder / 'tiny.flags').write_text(
      '--num_steps=2\n--batch_size=2\n--image_size=16\n--filters=32\n'
      '--filters=32\n--prior_width=8\n--noreport\n--warmup_steps=1\n')
  said = place.run('--experiment=mbm', '--flagfile=tiny.flags',
                   '--set=num_components=2', '--set=filters=[16,16]')
  assert said.splitlines()[-1] == '1 runs: 1 finished'
  workdir = place.path('num_components=2__filters=16-16')
  flags = (workdir / 'flags.txt').read_text()
  assert '--num_components=2\n' in flags
  assert '--filters=16\n--filters=16\n' in flags
  assert '--filters=32\n' not in flags
  assert '2/2' in place.sweep('status')
  assert 'validation_loss' in place.sweep('results')
  said = place.run('--experiment=mbm', '--set=num_componets=2', rc=2)
  assert 'did you mean num_components?' in said
