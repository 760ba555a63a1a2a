"""Tasks on this machine, with small programs that are really run."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import local, record, supervisor
from launch.supervisor import Task

ROOT = pathlib.Path(__file__).parents[2]

# Writes down when it starts and ends, and on which device.
_NOTES = """
import os, pathlib, sys, time
notes = pathlib.Path(sys.argv[1])
def note(what):
  with notes.open('a') as file:
    print(what, sys.argv[2], os.environ.get('CUDA_VISIBLE_DEVICES'), file=file)
note('begin')
time.sleep(0.4)
note('end')
pathlib.Path(sys.argv[3]).touch()
"""

# Saves at Ctrl-C, which takes a while.
_SAVES = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
try:
  (folder / 'ready').touch()
  time.sleep(60)
except KeyboardInterrupt:
  time.sleep(0.5)
  (folder / 'saved').touch()
"""

# Ignores Ctrl-C.
_DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (folder / 'heard').touch())
folder = pathlib.Path(sys.argv[1])
(folder / 'ready').touch()
time.sleep(30)  # continues after the signal
"""

_LAUNCHER = """
import pathlib, sys
from launch import local
from launch.supervisor import Task
folder = pathlib.Path(sys.argv[1])
try:
  local.run([Task(
      name=name, workdir=folder / name,
      command=[sys.executable, '-c', sys.argv[2], sys.argv[1]],
      log=folder / f'{name}.log', is_done=(folder / 'result').exists)
      for name in ('first', 'second')],
      say=lambda line: print(line, flush=True))
except KeyboardInterrupt:
  print('launcher ends; saved:', (folder / 'saved').exists())
