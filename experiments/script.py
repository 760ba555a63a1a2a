"""Runs a script: parses its flags, prepares XLA, prints errors as one line.

Nothing here imports JAX at import time: `--help` must print at once, and the
XLA flags have to be in the environment before JAX is first imported.
"""

import contextlib
import errno
import importlib.metadata
import io
import os
import pathlib
import platform
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import platformdirs
from absl import app, flags, logging

from colorjax.errors import UserError

YNN_FLAG = '--xla_cpu_experimental_ynn_fusion_type'
"""XLA flag that selects the operations YNNPACK fuses on CPUs."""

SCHEDULER_FLAG = '--xla_cpu_scheduler_type'
"""XLA flag that selects the order of operations on CPUs."""

EXIT_USAGE = 2
"""Exit code for errors that the user can fix: flags, files, directories."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as in shells."""

_LARGE_PAGES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
_PAGES_SETTING = 'glibc.malloc.hugetlb'

_HOST_FLAGS = ('coordinator_address', 'num_processes', 'process_id')

# If one of these is above 1, this process is one of several.
_NUM_TASKS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_BYTE_ORDER_MARK = '\ufeff'

# ~ at the start of a path, of an item of a list, or after folder: or NAME=.
_HOME = re.compile(r'(?:^|(?<=,))((?:folder|prepared):|\w+=)?(~[^/,]*)')

_CACHE_BYTES = 2 ** 30
"""Largest size of the folder of compiled programs."""

SHORTEST_COMPILATION = 0.1
"""Programs that compile faster, in seconds, are not kept. A photograph needs
several programs that compile in less than JAX's default, 1 s."""

_TUNE_XLA = flags.DEFINE_bool(
    'tune_xla', True, f'Set {YNN_FLAG} to nothing, or to sums alone with '
    '--encoder_learning_rate, if this version of jaxlib has that flag: '
    'training on CPUs is faster. If XLA_FLAGS contains the flag, it is not '
    'changed.')


def define_host_flags() -> None:
  """Defines the flags that connect several processes.

  Under srun and Open MPI they are not needed. A run may be resumed with other
  values.
  """
  flags.DEFINE_string(
      'coordinator_address', None, 'HOST:PORT of process 0, to which the other '
      'processes of the run connect.')
  flags.DEFINE_integer('num_processes', None, 'Number of processes of the run.',
                       lower_bound=1)
  flags.DEFINE_integer('process_id', None, 'Number of this process, from 0.',
                       lower_bound=0)


def run(main: Callable[[Sequence[str]], int | None]) -> None:
  """Runs a script and exits.

  A `UserError` is printed as one line without a traceback, and the exit code is
  EXIT_USAGE; the same holds for wrong flags.

  Args:
    main: the script; it returns the exit code.
  """
  use_large_pages()  # Before flagfiles are read: some can be read only once.

  def guarded(argv):
    # File names may hold bytes that are not UTF-8; they must be printable.
    for stream in (sys.stdout, sys.stderr):
      if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors='backslashreplace')
    if len(argv) > 1:
      return _refuse(f'unexpected argument {argv[1]!r}; write every setting as '
                     '--flag=value')
    if _TUNE_XLA.value:
      prepare_xla(save_memory=_given('remat'),
                  fuse_sums=_given('encoder_learning_rate'))
    keep_programs()
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # Orbax logs every file.
    try:
      with _connected():
        return main(argv)
    except BaseException as error:
      # Training catches Ctrl-C and saves. Other scripts keep what is done.
      found = _line_and_code(error)
      if found is None:
        raise
      line, code = found
      print(line, file=sys.stderr)
      return code

  app.run(guarded, flags_parser=_parse)


def _connected() -> contextlib.AbstractContextManager[None]:
  """Connects this process with the other processes of its run, if any."""
  if 'coordinator_address' not in flags.FLAGS:
    return contextlib.nullcontext()
  given: Any = {name: flags.FLAGS[name].value for name in _HOST_FLAGS}
  if all(value is None for value in given.values()) and all(
      os.environ.get(name, '1') == '1' for name in _NUM_TASKS):
    return contextlib.nullcontext()
  from colorjax import membership

  found = membership.detect(**given)
  if found is None:
    return contextlib.nullcontext()
  from colorjax import connection

  return connection.connected(found, describe=_line_and_code)


def _line_and_code(error: BaseException) -> tuple[str, int] | None:
  """Returns the line to print and the exit code; None for a bug."""
  if isinstance(error, UserError):
    return _error_line(_with_dashes(str(error))), EXIT_USAGE
  if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
    file = f'{error.filename}: ' if error.filename else ''
    return _error_line(f'{file}{error.strerror}; fix this and run the same '
                       'command again to resume'), EXIT_USAGE
  if isinstance(error, KeyboardInterrupt):
    return ('interrupted; run the same command again to resume',
            EXIT_INTERRUPTED)
  return None


def _given(name: str) -> bool:
  """Whether this script has the flag, with a value other than 0 and false."""
  return name in flags.FLAGS and bool(flags.FLAGS[name].value)


def use_large_pages() -> None:
  """Starts this process anew with large memory pages, if that makes it faster.

  On CPUs, XLA allocates the memory of a training step anew for each step, and
  the system clears it in pages of 4 KiB, which takes a sixth of the time. With
  large pages it takes much less, but glibc reads the setting only when a
  process starts. Nothing is done on systems that always or never use large
  pages, for versions of glibc without the setting, if GLIBC_TUNABLES contains
  it, or if a plugin of JAX for an accelerator is installed.
  """
  given = os.environ.get('GLIBC_TUNABLES', '')
  library, version = platform.libc_ver()
  try:
    pages = _LARGE_PAGES.read_text()
  except OSError:
    return  # Not Linux, or without large pages.
  if ('[madvise]' not in pages or _PAGES_SETTING in given
      or library != 'glibc' or _numbers(version) < (2, 35)
      or importlib.metadata.entry_points(group='jax_plugins')):
    return
  os.environ['GLIBC_TUNABLES'] = f'{given}:{_PAGES_SETTING}=1'.lstrip(':')
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _numbers(version: str) -> tuple[int, ...]:
  """The first two numbers of a version."""
  return tuple(map(int, version.split('.')[:2]))


