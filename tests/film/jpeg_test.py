"""JPEG in JAX, compared with Pillow's."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from colorjax.film import jpeg


def _pictures():
  """Smooth pictures with noise, whose sides are no multiples of 8."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (3, 3, 4), np.uint8)
  return np.stack([np.clip(np.asarray(
      Image.fromarray(one).resize((43, 29), Image.Resampling.BICUBIC))
      + rng.normal(0, 6, (29, 43)), 0, 255).round() for one in coarse])


def _by_pillow(levels, quality):
  file = io.BytesIO()
  Image.fromarray(levels.astype(np.uint8)).save(
      file, 'JPEG', quality=quality)
  return np.asarray(Image.open(file), np.float32)


def test_quantization_tables_by_hand():
  tables = np.asarray(jpeg.quantization([50, 100, 25, 1]))
  assert tables[0, 0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
  assert (tables[1] == 1).all()
  assert tables[2, 7, 7] == 198  # twice 99
  assert (tables[3] == 255).all()  # 50 times, clipped


@pytest.mark.parametrize('quality', [5, 35, 49, 50, 75, 97])
def test_tables_are_those_that_pillow_writes(quality):
  file = io.BytesIO()
  Image.new('L', (8, 8)).save(file, 'JPEG', quality=quality)
  # Pillow has undone the zigzag order of the file.
  table = np.reshape(Image.open(file).quantization[0], (8, 8))
  np.testing.assert_array_equal(jpeg.quantization(quality), table)


def test_pictures_are_those_of_pillow():
  levels, qualities = _pictures(), [10, 60, 100]
  ours = np.asarray(jpeg.compress(
      jnp.float32(levels), jnp.float32(qualities)))
  assert ours.shape == levels.shape
  for one, original, quality in zip(ours, levels, qualities, strict=True):
    difference = np.abs(one - _by_pillow(original, quality))
    # Pillow's transform is in integers, so some values round to a neighbor. A
    # coefficient that does so changes a whole block by a few levels, or more
    # at a low quality.
    assert difference.mean() < 0.25, quality
    assert np.quantile(difference, 0.95) <= 1, quality
  changes = np.abs(ours - levels).mean((1, 2))
  assert changes[2] < 0.5 < changes[1] < changes[0]
