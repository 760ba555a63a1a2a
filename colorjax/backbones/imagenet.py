"""ImageNet's classes and the usual crop of its photographs."""

import importlib.util
import pathlib
import re

import numpy as np

from colorjax.errors import UserError

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
