"""Colorfulness compared with the definition in plain NumPy."""

import numpy as np
import pytest

from colorjax.metrics import colorfulness


def _numpy(picture, signed):
  """Colorfulness of a photograph in float64 (Hasler and Suesstrunk)."""
  red, green, blue = picture.astype(np.float64).reshape(-1, 3).T
  rg, yb = red - green, 0.5 * (red + green) - blue
  if not signed:
    rg, yb = np.abs(rg), np.abs(yb)
  return (np.sqrt(np.std(rg)**2 + np.std(yb)**2)
          + 0.3 * np.sqrt(np.mean(rg)**2 + np.mean(yb)**2))


@pytest.mark.parametrize(('function', 'signed'), [
    (colorfulness.colorfulness, True),
    (colorfulness.colorfulness_abs, False)])
def test_colorfulness_agrees_with_its_definition(function, signed):
  pictures = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)
  pictures[1] //= 3
  np.testing.assert_allclose(
      function(pictures), [_numpy(x, signed) for x in pictures], rtol=1e-5)


def test_half_red_half_green():
  """rg is 100 on one half and -100 on the other, yb is 50 on both."""
  picture = np.zeros((1, 2, 2, 3), np.uint8)
  picture[:, 0, :, 0] = 100
  picture[:, 1, :, 1] = 100
  np.testing.assert_allclose(
      colorfulness.colorfulness(picture), [100 + 0.3 * 50], rtol=1e-6)
  np.testing.assert_allclose(
      colorfulness.colorfulness_abs(picture),
      [0.3 * np.hypot(100, 50)], rtol=1e-6)


def test_grey_has_no_colorfulness():
  grey = np.repeat(
      np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) * 17, 3, -1)
  np.testing.assert_array_equal(colorfulness.colorfulness(grey), 0)
  np.testing.assert_array_equal(colorfulness.colorfulness_abs(grey), 0)


def test_deltas_by_hand():
  statistics = np.array([[30, 20], [10, 20], [25, 20]])
  np.testing.assert_allclose(
      colorfulness.delta_of_means(statistics), 5 / 3, rtol=1e-12)
  np.testing.assert_allclose(
      colorfulness.mean_delta(statistics), 25 / 3, rtol=1e-12)


def test_deltas_reject_other_statistics():
  with pytest.raises(ValueError, match=r'\[3\]'):
    colorfulness.mean_delta(np.zeros(3))
