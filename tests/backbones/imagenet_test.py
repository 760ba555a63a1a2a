"""Classes of ImageNet and the crop of its photographs."""

import numpy as np
import pytest

from colorjax.backbones import imagenet
from colorjax.errors import UserError


def test_classes_of_photographs_are_read_from_their_paths(tmp_path):
  numbers = imagenet.class_numbers(None)
  assert len(numbers) == 1000
  # The first, the last and tabby: ImageNet sorts by WordNet number.
  assert [numbers[x] for x in ('n01440764', 'n15075141', 'n02123045')] == [
      0, 999, 281]
  path = tmp_path / 'classes.txt'
  path.write_text('n00000003\nn00000001\n')
  classes = imagenet.class_numbers(path)
  for label in ('n00000001/x.jpg', 'n00000001_cat/x.jpg', 'a/n00000001.jpg',
                'n00000003/n00000001_cat.JPEG', 'n00000001/n99999999_5.png'):
    assert imagenet.class_of(label, classes) == 1
  for label in ('cat/x.jpg', 'xn00000001/x.jpg', 'n000000012/x.jpg'):
    with pytest.raises(UserError, match=f'data={label}: the path'):
      imagenet.class_of(label, classes)
  path.write_text('tench\n')
  with pytest.raises(UserError, match=r'classes=.*each line must be a WordNet'):
    imagenet.class_numbers(path)


def test_the_center_of_a_photograph_is_cropped():
  ramp = np.arange(200, dtype=np.uint8)[None, :, None].repeat(100, 0)
  middle = imagenet.center(ramp.repeat(3, 2), 50, 40)
  assert middle.shape == (40, 40, 3)
  # At half the size: pixels 60, 62, ... of the photograph.
  np.testing.assert_allclose(middle[5, :, 1], 60.5 + 2 * np.arange(40), atol=1)
