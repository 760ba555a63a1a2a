"""Pooled features of Inception-v3, of which FID and KID are made.

What a paper calls FID depends on the network, on its weights and on how a
picture is brought to it. Each combination stands here under a name, and no
two of them compare. All resize to 299 x 299 bilinearly, pixel centers at half
integers, without antialiasing, whatever the size of the picture, and take the
mean over the 8 x 8 places of the last block.

`pytorch_fid`: the package pytorch-fid, the FID of most papers on generation.
  Weights of TensorFlow's graph of 2015-12-05; average pooling that does not
  count the zeros at the margin, and maximum pooling in the last block. Input
  2 x - 1 for x in [0, 1]. (TensorFlow's own script resizes with other pixel
  centers; this is the port's.)
`torchvision`: the released evaluation of CT2 (Weng et al., ECCV
  2022). torchvision's network and weights, whose average pooling counts the
  zeros. Its input is the step that torchvision applies to
  STANDARDISED pictures, x * std / 0.5 + (mean - 0.5) / 0.5, but x is in
  [0, 1] and not standardized: the network sees less contrast than it was
  trained on.
`ddcolor`: the released validation of DDColor (Kang et al. 2023,
  arXiv:2212.11613). The same code, which expects [-1, 1] and first takes
  x / 2 + 1 / 2; but there it is handed pictures in [0, 1], so that half of
  that little contrast is left.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.backbones import convert, inception_v3, tensor_names, vgg
from colorjax.errors import UserError

Name = Literal['pytorch_fid', 'torchvision', 'ddcolor']
Variables = Mapping[str, Any]

VARIANTS: tuple[Name, ...] = ('pytorch_fid', 'torchvision', 'ddcolor')
"""The variants that there are."""
NUM_FEATURES = 2048
"""Features of a picture."""

_TENSORFLOW = ("pytorch-fid's port of the Inception-v3 of 2015 "
               '(pt_inception-2015-12-05-6726825d.pth)')
_TORCHVISION = ("torchvision's Inception-v3 "
                '(inception_v3_google-1a9a5a14.pth or -0cc3c7bd.pth)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
  """The features of one variant, as pure functions.

  Attributes:
    variant: one of VARIANTS.
    init: (key) to random variables. For tests: figures made with them mean
      nothing.
    load: (path) to variables from `pt_inception-2015-12-05-6726825d.pth` for
      'pytorch_fid', from `inception_v3_google-1a9a5a14.pth` (later -0cc3c7bd)
      for the others, or from the same as `.safetensors`. The variants' files
      are told apart by the classes that their classifiers know, 1008 and 1000.
      UserError, in one line, for any other file.
    preprocess: pictures to the network's input, float32 [B, 299, 299, 3].
    features: (variables, pictures) to float32 [B, 2048], each >= 0, for sRGB
      pictures uint8 [B, H, W, 3]; ValueError for others.
  """
  variant: Name
  init: Callable[[jax.Array], Variables]
  load: Callable[[str | pathlib.Path], Variables]
  preprocess: Callable[[jax.Array], jax.Array]
  features: Callable[[Variables, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class _Variant:
  """What sets a variant apart."""
  network: inception_v3.InceptionV3
  file: str  # for people
  scale: np.ndarray  # input = scale x + shift for x in [0, 1]
  shift: np.ndarray


def build(variant: Name) -> Features:
  """The features of one of VARIANTS; UserError for others."""
  if variant not in VARIANTS:
    raise UserError(f'no variant {variant!r} of Inception features: choose one '
                    f'of {", ".join(VARIANTS)}')
  own = _tensorflow() if variant == 'pytorch_fid' else _torchvision()
  if variant == 'ddcolor':
    own = dataclasses.replace(
        own, scale=own.scale / 2, shift=own.shift + own.scale / 2)
  return Features(
      variant=variant, init=functools.partial(_init, own),
      load=functools.partial(_load, own),
      preprocess=functools.partial(_preprocess, own),
      features=functools.partial(_features, own))


def _tensorflow() -> _Variant:
  return _Variant(
      inception_v3.InceptionV3(last_pool='max', num_classes=1008), _TENSORFLOW,
      scale=np.full(3, 2, np.float32), shift=np.full(3, -1, np.float32))


def _torchvision() -> _Variant:
  return _Variant(
      inception_v3.InceptionV3(count_padding=True), _TORCHVISION,
      scale=vgg.RGB_STD / 0.5, shift=(vgg.RGB_MEAN - 0.5) / 0.5)


def _init(own: _Variant, key: jax.Array) -> Variables:
  network = own.network.clone(num_classes=None)
  side = inception_v3.MIN_SIDE
  return network.init(key, jnp.zeros((1, side, side, 3)))


def _load(own: _Variant, path: str | pathlib.Path) -> Variables:
  side = inception_v3.MIN_SIDE
  shapes = jax.eval_shape(own.network.init, jax.random.key(0),
                          jax.ShapeDtypeStruct((1, side, side, 3), 'float32'))
  # The classifier tells the variants apart, and has then served.
  loaded = convert.load_torch(
      path, tensor_names.torch_layers(shapes, '.'.join), wanted=own.file,
      passed_over=('AuxLogits.',))
  del loaded['params']['fc']
  return loaded


def _preprocess(own: _Variant, pictures: jax.Array) -> jax.Array:
  if pictures.dtype != np.uint8 or pictures.ndim != 4 or (
      pictures.shape[-1] != 3):
    raise ValueError('Inception features are of uint8 pictures [B, H, W, 3], '
                     f'got {pictures.dtype} {list(pictures.shape)}')
  side = inception_v3.IMAGE_SIZE
  x = jnp.asarray(pictures, jnp.float32) / 255
  x = jax.image.resize(x, (len(x), side, side, 3), 'linear', antialias=False)
  return x * own.scale + own.shift


def _features(own: _Variant, variables: Variables, pictures: jax.Array
              ) -> jax.Array:
  network = own.network.clone(num_classes=None)
  # Reduced precision on an accelerator would make the figure depend on it.
  with jax.default_matmul_precision('float32'):
    out: Any = network.apply(variables, _preprocess(own, pictures))
  return out['avg_pool']
