"""A comparison as a user meets it: made, stopped, gone on with, refused."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from colorjax.evaluation import answers
from experiments import comparison_jobs

ROOT = pathlib.Path(__file__).parent.parent

TINY = """
--num_steps=3
--batch_size=2
--image_size=16
--filters=16
--filters=16
--prior_width=8
--num_components=2
--num_proposals=2
--warmup_steps=1
--report_photos=2
"""


def _run(*arguments):
  return subprocess.run(
      [sys.executable, '-m', 'experiments.compare', *arguments], cwd=ROOT,
      text=True, timeout=600, capture_output=True, check=False, env=os.environ)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Photographs in train/ and test/, pictures of a program, a flagfile."""
  path = tmp_path_factory.mktemp('comparison')
  rng = np.random.default_rng(0)
  for part, number in (('train', 3), ('test', 4)):
    (path / part).mkdir()
    for i in range(number):
      pixels = rng.integers(60, 200, (4, 4, 3), np.uint8)
      Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(
          path / part / f'{part}{i}.png')
  # One of them is in the training set too.
  shutil.copy(path / 'train/train0.png', path / 'test/test0.png')
  (path / 'theirs').mkdir()
  for i in range(4):
    with Image.open(path / f'test/test{i}.png') as picture:
      Image.fromarray(np.asarray(picture) // 2 + 60).save(
          path / f'theirs/test{i}.png')
  (path / 'tiny_small.flags').write_text(TINY)
  return path


@pytest.fixture(scope='module')
def flags(place):
  return ['--methods=mean_color,tiny=mbm', '--seeds=0,1',
          f'--flagfiles={place}/{{}}_small.flags', '--against=mean_color',
          f'--outputs=theirs={place}/theirs', f'--data=folder:{place}/train',
          f'--eval_data=folder:{place}/test', f'--workdir={place}/out',
          '--evaluate_flags=--image_size=16 --num_samples=0 --num_draws=0']


@pytest.fixture(scope='module')
def finished(flags):
  done = _run(*flags)
  assert done.returncode == 0, done.stderr + done.stdout
  return done


def test_the_table_has_every_row(finished, place):
  out = place / 'out'
  for name in ('table.md', 'table.tex', 'sheet.png', 'intervals.png',
               'index.html'):
    assert (out / name).stat().st_size > 0, name
  with (out / 'table.csv').open() as file:
    cells = {(line['row'], line['metric']): line
             for line in csv.DictReader(file)}
  rows = ['truth', 'grey', 'mean_color', 'tiny', 'theirs']
  assert list(dict.fromkeys(row for row, _ in cells)) == rows
  tiny = cells['tiny', 'ab_distance']
  assert (tiny['seeds'], tiny['photographs']) == ('2', '3')
  # The row is the mean of what its two evaluations say.
  means = [json.loads((out / f'evaluations/tiny/{seed}/metrics.json')
                      .read_text())['ab_distance']['mean'] for seed in (0, 1)]
  assert means[0] != means[1], 'two seeds are two networks'
  assert float(tiny['mean']) == pytest.approx(np.mean(means), rel=1e-4)
  assert float(tiny['seed_std']) == pytest.approx(
      np.std(means, ddof=1), rel=1e-3)
  assert float(cells['truth', 'ab_distance']['mean']) == 0
  assert float(tiny['seconds']) >= 0
  # The photograph of the training set is said, and not among them.
  assert '1 photographs were in the training set too (left out)' in (
      finished.stdout)
  assert str(out) in finished.stdout


def test_what_is_finished_is_not_done_again(finished, flags, place):
  before = (place / 'out/runs/tiny/seed0/metrics.jsonl').stat().st_mtime_ns
  shutil.rmtree(place / 'out/evaluations/grey')
  done = _run(*flags)
  assert done.returncode == 0, done.stderr
  begun = [line for line in done.stdout.splitlines() if 'begins' in line]
  assert begun == ['evaluate evaluations/grey: begins']
  assert before == (
      place / 'out/runs/tiny/seed0/metrics.jsonl').stat().st_mtime_ns
  table = (place / 'out/table.md').read_text()
  assert table in finished.stdout, 'the same table again'


@pytest.mark.parametrize(('changes', 'message'), [
    (['--methods=nothing'], '--methods: nothing is no experiment'),
    (['--methods=other=mbm'], 'other_small.flags is no file'),
    (['--seeds=one'], '--seeds=one: whole numbers'),
    (['--outputs=somewhere'], '--outputs=somewhere: NAME=PATH is meant'),
    (['--against=nobody'], '--against=nobody: there are the rows truth'),
    (['--metrics=beauty'], "there is no metric 'beauty'"),
    (['--evaluations=odd={place}/out'], 'holds no metrics.json')])
def test_wrong_usage_is_one_line(finished, flags, place, changes, message):
  done = _run(*flags, *(change.format(place=place) for change in changes))
  assert done.returncode == 2
  assert message in done.stderr.splitlines()[-1]
  assert 'Traceback' not in done.stderr


def test_seconds_of_a_run_leave_evaluations_out(tmp_path):
  assert comparison_jobs.seconds_of(tmp_path) is None
  lines = [{'from_step': 0, 'to_step': 10, 'seconds': 9.0,
            'stepping_seconds': 5.0},
           {'from_step': 10, 'to_step': 14, 'seconds': 9.0,
            'stepping_seconds': 1.0}]
  (tmp_path / 'sessions.jsonl').write_text(
      '\n'.join(map(json.dumps, lines)))
  assert comparison_jobs.seconds_of(tmp_path) == 6.0


def test_a_prior_is_measured_for_rows_that_rebalance(tmp_path):
  def wants(text):
    (tmp_path / 'row.flags').write_text(text)
    (tmp_path / 'over.flags').write_text(f'--flagfile={tmp_path}/row.flags')
    found = {comparison_jobs.wants_prior(str(tmp_path / name))
             for name in ('row.flags', 'over.flags')}
    return found.pop() if len(found) == 1 else found

  assert wants('# rare colors\n--rebalance=0.5\n--num_steps=3') is True
  assert wants('--rebalance=0.5\n--prior=mine.json') is False
  assert wants('# --rebalance=0.5\n--num_steps=3') is False
  assert comparison_jobs.wants_prior(
      str(ROOT / 'launch/flags/classification_small.flags'))


def test_the_references_are_those_of_evaluations():
  """Named once more where JAX is not to be imported."""
  assert comparison_jobs.REFERENCES == answers.REFERENCES
