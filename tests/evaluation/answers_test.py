"""Metrics of methods with known colorings, compared with values by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.metrics

from colorjax import keys as key_lib
from colorjax import spread
from colorjax.colorizer import Colorizer, deterministic, sampler
from colorjax.errors import UserError
from colorjax.evaluation import (
  answers,
  catalogue,
  measuring,
  region_metrics,
)
from colorjax.fallbacks import with_candidates
from colorjax.photo import painting, strokes

pytestmark = pytest.mark.usefixtures('compiles_quickly')

WARM, COLD = (10.0, 20.0), (-10.0, -20.0)
SIDE = 12


def _colorizer(**fields):
  """Two uniform colorings; the warm one is three times as probable."""
  def paint(lightness, ab):
    return jnp.broadcast_to(jnp.asarray(ab), (*lightness.shape[:-1], 2))

  def propose(variables, inputs, k):
    del variables
    lightness = inputs['lightness']
    answers = jnp.stack([paint(lightness, WARM), paint(lightness, COLD)])[:k]
    weights = jnp.asarray([0.75, 0.25])[:k, None]
    return answers, jnp.broadcast_to(weights, (k, len(lightness)))

  def sample(variables, inputs, keys, n):
    del variables
    lightness = inputs['lightness']
    which = jax.vmap(lambda key: jax.random.bernoulli(key, 0.75, (n, 1, 1, 1)),
                     out_axes=1)(keys)
    return jnp.where(which, paint(lightness, WARM), paint(lightness, COLD))

  return Colorizer(
      init=lambda *_: {}, loss=lambda *_: None, sample=sample,
      predict=lambda variables, inputs: paint(inputs['lightness'], WARM),
      propose=propose, max_proposals=2, **fields)


def _batches(images, size=2, **more):
  for start in range(0, len(images), size):
    part = images[start:start + size]
    padding = np.zeros((size - len(part), *images.shape[1:]), np.uint8)
    batch = {'image': np.concatenate([part, padding]),
             'padding_mask': (np.arange(size) < len(part)).astype(np.float32),
             'index': np.arange(start, start + size, dtype=np.int32)}
    yield batch | {name: np.concatenate([
        rows[start:start + size], np.zeros((size - len(part),
                                            *rows.shape[1:]), rows.dtype)])
                   for name, rows in more.items()}


def _measure(answer, images, size=2, **more):
  return measuring.collect(
      measuring.compiled(answer, {}), _batches(images, size, **more))


@pytest.fixture(scope='module')
def images():
  """Dull colors of medium lightness, for which WARM and COLD are in gamut."""
  rng = np.random.default_rng(0)
  return rng.integers(100, 156, (5, SIDE, SIDE, 3), np.uint8)


def _seen(images, ab):
  """ab of the 8-bit picture that has the photographs' lightness and `ab`."""
  lab = skimage.color.rgb2lab(images)
  lab[..., 1:] = ab
  rgb = np.rint(skimage.color.lab2rgb(lab) * 255) / 255
  return skimage.color.rgb2lab(rgb)[..., 1:]


def test_metrics_by_hand(images):
  mean_ab = np.asarray([3.0, 4.0], np.float32)
  values = _measure(answers.of_colorizer(
      _colorizer(), image_size=SIDE, num_proposals=8, mean_color=mean_ab),
      images)
  ab = skimage.color.rgb2lab(images)[..., 1:]

  def distance(to):
    return np.linalg.norm(ab - np.asarray(to), axis=-1).mean((1, 2))

  expected = {
      'ab_distance_grey': distance((0, 0)),
      'ab_distance_mean_color': distance(mean_ab),
      'ab_distance': distance(WARM), 'ab_distance_expected': distance((5, 10)),
      'best_of_k': np.minimum(distance(WARM), distance(COLD)),
      'pixel_oracle_k': np.minimum(
          np.linalg.norm(ab - WARM, axis=-1),
          np.linalg.norm(ab - COLD, axis=-1)).mean((1, 2)),
      'chroma_truth': distance((0, 0)),
      'chroma': np.full(5, np.hypot(*WARM))}
  assert (values['best_of_k_psnr'] >= values['psnr']).all()
  for name, value in expected.items():
    # Rounding to 8 bits moves a color by up to half a unit.
    np.testing.assert_allclose(values[name], value, atol=0.4, err_msg=name)
  assert 'bits_per_dim' not in values
  assert 'sample_variance' not in values, 'num_samples is 0'
  summary = catalogue.summarize(values)
  assert set(values) <= set(summary) <= set(catalogue.METRICS)
  assert summary['chroma'].n == 5
  np.testing.assert_allclose(summary['chroma'].mean, values['chroma'].mean())


