import builtins
import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from colorjax import files
from colorjax.errors import UserError


def test_bytes_text_and_json_are_read_back(tmp_path):
  path = tmp_path / 'file'
  files.write_bytes(path, b'\x00\xff')
  assert path.read_bytes() == b'\x00\xff'
  files.write_text(path, 'grün\r\n')
  assert path.read_bytes() == 'grün\r\n'.encode()
  assert files.read_text(str(path)) == 'grün\r\n'
  value = {'a': [1, 2.5, None], 'b': 'é'}
  files.write_json(path, value)
  assert files.read_json(path) == value
  assert path.read_text().endswith('}\n')
  files.write_json(path, [1, 2], indent=None)
  assert path.read_text() == '[1, 2]\n'
  assert os.listdir(tmp_path) == ['file'], 'no temporary file is left'


def test_text_that_is_not_utf_8_is_preserved(tmp_path):
  """Folder names in flags and reports may be any bytes."""
  path = tmp_path / 'file'
  text = os.fsdecode(b'--data=folder:/tmp/M\xfcller\n')
  files.write_text(path, text)
  assert path.read_bytes() == b'--data=folder:/tmp/M\xfcller\n'
  assert files.read_text(path) == text
  files.write_json(path, text)
  assert files.read_json(path) == text


@pytest.mark.parametrize('length', [248, 255])
def test_names_of_maximum_length(tmp_path, length):
  path = tmp_path / ('x' * length)
  files.write_bytes(path, b'first')
  files.write_bytes(path, b'second')
  assert path.read_bytes() == b'second'


def test_permissions_are_those_of_a_new_file(tmp_path):
  ordinary = tmp_path / 'ordinary'
  ordinary.write_text('')
  files.write_text(tmp_path / 'whole', '')
  assert (tmp_path / 'whole').stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize(('make', 'reason'), [
    (lambda folder: folder / 'missing' / 'file', 'No such file or directory'),
    (lambda folder: folder / 'taken' / 'file', 'Not a directory'),
    (lambda folder: folder / 'folder', 'Is a directory'),
    (lambda folder: folder / ('x' * 256), 'File name too long')])
def test_files_that_cannot_be_written_are_one_line_errors(
    tmp_path, make, reason):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'taken').write_text('')
  path = make(tmp_path)
  with pytest.raises(UserError) as error:
    files.write_text(path, 'text')
  assert str(error.value) == f'{path}: cannot be written: {reason}'
  assert sorted(os.listdir(tmp_path)) == ['folder', 'taken']


@pytest.mark.parametrize('when', ['write', 'fsync', 'replace'])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, when):
  path = tmp_path / 'file'
  path.write_text('old')

  def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def write_a_part(self, content):
    with builtins.open(self, 'wb') as file:
      file.write(content[:2])
    full()

  if when == 'write':
    monkeypatch.setattr('pathlib.Path.write_bytes', write_a_part)
  elif when == 'fsync':
    monkeypatch.setattr('os.fsync', full)
  else:
    monkeypatch.setattr('pathlib.Path.replace', full)
  with pytest.raises(UserError, match='No space left on device'):
    files.write_bytes(path, b'new and longer')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['file']


def test_a_killed_process_leaves_the_old_file(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old')
  code = '''
import os, signal, sys
from colorjax import files
with files.replacing(sys.argv[1]) as temporary:
  temporary.write_text('half of')
  os.kill(os.getpid(), signal.SIGKILL)
'''
  ended = subprocess.run([sys.executable, '-c', code, str(path)])
  assert ended.returncode == -signal.SIGKILL
  assert path.read_text() == 'old'


def test_replacing_raises_os_errors(tmp_path):
  with (pytest.raises(FileNotFoundError),
        files.replacing(tmp_path / 'missing' / 'file') as temporary):
    temporary.write_text('text')


def test_numbers_that_are_not_finite_are_refused(tmp_path):
  path = tmp_path / 'file'
  files.write_json(path, 1)
  with pytest.raises(ValueError, match='JSON compliant'):
    files.write_json(path, {'mean': float('nan')})
  assert files.read_json(path) == 1


@pytest.mark.parametrize(('content', 'said'), [
    (None, r': cannot be read: No such file or directory$'),
    (b'', r': is not valid JSON: Expecting value'),
    (b'{"a": 1', r': is not valid JSON: '),
    (b'\xff\xfe\x00', r': is not valid JSON: '),
    (b'[' * 10**5, r': is not valid JSON: ')])
def test_json_that_cannot_be_read(tmp_path, content, said):
  path = tmp_path / 'file.json'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=f'^{path}{said}') as error:
    files.read_json(path)
  assert '\n' not in str(error.value)


def test_json_without_escapes_is_read(tmp_path):
  path = tmp_path / 'file.json'
  path.write_text(json.dumps({'ä': [1]}, ensure_ascii=False), 'utf-8')
  assert files.read_json(path) == {'ä': [1]}


def test_imports_neither_jax_nor_numpy():
  code = ('import sys; import colorjax.files; '
          "sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))")
  subprocess.run([sys.executable, '-c', code], check=True)
