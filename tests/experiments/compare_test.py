"""`experiments.compare` as a user runs it: new, resumed, or with errors."""

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

from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.runs import compare as comparison
from experiments import compare

ROOT = pathlib.Path(__file__).parents[2]

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
  # The row is the mean of its two evaluations.
  means = [json.loads((out / f'evaluations/tiny/{seed}/metrics.json')
                      .read_text())['ab_distance']['mean'] for seed in (0, 1)]
  assert means[0] != means[1], 'two seeds are two networks'
  assert float(tiny['mean']) == pytest.approx(np.mean(means), rel=1e-4)
  assert float(tiny['seed_std']) == pytest.approx(
      np.std(means, ddof=1), rel=1e-3)
  assert float(cells['truth', 'ab_distance']['mean']) == 0
  assert float(tiny['seconds']) >= 0
  # The photograph of the training set is reported and left out.
  assert '1 photographs are also in the training set (left out)' in (
      finished.stdout)
  assert str(out) in finished.stdout


def test_finished_jobs_are_not_repeated(finished, flags, place):
  before = (place / 'out/runs/tiny/seed0/metrics.jsonl').stat().st_mtime_ns
  shutil.rmtree(place / 'out/evaluations/grey')
  done = _run(*flags)
  assert done.returncode == 0, done.stderr
  started = [line for line in done.stdout.splitlines()
             if line.endswith(': started')]
  assert started == ['evaluate evaluations/grey: started']
  assert before == (
      place / 'out/runs/tiny/seed0/metrics.jsonl').stat().st_mtime_ns
  table = (place / 'out/table.md').read_text()
  assert table in finished.stdout, 'the same table again'


@pytest.mark.parametrize(('changes', 'message'), [
    (['--methods=nothing'], 'no method nothing; choose from autoregressive'),
    (['--methods=common'], '--methods: there is no method common'),
    (['--methods=row=evaluate'], '--methods: there is no method evaluate'),
    (['--methods=other=mbm'], 'other_small.flags; {} stands'),
    (['--seeds=one'], '--seeds=one: give different integers'),
    (['--outputs=somewhere'], '--outputs=somewhere: give NAME=PATH'),
    (['--outputs=theirs={place}/test'], 'theirs is given 2 times'),
    (['--launch=--executor=cloud'], '--executor=cloud: choose from local'),
    (['--launch=--nothing=1'], 'unrecognized arguments: --nothing=1'),
    (['--against=nobody'],
     'against=nobody: there is no such row; choose from truth'),
    (['--metrics=beauty'], "there is no metric 'beauty'"),
    (['--evaluations=odd={place}/out'], 'has no metrics.json')])
def test_wrong_usage_is_one_line(finished, flags, place, changes, message):
  done = _run(*flags, *(change.format(place=place) for change in changes))
  assert done.returncode == 2
  assert message in done.stderr.splitlines()[-1]
  assert 'Traceback' not in done.stderr


def test_seconds_of_a_run_exclude_evaluations(tmp_path):
  assert comparison.seconds_of(tmp_path) is None
  lines = [{'from_step': 0, 'to_step': 10, 'seconds': 9.0,
            'stepping_seconds': 5.0},
           {'from_step': 10, 'to_step': 14, 'seconds': 9.0,
            'stepping_seconds': 1.0}]
  (tmp_path / 'sessions.jsonl').write_text(
      '\n'.join(map(json.dumps, lines)))
  assert comparison.seconds_of(tmp_path) == 6.0


def test_an_incomplete_session_is_no_record(tmp_path):
  (tmp_path / 'sessions.jsonl').write_text(
      '{"to_step": 10, "stepping_seconds": 5.0}\n{"to_st')
  assert comparison.seconds_of(tmp_path) is None


def test_methods_are_the_scripts_that_train():
  assert compare.training_scripts() == [
      'autoregressive', 'classification', 'color_queries', 'flow_matching',
      'fusion', 'inception_fusion', 'latent', 'mask_gan', 'mbm', 'regression',
      'residual_autoencoder', 'xception_fusion']


def test_names_that_are_repeated_to_avoid_importing_jax():
  assert compare._REFERENCES == comparison.REFERENCES == answers.REFERENCES
  assert tuple(comparison.BASELINES) == compare._BASELINES


@pytest.mark.parametrize(('options', 'message'), [
    ({'outputs': {'../theirs': 'x'}}, r"cannot be called '../theirs'"),
    ({'runs': {'grey': ['x']}}, 'two rows are called grey'),
    ({'seeds': ()}, 'seeds='),
    ({'budget_seconds': float('nan')}, 'budget_seconds=nan'),
    ({'methods': {'row': 'mbm'}, 'flagfiles': '{0}/{x}'}, 'there is no file')])
def test_wrong_options(options, message):
  with pytest.raises(UserError, match=message):
    comparison.CompareOptions(workdir='out', **options)


@pytest.mark.parametrize(('words', 'size', 'fits'), [
    ('--image_size=32', ['--image_size=32'], 1),
    ('--image_size 32 --protocol=folder', ['--image_size=32'], 1),
    # A published protocol sets how photographs are cut.
    ('--protocol=imagenet_val50k', [], 0)])
def test_flags_of_evaluations_reach_the_jobs(words, size, fits):
  options = comparison.CompareOptions(
      workdir='out', methods={'levin': 'levin'},
      evaluate_flags=comparison.split_words(words))
  baseline = comparison._baseline(options, 'levin', pathlib.Path('run'))
  assert [word for word in baseline.command
          if word.startswith('--image_size')] == size
  evaluation = comparison._evaluation(
      options, 'grey', pathlib.Path('out/grey'), '--reference=grey')
  assert sum(word.startswith('--fit=') for word in evaluation.command) == fits
  with pytest.raises(UserError, match='No closing quotation'):
    comparison.split_words('--names="x')