def test_calibration_errors_are_well_inside_their_intervals():
  """Resampling biases these errors, which recentering corrects."""
  rng = np.random.default_rng(0)
  shares = rng.dirichlet(np.full(20, 2.0), (60, 2))
  ranks = rng.multinomial(400, shares)
  claimed = (np.arange(10) + 0.5) / 10
  pixels = rng.multinomial(400, rng.dirichlet(np.ones(10), 60))
  # Hit rates deviate for each photograph, but not on average.
  true = np.clip(claimed + rng.normal(0, 0.1, (60, 1)), 0, 1)
  hits = np.stack([pixels, rng.binomial(pixels, true),
                   rng.binomial(pixels, claimed)], -1)
  summary = catalogue.summarize(
      {'pit_error': ranks, 'expected_calibration_error': hits})
  for name in ('pit_error', 'expected_calibration_error'):
    one = summary[name]
    assert one.mean > 0
    assert 1 / 3 < (one.mean - one.low) / (one.high - one.low) < 2 / 3, name


def test_a_deterministic_method_has_no_best_of_k_and_no_samples(images):
  warm = _colorizer()
  one = deterministic(init=warm.init, loss=warm.loss, predict=warm.predict)
  values = _measure(answers.of_colorizer(
      one, image_size=SIDE, num_proposals=8, num_samples=4, num_draws=4),
      images)
  assert 'ab_distance' in values
  assert not {'best_of_k', 'ab_distance_expected', 'sample_variance',
              'energy_score'} & values.keys()


def test_metrics_do_not_depend_on_the_batch(images):
  answer = answers.of_colorizer(
      _colorizer(), image_size=SIDE, num_proposals=2, num_samples=3,
      num_draws=5, seed=7)
  one, five = (_measure(answer, images, size) for size in (1, 5))
  assert set(one) == set(five) >= {'sample_variance', 'energy_score'}
  for name in one:
    np.testing.assert_allclose(one[name], five[name], atol=1e-5, err_msg=name)


def test_picture_files_have_the_same_metrics_as_their_method(images):
  answer = answers.of_colorizer(_colorizer(), image_size=SIDE)
  lab = skimage.color.rgb2lab(images)
  pictures = np.asarray(painting.picture(
      jnp.asarray(lab[..., :1], jnp.float32),
      jnp.broadcast_to(jnp.asarray(WARM), (*lab.shape[:-1], 2))))
  own = _measure(answer, images)
  theirs = _measure(answers.of_pictures, images, picture=pictures)
  for name in theirs:
    np.testing.assert_allclose(theirs[name], own[name], rtol=1e-4, atol=1e-3,
                               err_msg=name)


@pytest.mark.parametrize(('which', 'perfect'), [('truth', True),
                                                ('grey', False)])
def test_references(images, which, perfect):
  values = _measure(answers.of_reference(which), images)
  assert (np.isinf(values['psnr']) == perfect).all()
  assert (values['ab_distance'] == 0).all() == perfect
  if not perfect:
    np.testing.assert_allclose(values['ab_distance'],
                               values['ab_distance_grey'], atol=0.05)
    assert (values['chroma'] < 0.1).all()


