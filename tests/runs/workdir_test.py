"""A work directory holds one process and one configuration."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from absl import flags

from colorjax.errors import UserError
from colorjax.runs import workdir as workdirs
from colorjax.runs.workdir import WorkdirError, claim_workdir

TEXT = '--batch_size=32\n--data=folder:/a=b\n--noflip\n--workdir=x\n'


def _contents(path):
  return {p.name: p.read_bytes() for p in path.iterdir()
          if not p.name.startswith('.')}


def test_flags_are_written_and_the_same_flags_accepted(tmp_path):
  for _ in range(2):
    with claim_workdir(tmp_path / 'new' / 'run', TEXT) as path:
      assert _contents(path) == {'flags.txt': TEXT.encode()}


@pytest.mark.parametrize(('changed', 'named'), [
    (TEXT.replace('32', '64'), ['batch_size was 32, is 64']),
    (TEXT.replace('a=b', 'c=b'),
     ['data was folder:/a=b, is folder:/c=b']),
    (TEXT.replace('--noflip', '--flip'), ['flip was false, is true']),
    (TEXT.replace('--noflip\n', ''), ['noflip was true, is not set']),
    (TEXT + '--seed=1\n--filters=3\n--filters=4\n',
     ['filters was not set, is 3,4', 'seed was not set, is 1']),
])
def test_other_flags_are_listed_and_nothing_is_changed(
    tmp_path, changed, named):
  with claim_workdir(tmp_path, TEXT):
    (tmp_path / 'metrics.jsonl').write_text('{}\n')
  before = _contents(tmp_path)
  with pytest.raises(WorkdirError) as caught, claim_workdir(tmp_path, changed):
    pass
  message = str(caught.value)
  assert '; '.join(named) in message
  assert str(tmp_path) in message
  assert '\n' not in message
  assert _contents(tmp_path) == before


def test_harmless_flags_may_differ_and_are_recorded(tmp_path):
  harmless = {'workdir', 'flip'}
  changed = TEXT.replace('=x', '=y').replace('--noflip', '--flip')
  with claim_workdir(tmp_path, TEXT, harmless=harmless):
    pass
  with claim_workdir(tmp_path, changed, harmless=harmless):
    assert (tmp_path / 'flags.txt').read_text() == changed


def test_flags_of_absl_make_the_round_trip(tmp_path):
  values = flags.FlagValues()
  flags.DEFINE_bool('flip', False, '', flag_values=values)
  flags.DEFINE_multi_integer('filters', [1, 2], '', flag_values=values)
  flags.DEFINE_string('data', 'folder:/a b', '', flag_values=values)
  values(['program', '--filters=3', '--filters=4'])
  with claim_workdir(tmp_path, values.flags_into_string()):
    pass
  flags.DEFINE_string('unset', None, '', flag_values=values)
  values.unparse_flags()
  values(['program', f'--flagfile={tmp_path / workdirs.FLAGS}'])
  assert values.filters == [3, 4]
  with claim_workdir(tmp_path, values.flags_into_string()):
    pass


@pytest.mark.parametrize('name', ['metrics.jsonl', 'checkpoints'])
def test_a_run_without_flags_is_not_touched(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(WorkdirError, match=f'holds {name} but no flags.txt'):
    claim_workdir(tmp_path, TEXT).__enter__()
  assert list(_contents_names(tmp_path)) == [name]


def _contents_names(path):
  return (p.name for p in path.iterdir() if not p.name.startswith('.'))


def test_a_path_through_a_file_is_refused(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(WorkdirError, match=r'workdir=.*file/run: Not a dir'):
    claim_workdir(tmp_path / 'file' / 'run', TEXT).__enter__()


def test_full_disk_keeps_the_flags_that_were_there(tmp_path, monkeypatch):
  with claim_workdir(tmp_path, TEXT):
    pass

  def full(self, content):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  with pytest.raises(UserError, match='No space left on device'):
    claim_workdir(tmp_path, TEXT).__enter__()
  assert (tmp_path / 'flags.txt').read_text() == TEXT


HOLDER = '''
import pathlib, sys, time
from colorjax.runs.workdir import claim_workdir
with claim_workdir(pathlib.Path(sys.argv[1]), '--a=1'):
  print('held', flush=True)
  time.sleep(600)
'''


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
  holder = subprocess.Popen(
      [sys.executable, '-c', HOLDER, str(tmp_path)], stdout=subprocess.PIPE,
      text=True, cwd=pathlib.Path(__file__).parents[2])
  assert holder.stdout.readline() == 'held\n'
  with pytest.raises(WorkdirError) as caught:
    claim_workdir(tmp_path, '--a=1').__enter__()
  holder.send_signal(signal.SIGKILL)
  holder.communicate()
  assert f'process {holder.pid} is using {tmp_path}' in str(caught.value)
  with claim_workdir(tmp_path, '--a=1'):
    pass


def test_a_folder_whose_name_is_not_text(tmp_path):
  odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
  text = f'--workdir={odd}\n'
  for _ in range(2):
    with claim_workdir(odd, text):
      pass
  assert (odd / 'flags.txt').read_bytes() == os.fsencode(text)
