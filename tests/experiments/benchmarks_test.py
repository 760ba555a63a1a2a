"""The benchmarks run, and the forms they compare are the same likelihood."""

import json
import os
import re
import subprocess
import sys

import pytest
import skimage.data
import skimage.io
import tiny_method


def run(*flags, script='likelihood'):
  return subprocess.run(
      [sys.executable, '-m', f'experiments.benchmarks.{script}', *flags],
      capture_output=True, text=True, check=False)


def test_table_of_all_forms(tmp_path):
  output = tmp_path / 'table.json'
  done = run('--batch=2', '--components=3', '--dims=600', '--repeats=2',
             f'--output={output}')
  assert done.returncode == 0, done.stderr
  rows = {row['form']: row for row in json.loads(output.read_text())['rows']}
  bernoullis = [r for form, r in rows.items() if form.startswith('bernoulli')]
  assert len(rows) == 7
  assert len(bernoullis) == 4
  for row in bernoullis:
    assert row['nats'] == pytest.approx(bernoullis[0]['nats'], rel=1e-5)
  for form, row in rows.items():
    assert f'| {form} | {row["nats"]:.1f} |' in done.stdout
    assert row['forward_ms'] > 0
    # Least traffic: params read twice and written once, targets read twice.
    num_params = 2 if form.startswith(('gaussian', 'discretized')) else 1
    traffic = 4 * 600 * (3 * num_params * 6 + 2 * 2)
    assert row['gigabytes_per_s'] * row['gradient_ms'] * 1e6 == (
        pytest.approx(traffic))
  assert rows['bernoulli, numpyro']['speed'] == 1


@pytest.mark.parametrize('output', ['table.xlsx', 'no/such/folder/table.md'])
def test_unusable_output_is_refused_before_the_work(output):
  done = run(f'--output={output}')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert output in done.stderr


def test_the_memory_of_a_step_is_printed():
  done = run('--experiment=mbm', '--network=published', '--filters=4',
             '--prior_width=8', '--image_size=8', '--batch_sizes=2,4',
             '--cards=1', '--remat', script='memory')
  assert done.returncode == 0, done.stderr
  assert 'mbm, 8 x 8, float32, accumulate=1, remat=True' in done.stdout
  rows = [[float(x) for x in line.strip('| ').split(' | ')]
          for line in done.stdout.splitlines()
          if line.startswith(('| 2', '| 4'))]
  assert [row[0] for row in rows] == [2, 4]
  for row in rows:
    assert row[4] == pytest.approx(sum(row[1:4]), abs=0.2)
  fixed, each = map(float, re.search(
      r'total = (-?\d+\.\d) MB \+ (\d+\.\d+) MB', done.stdout).groups())
  assert fixed < 1
  assert each < 0.1
  assert int(re.search(r'\| 1 \| (\d+) \|', done.stdout)[1]) > 749 / 0.1


def test_speed_is_compared_with_that_of_pytorch(tmp_path):
  python, count = tmp_path / 'python', tmp_path / 'count'
  python.write_text(f'''#!/bin/sh
[ -e {count} ] || {{ echo "No module named 'torch'" >&2; exit 1; }}
echo 9.9 1e9 $(cat {count})
''')
  python.chmod(0o755)
  flags = (f'--torch_python={python}', '--turns=1', '--steps=1',
           '--image_size=16', '--batch_size=1')
  done = run(*flags, script='pytorch')
  assert done.returncode == 2
  assert done.stderr == (
      f"error: --torch_python={python}: No module named 'torch'; give an "
      'interpreter that can import torch\n')
  count.write_text('7')
  done = run(*flags, script='pytorch')
  assert done.returncode == 2
  found = re.search(r'has (\d+) parameters here and 7 in ', done.stderr)
  count.write_text(found[1])
  done = run(*flags, script='pytorch')
  assert done.returncode == 0, done.stderr
  assert '| PyTorch 9.9 | 1000000000.0 |' in done.stdout
  assert 'colorjax / PyTorch: 0.00' in done.stdout


