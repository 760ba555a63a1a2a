"""Settings of the whole test run."""

import atexit
import os
import signal
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Scripts that tests start compile the same programs again and again: a third
# of the time of the whole run. Every process that runs tests has a folder of
# its own, so that none reads what another is writing.
_programs = tempfile.TemporaryDirectory(prefix='colorjax-tests-')
atexit.register(_programs.cleanup)
os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

# Scripts run for a few steps, where compilation is all that takes time. Tests
# themselves mean XLA as it is: JAX reads the setting once, here, and processes
# that pytest-xdist starts find it set.
os.environ.pop('JAX_DISABLE_MOST_OPTIMIZATIONS', None)
import jax  # noqa: E402, F401

os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

# A shell that starts the run in the background has it ignore Ctrl-C, and so
# would all that tests start; they mean the Ctrl-C of a person.
signal.signal(signal.SIGINT, signal.default_int_handler)
