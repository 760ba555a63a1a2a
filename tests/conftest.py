"""Settings of the whole test run; they must precede the import of jax."""

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

# A shell that starts the run in the background has it ignore Ctrl-C, and so
# would all that tests start; they mean the Ctrl-C of a person.
signal.signal(signal.SIGINT, signal.default_int_handler)