def test_photographs_become_batches(tmp_path):
  for name in 'ab':
    skimage.io.imsave(tmp_path / f'{name}.jpg',
                      skimage.data.chelsea()[:40, :50])
  done = run(f'--data=folder:{tmp_path}', '--batch_size=2', '--batches=2',
             '--turns=1', '--image_size=16', '--num_threads=1', script='input')
  assert done.returncode == 0, done.stderr
  assert '2 JPEG files, mean 1 kB; to 16 x 16; 1 threads' in done.stdout
  rates = [[float(x) for x in line.split('|')[2:4]]
           for line in done.stdout.splitlines()
           if line.startswith(('| colorjax', '| plain'))]
  assert len(rates) == 3
  # One thread reads; a second one may collect.
  assert all(1 < wall < 2.5 * cpu for wall, cpu in rates)


@pytest.mark.parametrize(('flags', 'message'), [
    (['--experiment=evaluate'], '--experiment=evaluate: there is no training'),
    (['--experiment=mbm', '--batch_sizes=4'], '--batch_sizes=4: give at'),
    (['--experiment=mbm', '--stray=1'], "'stray'")])
def test_wrong_memory_questions_are_one_line(flags, message):
  done = run(*flags, script='memory')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert message in done.stderr


def test_an_evaluation_is_timed():
  done = run('--num_photos=3', '--image_size=32', script='evaluation')
  assert done.returncode == 0, done.stderr
  said = re.fullmatch(
      r'3 photographs of 32 x 32 on \d+ processors: (\d+\.\d) s, (\d) per '
      r'second\n', done.stdout)
  assert said, done.stdout
  assert abs(3 / float(said[1]) - int(said[2])) <= 0.6


def test_replicas_are_timed():
  done = run('--network=16', '--replicas=2', '--batch_size=1',
             '--image_size=16', '--turns=1', script='replicas')
  assert done.returncode == 0, done.stderr
  one, both, cost = re.search(
      r'\| 16 \| 2 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|',
      done.stdout).groups()
  assert float(cost) == pytest.approx(float(both) / 2 / float(one), abs=0.02)


def test_a_coloring_is_timed():
  done = run('--sizes=40x30', '--turns=1', script='latency')
  assert done.returncode == 0, done.stderr
  header, _, row = done.stdout.splitlines()
  size, whole, again, loading, first, further, memory = (
      row.strip('| ').split(' | '))
  assert size == '40 x 30'
  assert float(whole) > float(first) > float(further)
  assert float(again) > float(loading)
  assert float(whole) > float(loading)
  assert 0.1 < float(memory) < 10
  assert header.count('|') == row.count('|')


@pytest.mark.parametrize('size', ['40x', '0x8'])
def test_unusable_sizes_are_refused(size):
  done = run(f'--sizes={size}', script='latency')
  assert done.returncode == 2
  assert f'--sizes={size}' in done.stderr


def test_the_studio_is_timed(tmp_path):
  tiny_method.write_run(tmp_path / 'run', image_size=16, num_components=8)
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(
      [os.getcwd(), os.path.dirname(tiny_method.__file__)])}
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmarks.studio', '--repeats=2',
       '--sizes=40x30', f'--checkpoint={tmp_path / "run"}'],
      capture_output=True, text=True, check=False, env=environment)
  assert done.returncode == 0, done.stderr
  rows = re.findall(
      r'\| 40 x 30 \| ([a-z, ]+) \| (\d+\.\d\d) \| (\d+\.\d\d) \| (\d) \|',
      done.stdout)
  assert [(kind, n) for kind, _, _, n in rows] == [
      ('upload', '1'), ('saturation', '2'), ('region, segment', '2'),
      ('region, brush', '2'), ('hint', '2'), ('mask', '2'),
      ('colors at a pixel', '2'), ('download', '3')]
  assert all(float(low) <= float(high) for _, low, high, _ in rows)
