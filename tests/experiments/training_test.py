"""Training scripts as a user runs them: help, wrong usage, a short run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]

TINY = ['--num_steps=4', '--batch_size=2', '--image_size=16', '--filters=16',
        '--filters=16', '--prior_width=8', '--num_components=2',
        '--num_proposals=3', '--warmup_steps=1', '--report_photos=2',
        '--log_every=1', '--eval_every=2', '--checkpoint_every=2']


def _run(*arguments, **environment):
  return subprocess.run(
      [sys.executable, '-m', *arguments], cwd=ROOT, text=True, timeout=300,
      capture_output=True, check=False, env=os.environ | environment)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Four photographs and a file that is not a photograph."""
  path = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i in range(4):
    pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path / f'{i}.png')
  (path / 'broken.png').write_bytes(b'not a photograph')
  return path


@pytest.fixture(scope='module')
def finished(folder, tmp_path_factory):
  """A work directory of a finished run, and what it printed."""
  workdir = tmp_path_factory.mktemp('runs') / 'tiny'
  done = _run('experiments.mbm', f'--data=folder:{folder}',
              f'--eval_data=folder:{folder}', f'--workdir={workdir}', *TINY)
  assert done.returncode == 0, done.stderr
  return workdir, done


@pytest.mark.parametrize('script', [
    path.stem for path in sorted((ROOT / 'experiments').glob('*.py'))
    if "__name__ == '__main__'" in path.read_text()])
def test_help_is_fast_and_touches_no_device(script):
  code = (
      'import runpy, sys\n'
      f"sys.argv = ['{script}', '--help']\n"
      'try:\n'
      f"  runpy.run_module('experiments.{script}', run_name='__main__')\n"
      'except SystemExit: pass\n'
      "heavy = {'jax', 'tensorflow', 'flax'} & set(sys.modules)\n"
      "sys.exit(f'imported {heavy}' if heavy else 0)")
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True,
                        capture_output=True, timeout=60, check=False)
  assert done.returncode == 0, done.stderr
  assert '--' in done.stdout


def test_a_run_writes_what_the_readme_says(finished):
  workdir, done = finished
  for name in ('flags.txt', 'metrics.jsonl', 'checkpoints', 'colorizer.json',
               'tensorboard', 'report/index.html', 'report/metrics.json',
               'report/proposals.png', 'report/lab_split.png',
               'report/loss.png'):
    assert (workdir / name).exists(), name
  lines = [json.loads(x) for x in
           (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [x['step'] for x in lines if x['split'] == 'train'] == [1, 2, 3, 4]
  assert [x['step'] for x in lines if x['split'] == 'validation'] == [2, 4]
  assert all(np.isfinite(x['loss']) for x in lines)
  metrics = json.loads((workdir / 'report/metrics.json').read_text())
  for name in ('ab_distance_grey', 'ab_distance_mean_color',
               'ab_distance', 'best_of_k'):
    assert set(metrics[name]) == {'mean', 'low', 'high', 'n'}
    assert metrics[name]['n'] == 4
    assert name in done.stdout
  assert str(workdir / 'report/index.html') in done.stdout
  # The broken file is counted and named.
  assert 'broken.png' in done.stdout


def test_a_finished_run_is_not_repeated(finished, folder):
  workdir, _ = finished
  before = (workdir / 'metrics.jsonl').read_bytes()
  done = _run('experiments.mbm', f'--flagfile={workdir / "flags.txt"}')
  assert done.returncode == 0, done.stderr
  assert 'finished at step 4' in done.stdout
  assert (workdir / 'metrics.jsonl').read_bytes() == before


def test_flags_txt_reproduces_the_run(finished, tmp_path):
  workdir, _ = finished
  done = _run('experiments.mbm', f'--flagfile={workdir / "flags.txt"}',
              f'--workdir={tmp_path / "again"}')
  assert done.returncode == 0, done.stderr
  assert ((tmp_path / 'again/metrics.jsonl').read_text()
          == (workdir / 'metrics.jsonl').read_text())
  assert ((tmp_path / 'again/report/metrics.json').read_text()
          == (workdir / 'report/metrics.json').read_text())


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--num_stepz=3'], "'num_stepz'"),
    (['--num_steps=none'], 'num_steps'),
    (['--data=nowhere'], 'nowhere'),
    (['--data=folder:/no/such/folder'], '/no/such/folder'),
    (['--network=resnet'],
     '--network=resnet: choose one of unet, encoder, published'),
    (['--image_size=18'], '--image_size'),
    (['--filters=8'], '--filters=8'),
    (['stray'], "unexpected argument 'stray'")])
def test_wrong_usage_is_one_line(arguments, message, tmp_path):
  done = _run('experiments.mbm', f'--workdir={tmp_path / "run"}', *TINY,
              *arguments)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr
  assert not (tmp_path / 'run').exists()


def test_another_configuration_is_refused_and_nothing_changes(finished):
  workdir, _ = finished

  def contents():  # the lock file names the process that holds it
    return {p: p.read_bytes() for p in workdir.rglob('*')
            if p.is_file() and p.name != '.lock'}

  before = contents()
  done = _run('experiments.mbm', f'--flagfile={workdir / "flags.txt"}',
              '--learning_rate=0.5')
  assert done.returncode == 2
  assert '--learning_rate was 0.001, is 0.5' in done.stderr
  assert contents() == before


def test_on_bad_image_fail_names_the_file(folder, tmp_path):
  done = _run('experiments.mbm', f'--data=folder:{folder}',
              f'--workdir={tmp_path / "run"}', '--on_bad_image=fail', *TINY)
  assert done.returncode == 2
  assert 'broken.png' in done.stderr.splitlines()[-1]
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(('given', 'version', 'expected'), [
    ('', '0.10.2', '--xla_cpu_experimental_ynn_fusion_type='),
    ('--a=b', '0.12.0.1',
     '--a=b --xla_cpu_experimental_ynn_fusion_type='),
    ('--xla_cpu_experimental_ynn_fusion_type=3', '0.10.2',
     '--xla_cpu_experimental_ynn_fusion_type=3'),
    ('', '0.13.0', ''),
    ('', '0.9.2', '')])
def test_the_xla_flag_is_set_if_jaxlib_has_it(
    given, version, expected, monkeypatch):
  from experiments import script
  monkeypatch.setenv('XLA_FLAGS', given)
  monkeypatch.setattr(script.importlib.metadata, 'version', lambda _: version)
  script.prepare_xla()
  assert os.environ['XLA_FLAGS'] == expected


@pytest.mark.parametrize(('flags', 'message'), [
    (['--decoder_stride=2'], 'error: --decoder_stride=2: --network=unet has'),
    (['--encoder_learning_rate=0.1'], 'error: --encoder_learning_rate=0.1: '),
    (['--network=encoder', '--image_size=48', '--backbone_weights=random'],
     'image_size=48 x 48: this network needs sides divisible by 32'),
    (['--network=encoder', '--decoder_stride=8'], 'one of <2|4>'),
    (['--network=encoder', '--filters=24'], 'error: --filters=24: channels')])
def test_flags_of_the_encoder(folder, tmp_path, flags, message):
  done = _run('experiments.mbm', f'--data=folder:{folder}',
              f'--eval_data=folder:{folder}', '--image_size=32', *flags,
              f'--workdir={tmp_path / "run"}')
  assert done.returncode == 2
  assert message in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
