"""`python -m launch.sweep` in a folder of a test's own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


class Place:
  """A folder with a script `mine.toy` and commands that run in it."""

  def __init__(self, folder, environment=None):
    self.folder = folder
    (folder / 'mine').mkdir()
    shutil.copy(pathlib.Path(__file__).with_name('toy_run.py'),
                folder / 'mine' / 'toy.py')
    self.environment = {**os.environ, **(environment or {}),
                        'PYTHONPATH': str(ROOT)}
    self.environment.pop('CUDA_VISIBLE_DEVICES', None)

  def begin(self, command, *words, **more):
    return subprocess.Popen(
        [sys.executable, '-m', 'launch.sweep', command, '--sweepdir=out',
         *words], cwd=self.folder, env=self.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

  def sweep(self, command, *words, rc=0):
    """What a command prints, which must end with this exit code."""
    process = self.begin(command, *words)
    try:
      out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
      process.terminate()  # its runs save and end
      raise
    assert process.returncode == rc, out + err
    assert 'Traceback' not in err
    return err if rc == 2 else out

  def run(self, *words, rc=0):
    return self.sweep('run', '--experiment=mine.toy', *words, rc=rc)

  def path(self, run):
    return self.folder / 'out' / 'runs' / run

  def record(self, run):
    path = self.path(run) / 'launch.json'
    return json.loads(path.read_text()) if path.exists() else {'state': None}

  def names(self):
    return sorted(path.name for path in (self.folder / 'out/runs').iterdir())

  def place(self, run):
    return json.loads((self.path(run) / 'place').read_text())

  def steps(self, run):
    path = self.path(run) / 'metrics.jsonl'
    if not path.exists():
      return []
    return [json.loads(line)['step'] for line in path.read_text().splitlines()]


def wait_for(condition, seconds=30):
  until = time.monotonic() + seconds
  while time.monotonic() < until:
    if condition():
      return
    time.sleep(0.05)
  raise AssertionError('it did not come to pass')
