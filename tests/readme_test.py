"""What the README says, done literally."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import skimage

ROOT = pathlib.Path(__file__).parent.parent

# A network and a run so small that only the compiler takes time.
TINY = ['--num_steps=3', '--batch_size=2', '--image_size=16', '--filters=16',
        '--filters=16', '--prior_width=8', '--num_components=2',
        '--num_proposals=2', '--warmup_steps=1', '--report_photos=2']


def _section(title):
  text = (ROOT / 'README.md').read_text()
  return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', text, re.S | re.M)[1]


def _blocks(text, language):
  return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def _run(command, cwd):
  environment = os.environ | {'PYTHONPATH': str(cwd)}
  return subprocess.run(
      [sys.executable, '-m', *command], cwd=cwd, env=environment, text=True,
      capture_output=True, timeout=300, check=False)


@pytest.fixture
def copy(tmp_path):
  """The project as a researcher's own copy."""
  for name in ('colorjax', 'experiments', 'launch'):
    shutil.copytree(ROOT / name, tmp_path / name,
                    ignore=shutil.ignore_patterns('__pycache__'))
  return tmp_path


def test_add_a_loss(copy):
  section = _section('Add a loss')
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
  # A density over ab: untrained, it is no better than the uniform one.
  assert 6 < figures['bits_per_dim']['mean'] < 12
  photo = pathlib.Path(skimage.__file__).parent / 'data' / 'coffee.png'
  done = _run(['experiments.colorize', '--checkpoint=runs/laplace',
               f'--input={photo}', '--output=coloured', '--proposals=2'], copy)
  assert done.returncode == 0, done.stderr
  assert len(list((copy / 'coloured').glob('coffee.[01].png'))) == 2


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


def test_the_script_of_all_methods(tmp_path):
  """What it would type: every flag is one, every flagfile is there."""
  done = subprocess.run(
      ['bash', 'launch/every_method_small.sh', 'photos', tmp_path / 'runs'],
      cwd=ROOT, env=os.environ | {'PYTHON': 'echo'}, text=True,
      capture_output=True, check=True)
  commands = [f'python {line}' for line in done.stdout.splitlines()]
  trained = [pathlib.Path(re.search(r'--workdir=(\S+)', command)[1]).name
             for command in commands if '--workdir' in command]
  small = {path.name.removesuffix('_small.flags')
           for path in (ROOT / 'launch/flags').glob('*_small.flags')}
  assert small <= set(trained)
  compared = re.search(r'--runs=(\S+)', commands[-1])[1].split(',')
  assert [pathlib.Path(path).name for path in compared] == trained
  _check_commands(commands)


def _check_commands(commands):
  for command in commands:
    module, arguments = re.search(
        r'python -m experiments\.(\w+)(.*)', command).groups()
    help_text = _run([f'experiments.{module}', '--helpfull'], ROOT).stdout
    for flag, value in re.findall(r'--(\w+)=(\S+)', arguments):
      assert re.search(rf'^\s+--(\[no\])?{flag}:', help_text, re.M), command
      if flag == 'flagfile':
        assert (ROOT / value).exists(), command
