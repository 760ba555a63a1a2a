"""Downloads Keras's public ImageNet weights."""

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


def download(name: str, *, top: bool = True) -> pathlib.Path:
  """Returns Keras's ImageNet weights, downloading them if they are not cached.

  Args:
    name: one of NAMES.
    top: whether to include the classifier; VGG is seven times smaller without.

  Returns:
    A file for `load` in the user's cache folder, with its hash verified.

  Raises:
    UserError: the file cannot be downloaded, or its hash is wrong. The message
      says how to proceed without a network.
  """
  if name not in _HASHES:
    raise UserError(f'there are no published weights of {name!r}: choose one '
                    f'of {", ".join(_HASHES)}')
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