def prepare_xla(*, save_memory: bool = False, fuse_sums: bool = False) -> None:
  """Turns off XLA's YNNPACK fusions, which slow down convolutions on CPUs.

  With `fuse_sums`, those of sums stay: training a pretrained encoder takes half
  as long with them, and the default network a tenth longer.

  With `save_memory`, XLA orders operations on CPUs for little memory. Its
  default order is for many threads; it computes the parts of a rematerialized
  network again long before they are needed, which saves nothing.

  jaxlib 0.10 to 0.12 have the flag. An unknown flag would end the process, so
  nothing is done for other versions, nor if XLA_FLAGS contains the flag.
  `python -m experiments.benchmarks.training` measures the effect.
  """
  version = _numbers(importlib.metadata.version('jaxlib'))
  given = os.environ.get('XLA_FLAGS', '')
  if (0, 10) <= version <= (0, 12) and YNN_FLAG not in given:
    fusions = 'LIBRARY_FUSION_TYPE_REDUCE' if fuse_sums else ''
    given = os.environ['XLA_FLAGS'] = f'{given} {YNN_FLAG}={fusions}'.strip()
  if save_memory and version == (0, 10) and SCHEDULER_FLAG not in given:
    os.environ['XLA_FLAGS'] = (
        f'{given} {SCHEDULER_FLAG}=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED').strip()


def keep_programs() -> None:
  """Keeps compiled programs on disk, so that scripts start sooner again.

  JAX keeps them in the user's cache folder, at most `_CACHE_BYTES` of them; the
  ones not used for longest are deleted first. Variables of JAX that are set
  already are not changed: JAX_COMPILATION_CACHE_DIR chooses another folder, and
  JAX_ENABLE_COMPILATION_CACHE=0 keeps nothing. Nor is anything kept if the
  folder cannot be made.
  """
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    return
  folder = platformdirs.user_cache_path('colorjax') / 'compiled'
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return  # Without the folder, scripts are only slower.
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
  os.environ.setdefault('JAX_COMPILATION_CACHE_MAX_SIZE', str(_CACHE_BYTES))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
                        str(SHORTEST_COMPILATION))


def flags_text() -> str:
  """Returns all our flags, one per line, as --flagfile reads them."""
  lines = {flag.name: flag.serialize() for flag in _own_flags()
           if flag.name not in _HOST_FLAGS}
  return ''.join(f'{lines[name]}\n' for name in sorted(lines) if lines[name])


def read_flagfiles(words: Sequence[str]) -> list[str]:
  """Replaces each --flagfile=FILE by the flags in that file.

  A byte order mark at the start of a file is ignored.

  Args:
    words: the command line without the name of the program.

  Raises:
    UserError: a file is not UTF-8 text.
  """
  words = list(words)
  while True:
    try:
      words = flags.FLAGS.read_flags_from_files(words, force_gnu=False)
    except UnicodeDecodeError as error:
      raise UserError('a flagfile is not UTF-8 text: '
                      f'{error.reason}') from error
    marked = [i for i, word in enumerate(words)
              if word.startswith(_BYTE_ORDER_MARK)]
    if not marked:
      return words
    for i in reversed(marked):
      word = words[i].lstrip(_BYTE_ORDER_MARK).strip()
      # The first line of a file may be empty, a comment or a --flagfile.
      is_comment = not word or word.startswith(('#', '//'))
      words[i:i + 1] = [] if is_comment else [word]


def expand_home(text: str) -> str:
  """Expands ~ in a path, folder:PATH, NAME=PATH, or a list of these."""
  return _HOME.sub(
      lambda found: (found[1] or '') + os.path.expanduser(found[2]), text)


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    words = flags.FLAGS([argv[0], *read_flagfiles(argv[1:])])
  except flags.Error as error:
    message = ' '.join(str(error).split())
    sys.exit(_refuse(f'{message} (--help lists the flags)'))
  except UserError as error:
    sys.exit(_refuse(str(error)))
  _expand_flags()
  return words


def _own_flags() -> list[flags.Flag]:
  """The flags that the scripts of experiments/ define."""
  return [flag for module, defined
          in flags.FLAGS.flags_by_module_dict().items()
          # absl names the script that is run by its path.
          if module.startswith('experiments.') or module.endswith('.py')
          for flag in defined]


def _expand_flags() -> None:
  """Expands ~ in the values of our flags.

  A shell does so only at the start of a word, not after --flag=.
  """
  for flag in _own_flags():
    if isinstance(flag.value, str):
      flag.value = expand_home(flag.value)
    elif isinstance(flag.value, list):
      flag.value = [expand_home(x) if isinstance(x, str) else x
                    for x in flag.value]


def _with_dashes(message: str) -> str:
  """Turns names of arguments in an error, NAME=VALUE, into names of flags."""
  return re.sub(
      r'(?<![\w./=-])([a-z][a-z0-9_]*)(?==| was | is not set)',
      lambda found: (f'--{found[1]}' if found[1] in flags.FLAGS
                     else found[1]), message)


def _refuse(message: str) -> int:
  """Prints an error as one line and returns the exit code for it."""
  print(_error_line(message), file=sys.stderr)
  return EXIT_USAGE


def _error_line(message: str) -> str:
  return f'error: {" ".join(message.splitlines())}'
