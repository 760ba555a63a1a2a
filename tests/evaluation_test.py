"""Held-out figures through the contract, worked out by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from colorjax import evaluation
from colorjax.colorizer import Colorizer, deterministic
from colorjax.errors import UserError

WARM, COLD = (10.0, 20.0), (-10.0, -20.0)


def _colorizer(log_prob=None):
  """Two answers of one colour each, the warm one three times as probable."""
  def paint(lightness, ab):
    return jnp.broadcast_to(jnp.asarray(ab), (*lightness.shape[:-1], 2))

  def propose(variables, lightness, k):
    del variables
    answers = jnp.stack([paint(lightness, WARM), paint(lightness, COLD)])[:k]
    weights = jnp.asarray([0.75, 0.25])[:k, None]
    return answers, jnp.broadcast_to(weights, (k, len(lightness)))

  return Colorizer(
      init=lambda *_: {}, loss=lambda *_: None, sample=lambda *_: None,
      predict=lambda variables, lightness: paint(lightness, WARM),
      propose=propose, log_prob=log_prob)


def _batches(images, size=2):
  for start in range(0, len(images), size):
    part = images[start:start + size]
    padding = np.zeros((size - len(part), *images.shape[1:]), np.uint8)
    yield {'image': np.concatenate([part, padding]),
           'mask': np.arange(size) < len(part)}


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)


def test_figures_by_hand(images):
  mean_ab = np.asarray([3.0, 4.0], np.float32)
  measure = evaluation.per_photo(_colorizer(), num_proposals=2,
                                 mean_ab=mean_ab)
  values = evaluation.collect(lambda b: measure({}, b), _batches(images))
  ab = skimage.color.rgb2lab(images)[..., 1:]

  def distance(to):
    return np.linalg.norm(ab - np.asarray(to), axis=-1).mean((1, 2))

  expected = {
      'grey': distance((0, 0)), 'mean_colour': distance(mean_ab),
      'predicted': distance(WARM), 'expected': distance((5, 10)),
      'best_of_k': np.minimum(distance(WARM), distance(COLD)),
      'chroma': distance((0, 0)),
      'chroma_predicted': np.full(5, np.hypot(*WARM))}
  for name, value in expected.items():
    np.testing.assert_allclose(values[name], value, atol=5e-3, err_msg=name)
  assert 'bits_per_dim' not in values
  assert set(values) <= set(evaluation.FIGURES)
  summary = evaluation.summarize(values)
  assert summary['grey'].n == 5
  np.testing.assert_allclose(summary['grey'].mean, values['grey'].mean())


def test_a_method_with_one_answer_has_no_best_of_k(images):
  warm = _colorizer()
  one = deterministic(init=warm.init, loss=warm.loss, predict=warm.predict)
  measure = evaluation.per_photo(one, num_proposals=8, mean_ab=np.zeros(2))
  values = evaluation.collect(lambda b: measure({}, b), _batches(images))
  assert 'predicted' in values
  assert not {'best_of_k', 'expected'} & values.keys()


def test_hints_are_of_the_photograph_and_of_its_number(images):
  """A method that answers with the mean of its hints."""
  def predict_with_hints(variables, lightness, hint_ab, hint_mask):
    del variables
    mean = hint_ab.sum((1, 2)) / hint_mask.sum((1, 2))
    return jnp.broadcast_to(mean[:, None, None], (*lightness.shape[:-1], 2))

  measure = evaluation.per_photo(dataclasses.replace(
      _colorizer(), predict_with_hints=predict_with_hints), num_proposals=1)

  def hinted(order):
    order = np.asarray(order)
    return evaluation.collect(lambda b: measure({}, b), [{
        'image': images[order], 'mask': np.ones(len(order)),
        'index': order.astype(np.int32)}])['hinted']

  forward = hinted(range(5))
  np.testing.assert_allclose(hinted([4, 2]), forward[[4, 2]], rtol=1e-6)
  # The mean of 10 of 16 pixels is nearer than any fixed colour far away, and
  # no nearer than the best constant.
  ab = skimage.color.rgb2lab(images)[..., 1:].reshape(5, 16, 2)
  best = np.linalg.norm(
      ab - np.median(ab, axis=1, keepdims=True), axis=-1).mean(1)
  assert (forward > 0.9 * best).all()
  assert (forward < 1.3 * best).all()


def test_figures_of_regions_by_hand(images):
  """A method that heeds a region by halves: WARM inside, half of it outside."""
  def predict_within(variables, lightness, region):
    del variables, lightness
    return (region + 1) / 2 * jnp.asarray(WARM)

  measure = evaluation.per_region(dataclasses.replace(
      _colorizer(), predict_within=predict_within))
  region = np.zeros((5, 4, 4, 1), np.float32)
  region[:, :, 1:] = 1
  values = evaluation.collect(
      lambda b: measure({}, b),
      [{'image': images, 'mask': np.ones(5), 'region': region}])
  ab = skimage.color.rgb2lab(images)[..., 1:]
  np.testing.assert_allclose(values['chroma_outside'], np.hypot(*WARM) / 2)
  np.testing.assert_allclose(values['difference_inside'], 0)
  np.testing.assert_allclose(
      values['distance_inside'],
      np.linalg.norm(ab - np.asarray(WARM), axis=-1)[:, :, 1:].mean((1, 2)),
      atol=5e-3)
  assert set(evaluation.summarize(values)) == set(evaluation.REGION_FIGURES)


def test_bits_per_dim_of_a_uniform_density(images):
  """A density of 1/220 for each of 4 * 4 * 2 values is log2(220) bits."""
  def log_prob(variables, lightness, ab):
    del variables, ab
    return jnp.full(len(lightness), -32 * np.log(220))

  measure = evaluation.per_photo(_colorizer(log_prob), num_proposals=1,
                                 mean_ab=np.zeros(2))
  values = evaluation.collect(lambda b: measure({}, b), _batches(images))
  np.testing.assert_allclose(values['bits_per_dim'], np.log2(220), rtol=1e-5)


@pytest.mark.parametrize('size', [1, 2, 5])
def test_mean_colour_counts_every_photograph_once(images, size):
  expected = skimage.color.rgb2lab(images)[..., 1:].mean((0, 1, 2))
  np.testing.assert_allclose(
      evaluation.mean_colour(_batches(images, size)), expected, atol=5e-3)


def test_mean_colour_of_nothing_is_refused():
  with pytest.raises(UserError, match='no readable photograph'):
    evaluation.mean_colour([])
