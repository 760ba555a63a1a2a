"""Image colorization research in JAX: colour as a distribution."""

__version__ = '0.1.0'
