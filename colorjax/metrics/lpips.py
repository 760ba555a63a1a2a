"""LPIPS, a learned perceptual distance (Zhang et al. 2018, arXiv:1801.03924).

Version 0.1, with the linear heads that its authors published ("lin"). Values of
the networks 'alex' and 'vgg' are not comparable: always state the network.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from colorjax import backbones
from colorjax.backbones import alexnet, convert, tensor_names, vgg
from colorjax.errors import UserError

Net = Literal['alex', 'vgg']
Variables = Mapping[str, Any]
Path = str | pathlib.Path

# Standardizes red, green and blue in [-1, 1] roughly as in the training of the
# networks.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10  # added to the norm of the features of a pixel
# A saved LPIPS model contains these in addition to its heads: constants and a
# second copy of the heads.
_IGNORED = ('scaling_layer.', 'lins.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lpips:
  """LPIPS with one network, as pure functions.

  The distance between two pictures a and b is

    sum_l mean_xy sum_c w_lc (f_lc(a) - f_lc(b))^2,

  where f_l are the features of layer l at a pixel, divided by their norm over
  channels, and w_l >= 0 is the learned head of the layer. The distance is
  symmetric, 0 for equal pictures (up to rounding, about 1e-14), and usually
  below 1, although it has no upper bound.

  Attributes:
    net: 'alex' or 'vgg'.
    layers: names of the layers of the network.
    min_side: smallest side of a picture, in pixels.
    init: `key -> variables`, random (heads 1 / C), for tests only.
    load: `(backbone_path, heads_path) -> variables`. The first file is
      torchvision's classifier (`alexnet-owt-*.pth`, `vgg16-*.pth`). The second
      file has the heads, from the package `lpips` (`weights/v0.1/alex.pth`,
      `vgg.pth`). Both may be `.safetensors`. Raises UserError for other files.
    distance: `(variables, a, b) -> distance`, float32 [B], for pictures uint8
      sRGB [B, H, W, 3]. Raises ValueError for other arrays, and UserError if a
      side is below `min_side`.
  """
  net: Net
  layers: tuple[str, ...]
  min_side: int
  init: Callable[[jax.Array], Variables]
  load: Callable[[Path, Path], Variables]
  distance: Callable[[Variables, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class _Trunk:
  """A network and the layers whose features are compared."""
  net: Net
  module: nn.Module
  widths: dict[str, int]  # channels of each layer
  min_side: int


def build(net: Net) -> Lpips:
  """Builds LPIPS with AlexNet ('alex') or VGG-16 ('vgg').

  Raises:
    UserError: there is no such network.
  """
  if net not in ('alex', 'vgg'):
    raise UserError(f'there is no LPIPS with the network {net!r}: choose '
                    "'alex' or 'vgg'")
  trunk = _alex() if net == 'alex' else _vgg()
  return Lpips(
      net=net, layers=tuple(trunk.widths), min_side=trunk.min_side,
      init=functools.partial(_init, trunk),
      load=functools.partial(_load, trunk),
      distance=functools.partial(_distance, trunk))


def _alex() -> _Trunk:
  widths = {f'relu{i}': conv.features
            for i, conv in enumerate(alexnet.CONVS, 1)}
  return _Trunk('alex', alexnet.AlexNet(), widths, alexnet.MIN_SIDE)


def _vgg() -> _Trunk:
  widths = {f'relu{block}_{depth}': width for block, (depth, width)
            in enumerate(zip(vgg.VGG16, vgg.WIDTHS, strict=True), 1)}
  module = vgg.VGG(vgg.VGG16, top=False, upto='relu5_3')
  return _Trunk('vgg', module, widths, min_side=16)  # halved four times


def _init(trunk: _Trunk, key: jax.Array) -> Variables:
  side = trunk.min_side
  heads = {name: {'kernel': jnp.full((1, 1, width, 1), 1 / width, jnp.float32)}
           for name, width in _heads(trunk).items()}
  return {'backbone': trunk.module.init(key, jnp.zeros((1, side, side, 3))),
          'heads': heads}


def _heads(trunk: _Trunk) -> dict[str, int]:
  """Number of channels of each head, by the names of the published heads."""
  return {f'lin{i}': width for i, width in enumerate(trunk.widths.values())}


def _load(trunk: _Trunk, backbone_path: Path, heads_path: Path) -> Variables:
  shapes = jax.eval_shape(functools.partial(_init, trunk), jax.random.key(0))
  heads = convert.load_torch(
      heads_path, tensor_names.torch_layers(
          {'params': shapes['heads']}, lambda path: f'{path[0]}.model.1'),
      wanted=f'the heads of LPIPS v0.1 ({trunk.net}.pth of the package lpips)',
      passed_over=_IGNORED)['params']
  if any((head['kernel'] < 0).any() for head in heads.values()):
    raise UserError(f'{heads_path} has negative weights, which LPIPS heads do '
                    'not have: choose the heads of the package lpips')
  if trunk.net == 'alex':
    keys = {f'conv{i}': conv.key for i, conv in enumerate(alexnet.CONVS, 1)}
    loaded = convert.load_torch(
        backbone_path, tensor_names.torch_layers(
            shapes['backbone'], lambda path: keys[path[0]]),
        wanted="torchvision's AlexNet (alexnet-owt-7be5be79.pth)",
        passed_over=('classifier.',))
  elif backbones.variant_of(backbone_path) != 'torch':
    raise UserError(f"{backbone_path}: LPIPS needs torchvision's VGG-16 "
                    '(vgg16-397923af.pth, or as .safetensors)')
  else:
    loaded = backbones.load('vgg16', backbone_path, top=False, variant='torch')
  return {'backbone': backbones.restrict(loaded, shapes['backbone']),
          'heads': heads}


def _distance(trunk: _Trunk, variables: Variables, a: jax.Array, b: jax.Array
              ) -> jax.Array:
  _check(trunk, a, b)
  # Accelerators reduce the precision by default, which would change results.
  with jax.default_matmul_precision('float32'):
    pictures = jnp.concatenate([jnp.asarray(a), jnp.asarray(b)])
    x = (pictures.astype(jnp.float32) / 127.5 - 1 - _SHIFT) / _SCALE
    features: Any = trunk.module.apply(variables['backbone'], x)
    total = jnp.zeros(len(a))
    for layer, head in zip(trunk.widths, _heads(trunk), strict=True):
      f, g = jnp.split(_unit(features[layer]), 2)
      weight = variables['heads'][head]['kernel'][0, 0, :, 0]
      total += (jnp.square(f - g) @ weight).mean((1, 2))
  return total


def _unit(features: jax.Array) -> jax.Array:
  """Features [B, h, w, C] divided by their norm over the channels."""
  norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
  return features / (norm + _EPSILON)


def _check(trunk: _Trunk, a: jax.Array, b: jax.Array) -> None:
  for picture in (a, b):
    if picture.dtype != np.uint8 or picture.ndim != 4 or (
        picture.shape[-1] != 3):
      raise ValueError('LPIPS needs uint8 pictures [B, H, W, 3], got '
                       f'{picture.dtype} {list(picture.shape)}')
  if a.shape != b.shape:
    raise ValueError('LPIPS needs pictures of the same shape, got '
                     f'{list(a.shape)} and {list(b.shape)}')
  if min(a.shape[1:3]) < trunk.min_side:
    raise UserError(
        f'pictures of {a.shape[1]} x {a.shape[2]} are too small for LPIPS '
        f'({trunk.net}): both sides must have at least {trunk.min_side} pixels')
