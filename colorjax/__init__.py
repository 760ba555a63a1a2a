"""Image colorization research in JAX: color as a distribution."""

__version__ = '0.1.0'


def __getattr__(name: str):
  """Imports `colorjax.colorize` on first use, so that JAX is not always loaded.

  Raises:
    AttributeError: the package has no such attribute.
  """
  if name == 'colorize':
    from colorjax.inference import colorize_image

    return colorize_image
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
