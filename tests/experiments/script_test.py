"""How a script is run: flagfiles, home directories, errors."""

import os
import pathlib
import subprocess
import sys

import pytest

from experiments import script


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  return tmp_path


@pytest.mark.parametrize(('text', 'expected'), [
    ('~/a', 'HOME/a'), ('~', 'HOME'), ('folder:~/a', 'folder:HOME/a'),
    ('prepared:~/a:train', 'prepared:HOME/a:train'),
    ('mbm=~/a,other=~/b', 'mbm=HOME/a,other=HOME/b'),
    ('published,folder:~/masks', 'published,folder:HOME/masks'),
    ('/a/~b', '/a/~b'), ('a~', 'a~'), ('~nobody_here/a', '~nobody_here/a'),
    ('folder:/x', 'folder:/x')])
def test_tildes_are_expanded(home, text, expected):
  assert script.expand_home(text) == expected.replace('HOME', str(home))


def _run(code, *arguments, stdin=None):
  """Runs a script with a few flags in a new process."""
  return subprocess.run(
      [sys.executable, '-c', SCRIPT.format(code=code), *arguments], text=True,
      capture_output=True, check=False, input=stdin,
      cwd=pathlib.Path(script.__file__).parent.parent)


SCRIPT = """
import errno, os
from absl import flags
from colorjax.errors import UserError
from experiments import script
flags.DEFINE_string('place', None, '', module_name='experiments.x')
flags.DEFINE_list('places', [], '', module_name='experiments.x')
flags.DEFINE_integer('seed', 0, '', module_name='experiments.x')
flags.DEFINE_float('encoder_learning_rate', None, '')
def main(argv):
  {code}
script.run(main)
"""
SHOW = 'print(flags.FLAGS.place, flags.FLAGS.places, flags.FLAGS.seed)'


@pytest.mark.parametrize(('change', 'expected'), [
    ({}, 'glibc.malloc.hugetlb=1'),
    ({'given': 'a.b=1'}, 'a.b=1:glibc.malloc.hugetlb=1'),
    ({'given': 'glibc.malloc.hugetlb=0'}, None),
    ({'pages': '[always] madvise never'}, None),
    ({'pages': 'always madvise [never]'}, None),
    ({'pages': None}, None),
    ({'library': ('glibc', '2.34')}, None),
    ({'library': ('', '')}, None),
    ({'plugins': ['cuda']}, None)])
def test_a_process_starts_anew_where_large_pages_must_be_asked_for(
    change, expected, tmp_path, monkeypatch):
  case = {'given': '', 'pages': 'always [madvise] never',
          'library': ('glibc', '2.36'), 'plugins': []} | change
  pages = tmp_path / 'enabled'
  if case['pages']:
    pages.write_text(case['pages'])
  monkeypatch.setattr(script, '_LARGE_PAGES', pages)
  monkeypatch.setattr(script.platform, 'libc_ver', lambda: case['library'])
  monkeypatch.setattr(script.importlib.metadata, 'entry_points',
                      lambda group: case['plugins'])
  monkeypatch.setenv('GLIBC_TUNABLES', case['given'])
  started = []
  monkeypatch.setattr(script.os, 'execv', lambda *command: started.append(
      (command, os.environ['GLIBC_TUNABLES'])))
  script.use_large_pages()
  command = (sys.executable, [sys.executable, *sys.orig_argv[1:]])
  assert started == ([(command, expected)] if expected else [])


def test_a_process_that_starts_anew_reads_its_flags_once(monkeypatch):
  """A flagfile may be a pipe."""
  monkeypatch.delenv('GLIBC_TUNABLES')
  done = _run('print(flags.FLAGS.seed, os.environ.get("GLIBC_TUNABLES"))',
              '--flagfile=/dev/stdin', stdin='--seed=3')
  # Whether it starts anew depends on the machine.
  assert done.stdout in {'3 None\n', '3 glibc.malloc.hugetlb=1\n'}, done.stderr


@pytest.mark.parametrize(('arguments', 'fusions'), [
    ([], ''), (['--encoder_learning_rate=0'], ''),
    (['--encoder_learning_rate=1e-4'], 'LIBRARY_FUSION_TYPE_REDUCE')])
