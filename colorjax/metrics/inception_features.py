"""Pooled features of Inception-v3 for FID and KID.

The FID of a paper depends on the network, its weights and its preprocessing.
Each combination has a name here, and values of different names are not
comparable. All variants resize any picture to 299 x 299 bilinearly, with pixel
centers at half integers and without antialiasing. The features are the mean
over the 8 x 8 positions of the last block.

`pytorch_fid`: the package pytorch-fid, used by most papers on generation.
  Weights of TensorFlow's graph of 2015-12-05. Average pooling does not count
  zero padding, and the last block uses maximum pooling. The input is 2 x - 1
  for x in [0, 1]. (TensorFlow's own script resizes with other pixel centers.)
`torchvision`: the released evaluation of CT2 (Weng et al., ECCV 2022).
  Network and weights of torchvision, whose average pooling counts zero padding.
  The input is x * std / 0.5 + (mean - 0.5) / 0.5. torchvision applies this to
  STANDARDIZED pictures, but here x is in [0, 1] and not standardized: the
  network sees less contrast than in training.
`ddcolor`: the released validation of DDColor (Kang et al. 2023,
  arXiv:2212.11613). The same code, preceded by x / 2 + 1 / 2, which expects x
  in [-1, 1]. It is given x in [0, 1], which halves the contrast once more.
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
"""The names of all variants."""

_TENSORFLOW = ("pytorch-fid's port of the Inception-v3 of 2015 "
               '(pt_inception-2015-12-05-6726825d.pth)')
_TORCHVISION = ("torchvision's Inception-v3 "
                '(inception_v3_google-1a9a5a14.pth or -0cc3c7bd.pth)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
  """The features of one variant, as pure functions.

  Attributes:
    variant: one of VARIANTS.
    init: `key -> variables`, random, for tests only.
    load: `path -> variables`. For 'pytorch_fid' the file is
      `pt_inception-2015-12-05-6726825d.pth`, for the other variants
      `inception_v3_google-1a9a5a14.pth` (later -0cc3c7bd). It may be in the
      format `.safetensors`. The number of
      classes, 1008 or 1000, distinguishes these files. Raises UserError for
      any other file.
    preprocess: `pictures -> input` of the network, float32 [B, 299, 299, 3].
    features: `(variables, pictures) -> features`, float32 [B, 2048], at least
      0, for pictures uint8 sRGB [B, H, W, 3]. Raises ValueError for others.
  """
  variant: Name
  init: Callable[[jax.Array], Variables]
  load: Callable[[str | pathlib.Path], Variables]
  preprocess: Callable[[jax.Array], jax.Array]
  features: Callable[[Variables, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class _Variant:
  """Network, weights file and preprocessing of a variant."""
  network: inception_v3.InceptionV3
  file: str  # for errors
  scale: np.ndarray  # input = scale x + shift for x in [0, 1]
  shift: np.ndarray


def build(variant: Name) -> Features:
  """Builds the features of a variant.

  Args:
    variant: one of VARIANTS.

  Raises:
    UserError: there is no such variant.
  """
  if variant not in VARIANTS:
    raise UserError(f'there is no variant {variant!r} of Inception features: '
                    f'choose one of {", ".join(VARIANTS)}')
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
  # The classifier is only needed to check that the file fits the variant.
  loaded = convert.load_torch(
      path, tensor_names.torch_layers(shapes, '.'.join), wanted=own.file,
      passed_over=('AuxLogits.',))
  del loaded['params']['fc']
  return loaded


def _preprocess(own: _Variant, pictures: jax.Array) -> jax.Array:
  if pictures.dtype != np.uint8 or pictures.ndim != 4 or (
      pictures.shape[-1] != 3):
    raise ValueError('Inception features need uint8 pictures [B, H, W, 3], got '
                     f' {pictures.dtype} {list(pictures.shape)}')
  side = inception_v3.IMAGE_SIZE
  x = jnp.asarray(pictures, jnp.float32) / 255
  x = jax.image.resize(x, (len(x), side, side, 3), 'linear', antialias=False)
  return x * own.scale + own.shift


def _features(own: _Variant, variables: Variables, pictures: jax.Array
              ) -> jax.Array:
  network = own.network.clone(num_classes=None)
  # Accelerators reduce the precision by default, which would change results.
  with jax.default_matmul_precision('float32'):
    out: Any = network.apply(variables, _preprocess(own, pictures))
  return out['avg_pool']
