"""Reads the tensors of a weights file by name, in one of three layouts.

  legacy  Keras's HDF5 layout: an ordered list of layers, each with an ordered
          list of weights. Written by Keras 1 and 2, and by `model.save` to .h5.
  keras   Keras 3's `.weights.h5`: layers are numbered within their class.
  torch   a state dict of torchvision or timm: a flat dict.

HDF5 files are read lazily, tensor by tensor.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from colorjax.backbones import torch_files
from colorjax.errors import UserError

PICKLES = ('.pth', '.pt', '.bin')
"""Suffixes of checkpoints that PyTorch writes."""


@dataclasses.dataclass(frozen=True)
class Contents:
  """The contents of a weights file.

  Attributes:
    naming: the layout, which determines how tensors are named.
    tensors: arrays by name: objects with a shape that `np.asarray` can read.
    layers: legacy layout only: the name of each layer that has weights and the
      names of its tensors, in order. A tensor that is listed in the file but
      absent from it is named here and is not in `tensors`.
  """
  naming: Literal['legacy', 'keras', 'torch']
  tensors: dict[str, Any]
  layers: tuple[tuple[str, tuple[str, ...]], ...] = ()


@contextlib.contextmanager
def open_weights(path: pathlib.Path) -> Iterator[Contents]:
  """Opens a weights file; its tensors can be read inside the context.

  Raises:
    UserError: the file is missing, empty, damaged or of an unknown type.
  """
  if not path.is_file():
    raise UserError(f'{path}: no such weights file')
  if not path.stat().st_size:
    raise UserError(f'{path} is empty: get the file again')
  if h5py.is_hdf5(path):
    try:
      with h5py.File(path) as file:
        yield _keras_contents(path, file)
    except OSError as error:
      raise UserError(f'{path} is damaged, get the file again: '
                      f'{_first_line(error)}') from error
  elif path.suffix == '.safetensors':
    yield Contents('torch', _safetensors(path))
  elif path.suffix in PICKLES:
    yield Contents('torch', torch_files.read(path))
  elif path.suffix in ('.h5', '.hdf5'):
    raise UserError(f'{path} is not an HDF5 file: give a file with weights '
                    'saved by Keras')
  else:
    raise UserError(
        f'{path}: unknown type of weights file; give .h5 or .weights.h5 of '
        'Keras, .safetensors or .pth')


def _first_line(error: Exception) -> str:
  """The first line of an error message."""
  return (str(error).splitlines() or [type(error).__name__])[0]


def _keras_contents(path: pathlib.Path, file: h5py.File) -> Contents:
  if isinstance(file.get('layers'), h5py.Group):
    return Contents('keras', _datasets(file['layers']))
  root = file.get('model_weights', file)
  if not {'layer_names', 'layer_names0'} & set(root.attrs):
    raise UserError(f'{path} is an HDF5 file, but it lists no layers: give a '
                    'file with weights saved by Keras')
  layers = []
  for layer in _names(root.attrs, 'layer_names'):
    # A layer without a group has no weights.
    if weights := (_names(root[layer].attrs, 'weight_names')
                   if layer in root else ()):
      layers.append((layer, tuple(f'{layer}/{name}' for name in weights)))
  return Contents('legacy', _datasets(root), tuple(layers))


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
  """All datasets in a group, by their path relative to it."""
  found: dict[str, h5py.Dataset] = {}

  def visit(name: str, item: h5py.HLObject) -> None:
    if isinstance(item, h5py.Dataset):
      found[name] = item

  group.visititems(visit)
  return found


def _names(attributes: h5py.AttributeManager, key: str) -> tuple[str, ...]:
  """A list of names; Keras splits long lists into key0, key1, ..."""
  if key in attributes:
    names = list(attributes[key])
  else:
    names, chunk = [], 0
    while f'{key}{chunk}' in attributes:
      names += list(attributes[f'{key}{chunk}'])
      chunk += 1
  return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError, ValueError, KeyError,
          TypeError) as error:
    raise UserError(f'{path} is not a valid safetensors file: '
                    f'{_first_line(error)}') from error
