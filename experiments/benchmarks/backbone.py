"""Top-1 accuracy of a pretrained network, in color and on lightness alone.

    python -m experiments.benchmarks.backbone --data=folder:PATH

Each photograph's class is read from its path: a folder or a file whose name is
or begins with a WordNet number, `n01440764/1.jpg` or `n01440764_tench.jpg`. As
is usual for 224 pixels, the shorter side is brought to 256 and the center is
judged. For the second figure all color is taken away first: the network sees
the grey picture of the same CIE lightness, which is what a colorizer shows it.
"""

import importlib.util
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from absl import flags

from colorjax.errors import UserError
from experiments import common

_DATA = flags.DEFINE_string(
    'data', None, f'Photographs whose paths name their class: '
    f'{common.DATA_FORM}', required=True)
_BACKBONE = flags.DEFINE_string(
    'backbone', 'efficientnet_lite0', 'The network: efficientnet_lite0, '
    'vgg16, vgg19, xception, inception_resnet_v2.')
_WEIGHTS = flags.DEFINE_string(
    'backbone_weights', None, 'FILE of its weights; the public ones if not '
    'given.')
_CLASSES = flags.DEFINE_string(
    'classes', None, 'Text file with the WordNet numbers of the classes, one '
    'a line, in the order of the logits; the 1000 of ImageNet if not given.')
_RESIZE = flags.DEFINE_integer(
    'resize', None, 'Shorter side of the photographs before the center is cut '
    'out; 8/7 of what the network sees if not given.', lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 25, 'Photographs at a time.', lower_bound=1)

_NUMBER = re.compile(r'(?:^|/)(n\d{8})(?=[/_.]|$)')


def class_numbers(path: pathlib.Path | None) -> dict[str, int]:
  """The class of each WordNet number.

  Args:
    path: a file with one number a line; None for ImageNet's, which TFDS has.

  Returns:
    From number to the index of its logit.

  Raises:
    UserError: the file cannot be read, or holds something else.
  """
  if path is None:
    found = importlib.util.find_spec('tensorflow_datasets')
    if found is None or found.origin is None:
      raise UserError('classes=None: the package tensorflow-datasets, which '
                      'lists them, is not installed')
    path = pathlib.Path(found.origin).with_name(
        'datasets') / 'imagenet2012/labels.txt'
  try:
    lines = path.read_text().split()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'classes={path}: cannot be read') from error
  if not lines or not all(_NUMBER.fullmatch(line) for line in lines):
    raise UserError(f'classes={path}: each line is a WordNet number such as '
                    'n01440764')
  return {line: i for i, line in enumerate(lines)}


def class_of(label: str, classes: dict[str, int]) -> int:
  """The class that a photograph's path names.

  Args:
    label: the path.
    classes: what `class_numbers` returned.

  Raises:
    UserError: the path names no class.
  """
  for number in reversed(_NUMBER.findall(label)):
    if number in classes:
      return classes[number]
  raise UserError(f'data={label}: neither a folder nor the file is named by a '
                  'WordNet number (n01440764) of the classes')


def center(photograph: np.ndarray, resize: int, size: int) -> np.ndarray:
  """The middle of a photograph, as classifiers are tested.

  Args:
    photograph: uint8 [H, W, 3].
    resize: pixels of the shorter side, at least `size`.
    size: side of the square.

  Returns:
    uint8 [size, size, 3], by bicubic interpolation.
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
  """Prints both figures."""
  del argv
  import jax
  import jax.numpy as jnp

  from colorjax import backbones, color
  from colorjax.data import sources

  classes = class_numbers(
      None if _CLASSES.value is None else pathlib.Path(_CLASSES.value))
  source = sources.parse(_DATA.value, train=False)
  wanted = np.array([class_of(source.label(i), classes)
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
    raise UserError(f'resize={resize}: {name} sees {size} pixels')

  @jax.jit
  def answers(images):
    """Classes in color and on lightness, [2, B]."""
    lightness, _ = color.split_lightness(images)
    found = []
    for rgb in (images / 255., color.grey_rgb(lightness)):
      out = backbone.module.apply(weights, backbone.preprocess(rgb))
      assert isinstance(out, dict)
      found.append(out['logits'].argmax(-1))
    return jnp.stack(found)

  right = []
  for start in range(0, source.size, _BATCH_SIZE.value):
    numbers = range(start, min(start + _BATCH_SIZE.value, source.size))
    images = np.stack([center(source.read(i), resize, size) for i in numbers])
    right.append(np.asarray(answers(images)) == wanted[list(numbers)])
  in_color, on_lightness = np.concatenate(right, axis=1).mean(1)
  print(f'{name}, {source.size} photographs of {len(set(wanted))} classes, '
        f'{size} pixels of {resize}')
  print(f'top-1 in color: {in_color:.1%}')
  print(f'top-1 on lightness: {on_lightness:.1%}')
  return 0


if __name__ == '__main__':
  common.run(main)
