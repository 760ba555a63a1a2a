"""Runs the commands and examples of the READMEs."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import skimage

from colorjax.runs import compare

ROOT = pathlib.Path(__file__).parent.parent

# A network and a run so small that compilation takes most of the time.
TINY = ['--num_steps=3', '--batch_size=2', '--image_size=16', '--filters=16',
        '--filters=16', '--prior_width=8', '--num_components=2',
        '--num_proposals=2', '--warmup_steps=1', '--report_photos=2']


def _section(title, file='README.md'):
  text = (ROOT / file).read_text()
  return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', text, re.S | re.M)[1]


def _blocks(text, language):
  return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def _run(command, cwd, *further):
  """Runs `python -m command` with `cwd` and further folders on its path."""
  environment = os.environ | {
      'PYTHONPATH': os.pathsep.join(map(str, [cwd, *further]))}
  return subprocess.run(
      [sys.executable, '-m', *command], cwd=cwd, env=environment, text=True,
      capture_output=True, timeout=300, check=False)


@pytest.fixture
def copy(tmp_path):
  """A copy of the project that a test may change."""
  for name in ('colorjax', 'experiments', 'launch'):
    shutil.copytree(ROOT / name, tmp_path / name,
                    ignore=shutil.ignore_patterns('__pycache__'))
  return tmp_path


def test_add_a_likelihood(copy):
  section = _section('Add a likelihood', 'colorjax/README.md')
  function, line = _blocks(section, 'python')
  (command,) = _blocks(section, 'bash')
  families = copy / 'colorjax/losses/families.py'
  families.write_text(families.read_text() + '\n\n' + function)
  method = copy / 'colorjax/methods/mbm.py'
  before = method.read_text()
  method.write_text(before.replace('FAMILIES = {\n', 'FAMILIES = {\n' + line))
  assert method.read_text() != before

  words = command.split()
  assert words[:3] == ['python', '-m', 'experiments.mbm']
  done = _run([*words[2:], *TINY], copy)
  assert done.returncode == 0, done.stderr

  lines = (copy / 'runs/laplace/metrics.jsonl').read_text().splitlines()
  assert {'train', 'validation'} == {json.loads(x)['split'] for x in lines}
  figures = json.loads((copy / 'runs/laplace/report/metrics.json').read_text())
  # Without training, the density is about as good as the uniform one.
  assert 6 < figures['bits_per_dim']['mean'] < 12
  photo = pathlib.Path(skimage.__file__).parent / 'data' / 'coffee.png'
  done = _run(['experiments.colorize', '--checkpoint=runs/laplace',
               f'--input={photo}', '--output=colored', '--proposals=2'], copy)
  assert done.returncode == 0, done.stderr
  assert len(list((copy / 'colored').glob('coffee.[01].png'))) == 2


def test_add_a_loss(copy):
  section = _section('Add a loss')
  function, line = _blocks(section, 'python')
  (command,) = _blocks(section, 'bash')
  losses = copy / 'colorjax/losses/regression.py'
  before = losses.read_text()
  start = re.search(r'^LOSSES.*= \{\n', before, re.M)[0]
  losses.write_text(before.replace(
      start, function + '\n\n' + start + line))
  words = shlex.split(command)
  assert words[:3] == ['python', '-m', 'experiments.regression']
  tiny = [flag for flag in TINY if 'prior_width' not in flag
          and 'num_components' not in flag]
  done = _run([*words[2:], *tiny], copy)
  assert done.returncode == 0, done.stderr
  last = json.loads(
      (copy / 'runs/quartic/metrics.jsonl').read_text().splitlines()[-1])
  assert last['loss'] == pytest.approx(
      last['loss/quartic'] + 0.1 * last['loss/huber'], rel=1e-4)


def test_add_a_method(copy, tmp_path):
  """The page's method in a notebook, in its tests, in a script, in a table."""
  page = 'colorjax/methods/README.md'
  (method,) = _blocks(_section('2. The method', page), 'python')
  (notebook,) = _blocks(_section('3. Try it', page), 'python')
  (colorize,) = _blocks(_section('3. Try it', page), 'bash')
  (test,) = _blocks(_section('4. Test it', page), 'python')
  (script,) = _blocks(_section('5. Give it a script', page), 'python')
  (flags,) = re.findall(r'```\n(--.*?)```', _section(
      '5. Give it a script', page), re.S)
  (compare,) = _blocks(_section('6. A row of the table', page), 'bash')
  (copy / 'colorjax/methods/flow.py').write_text(method)
  (copy / 'experiments/flow.py').write_text(script)
  (copy / 'flow_test.py').write_text(test)
  before = "TrainOptions(workdir='runs/flow', image_size=32)"
  assert before in notebook
  notebook = notebook.replace(before, before[:-3] + """16,
      optimizing=options.Optimizing(warmup_steps=4), batch_size=8,
      num_steps=40, eval_every=20, num_proposals=2, report_photos=2)""")
  notebook = notebook.replace('[32, 64, 128]', '[16, 16]')
  (tmp_path / 'notebook.py').write_text(notebook)
  done = subprocess.run(
      [sys.executable, str(tmp_path / 'notebook.py')], cwd=copy, text=True,
      env=os.environ | {'PYTHONPATH': str(copy)}, capture_output=True,
      timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  run = copy / 'runs/flow'
  lines = [json.loads(x) for x in
           (run / 'metrics.jsonl').read_text().splitlines()]
  losses = [x['loss'] for x in lines if x['split'] == 'validation']
  assert losses[-1] < losses[0] < 2
  photo = pathlib.Path(skimage.__file__).parent / 'data' / 'coffee.png'
  words = colorize.replace('photo.jpg', str(photo)).split()
  done = _run(words[2:], copy)
  assert done.returncode == 0, done.stderr
  assert len(list((copy / 'colored').glob('coffee.[0-3].png'))) == 4
  done = _run(['experiments.colorize', '--checkpoint=runs/flow',
               f'--input={photo}', '--output=hot', '--ask=temperature=2'], copy)
  assert done.returncode == 2
  assert "no option 'temperature'; it has candidates, num_steps" in done.stderr
  done = _run(['pytest', '-q', '-p', 'no:cacheprovider', 'flow_test.py',
               '-c', os.devnull, '--rootdir', str(copy)], copy,
              ROOT / 'tests')
  assert done.returncode == 0, done.stdout
  # The table, with a tiny network and few steps.
  (copy / 'launch/flags/flow_small.flags').write_text(
      f'{flags}--image_size=16\n--num_steps=2\n--warmup_steps=1\n--batch_size=4\n'
      '--filters=16\n--report_photos=2\n--num_proposals=2\n')
  words = shlex.split(compare.replace('folder:flowers17/train', 'bundled')
                      .replace('folder:flowers17/test', 'bundled')
                      .replace('--seeds=0,1', '--seeds=0'))
  done = _run([*words[2:], '--evaluate_flags=--image_size=16 --num_samples=2'],
              copy)
  assert done.returncode == 0, done.stderr
  table = (copy / 'runs/compare/table.md').read_text()
  assert re.search(r'^\| flow ', table, re.M), table


def test_unknown_family_names_those_there_are(tmp_path):
  done = _run(['experiments.mbm', '--family=laplace',
               f'--workdir={tmp_path / "run"}', *TINY], ROOT)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == (
      'error: --family=laplace: choose one of bernoulli, '
      'continuous_bernoulli, gaussian, discretized_logistic')
  assert not (tmp_path / 'run').exists()


def test_commands_name_flags_and_files_that_exist():
  text = (ROOT / 'README.md').read_text()
  commands = [line for block in _blocks(text, 'bash')
              for line in block.splitlines() if 'python -m experiments' in line]
  assert len(commands) >= 4
  _check_commands(commands)


def test_the_small_comparison_has_every_method():
  """The rows of the comparison are the small flagfiles, and baselines."""
  flags = (ROOT / 'launch/flags/compare_small.flags').read_text()
  rows = {row.partition('=')[0]: row.rpartition('=')[2] for row in
          re.search(r'--methods=(\S+)', flags)[1].split(',')}
  small = {path.name.removesuffix('_small.flags')
           for path in (ROOT / 'launch/flags').glob('*_small.flags')}
  trained = {name for name, script in rows.items()
             if (ROOT / f'experiments/{script}.py').exists()}
  assert small - {'compare'} == trained
  assert set(rows) - trained <= set(compare.BASELINES)
  comments = [line[1:].strip() for line in flags.splitlines()
              if line.startswith('#')]
  command = ' '.join(comments).replace(' \\ ', ' ')
  _check_commands([re.search(r'python -m experiments\.compare.*?compare ',
                             command)[0]])


def test_add_a_metric(copy):
  section = _section('Add a metric', 'colorjax/README.md')
  function, line = _blocks(section, 'python')
  image = copy / 'colorjax/metrics/image.py'
  image.write_text(image.read_text() + '\n\n' + function)
  catalogue = copy / 'colorjax/evaluation/catalogue.py'
  before = catalogue.read_text()
  start = 'METRICS: Mapping[str, Metric] = {\n'
  catalogue.write_text(before.replace(start, start + line))
  assert catalogue.read_text() != before
  done = _run(['experiments.evaluate', '--reference=grey', '--data=bundled',
               '--image_size=16', '--workdir=out'], copy)
  assert done.returncode == 0, done.stderr
  figures = json.loads((copy / 'out/metrics.json').read_text())
  assert figures['chroma_bias']['mean'] == pytest.approx(
      -figures['chroma_truth']['mean'], abs=0.01)
  assert re.search(r"        '(chroma.*)', ''", line)[1] in done.stdout


def _check_commands(commands):
  for command in commands:
    module, arguments = re.search(
        r'python -m experiments\.(\w+)(.*)', command).groups()
    help_text = _run([f'experiments.{module}', '--helpfull'], ROOT).stdout
    for flag, value in re.findall(r'--(\w+)=(\S+)', arguments):
      assert re.search(rf'^\s+--(\[no\])?{flag}:', help_text, re.M), command
      if flag == 'flagfile':
        assert (ROOT / value).exists(), command
