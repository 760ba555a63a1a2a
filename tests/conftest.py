"""Settings of the whole test run; they must precede the import of jax."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