def test_photographs_larger_than_the_network_sees():
  """ab predicted at 8 x 8 is enlarged to 32 x 32 along the lightness."""
  rng = np.random.default_rng(1)
  small = rng.integers(90, 166, (2, 4, 4, 3), np.uint8)
  images = small.repeat(8, 1).repeat(8, 2)

  def predict(variables, inputs):
    del variables
    lightness = inputs['lightness']
    assert lightness.shape[1:] == (8, 8, 1)
    return jnp.concatenate([lightness - 50, 50 - lightness], -1)

  values = _measure(answers.of_colorizer(deterministic(
      init=lambda *_: {}, loss=lambda *_: None, predict=predict),
      image_size=8), images)
  lab = skimage.color.rgb2lab(images)
  expected = np.linalg.norm(
      _seen(images, np.stack([lab[..., 0] - 50, 50 - lab[..., 0]], -1))
      - lab[..., 1:], axis=-1).mean((1, 2))
  np.testing.assert_allclose(values['ab_distance'], expected, rtol=0.05)


def test_hints_depend_on_the_photograph_and_its_index_only(images):
  """The method predicts the mean of its hints."""
  def predict(variables, inputs):
    del variables
    if 'hint_ab' not in inputs:
      return jnp.zeros((*inputs['lightness'].shape[:-1], 2))
    mean = inputs['hint_ab'].sum((1, 2)) / inputs['hint_mask'].sum((1, 2))
    return jnp.broadcast_to(mean[:, None, None], inputs['hint_ab'].shape)

  run = measuring.compiled(answers.of_colorizer(dataclasses.replace(
      _colorizer(), predict=predict,
      accepts=frozenset({'hint_ab', 'hint_mask'})),
      image_size=SIDE), {})

  def hinted(order):
    order = np.asarray(order)
    return measuring.collect(run, [{
        'image': images[order], 'padding_mask': np.ones(len(order)),
        'index': order.astype(np.int32)}])['ab_distance_hinted_10']

  forward = hinted(range(5))
  np.testing.assert_allclose(hinted([4, 2]), forward[[4, 2]], rtol=1e-6)
  # The mean of 10 pixels is close to the best constant color, but not better.
  ab = skimage.color.rgb2lab(images)[..., 1:].reshape(5, -1, 2)
  best = np.linalg.norm(
      ab - np.median(ab, axis=1, keepdims=True), axis=-1).mean(1)
  assert (forward > 0.9 * best).all()
  assert (forward < 1.3 * best).all()


def test_region_metrics_by_hand(images):
  """The method predicts WARM inside the region and half of it outside."""
  def predict(variables, inputs):
    del variables
    region = inputs.get('region', jnp.ones_like(inputs['lightness']))
    return (region + 1) / 2 * jnp.asarray(WARM)

  measure = region_metrics.per_region(dataclasses.replace(
      _colorizer(), predict=predict, accepts=frozenset({'region'})))
  region = np.zeros((5, SIDE, SIDE, 1), np.float32)
  region[:, :, 1:] = 1
  values = measuring.collect(
      lambda b: measure({}, b),
      [{'image': images, 'padding_mask': np.ones(5), 'region': region}])
  ab = skimage.color.rgb2lab(images)[..., 1:]
  np.testing.assert_allclose(
      values['chroma_outside'], np.hypot(*WARM) / 2, rtol=1e-5)
  np.testing.assert_allclose(values['difference_inside'], 0)
  np.testing.assert_allclose(
      values['distance_inside'],
      np.linalg.norm(ab - np.asarray(WARM), axis=-1)[:, :, 1:].mean((1, 2)),
      atol=5e-3)
  assert set(region_metrics.summarize(values)) == set(
      region_metrics.REGION_METRICS)


def test_bits_per_dim_of_a_uniform_density(images):
  """A density of 1/220 for each value gives log2(220) bits."""
  def log_prob(variables, inputs, ab, keys):
    del variables, inputs, keys
    return jnp.full(len(ab), -SIDE**2 * 2 * np.log(220))

  values = _measure(answers.of_colorizer(
      _colorizer(log_prob=log_prob), image_size=SIDE), images)
  np.testing.assert_allclose(values['bits_per_dim'], np.log2(220), rtol=1e-5)


