"""Settings of the whole test run."""

import atexit
import contextlib
import ctypes
import importlib.metadata
import os
import signal
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Scripts with this setting do not start anew to get it.
os.environ.setdefault('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1')

# Scripts started by tests compile the same programs repeatedly; the cache saves
# a third of the time of the test run. Each test process has its own folder, so
# that none reads a file that another one is writing.
_programs = tempfile.TemporaryDirectory(prefix='colorjax-tests-')
atexit.register(_programs.cleanup)
os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

# Most of the time goes into compiling small programs. XLA's older code
# generator takes half as long for them, and a second thread for one program is
# of no use where each core has a test process. An unknown flag would end the
# process, so these are set only for the version with which they were tried.
_FLAGS = ('--xla_cpu_use_fusion_emitters=false '
          '--xla_cpu_parallel_codegen_split_count=1')
_given = os.environ.get('XLA_FLAGS', '')
if (importlib.metadata.version('jaxlib').startswith('0.10.')
    and _FLAGS not in _given):
  os.environ['XLA_FLAGS'] = f'{_given} {_FLAGS}'.strip()

# Scripts run only a few steps, so compilation dominates their time, and they
# run with fewer optimizations. The tests themselves use JAX's default: it
# reads the setting at import. It is deleted first because the worker processes
# of pytest-xdist inherit it.
os.environ.pop('JAX_DISABLE_MOST_OPTIMIZATIONS', None)
import jax  # noqa: E402
import pytest  # noqa: E402

os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

# A shell that starts the test run in the background makes it ignore SIGINT, and
# all its child processes too. Some tests need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='module')
def compiles_quickly():
  """Compiles without optimizations, for runs of a few steps in this process."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module', autouse=True)
def _frees_compiled_programs():
  """Frees the programs of a test file, which would add up to 10 GB."""
  yield
  jax.clear_caches()
  # glibc keeps most of the freed memory unless it is told to give it back.
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL('libc.so.6').malloc_trim(0)
