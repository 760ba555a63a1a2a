"""The MBM method: the contract, its likelihood, draws and metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import skimage.color
from asking import grey, keys

from colorjax import resample
from colorjax.errors import UserError
from colorjax.methods import mbm

pytestmark = pytest.mark.usefixtures('compiles_quickly')

KEYS = jax.random.split(jax.random.key(0), 4)

SMALL = {'num_components': 3, 'filters': (16, 32), 'prior_width': 8}


def _batch(n=4, size=16, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
  image = coarse.repeat(size // 4, 1).repeat(size // 4, 2)
  return {'image': jnp.asarray(image), 'padding_mask': jnp.ones(n)}


def _variables(colorizer, size=16):
  return colorizer.init(jax.random.key(0), (size, size))


def _lab(batch):
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.asarray(lab[..., :1], jnp.float32), lab[..., 1:]


@pytest.mark.parametrize('family', mbm.FAMILIES)
@pytest.mark.parametrize('network', ['unet', 'published'])
def test_contract(family, network):
  colorizer = mbm.build(family=family, network=network, **SMALL)
  variables, batch = _variables(colorizer), _batch()
  lightness, ab = _lab(batch)
  assert colorizer.predict(variables, grey(lightness)).shape == (4, 16, 16, 2)
  proposals, weights = colorizer.propose(variables, grey(lightness), 3)
  assert proposals.shape == (3, 4, 16, 16, 2)
  assert (jnp.diff(weights, axis=0) <= 0).all()
  np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
  np.testing.assert_array_equal(
      colorizer.predict(variables, grey(lightness)), proposals[0])
  samples = colorizer.sample(variables, grey(lightness), keys(4, 1), 2)
  assert samples.shape == (2, 4, 16, 16, 2)
  assert (samples[0] != samples[1]).any()
  assert jnp.abs(samples).max() < 1000
  log_prob = colorizer.log_prob(variables, grey(lightness), jnp.asarray(ab),
                                None)
  assert log_prob.shape == (4,)
  scalar, aux = colorizer.loss(variables['params'], variables['model_state'],
                               batch, KEYS, step=0, train=True)
  assert np.isfinite(scalar)
  assert aux.metrics['loss'][1] == 4


def _draws(family):
  """Draws of a small mixture [n, 1, h, w, 2], and its mean color [2]."""
  colorizer = mbm.build(family=family, num_components=2, filters=(16, 16),
                        prior_width=8)
  lightness = jnp.full((1, 8, 8, 1), 40.)
  variables = colorizer.init(jax.random.key(0), (8, 8))
  draws = jax.jit(lambda keys: colorizer.draw(
      variables, grey(lightness), keys, 4000))(keys(1, 1))
  assert draws.shape == (4000, 1, 4, 4, 2)
  means, weights = colorizer.propose(variables, grey(lightness), 2)
  return draws, (weights[..., None, None, None] * means).sum(0).mean((0, 1, 2))


@pytest.mark.parametrize(
    'family', ['continuous_bernoulli', 'gaussian', 'discretized_logistic'])
def test_draws_have_the_mean_of_the_mixture(family):
  draws, expected = _draws(family)
  np.testing.assert_allclose(draws.mean((0, 1, 2, 3)), expected, atol=1.5)


def test_draws_of_a_bernoulli_come_from_its_normalized_form():
  """Its own samples are 0 or 1, but `log_prob` is a density over [0, 1]."""
  np.testing.assert_array_equal(
      _draws('bernoulli')[0], _draws('continuous_bernoulli')[0])


def test_loss_equals_the_likelihood_of_the_paper():
  """Computed in float64 from the formula of the mixture."""
  colorizer = mbm.build(family='bernoulli', network='published', **SMALL)
  variables, batch = _variables(colorizer), _batch()
  net, _, _ = mbm._network(
      'published', num_params=1, batch_norm=False, dropout=0.,
      dtype=jnp.float32, **SMALL)
  lightness, ab = _lab(batch)
  out = net.apply(variables, lightness / 50 - 1, train=False)
  mu = scipy.special.expit(np.asarray(out.components[0], np.float64))
  y = (ab / 110 + 1)[:, None] / 2
  log_alpha = scipy.special.log_softmax(
      np.asarray(out.mixing_logits, np.float64), -1)
  per_component = (y * np.log(mu) + (1 - y) * np.log(1 - mu)).sum((2, 3, 4))
  expected = -scipy.special.logsumexp(log_alpha + per_component, -1) / 512
  scalar, _ = colorizer.loss(variables['params'], {}, batch, KEYS,
                             step=None, train=False)
  np.testing.assert_allclose(scalar, expected.mean(), rtol=1e-5)


def test_log_prob_is_a_density_in_lab_units():
  """The density integrates to 1, by Monte Carlo over a small ab field.

  This holds only if the change of variables from unit ab to Lab units is
  right.
  """
  colorizer = mbm.build(family='continuous_bernoulli', network='published',
                        num_components=2, filters=(4,), prior_width=4)
  variables = colorizer.init(jax.random.key(3), (2, 2))
  lightness = jnp.full((1, 2, 2, 1), 40.)
  # Monte Carlo estimate of the integral over the ab square in 8 dimensions.
  ab = jax.random.uniform(jax.random.key(4), (40000, 2, 2, 2), minval=-110,
                          maxval=110)
  log_volume = 8 * np.log(220)
  log_prob = jax.vmap(lambda a: colorizer.log_prob(
      variables, grey(lightness), a[None], None)[0])(ab)
  np.testing.assert_allclose(
      jnp.exp(log_prob + log_volume).mean(), 1, atol=0.05)


def test_padding_does_not_change_the_loss():
  colorizer = mbm.build(**SMALL)
  variables, batch = _variables(colorizer), _batch()
  half = {'image': batch['image'][:2],
          'padding_mask': batch['padding_mask'][:2]}
  padded = {'image': batch['image'],
            'padding_mask': jnp.asarray([1., 1., 0., 0.])}
  expected, _ = colorizer.loss(variables['params'], {}, half, KEYS[:2],
      step=None, train=False)
  found, aux = colorizer.loss(variables['params'], {}, padded, KEYS,
                              step=None, train=False)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert aux.metrics['loss'][1] == 2


def test_component_metrics_count_every_photograph_once():
  colorizer = mbm.build(**SMALL)
  variables = _variables(colorizer)
  _, aux = colorizer.loss(variables['params'], {}, _batch(6),
                          KEYS, step=None, train=False)
  for metric in ('best', 'chosen'):
    assert sum(float(aux.metrics[f'{metric}/{k}'][0]) for k in range(3)) == 6


def test_predictions_approach_the_training_photograph():
  colorizer = mbm.build(dropout=0., **SMALL)
  variables, batch = _variables(colorizer), _batch(1)
  lightness, ab = _lab(batch)

  @jax.jit
  def step(params):
    return jax.tree.map(
        lambda p, g: p - 0.5 * g, params,
        jax.grad(lambda p: colorizer.loss(
            p, {}, batch, KEYS[:1], step=0, train=True)[0])(params))

  def distance(params):
    predicted = colorizer.predict({'params': params, 'model_state': {}},
                                  grey(lightness))
    return np.linalg.norm(predicted - ab, axis=-1).mean()

  params = variables['params']
  before = distance(params)
  for _ in range(60):
    params = step(params)
  assert distance(params) < 0.8 * before


@pytest.mark.parametrize(('settings', 'message'), [
    ({'family': 'poisson'}, 'family=poisson: choose one of bernoulli'),
    ({'network': 'resnet'}, 'network=resnet: choose one of unet'),
    ({'filters': (16, 24)}, r'filters=24: .* multiples of 16')])
def test_unknown_settings_name_the_flag(settings, message):
  with pytest.raises(UserError, match=message):
    mbm.build(**settings)


def test_wrong_sizes_are_refused():
  colorizer = mbm.build(**SMALL)
  with pytest.raises(UserError, match=r'image_size=18 x 16: .* divisible by 4'):
    colorizer.init(jax.random.key(0), (18, 16))
  variables = _variables(colorizer)
  with pytest.raises(UserError, match='ask for 1 to 3'):
    colorizer.propose(variables, grey(jnp.zeros((1, 16, 16, 1))), 5)


def test_batch_statistics_change_only_in_training():
  colorizer = mbm.build(network='published', batch_norm=True, **SMALL)
  variables, batch = _variables(colorizer), _batch()
  args = (variables['params'], variables['model_state'], batch,
          KEYS)
  for train in (True, False):
    _, aux = colorizer.loss(*args, step=0, train=train)
    moved = [bool((a != b).any()) for a, b in zip(
        jax.tree.leaves(aux.model_state),
        jax.tree.leaves(variables['model_state']), strict=True)]
    assert all(moved) if train else not any(moved)


def test_upsampled_color_follows_the_edges_of_the_photograph():
  """Two halves of different lightness and color are not blurred.

  The field has half the resolution. Bilinear interpolation would mix the colors
  of both sides in the two columns next to the edge.
  """
  lightness = jnp.where(jnp.arange(16) < 7, 20., 80.)
  lightness = jnp.broadcast_to(lightness, (16, 16))
  field = jnp.where(jnp.arange(8) < 3.5, -40., 60.)
  field = jnp.broadcast_to(field[:, None], (8, 8, 2))
  enlarged = resample.enlarge(field[None], lightness[None, ..., None])
  enlarged = enlarged[0, 8, :, 0]
  blurred = jax.image.resize(field, (16, 16, 2), 'bilinear')[8, :, 0]
  truth = jnp.where(jnp.arange(16) < 7, -40., 60.)
  assert jnp.abs(enlarged - truth).sum() < 0.7 * jnp.abs(blurred - truth).sum()
