"""The square input of a network is the same on the host and on the device."""

import numpy as np
import pytest
import skimage.data

from colorjax import photo
from colorjax.photo import square

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(('side', 'size'), [
    (96, 64), (90, 32), (200, 32), (256, 16), (203, 16), (24, 32)])
def test_the_device_resizes_as_pillow_does(side, size):
  photos = np.stack([
      skimage.data.astronaut()[:side, 100:100 + side],
      RNG.integers(0, 2, (side, side, 3)).astype(np.uint8) * 255])
  got = np.asarray(square.resize_batch(photos, size))
  expected = np.stack([square.resize(pixels, size, size) for pixels in photos])
  assert got.dtype == np.uint8
  difference = np.abs(got.astype(int) - expected)
  assert difference.max() <= 1
  assert (difference > 0).mean() < 5e-3


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_grey_is_seen_as_the_same_color(dtype):
  grey = RNG.integers(0, np.iinfo(dtype).max, (70, 300)).astype(dtype)
  expected = square.resize(
      photo.with_depth(np.dstack([grey] * 3), 8), 24, 24)
  np.testing.assert_array_equal(square.squash(grey, 24), expected)
