"""The record of a pretrained network, and its construction by name.

The networks are Flax modules with the collections 'params' and, if they have
batch normalization, 'batch_stats'. `module.apply(variables, x, train=False)`
returns a dict with all named intermediates and with `logits`, the values before
the softmax.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from colorjax.backbones import (
  efficientnet_lite,
  inception_resnet,
  vgg,
  xception,
)
from colorjax.errors import UserError

KERAS_NAMES = ('vgg16', 'vgg19', 'xception', 'inception_resnet_v2')
"""Networks with public weights from Keras."""

DEFAULT = 'efficientnet_lite0'
"""The network whose weights are installed with colorjax."""

NAMES = (*KERAS_NAMES, DEFAULT)
"""Names of the networks."""

NUM_CLASSES = 1000
"""Number of ImageNet classes."""

Variant = Literal['keras', 'torch']
First = Literal['conv1_1', 'conv1_2']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
  """An image classifier with its preprocessing.

  Attributes:
    name: one of NAMES.
    module: the network; `module.clone(upto=...)` gives a shorter one.
    image_size: side in pixels of the photographs that it was trained on.
    num_classes: channels of `logits`.
    num_features: channels of the classifier's input.
    preprocess: maps sRGB [..., 3] in [0, 1] to the network's input.
    intermediates: names of the module's outputs other than `logits`, in the
      order of the network.
    variant: the library whose checkpoints it agrees with: 'keras', or 'torch'
      for torchvision (VGG: standardized red, green, blue) and timm (Xception:
      different padding and epsilon).
  """
  name: str
  module: nn.Module
  image_size: int
  num_features: int
  preprocess: Callable[[jax.Array], jax.Array]
  intermediates: tuple[str, ...]
  num_classes: int = NUM_CLASSES
  variant: Variant = 'keras'


def build(
    name: str,
    *,
    dtype: str = 'float32',
    top: bool = True,
    upto: str | None = None,
    first: First = 'conv1_1',
    variant: Variant = 'keras',
) -> Backbone:
  """Builds a backbone.

  Args:
    name: one of NAMES.
    dtype: compute type; parameters and logits are float32.
    top: whether to compute the classifier.
    upto: the last intermediate to compute; None for all.
    first: first layer of a VGG: 'conv1_1', or 'conv1_2', which takes 64
      channels.
    variant: 'keras', or 'torch' to load checkpoints of torchvision and timm.

  Returns:
    The backbone, without variables.

  Raises:
    UserError: an argument has a value that does not exist.
  """
  if name not in NAMES:
    raise UserError(f'there is no backbone {name!r}: choose one of '
                    f'{", ".join(NAMES)}')
  if variant not in ('keras', 'torch'):
    raise UserError(f"there is no variant {variant!r} of backbones: choose "
                    "'keras' or 'torch'")
  options: dict[str, Any] = {
      'top': top, 'upto': upto, 'dtype': jnp.dtype(dtype)}
  if name in ('vgg16', 'vgg19'):
    backbone = _vgg(name, first, variant, options)
  elif first != 'conv1_1':
    raise UserError(f'{name} cannot start at {first}: only VGG can')
  elif name == 'xception':
    backbone = Backbone(
        name=name, image_size=xception.IMAGE_SIZE, num_features=2048,
        module=xception.Xception(variant=variant, **options),
        preprocess=_rescale, variant=variant,
        intermediates=xception.intermediates(top=top))
  elif name == 'efficientnet_lite0':
    backbone = Backbone(
        name=name, image_size=efficientnet_lite.IMAGE_SIZE,
        num_features=efficientnet_lite.HEAD_WIDTH,
        module=efficientnet_lite.EfficientNetLite0(**options),
        preprocess=efficientnet_lite.preprocess, variant=variant,
        intermediates=efficientnet_lite.intermediates(top=top))
  else:
    backbone = Backbone(
        name=name, image_size=inception_resnet.IMAGE_SIZE, num_features=1536,
        module=inception_resnet.InceptionResNetV2(**options),
        preprocess=_rescale, variant=variant,
        intermediates=inception_resnet.intermediates(top=top))
  return backbone if upto is None else _truncate(backbone, upto)


def _vgg(name: str, first: First, variant: Variant, options: dict[str, Any]
         ) -> Backbone:
  if first not in ('conv1_1', 'conv1_2'):
    raise UserError(f"{name} cannot start at {first!r}: choose 'conv1_1' or "
                    "'conv1_2'")
  depths = vgg.VGG16 if name == 'vgg16' else vgg.VGG19
  return Backbone(
      name=name, image_size=vgg.IMAGE_SIZE, num_features=4096,
      module=vgg.VGG(depths=depths, first=first, **options),
      preprocess=vgg.preprocess if variant == 'keras' else vgg.preprocess_torch,
      variant=variant, intermediates=vgg.intermediates(
          depths, top=options['top'], first=first))


def _truncate(backbone: Backbone, upto: str) -> Backbone:
  """Removes the intermediates after `upto` from the record."""
  names = backbone.intermediates
  if upto not in names:
    raise UserError(f'{backbone.name} has no stage {upto!r}: choose one of '
                    f'{", ".join(names)}')
  return dataclasses.replace(
      backbone, intermediates=names[:names.index(upto) + 1])


def _rescale(rgb: jax.Array) -> jax.Array:
  """Maps sRGB [..., 3] from [0, 1] to [-1, 1]."""
  return rgb * 2. - 1.


def read_class_names(path: str | pathlib.Path) -> tuple[str, ...]:
  """Reads the names of the 1000 classes from `imagenet_class_index.json`.

  Keras downloads this file for `decode_predictions`. Its entries are
  "number": [synset, name].

  Returns:
    The names, by class number.

  Raises:
    UserError: the file cannot be read or has other content.
  """
  try:
    index = json.loads(pathlib.Path(path).read_text())
    return tuple(str(index[str(i)][1]) for i in range(NUM_CLASSES))
  except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
    raise UserError(
        f'{path} is not a table of the {NUM_CLASSES} ImageNet classes: give '
        "Keras's imagenet_class_index.json") from error
