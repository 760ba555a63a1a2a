"""`experiments.evaluate` as a user runs it: metrics, resuming, errors."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 32  # the network of LPIPS needs 31 pixels
COUNT = 7

TINY = ['--num_steps=3', '--batch_size=2', f'--image_size={SIZE}',
        '--filters=16', '--filters=16', '--prior_width=8',
        '--num_components=2', '--num_proposals=3', '--warmup_steps=1',
        '--report_photos=1', '--eval_every=3', '--checkpoint_every=3']
FEW = ['--num_samples=2', '--num_draws=3', '--num_proposals=2',
       '--report_photos=2']
# Sums of float32 in another order; a pixel that differs would exceed this.
NEARLY = {'rtol': 1e-4, 'atol': 1e-5}

# torchvision's numbers of AlexNet's convolutions and their shapes.
ALEX = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3),
        8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


def _python(*arguments, **environment):
  return subprocess.run(
      [sys.executable, *arguments], cwd=ROOT, text=True, timeout=300,
      capture_output=True, check=False, env=os.environ | environment)


def _run(*arguments, **environment):
  return _python('-m', *arguments, **environment)


def _evaluate(photos, workdir, *arguments, **environment):
  return _run('experiments.evaluate', f'--data=folder:{photos}',
              f'--workdir={workdir}', *arguments, **environment)


def _done(process):
  assert process.returncode == 0, process.stderr
  return process


def _json(path):
  return json.loads(path.read_text())


def _statistics(workdir):
  with np.load(workdir / 'statistics.npz') as file:
    return {name: file[name] for name in file.files}


def _assert_same(workdir, other):
  """Both have equal statistics up to rounding, of the same pixels."""
  one, two = _statistics(workdir), _statistics(other)
  assert one.keys() == two.keys()
  for name in one:
    np.testing.assert_allclose(one[name], two[name], **NEARLY, err_msg=name)
  assert (_json(workdir / 'protocol.json')['pixels']
          == _json(other / 'protocol.json')['pixels'])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Smooth square photographs of several colors, each with some grain."""
  folder = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i in range(COUNT):
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 5, (SIZE, SIZE, 1))
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(
        folder / f'{i}.png')
  return folder


@pytest.fixture(scope='module')
def trained(photos, tmp_path_factory):
  """The work directory of a run of a few steps."""
  workdir = tmp_path_factory.mktemp('runs') / 'tiny'
  _done(_run('experiments.mbm', f'--data=folder:{photos}',
             f'--eval_data=folder:{photos}', f'--workdir={workdir}', *TINY))
  return workdir


@pytest.fixture(scope='module')
def evaluated(photos, trained, tmp_path_factory):
  """An evaluation of `trained`, and its finished process."""
  workdir = tmp_path_factory.mktemp('evaluations') / 'tiny'
  done = _done(_evaluate(photos, workdir, f'--checkpoint={trained}',
                         f'--train_data=folder:{photos}', *FEW,
                         '--batch_size=8'))
  return workdir, done


@pytest.fixture(scope='module')
def colored(photos, trained, tmp_path_factory):
  """The pictures that `experiments.colorize` makes of the photographs."""
  folder = tmp_path_factory.mktemp('colored')
  _done(_run('experiments.colorize', f'--checkpoint={trained}',
             f'--input={photos}', f'--output={folder}'))
  return folder


def test_an_evaluation_writes_what_it_prints(evaluated):
  workdir, done = evaluated
  metrics = _json(workdir / 'metrics.json')
  for name in ('psnr', 'ssim', 'ab_distance', 'best_of_k', 'sample_ab_std',
               'bits_per_dim', 'pit_error', 'auc_rebalanced'):
    assert set(metrics[name]) == {'mean', 'low', 'high', 'n'}, name
    assert metrics[name]['n'] == COUNT
    assert metrics[name]['low'] <= metrics[name]['high']
    assert f'  {name} ' in done.stdout
  with (workdir / 'photographs.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['photograph'] for row in rows] == [
      f'{i}.png' for i in range(COUNT)]
  assert np.mean([float(row['psnr']) for row in rows]) == pytest.approx(
      metrics['psnr']['mean'], rel=1e-4)
  record = _json(workdir / 'protocol.json')
  assert record['photographs'] == [f'{i}.png' for i in range(COUNT)]
  assert len(record['pixels']) == 64
  assert record['density'] == f'{SIZE // 2} x {SIZE // 2}, exact'
  assert len(record['near_duplicates']) == COUNT
  assert f'near-duplicates of training photographs: {COUNT}, kept' in (
      done.stdout)
  assert 'left out: none' in done.stdout
  assert f'grey originals: 0 of {COUNT}' in done.stdout
  page = (workdir / 'report/index.html').read_text()
  for name in ('histograms', 'extremes', 'uncertainty', 'reliability', 'pit'):
    assert (workdir / f'report/{name}.png').is_file()
    assert f'src="{name}.png"' in page
    assert str(workdir / f'report/{name}.png') in done.stdout


