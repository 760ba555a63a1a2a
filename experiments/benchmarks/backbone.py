"""Top-1 accuracy of a pretrained network, in color and on lightness alone.

    python -m experiments.benchmarks.backbone --data=folder:PATH

The class of a photograph is read from its path: the name of a folder or of the
file starts with a WordNet number, as in `n01440764/1.jpg` or
`n01440764_tench.jpg`. As usual, the shorter side is resized to 256 pixels, and
the network sees the central 224 x 224 pixels. For the accuracy on lightness,
the network sees the grey image with the same CIE lightness, which is what a
colorizer shows it.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from colorjax.errors import UserError
from experiments import common, script

_DATA = flags.DEFINE_string(
    'data', None, 'Photographs whose paths contain the WordNet number of their '
    f'class: {common.DATA_FORM}', required=True)
_BACKBONE = flags.DEFINE_string(
    'backbone', 'efficientnet_lite0', 'The network: efficientnet_lite0, '
    'vgg16, vgg19, xception, inception_resnet_v2.')
_WEIGHTS = flags.DEFINE_string(
    'backbone_weights', None, 'FILE of its weights; if not given, the public '
    'file.')
_CLASSES = flags.DEFINE_string(
    'classes', None, 'Text file with the WordNet numbers of the classes, one '
    'per line, in the order of the logits; if not given, the 1000 of ImageNet.')
_RESIZE = flags.DEFINE_integer(
    'resize', None, 'Shorter side in pixels that photographs are resized to '
    'before the center is cropped; if not given, 8/7 of the side of the '
    "network's input.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 25, 'Photographs per batch.', lower_bound=1)


def main(argv: Sequence[str]) -> int:
  """Measures and prints the accuracy in color and on lightness."""
  del argv
  import jax
  import jax.numpy as jnp

  from colorjax import backbones, color
  from colorjax.backbones import imagenet
  from colorjax.data import sources

  classes = imagenet.class_numbers(
      None if _CLASSES.value is None else pathlib.Path(_CLASSES.value))
  source = sources.parse(_DATA.value, train=False)
  classes_of = np.array([imagenet.class_of(source.label(i), classes)
                         for i in range(source.size)])
  name = _BACKBONE.value
  path = (pathlib.Path(_WEIGHTS.value) if _WEIGHTS.value
          else backbones.download(name))
  variant = backbones.variant_of(path)
  backbone = backbones.build(name, variant=variant)
  weights = backbones.load(name, path, variant=variant)
  size = backbone.image_size
  resize = _RESIZE.value or round(size * 8 / 7)
  if resize < size:
    raise UserError(f'resize={resize}: {name} needs at least {size} pixels')

  @jax.jit
  def predict(images):
    """Predicted classes in color and on lightness, [2, B]."""
    lightness, _ = color.split_lightness(images)
    predicted = []
    for rgb in (images / 255., color.grey_rgb(lightness)):
      out = backbone.module.apply(weights, backbone.preprocess(rgb))
      assert isinstance(out, dict)
      predicted.append(out['logits'].argmax(-1))
    return jnp.stack(predicted)

  correct = []
  for start in range(0, source.size, _BATCH_SIZE.value):
    numbers = range(start, min(start + _BATCH_SIZE.value, source.size))
    images = np.stack([imagenet.center(source.read(i), resize, size)
                       for i in numbers])
    correct.append(np.asarray(predict(images)) == classes_of[list(numbers)])
  in_color, on_lightness = np.concatenate(correct, axis=1).mean(1)
  print(f'{name}, {source.size} photographs of {len(set(classes_of))} '
        f'classes, {size} of {resize} pixels')
  print(f'top-1 in color: {in_color:.1%}')
  print(f'top-1 on lightness: {on_lightness:.1%}')
  return 0


if __name__ == '__main__':
  script.run(main)