@pytest.mark.parametrize('kind', ['exact', 'estimate'])
def test_an_estimated_density_has_its_standard_error(images, kind):
  """Two nats for each photograph, and only if this size is estimated."""
  def log_prob_and_error(variables, inputs, ab, keys):
    del variables, inputs, keys
    return jnp.zeros(len(ab)), jnp.full(len(ab), 2.0)

  values = _measure(answers.of_colorizer(
      _colorizer(log_prob=lambda *args: log_prob_and_error(*args)[0],
                 log_prob_and_error=log_prob_and_error,
                 log_prob_kind=lambda shape: kind if shape == (SIDE, SIDE)
                 else 'lower_bound'), image_size=SIDE), images)
  assert ('bits_per_dim_error' in values) == (kind == 'estimate')
  if kind == 'estimate':
    bits = 2 / (SIDE**2 * 2 * np.log(2))
    np.testing.assert_allclose(values['bits_per_dim_error'], bits, rtol=1e-5)
    found = catalogue.summarize(values)['bits_per_dim_error'].mean
    assert found == pytest.approx(bits / len(images)**0.5)


def _counting(**fields):
  """A sampler, and a list of the numbers of samples of its calls."""
  asked = []

  def sample(variables, inputs, keys, n):
    del variables
    asked.append(n)
    shape = (*inputs['lightness'].shape[1:3], 2)
    return 9 * jax.vmap(jax.vmap(lambda key: jax.random.normal(key, shape)))(
        key_lib.of_answers(keys, n))

  return sampler(init=lambda *_: {}, loss=lambda *_: None, sample=sample,
                 **fields), asked


def test_a_sampler_draws_once_for_all_metrics(images):
  method, asked = _counting(
      log_prob=lambda variables, inputs, ab, keys: jnp.zeros(len(ab)),
      log_prob_kind='lower_bound')
  values = _measure(answers.of_colorizer(
      method, image_size=SIDE, num_proposals=4, num_samples=3, num_draws=19),
      images)
  # 19 samples for proposals, samples and draws; one with hints.
  assert sorted(set(asked)) == [1, 19]
  assert {'best_of_k', 'sample_variance', 'energy_score', 'hint_error_100',
          'bits_per_dim'} <= values.keys()
  assert 'hpd_coverage_90' not in values, 'a bound does not rank draws'


def test_candidates_are_shared_too(images):
  plain, asked = _counting()
  method = with_candidates(plain).ask(candidates=11)
  run = answers.of_colorizer(
      method, image_size=SIDE, num_proposals=3, num_samples=11)
  batch = {'image': images, 'index': jnp.arange(len(images))}
  found = jax.jit(lambda batch: run({}, batch, {}))(batch)
  assert sorted(set(asked)) == [1, 11]
  chosen, probability = map(np.asarray, jax.jit(
      spread.choose, static_argnums=1)(found.samples_ab, 3))
  np.testing.assert_array_equal(found.proposals_ab, chosen)
  np.testing.assert_array_equal(found.picture, found.samples[0])
  # At most from the 8 bits of a picture.
  np.testing.assert_allclose(
      found.expected_ab, (probability[..., None, None, None] * chosen).sum(0),
      atol=1.5)
  asked.clear()
  run = answers.of_colorizer(method, image_size=SIDE)
  jax.eval_shape(lambda batch: run({}, batch, {}), batch)
  assert set(asked) == {1}, 'one proposal is the prediction'
  with pytest.raises(UserError, match=r'candidates=11: .* at least 12'):
    answers.of_colorizer(method, image_size=SIDE, num_proposals=12)


def _warm(variables, inputs):
  del variables
  return jnp.broadcast_to(
      jnp.asarray(WARM), (len(inputs['lightness']), SIDE, SIDE, 2))


def test_more_hints_help_every_method_and_are_followed(images):
  """The method itself knows of no hints and predicts one color."""
  values = _measure(answers.of_colorizer(
      deterministic(init=lambda *_: {}, loss=lambda *_: None, predict=_warm),
      image_size=SIDE), images)
  distances = [values['ab_distance'].mean(), *(
      values[f'ab_distance_hinted_{n}'].mean() for n in answers.NUM_HINTS)]
  assert distances == sorted(distances, reverse=True)
  assert distances[2] < 0.9 * distances[0]
  for n in answers.NUM_HINTS:
    # At most from the 8 bits of a picture.
    assert values[f'hint_error_{n}'].max() < 0.5