def test_pictures_of_a_checkpoint_have_its_metrics(
    photos, evaluated, colored, tmp_path):
  _done(_evaluate(photos, tmp_path / 'out', f'--outputs={colored}',
                  f'--image_size={SIZE}', '--batch_size=3', *FEW))
  ours, theirs = (_statistics(path) for path in (
      evaluated[0], tmp_path / 'out'))
  assert set(theirs) < set(ours)
  assert {'psnr', 'ssim', 'ab_distance', 'ciede2000', 'chroma'} <= set(theirs)
  for name, values in theirs.items():
    np.testing.assert_allclose(values, ours[name], **NEARLY, err_msg=name)
  assert not (tmp_path / 'out/report/uncertainty.png').exists()


def test_metrics_do_not_depend_on_batches_and_devices(
    photos, trained, evaluated, tmp_path):
  given = os.environ.get('XLA_FLAGS', '')
  _done(_evaluate(
      photos, tmp_path / 'out', f'--checkpoint={trained}', *FEW,
      '--batch_size=2', XLA_FLAGS=f'{given} '
      '--xla_force_host_platform_device_count=2'))
  _assert_same(tmp_path / 'out', evaluated[0])


def test_the_originals_have_no_error(photos, weights, tmp_path):
  workdir = tmp_path / 'truth'
  done = _done(_evaluate(
      photos, workdir, '--reference=truth', f'--image_size={SIZE}',
      f'--lpips_alex={weights}/alex.safetensors,{weights}/heads.safetensors'))
  metrics = _json(workdir / 'metrics.json')
  for name, best in (('lpips_alex', 0), ('ab_distance', 0), ('ssim', 1),
                     ('auc', 100)):
    assert metrics[name] == {
        'mean': pytest.approx(best, abs=1e-5), 'n': COUNT,
        'low': pytest.approx(best, abs=1e-5),
        'high': pytest.approx(best, abs=1e-5)}, name
  # JSON has no infinity, so an infinite mean is null.
  nothing = {'mean': None, 'low': None, 'high': None}
  assert metrics['psnr'] == {**nothing, 'n': 0, 'num_undefined': COUNT}
  assert metrics['psnr_of_mean_mse'] == {**nothing, 'n': COUNT}
  assert 'lpips_vgg' not in metrics
  assert 'because weights are missing: fid_ddcolor' in done.stdout


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """AlexNet and heads of LPIPS as published, with random numbers."""
  folder = tmp_path_factory.mktemp('weights')
  rng = np.random.default_rng(0)
  state = {'classifier.1.bias': np.zeros(4096, np.float32)}
  for number, shape in ALEX.items():
    deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
    state[f'features.{number}.weight'] = deviation * rng.standard_normal(
        shape, np.float32)
    state[f'features.{number}.bias'] = np.zeros(shape[0], np.float32)
  safetensors.numpy.save_file(state, folder / 'alex.safetensors')
  safetensors.numpy.save_file(
      {f'lin{i}.model.1.weight': np.ones((1, shape[0], 1, 1), np.float32)
       for i, shape in enumerate(ALEX.values())},
      folder / 'heads.safetensors')
  safetensors.numpy.save_file(
      {'conv1.weight': np.zeros((8, 3, 3, 3), np.float32)},
      folder / 'another.safetensors')
  return folder


# Parts of 3 photographs; the process is killed when it has written a part.
IN_PARTS = """
import os, signal, sys
from colorjax import files
from colorjax.runs import evaluate as run
from experiments import evaluate, script
run._PART = 3
write = files.write_bytes
def write_and_die(path, content):
  write(path, content)
  if path.suffix == '.npz':
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv.pop(1) == 'die':
  files.write_bytes = write_and_die
script.run(evaluate.main)
"""


@pytest.fixture(scope='module')
def with_broken(photos, tmp_path_factory):
  """The photographs, and enough broken ones to fill a part."""
  folder = tmp_path_factory.mktemp('with_broken')
  for path in photos.iterdir():
    shutil.copy(path, folder)
  for letter in 'abc':  # sorted after 0, 1 and 2
    (folder / f'2{letter}.png').write_bytes(b'not a photograph')
  return folder


