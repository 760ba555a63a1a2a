"""Image colorization research in JAX: color as a distribution."""

__version__ = '0.1.0'