"""


def _job(folder, name, program, *arguments, result=None):
  result = result or folder / f'{name}.done'
  return Task(
      name=name, workdir=folder / 'work' / name, is_done=result.exists,
      log=folder / 'logs' / f'{name}.log',
      command=[sys.executable, '-c', program, *map(str, arguments)])


def _noting(folder, name):
  return _job(folder, name, _NOTES, folder / 'notes', name,
              folder / f'{name}.done')


def _notes(folder):
  return [line.split() for line in (folder / 'notes').read_text().splitlines()]


def test_jobs_that_are_done_are_not_run(tmp_path):
  (tmp_path / 'a.done').touch()
  said = []
  assert local.run([_noting(tmp_path, 'a'), _noting(tmp_path, 'b')],
                  say=said.append) == []
  assert {name for _, name, _ in _notes(tmp_path)} == {'b'}
  assert not (tmp_path / 'logs' / 'a.log').exists()
  assert said[0] == 'b: started'
  assert said[1].startswith('b: done in ')
  assert said[1].endswith('; 1 of 1')
  assert local.run([_noting(tmp_path, 'b')], say=said.append) == []
  assert len(said) == 2


def test_a_failed_job_is_reported_and_the_others_run(tmp_path):
  bad = _job(tmp_path, 'bad', 'print("so far"); raise SystemExit("no such x")')
  # Exit code 0, but no result.
  idle = _job(tmp_path, 'idle', 'print("all is well")')
  # A result, but a nonzero exit code.
  late = _job(tmp_path, 'late', 'import pathlib, sys; '
              'pathlib.Path(sys.argv[1]).touch(); sys.exit(3)',
              tmp_path / 'late.done')
  good = _noting(tmp_path, 'good')
  said = []
  failed = local.run([bad, idle, late, good], say=said.append)
  assert failed == [bad, idle, late]
  assert good.is_done()
  (line,) = (line for line in said if line.startswith('bad: FAILED'))
  assert line.startswith(
      f'bad: FAILED (no such x); see {bad.log}; 1 of 4, about ')
  assert any(line.startswith('idle: FAILED (all is well)') for line in said)
  assert 'about' not in said[-1], 'nothing is left'


def test_a_program_that_is_not_there(tmp_path):
  lost = Task(name='lost', workdir=tmp_path / 'lost', max_retries=3,
              command=['/no/such/program'], log=tmp_path / 'lost.log')
  assert local.run([lost], say=lambda line: None) == [lost]
  found = record.read(lost.workdir)
  assert (found.state, found.exit_code, found.starts) == ('failed', 2, 1)
  assert found.reason.startswith('error: /no/such/program: ')


def test_one_at_a_time_in_order(tmp_path, monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '7')
  assert local.run([_noting(tmp_path, name) for name in 'ba'],
                  say=lambda line: None) == []
  assert _notes(tmp_path) == [['begin', 'b', '7'], ['end', 'b', '7'],
                              ['begin', 'a', '7'], ['end', 'a', '7']]


def test_as_many_at_once_as_there_are_devices(tmp_path):
  assert local.run([_noting(tmp_path, name) for name in 'abc'],
                  slots=local.gpu_slots(['4', '5']),
                  say=lambda line: None) == []
  notes = _notes(tmp_path)
  running, most, shared = {}, 0, []
  for what, name, device in notes:
    if what == 'begin':
      shared += [name] if device in running.values() else []
      running[name] = device
      most = max(most, len(running))
    else:
      del running[name]
  assert most == 2
  assert not shared, 'two jobs on one device'
  assert {device for _, _, device in notes} == {'4', '5'}
  assert {name for what, name, _ in notes if what == 'end'} == set('abc')


def test_jobs_have_the_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('INHERITED', 'x')
  job = _job(tmp_path, 'job', 'import os; '
             'print(os.environ["INHERITED"], os.environ["GIVEN"])')
  job = dataclasses.replace(job, environment={'GIVEN': 'y'})
  local.run([job], say=lambda line: None)
  assert supervisor.last_line(job.log) == 'x y'
  assert 'GIVEN' not in os.environ


def test_ctrl_c_of_the_terminal_reaches_the_launcher_alone(tmp_path):
  job = _job(tmp_path, 'job', 'import os; '
             'print(os.getsid(0) == os.getpgrp() == os.getppid())')
  local.run([job], say=lambda line: None)
  assert supervisor.last_line(job.log) == 'True'


def test_a_log_is_appended_to(tmp_path):
  job = _job(tmp_path, 'job', 'import sys; print("out", flush=True); '
             'print("err", file=sys.stderr)')
  for _ in range(2):
    assert local.run([job], say=lambda line: None) == [job]
  lines = job.log.read_text().splitlines()
  assert [line for line in lines if line in ('out', 'err')] == [
      'out', 'err'] * 2
  assert sum(line.startswith(f'+ {sys.executable} -c') for line in lines) == 2


@pytest.mark.parametrize(('content', 'last'), [
    ('one\ntwo\n', 'two'), ('one\n\n  \n', 'one'),
    ('10 %\r50 %\r100 %\r', '100 %'), ('10 %\rdone\n', 'done'),
    ('', 'no output'), ('a\r\nb\r\n', 'b')])
def test_last_line(tmp_path, content, last):
  log = tmp_path / 'log'
  log.write_text(content, newline='')
  assert supervisor.last_line(log) == last
  log.write_bytes(b'\xff\xfe' + content.encode())
  assert supervisor.last_line(log)
  assert supervisor.last_line(tmp_path / 'none') == 'no output'


def _launch(folder, program, *, before='', until='ready'):
  process = subprocess.Popen(
      [sys.executable, '-c', before + _LAUNCHER, str(folder), program],
      cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  _wait_for(folder / until)
  return process


def _wait_for(path):
  for _ in range(200):
    if path.exists():
      return
    time.sleep(0.05)
  raise AssertionError(f'no {path.name}')


_BACKGROUND = ('import signal; '
               'signal.signal(signal.SIGINT, signal.SIG_IGN)\n')
_NOHUP = _BACKGROUND.replace('SIGINT', 'SIGHUP')


@pytest.mark.parametrize(('number', 'before'), [
    (signal.SIGINT, ''), (signal.SIGTERM, ''), (signal.SIGHUP, ''),
    (signal.SIGTERM, _BACKGROUND)],
    ids=['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGTERM in the background'])
def test_a_signal_is_passed_on_and_jobs_may_save(tmp_path, number, before):
  if signal.getsignal(number) is signal.SIG_IGN:
    pytest.skip('this signal is ignored, as under nohup')
  launcher = _launch(tmp_path, _SAVES, before=before)
  launcher.send_signal(number)
  said, _ = launcher.communicate(timeout=20)
  assert launcher.returncode == 0, said
  assert said.splitlines() == [
      'first: started', 'interrupted: waiting for 1 running tasks to save',
      'launcher ends; saved: True']
  assert not (tmp_path / 'second.log').exists()


@pytest.mark.parametrize(('number', 'before'), [
    (signal.SIGINT, _BACKGROUND), (signal.SIGHUP, _NOHUP)],
    ids=['background', 'nohup'])
def test_ignored_signals_stay_ignored(tmp_path, number, before):
  launcher = _launch(tmp_path, _SAVES, before=before)
  launcher.send_signal(number)
  time.sleep(1.2)  # saving would have ended by now
  assert launcher.poll() is None
  assert not (tmp_path / 'saved').exists()
  launcher.send_signal(signal.SIGTERM)
  launcher.communicate(timeout=20)


def test_a_second_signal_kills_the_jobs(tmp_path):
  launcher = _launch(tmp_path, _DEAF)
  launcher.send_signal(signal.SIGINT)
  _wait_for(tmp_path / 'heard')
  time.sleep(0.3)
  assert launcher.poll() is None
  launcher.send_signal(signal.SIGINT)
  said, _ = launcher.communicate(timeout=20)
  assert said.splitlines()[-1] == 'launcher ends; saved: False'


def test_an_error_of_the_launcher_stops_its_jobs(tmp_path):
  handlers = [signal.getsignal(number) for number in (
      signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
  good = _job(tmp_path, 'good', _SAVES, tmp_path)
  next_one = _noting(tmp_path, 'next')

  def say(line):
    if line.startswith('next'):
      raise OSError('nobody listens')
    _wait_for(tmp_path / 'ready')

  with pytest.raises(OSError, match='nobody listens'):
    local.run([good, next_one], slots=local.gpu_slots(['0', '1']), say=say)
  assert (tmp_path / 'saved').exists()
  assert handlers == [signal.getsignal(number) for number in (
      signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_commands_use_this_interpreter():
  assert local.python('a.b', '--c=1') == [sys.executable, '-m', 'a.b', '--c=1']