@pytest.fixture(scope='module')
def grey(with_broken, tmp_path_factory):
  """An evaluation of a reference that was killed and resumed."""
  workdir = tmp_path_factory.mktemp('evaluations') / 'grey'
  flags = [f'--data=folder:{with_broken}', f'--workdir={workdir}',
           '--reference=grey', f'--image_size={SIZE}']
  killed = _python('-c', IN_PARTS, 'die', *flags)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  first = workdir / 'parts/00000000.npz'
  assert sorted((workdir / 'parts').glob('*.npz')) == [first]
  before = first.stat()
  done = _done(_python('-c', IN_PARTS, 'live', *flags, '--batch_size=2'))
  after = first.stat()  # if measured again, it would be another file
  assert (after.st_ino, after.st_mtime_ns) == (before.st_ino,
                                               before.st_mtime_ns)
  return workdir, done


def test_a_killed_evaluation_is_resumed(grey, with_broken, tmp_path):
  workdir, done = grey
  assert len(list((workdir / 'parts').glob('*.npz'))) == 4
  _done(_evaluate(with_broken, tmp_path / 'out', '--reference=grey',
                  f'--image_size={SIZE}'))
  for file in ('metrics.json', 'photographs.csv', 'protocol.json'):
    assert (workdir / file).read_text() == (tmp_path / 'out' / file).read_text()
  assert _json(workdir / 'protocol.json')['photographs'] == [
      f'{i}.png' for i in range(COUNT)]
  assert len(_json(workdir / 'protocol.json')['left_out']) == 3
  assert 'left out: 3 (' in done.stdout
  assert '2a.png' in done.stdout


def test_pictures_that_changed_are_measured_again(photos, tmp_path):
  pictures = tmp_path / 'pictures'
  pictures.mkdir()
  for path in photos.iterdir():
    Image.open(path).convert('L').convert('RGB').save(pictures / path.name)
  flags = [f'--data=folder:{photos}', f'--outputs={pictures}',
           f'--workdir={tmp_path / "out"}', f'--image_size={SIZE}']
  killed = _python('-c', IN_PARTS, 'die', *flags)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert list((tmp_path / 'out/parts').glob('*.npz'))
  shutil.copy(photos / '0.png', pictures)  # now the photograph itself
  _done(_python('-c', IN_PARTS, 'live', *flags))
  with (tmp_path / 'out/photographs.csv').open() as file:
    distances = {row['photograph']: float(row['ab_distance'])
                 for row in csv.DictReader(file)}
  assert distances['0.png'] == 0
  assert min(distances[f'{i}.png'] for i in range(1, COUNT)) > 1


def test_an_evaluation_is_not_resumed_with_other_weights(photos, tmp_path):
  (tmp_path / 'parts').mkdir()
  (tmp_path / 'parts/weights.json').write_text('{"": "of another network"}')
  done = _evaluate(photos, tmp_path, '--reference=grey')
  assert done.returncode == 2
  assert 'was started with other weights' in done.stderr.splitlines()[-1]
  assert not list((tmp_path / 'parts').glob('*.npz'))


def test_a_finished_evaluation_is_not_repeated(grey, with_broken):
  workdir, _ = grey
  before = _contents(workdir)
  done = _done(_evaluate(with_broken, workdir, '--reference=grey',
                         f'--image_size={SIZE}', '--batch_size=2'))
  assert 'finished' in done.stdout
  assert _contents(workdir) == before


def _contents(workdir):
  """The content of all files but the lock, which holds a process id."""
  return {path: path.read_bytes() for path in workdir.rglob('*')
          if path.is_file() and path.name != '.lock'}


def _changed(colored, folder, change):
  """A copy of the pictures with one of them changed."""
  shutil.copytree(colored, folder)
  change(folder / '3.png')
  return folder


# All cases run in one process, because importing JAX is slow.
ONE_BY_ONE = """
import contextlib, io, json, sys, traceback
from absl import flags
from experiments import evaluate, script
ends = []
for arguments in json.loads(sys.argv[1]):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  sys.argv = ['evaluate', *arguments]
  with contextlib.redirect_stderr(io.StringIO()) as stderr:
    try:
      script.run(evaluate.main)
    except SystemExit as end:
      code = end.code
    except Exception:
      code = traceback.print_exc()
  ends.append((code, stderr.getvalue()))
print(json.dumps(ends))
"""