def test_the_error_at_the_hints_of_a_method_that_ignores_them(images):
  method = deterministic(
      init=lambda *_: {}, loss=lambda *_: None, predict=_warm,
      accepts=frozenset({'hint_ab', 'hint_mask'}))
  run = answers.of_colorizer(method, image_size=SIDE)
  values = _measure(run, images)
  found = jax.jit(lambda batch: run({}, batch, {}))({
      'image': images, 'index': jnp.arange(len(images))})
  for i, n in enumerate(answers.NUM_HINTS):
    _, mask = strokes.random_points_of(
        0, jnp.arange(len(images)), found.ab, n)
    assert (mask.sum((1, 2, 3)) == n).all()
    distance = np.linalg.norm(found.picture_ab - found.ab, axis=-1)
    expected = (distance * mask[..., 0]).sum((1, 2)) / n
    np.testing.assert_allclose(
        values[f'hint_error_{n}'], expected, rtol=1e-4)
    np.testing.assert_allclose(
        found.hinted_ab[i], found.picture_ab, atol=1e-4)


WIDTHS = {'right': 1.0, 'narrow': 0.5, 'wide': 2.0}


@pytest.fixture(scope='module')
def calibrations():
  """Normal models of fields of 6 x 6, with correct and wrong widths."""
  rng = np.random.default_rng(2)
  truth = rng.normal(0, 12, (24, 6, 6, 2))
  lab = np.concatenate([np.full((*truth.shape[:-1], 1), 60.0), truth], -1)
  images = np.rint(skimage.color.lab2rgb(lab) * 255).astype(np.uint8)
  images = images.repeat(2, 1).repeat(2, 2)

  def model(width):
    sigma = 12 * width

    def draw(variables, inputs, keys, n):
      del variables, inputs
      return sigma * jax.vmap(lambda key: jax.random.normal(
          key, (n, 6, 6, 2)), out_axes=1)(keys)

    def log_prob(variables, inputs, ab, keys):
      del variables, inputs, keys
      field = ab.reshape(len(ab), 6, 2, 6, 2, 2).mean((2, 4))
      return jax.scipy.stats.norm.logpdf(field, scale=sigma).sum((1, 2, 3))

    return _colorizer(draw=draw, log_prob=log_prob,
                      event_shape=lambda s: (s[0] // 2, s[1] // 2))

  return {name: catalogue.summarize(_measure(answers.of_colorizer(
      model(width), image_size=SIDE, num_draws=19), images, size=24))
          for name, width in WIDTHS.items()}


def test_a_model_of_the_right_width_is_calibrated(calibrations):
  right = calibrations['right']
  np.testing.assert_allclose(right['coverage_90'].mean, 0.9, atol=0.02)
  np.testing.assert_allclose(right['coverage_50'].mean, 0.5, atol=0.04)
  assert right['pit_error'].mean < 0.02
  # The entropy of the normal distribution, in bits.
  np.testing.assert_allclose(
      right['bits_per_dim'].mean, np.log2(12 * np.sqrt(2 * np.pi * np.e)),
      atol=0.1)
  assert right['hpd_coverage_90'].mean > 0.7


@pytest.mark.parametrize('width', ['narrow', 'wide'])
def test_a_miscalibrated_model_is_detected(calibrations, width):
  wrong, right = calibrations[width], calibrations['right']
  for name in ('pit_error', 'bits_per_dim', 'energy_score'):
    assert wrong[name].mean > right[name].mean, name
  if width == 'narrow':
    assert wrong['coverage_90'].mean < 0.7
    assert wrong['hpd_coverage_90'].mean < 0.1
  else:
    assert wrong['coverage_90'].mean > 0.97
    assert wrong['coverage_50'].mean > 0.75


@pytest.mark.parametrize('size', [1, 2, 5])
def test_mean_color_counts_every_photograph_once(images, size):
  expected = skimage.color.rgb2lab(images)[..., 1:].mean((0, 1, 2))
  np.testing.assert_allclose(
      measuring.mean_color(_batches(images, size)), expected, atol=5e-3)


def test_mean_color_needs_a_photograph():
  with pytest.raises(UserError, match='no readable photograph'):
    measuring.mean_color([])
