"""The scripts of the baselines and of the residual autoencoder."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import skimage.color
from PIL import Image

from colorjax import saved
from colorjax.data import augment
from colorjax.methods.baselines import welsh

ROOT = pathlib.Path(__file__).parents[2]
COLORS = np.uint8(
    [[200, 40, 30], [30, 120, 60], [60, 60, 160], [240, 230, 90]])


def _run(script, *arguments):
  return subprocess.run(
      [sys.executable, '-m', f'experiments.{script}', *arguments], cwd=ROOT,
      text=True, timeout=300, capture_output=True, check=False)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Four photographs of one color each: every crop has that color."""
  path = tmp_path_factory.mktemp('photos')
  for i, color in enumerate(COLORS):
    Image.fromarray(np.broadcast_to(color, (24, 20, 3))).save(
        path / f'{i}.png')
  return path


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
  """Runs a baseline and returns its work directory and what it printed."""

  def run(method, *arguments):
    workdir = tmp_path_factory.mktemp('runs') / method
    done = _run('baselines', f'--method={method}', f'--data=folder:{folder}',
                f'--eval_data=folder:{folder}', f'--workdir={workdir}',
                '--image_size=16', '--batch_size=2', '--report_photos=2',
                *arguments)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout

  return run


def test_a_baseline_has_a_work_directory_like_a_trained_method(run):
  workdir, printed = run('mean_color')
  mean = skimage.color.rgb2lab(COLORS[:, None] / 255)[..., 1:].mean((0, 1))
  _, variables, image_size = saved.load(workdir)
  np.testing.assert_allclose(
      variables['params']['mean_ab'], mean, atol=0.02)
  assert image_size == 16
  lines = [json.loads(line) for line in
           (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [(x['step'], x['split']) for x in lines] == [
      (1, 'train'), (1, 'validation')]
  ab = skimage.color.rgb2lab(COLORS[:, None] / 255)[:, 0, 1:]
  np.testing.assert_allclose(
      lines[1]['loss'], np.square((ab - mean) / 110).mean(), rtol=1e-3)
  metrics = json.loads((workdir / 'report/metrics.json').read_text())
  assert metrics['ab_distance_mean_color']['mean'] == pytest.approx(
      np.linalg.norm(ab - mean, axis=-1).mean(), rel=1e-3)
  # Its 8-bit pictures are the same, except for colors outside the gamut.
  assert metrics['ab_distance']['mean'] == pytest.approx(
      metrics['ab_distance_mean_color']['mean'], rel=0.2)
  assert (workdir / 'report/index.html').exists()
  assert str(workdir / 'report/index.html') in printed


def test_parameters_are_computed_from_a_reference(run, tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (5, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
  Image.fromarray(pixels).save(tmp_path / 'reference.png')
  workdir, _ = run('welsh', f'--reference={tmp_path / "reference.png"}',
                   '--grid=3', '--seed=5')
  _, variables, _ = saved.load(workdir)
  expected = welsh.candidates(
      jax.random.key(5), augment.fit_square(pixels, 16, 'crop'), grid=3)
  for name, value in expected.items():
    np.testing.assert_allclose(variables['params'][name], value, rtol=1e-5)
  assert expected['ab'].std() > 5


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--method=welsh'], '--method=welsh needs --reference=FILE'),
    (['--method=grey', '--reference=a.png'],
     '--reference=a.png: --method=grey uses no reference; '
     'reinhard and welsh do'),
    (['--method=reinhard', '--reference=/no/such.png'], '/no/such.png'),
    (['--method=guess'], '--method'),
    ([], '--method')])
def test_wrong_usage_is_one_line(arguments, message, tmp_path):
  done = _run('baselines', f'--workdir={tmp_path / "run"}', '--image_size=16',
              *arguments)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr
  assert not (tmp_path / 'run').exists()


def _flags(*arguments):
  """Values of the residual autoencoder's flags, by name."""
  code = ('import json, sys\n'
          'from experiments import residual_autoencoder\n'
          'from absl import flags\n'
          "flags.FLAGS(sys.argv)\n"
          'print(json.dumps(flags.FLAGS.flag_values_dict(), default=str))\n'
          "sys.exit('jax' in sys.modules)")
  done = subprocess.run(
      [sys.executable, '-c', code, '--workdir=run', *arguments], cwd=ROOT,
      text=True, timeout=60, capture_output=True, check=False)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_the_residual_autoencoder_is_as_published_by_default():
  published = {
      'loss': 'mse', 'enlargement': 'bilinear', 'image_size': 224,
      'optimizer': 'adam', 'learning_rate': 1e-4, 'schedule': 'halving',
      'warmup_steps': 0, 'clip_norm': 0, 'ema_decay': 0,
      'backbone_weights': None}
  for flagfile in ([], ['--flagfile=launch/flags/residual_autoencoder.flags']):
    assert published.items() <= _flags(*flagfile).items()
  # 6,149 photographs: halved every 3 epochs, 25 in all.
  found = _flags('--flagfile=launch/flags/residual_autoencoder.flags')
  steps_an_epoch = 6149 / found['batch_size']
  assert found['halve_every'] == round(3 * steps_an_epoch)
  assert found['num_steps'] == round(25 * steps_an_epoch)


def test_the_small_residual_autoencoder_needs_no_weights():
  found = _flags('--flagfile=launch/flags/residual_autoencoder_small.flags')
  assert (found['backbone_weights'], found['image_size']) == ('random', 64)
