"""SIGKILL at any moment, also during a save, does not change the result."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import training_problem as problem

from colorjax.training import checkpoint
from colorjax.training import checkpoint_files as files

NUM_STEPS = 160


def _start(workdir):
  """Starts or continues the run in a process of its own."""
  workdir.mkdir(exist_ok=True)
  script = pathlib.Path(problem.__file__)
  return subprocess.Popen(
      [sys.executable, str(script), str(workdir), str(NUM_STEPS)],
      cwd=script.parent.parent, stderr=subprocess.PIPE, text=True)


def _wait_for(process, condition):
  """Waits for a moment of a run; returns whether it came before the end."""
  while process.poll() is None:
    if condition():
      return True
    time.sleep(0.001)
  return False


def _kill(process):
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


def _num_lines(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def _unfinished(workdir):
  folder = workdir / checkpoint.DIRECTORY
  return [name for name in (os.listdir(folder) if folder.exists() else ())
          if files.TEMPORARY in name]


def _kill_at_random(workdir, rng):
  """Kills once some further lines are logged, and a random while later."""
  process = _start(workdir)
  goal = _num_lines(workdir) + int(rng.integers(1, 8))
  assert _wait_for(process, lambda: _num_lines(workdir) >= goal)
  time.sleep(rng.uniform(0, 0.05))
  _kill(process)


def _kill_in_a_save(workdir, nth):
  """Kills as soon as the nth unfinished checkpoint of a start is seen."""
  process = _start(workdir)
  seen = set()

  def is_saving():
    seen.update(_unfinished(workdir))
    return len(seen) >= nth

  assert _wait_for(process, is_saving)
  _kill(process)


def _finish(process):
  _, said = process.communicate()
  assert process.returncode == 0, said
  return said


def _final(workdir):
  with np.load(workdir / 'final.npz') as leaves:
    return dict(leaves)


def test_killed_runs_end_as_an_uninterrupted_one(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  uninterrupted = _start(whole)
  rng = np.random.default_rng(0)
  _kill_at_random(killed, rng)
  for nth in (2, 1, 3):  # a save takes milliseconds and may be missed
    _kill_in_a_save(killed, nth)
    if _unfinished(killed):
      break
  else:
    pytest.fail('no kill fell into a save')
  _kill_at_random(killed, rng)
  assert 'resuming from step' in _finish(_start(killed))
  _finish(uninterrupted)
  expected, found = _final(whole), _final(killed)
  assert expected.keys() == found.keys()
  for name, leaf in expected.items():
    assert leaf.tobytes() == found[name].tobytes(), name
  assert ((killed / 'metrics.jsonl').read_bytes()
          == (whole / 'metrics.jsonl').read_bytes())
  assert not _unfinished(killed)