def test_sums_are_fused_where_an_encoder_is_trained(
    arguments, fusions, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--a=b')
  done = _run('print(os.environ["XLA_FLAGS"])', *arguments)
  assert done.stdout == f'--a=b {script.YNN_FLAG}={fusions}\n', done.stderr


@pytest.mark.parametrize('first', ['# a comment', '--seed=3', ''])
def test_a_flagfile_with_a_byte_order_mark(tmp_path, first, home):
  path = tmp_path / 'odd.flags'
  path.write_bytes('\ufeff'.encode() + (
      f'{first}\r\n--seed=3\r\n--place=~/x\r\n--places=a,~/b\r\n').encode())
  outer = tmp_path / 'outer.flags'
  outer.write_bytes(f'\ufeff--flagfile={path}\n'.encode())
  for flagfile in (path, outer):
    done = _run(SHOW, f'--flagfile={flagfile}')
    assert done.stdout == f"{home}/x ['a', '{home}/b'] 3\n", done.stderr


def test_a_flagfile_that_is_not_text_is_refused(tmp_path):
  path = tmp_path / 'utf16.flags'
  path.write_bytes('--seed=3\n'.encode('utf-16'))
  done = _run(SHOW, f'--flagfile={path}')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'not UTF-8 text' in done.stderr


@pytest.mark.parametrize(('raised', 'message'), [
    ("UserError('seed=3 and other=4')", 'error: --seed=3 and other=4\n'),
    ("UserError('(seed was 3, is 4)')", 'error: (--seed was 3, is 4)\n'),
    ("UserError('/a/seed=3: --seed=3')", 'error: /a/seed=3: --seed=3\n'),
    ("OSError(errno.ENOSPC, 'No space', 'f')",
     'error: f: No space; fix this and run the same command again to '
     'resume\n')])
def test_errors_speak_of_flags_in_one_line(raised, message):
  done = _run(f'raise {raised}')
  assert (done.returncode, done.stderr) == (2, message)


def test_names_that_are_not_utf_8_can_be_printed():
  done = _run(r"print('caf\udce9')")
  assert (done.returncode, done.stdout) == (0, 'caf\\udce9\n')


PROGRAMS = """
import jax, jax.numpy as jnp
  def slow(x):
    for i in range(800):
      x = jnp.sin(x @ x + i)
    return x
  jax.jit(slow).lower(jnp.ones((8, 8))).compile()
"""


def _compile(monkeypatch, **environment):
  for name in ('JAX_COMPILATION_CACHE_DIR', 'JAX_COMPILATION_CACHE_MAX_SIZE',
               'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, str(value))
  done = _run(PROGRAMS.strip())
  assert (done.returncode, done.stderr) == (0, '')


def test_compiled_programs_are_kept(tmp_path, monkeypatch):
  folder = tmp_path / 'colorjax/compiled'
  _compile(monkeypatch, XDG_CACHE_HOME=tmp_path)
  kept = {path: path.stat().st_mtime_ns for path in folder.glob('*-cache')}
  assert [path.name[:8] for path in kept] == ['jit_slow']
  _compile(monkeypatch, XDG_CACHE_HOME=tmp_path)
  assert kept == {path: path.stat().st_mtime_ns
                  for path in folder.glob('*-cache')}


def test_programs_are_kept_where_and_if_jax_is_told(tmp_path, monkeypatch):
  _compile(monkeypatch, XDG_CACHE_HOME=tmp_path / 'a',
           JAX_COMPILATION_CACHE_DIR=tmp_path / 'b',
           JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1)
  assert not (tmp_path / 'a').exists()
  assert list((tmp_path / 'b').glob('jit_slow*'))
  _compile(monkeypatch, XDG_CACHE_HOME=tmp_path / 'c',
           JAX_ENABLE_COMPILATION_CACHE='0')
  assert not list((tmp_path / 'c').rglob('jit_slow*'))


def test_a_cache_folder_that_cannot_be_made_does_not_matter(
    tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  _compile(monkeypatch, XDG_CACHE_HOME=tmp_path / 'file')