@pytest.fixture(scope='module')
def refused(photos, trained, colored, weights, grey, with_broken,
            tmp_path_factory):
  """Exit code, stderr, work directory and its files, by the name of a case."""
  folder = tmp_path_factory.mktemp('refused')
  missing, size, unreadable = (
      _changed(colored, folder / name, change) for name, change in (
          ('missing', pathlib.Path.unlink),
          ('size', Image.new('RGB', (20, 30)).save),
          ('unreadable', lambda path: path.write_bytes(b'no picture'))))
  broken = folder / 'checkpoint'
  shutil.copytree(trained, broken)
  (broken / 'colorizer.json').write_text('{')
  square = f'--image_size={SIZE}'
  truth = ['--reference=truth', square]
  alex, heads, other = (weights / f'{name}.safetensors'
                        for name in ('alex', 'heads', 'another'))
  cases = {
      'no subject': [],
      'two subjects': [f'--checkpoint={trained}', f'--outputs={colored}'],
      'missing picture': [f'--outputs={missing}', square],
      'size mismatch': [f'--outputs={size}', square],
      'unreadable picture': [f'--outputs={unreadable}', square],
      'no folder of pictures': [f'--outputs={folder}/none', square],
      'size of the protocol': [
          '--reference=truth', '--protocol=imagenet_val5k', '--image_size=64'],
      'too few photographs': ['--reference=truth', '--protocol=imagenet_val5k'],
      'no names': ['--reference=truth', '--protocol=imagenet_ctest10k'],
      'one file of two': [*truth, f'--lpips_alex={alex}'],
      'another network': [*truth, f'--lpips_alex={other},{heads}'],
      'another evaluation': ['--reference=grey', square, '--seed=1'],
      'duplicates dropped too late': [
          '--reference=grey', square, f'--train_data=folder:{photos}'],
      'no checkpoint': [f'--checkpoint={folder}/none'],
      'damaged checkpoint': [f'--checkpoint={broken}'],
      'one draw': [f'--checkpoint={trained}', '--num_draws=1'],
      'duplicates of nothing': [*truth, '--drop_near_duplicates'],
      'no training photographs': [*truth, f'--train_data=folder:{folder}/none'],
  }

  in_finished = ('another evaluation', 'duplicates dropped too late')
  workdirs = {name: grey[0] if name in in_finished else folder / f'out {name}'
              for name in cases}
  before = _contents(grey[0])
  arguments = [[
      f'--data=folder:{with_broken if name in in_finished else photos}',
      f'--workdir={workdirs[name]}', *flags] for name, flags in cases.items()]
  done = _done(_python('-c', ONE_BY_ONE, json.dumps(arguments)))
  ends = json.loads(done.stdout.splitlines()[-1])
  return {name: (*end, workdirs[name], before if name in in_finished else {})
          for name, end in zip(cases, ends, strict=True)}


@pytest.mark.parametrize(('name', 'message'), [
    ('no subject', 'one of checkpoint, outputs and reference'),
    ('two subjects', 'given: checkpoint, outputs'),
    ('missing picture', 'has no picture for 1 of 7 photographs: 3.png'),
    ('size mismatch',
     '3.png has 20 x 30 pixels, but its photograph has 32 x 32'),
    ('unreadable picture', '3.png'),
    ('no folder of pictures', 'none'),
    ('size of the protocol', '--image_size=64: --protocol=imagenet_val5k'),
    ('too few photographs', '5000'),
    ('no names', '--protocol=imagenet_ctest10k needs --names=FILE'),
    ('one file of two', 'lpips_alex needs two files'),
    ('another network', 'another.safetensors'),
    ('another evaluation', '--seed was 0, is 1'),
    ('duplicates dropped too late', '--train_data was not set'),
    ('no checkpoint', 'none'),
    ('damaged checkpoint', 'colorizer.json'),
    ('one draw', 'num_draws=1'),
    ('duplicates of nothing', 'drop_near_duplicates needs train_data'),
    ('no training photographs', 'none')])
def test_bad_input_is_one_line_and_leaves_no_metrics(refused, name, message):
  code, stderr, workdir, before = refused[name]
  assert code == 2, stderr
  assert len(stderr.splitlines()) == 1, stderr
  assert stderr.startswith('error: ')
  assert message in stderr
  if name in ('size mismatch', 'unreadable picture'):
    # Found while measuring: the same command resumes when it is fixed.
    assert {path.name for path in _contents(workdir)} <= {
      'flags.txt', 'weights.json'}
  else:
    assert workdir.exists() == bool(before)
    assert not before or _contents(workdir) == before
