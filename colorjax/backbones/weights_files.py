"""The tensors of a weights file, by name, in the three layouts there are.

  legacy  Keras's HDF5 layout: an ordered list of layers, an ordered list of
          weights in each. Written by Keras 1 and 2 and by `model.save` to .h5.
  keras   Keras 3's `.weights.h5`: layers numbered within their class.
  torch   a state dict of torchvision or timm: one flat dict.

Tensors are read when they are asked for, where the format allows it.
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
"""Endings of the files that PyTorch itself writes."""


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a weights file holds.

  Attributes:
    naming: how the tensors are named.
    tensors: anything with a shape that `np.asarray` reads, by name.
    layers: legacy layout alone: each layer that has weights and the names of
      its tensors, in order. A tensor that the file lists but lacks is named
      here and is not among `tensors`.
  """
  naming: Literal['legacy', 'keras', 'torch']
  tensors: dict[str, Any]
  layers: tuple[tuple[str, tuple[str, ...]], ...] = ()


@contextlib.contextmanager
def open_weights(path: pathlib.Path) -> Iterator[Contents]:
  """Opens a weights file; the tensors are valid inside the context.

  UserError names the file where it is missing, empty, damaged, or of a kind
  that is not read.
  """
  if not path.is_file():
    raise UserError(f'{path}: there is no such weights file')
  if not path.stat().st_size:
    raise UserError(f'{path} is empty')
  if h5py.is_hdf5(path):
    try:
      with h5py.File(path) as file:
        yield _keras_contents(path, file)
    except OSError as error:
      raise UserError(f'{path} is damaged: {_line(error)}') from error
  elif path.suffix == '.safetensors':
    yield Contents('torch', _safetensors(path))
  elif path.suffix in PICKLES:
    yield Contents('torch', torch_files.read(path))
  elif path.suffix in ('.h5', '.hdf5'):
    raise UserError(f'{path} is not an HDF5 file, whatever its name says')
  else:
    raise UserError(
        f'{path}: weights are read from Keras .h5 and .weights.h5, from '
        '.safetensors and from .pth')


def _line(error: Exception) -> str:
  """The first line of what an error says."""
  return (str(error).splitlines() or [type(error).__name__])[0]


def _keras_contents(path: pathlib.Path, file: h5py.File) -> Contents:
  if isinstance(file.get('layers'), h5py.Group):
    return Contents('keras', _datasets(file['layers']))
  root = file.get('model_weights', file)
  if not {'layer_names', 'layer_names0'} & set(root.attrs):
    raise UserError(f'{path} is an HDF5 file, but Keras did not write it as '
                    'weights: it lists no layers')
  layers = []
  for layer in _names(root.attrs, 'layer_names'):
    # Without its group a layer has no weights that could be named.
    if weights := (_names(root[layer].attrs, 'weight_names')
                   if layer in root else ()):
      layers.append((layer, tuple(f'{layer}/{name}' for name in weights)))
  return Contents('legacy', _datasets(root), tuple(layers))


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
  """All datasets below a group by their path in it."""
  found: dict[str, h5py.Dataset] = {}

  def visit(name: str, item: h5py.HLObject) -> None:
    if isinstance(item, h5py.Dataset):
      found[name] = item

  group.visititems(visit)
  return found


def _names(attributes: h5py.AttributeManager, key: str) -> tuple[str, ...]:
  """A list of names; Keras breaks long ones into key0, key1, ..."""
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
    raise UserError(f'{path} is not a safetensors file that can be read: '
                    f'{_line(error)}') from error
