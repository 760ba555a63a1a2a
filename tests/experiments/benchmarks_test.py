"""The benchmarks run, and the forms they compare are the same likelihood."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from colorjax.errors import UserError
from experiments.benchmarks import backbone


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


def test_an_evaluation_is_timed():
  done = run('--num_photos=3', '--image_size=32', script='evaluation')
  assert done.returncode == 0, done.stderr
  said = re.fullmatch(
      r'3 photographs of 32 x 32 on \d+ processors: (\d+\.\d) s, (\d) per '
      r'second\n', done.stdout)
  assert said, done.stdout
  assert abs(3 / float(said[1]) - int(said[2])) <= 0.6


def test_classes_of_photographs_are_read_from_their_paths(tmp_path):
  numbers = backbone.class_numbers(None)
  assert len(numbers) == 1000
  # The first, the last and tabby: ImageNet sorts by WordNet number.
  assert [numbers[x] for x in ('n01440764', 'n15075141', 'n02123045')] == [
      0, 999, 281]
  path = tmp_path / 'classes.txt'
  path.write_text('n00000003\nn00000001\n')
  classes = backbone.class_numbers(path)
  for label in ('n00000001/x.jpg', 'n00000001_cat/x.jpg', 'a/n00000001.jpg',
                'n00000003/n00000001_cat.JPEG', 'n00000001/n99999999_5.png'):
    assert backbone.class_of(label, classes) == 1
  for label in ('cat/x.jpg', 'xn00000001/x.jpg', 'n000000012/x.jpg'):
    with pytest.raises(UserError, match=f'data={label}: the path'):
      backbone.class_of(label, classes)
  path.write_text('tench\n')
  with pytest.raises(UserError, match=r'classes=.*each line must be a WordNet'):
    backbone.class_numbers(path)


def test_the_center_of_a_photograph_is_cropped():
  ramp = np.arange(200, dtype=np.uint8)[None, :, None].repeat(100, 0)
  middle = backbone.center(ramp.repeat(3, 2), 50, 40)
  assert middle.shape == (40, 40, 3)
  # At half the size: pixels 60, 62, ... of the photograph.
  np.testing.assert_allclose(middle[5, :, 1], 60.5 + 2 * np.arange(40), atol=1)
