"""Each metric of a picture changes as its definition implies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from colorjax import color
from colorjax.metrics import (
  accuracy,
  colorfulness,
  difference,
  diversity,
  image,
  structure,
)


def _rebalanced(picture, original):
  statistics = accuracy.rebalanced_auc_statistics(picture, original)
  return np.stack([accuracy.rebalanced_auc(s[None])
                   for s in np.asarray(statistics)])


def _of_ab(metric):
  return lambda picture, original: metric(
      color.split_lightness(picture)[1], color.split_lightness(original)[1])


# A metric of (picture, original), its perfect value, and whether more is
# better.
METRICS = {
    'psnr': (image.psnr, np.inf, True),
    'rgb_rmse': (image.rgb_rmse, 0, False),
    'ab_psnr': (_of_ab(image.ab_psnr), np.inf, True),
    'ab_rmse': (_of_ab(image.ab_rmse), 0, False),
    'ab_distance': (_of_ab(image.ab_distance), 0, False),
    'ssim': (structure.ssim, 1, True),
    'ciede2000': (difference.mean_ciede2000, 0, False),
    'auc': (_of_ab(accuracy.auc), 100, True),
    'rebalanced_auc': (_of_ab(_rebalanced), 100, True),
    'pixel_oracle_k': (
        lambda p, o: diversity.pixel_oracle_k(p[None], o), 0, False),
    'best_of_k_rmse': (
        lambda p, o: diversity.best_of_k_rmse(p[None], o), 0, False),
}


@pytest.fixture(scope='module')
def pictures():
  """The photograph, and colorings that are worse and worse."""
  photo = skimage.data.astronaut()[40:88, 190:238][None]
  rng = np.random.default_rng(0)
  noise = rng.normal(size=photo.shape)
  lightness, ab = color.split_lightness(jnp.asarray(photo))

  def paint(ab):
    rgb = color.lab_to_rgb(jnp.concatenate([lightness, ab], axis=-1))
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)

  return {
      'truth': photo,
      'grey': paint(0 * ab),
      'half': paint(ab / 2),
      'opposite': paint(-ab),
      'little_noise': np.clip(photo + 5 * noise, 0, 255).astype(np.uint8),
      'much_noise': np.clip(photo + 25 * noise, 0, 255).astype(np.uint8),
      'shift_1': np.roll(photo, 1, 2),
      'shift_8': np.roll(photo, 8, 2)}


@pytest.mark.parametrize('name', METRICS)
def test_a_metric_orders_pictures(name, pictures):
  metric, perfect, more_is_better = METRICS[name]
  found = {kind: float(metric(picture, pictures['truth'])[0])
           for kind, picture in pictures.items()}
  np.testing.assert_allclose(found['truth'], perfect, rtol=1e-6)
  merit = {kind: value if more_is_better else -value
           for kind, value in found.items()}
  assert merit['truth'] > merit['half'] > merit['grey'] > merit['opposite']
  assert merit['truth'] > merit['little_noise'] > merit['much_noise']
  assert merit['truth'] > merit['shift_1'] > merit['shift_8']


def test_grey_keeps_only_the_lightness(pictures):
  """Values of the grey picture that follow without computing a metric."""
  _, ab = color.split_lightness(jnp.asarray(pictures['truth']))
  grey, truth = pictures['grey'], pictures['truth']
  np.testing.assert_allclose(
      _of_ab(image.ab_distance)(grey, truth), image.mean_chroma(ab), rtol=1e-3)
  assert difference.mean_ciede2000(grey, truth) < image.mean_chroma(ab)
  assert structure.ssim(grey, truth) > 0.8


@pytest.mark.parametrize('metric', [
    colorfulness.colorfulness, colorfulness.colorfulness_abs])
def test_colorfulness_depends_on_the_picture_only(metric, pictures):
  found = {kind: float(metric(picture)[0])
           for kind, picture in pictures.items()}
  assert found['grey'] < 1
  assert found['grey'] < found['half'] < found['truth'] < found['much_noise']
  np.testing.assert_allclose(found['shift_8'], found['truth'], rtol=1e-5)


@pytest.mark.parametrize('name', METRICS)
def test_values_do_not_depend_on_the_batch(name, pictures):
  metric = METRICS[name][0]
  metric = metric if name == 'rebalanced_auc' else jax.jit(metric)
  batch = np.concatenate([pictures['grey'], pictures['much_noise']])
  original = np.concatenate([pictures['truth']] * 2)
  together = metric(batch, original)
  assert together.shape == (2,)
  for i in range(2):
    np.testing.assert_allclose(
        metric(batch[i:i + 1], original[i:i + 1])[0], together[i], rtol=1e-5)
