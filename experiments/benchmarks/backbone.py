"""Top-1 accuracy of a pretrained network, in color and on lightness alone.

    python -m experiments.benchmarks.backbone --data=folder:PATH

The class of a photograph is read from its path: the name of a folder or of the
file starts with a WordNet number, as in `n01440764/1.jpg` or
`n01440764_tench.jpg`. As usual, the shorter side is resized to 256 pixels, and
the network sees the central 224 x 224 pixels. For the accuracy on lightness,
the network sees the grey image with the same CIE lightness, which is what a
colorizer shows it.
"""

import importlib.util
import pathlib
import re
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

_NUMBER = re.compile(r'(?:^|/)(n\d{8})(?=[/_.]|$)')


def class_numbers(path: pathlib.Path | None) -> dict[str, int]:
  """Reads the classes of a network.

  Args:
    path: a file with one WordNet number per line; None for the classes of
      ImageNet, from a file of TFDS.

  Returns:
    The index of the logit for each WordNet number.

  Raises:
    UserError: the file cannot be read, or a line is not a WordNet number.
  """
  if path is None:
    found = importlib.util.find_spec('tensorflow_datasets')
    if found is None or found.origin is None:
      raise UserError('classes is not set: the list of ImageNet is in the '
                      'package tensorflow-datasets, which is not installed; '
                      'install it, or set classes=FILE')
    path = pathlib.Path(found.origin).with_name(
        'datasets') / 'imagenet2012/labels.txt'
  try:
    lines = path.read_text().split()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'classes={path}: the file cannot be read') from error
  if not lines or not all(_NUMBER.fullmatch(line) for line in lines):
    raise UserError(f'classes={path}: each line must be a WordNet number, '
                    'such as n01440764')
  return {line: i for i, line in enumerate(lines)}


def class_of(label: str, classes: dict[str, int]) -> int:
  """Returns the class of a photograph from its path.

  Args:
    label: the path.
    classes: what `class_numbers` returned.

  Raises:
    UserError: the path does not contain the WordNet number of a class.
  """
  for number in reversed(_NUMBER.findall(label)):
    if number in classes:
      return classes[number]
  raise UserError(f'data={label}: the path needs a folder or file whose name '
                  'starts with the WordNet number of a class, such as '
                  'n01440764')


def center(photograph: np.ndarray, resize: int, size: int) -> np.ndarray:
  """Resizes a photograph and crops its center, as is usual for classifiers.

  Args:
    photograph: uint8 [H, W, 3].
    resize: shorter side after resizing, in pixels; at least `size`.
    size: side of the crop, in pixels.

  Returns:
    uint8 [size, size, 3]; the interpolation is bicubic.
  """
  from PIL import Image

  height, width = photograph.shape[:2]
  scale = resize / min(height, width)
  height, width = (max(resize, round(side * scale))
                   for side in (height, width))
  resized = Image.fromarray(photograph).resize(
      (width, height), Image.Resampling.BICUBIC)
  top, left = (height - size) // 2, (width - size) // 2
  return np.asarray(resized)[top:top + size, left:left + size]


def main(argv: Sequence[str]) -> int:
  """Measures and prints the accuracy in color and on lightness."""
  del argv
  import jax
  import jax.numpy as jnp

  from colorjax import backbones, color
  from colorjax.data import sources

  classes = class_numbers(
      None if _CLASSES.value is None else pathlib.Path(_CLASSES.value))
  source = sources.parse(_DATA.value, train=False)
  classes_of = np.array([class_of(source.label(i), classes)
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
    images = np.stack([center(source.read(i), resize, size) for i in numbers])
    correct.append(np.asarray(predict(images)) == classes_of[list(numbers)])
  in_color, on_lightness = np.concatenate(correct, axis=1).mean(1)
  print(f'{name}, {source.size} photographs of {len(set(classes_of))} '
        f'classes, {size} of {resize} pixels')
  print(f'top-1 in color: {in_color:.1%}')
  print(f'top-1 on lightness: {on_lightness:.1%}')
  return 0


if __name__ == '__main__':
  script.run(main)
