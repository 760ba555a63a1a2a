"""Mixtures of patches and of low rank, compared with sums written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from asking import grey, keys

from colorjax.errors import UserError
from colorjax.losses import families
from colorjax.methods import mbm, mixtures
from colorjax.models.mbm import MixtureParams

pytestmark = pytest.mark.usefixtures('compiles_quickly')

K, SIDE, PATCH = 3, 4, 2
FAMILY = families.gaussian()


def _params(num_params, mixing_shape, seed=0):
  rng = np.random.default_rng(seed)
  return MixtureParams(
      tuple(jnp.asarray(rng.normal(size=(2, K, SIDE, SIDE, 2)), jnp.float32)
            for _ in range(num_params)),
      jnp.asarray(rng.normal(size=(2, K, *mixing_shape)), jnp.float32))


def _target():
  return jnp.asarray(
      np.random.default_rng(1).uniform(size=(2, SIDE, SIDE, 2)), jnp.float32)


def test_patches_choose_their_components_separately():
  params, target = _params(2, (2, 2)), _target()
  found = mixtures.product(FAMILY, PATCH).log_prob(target, params)
  expected = np.zeros(2)
  log_priors = scipy.special.log_softmax(params.mixing_logits, axis=1)
  values = FAMILY.log_prob(target[:, None], *params.components)
  for b in range(2):
    for row in range(2):
      for column in range(2):
        inside = (slice(PATCH * row, PATCH * (row + 1)),
                  slice(PATCH * column, PATCH * (column + 1)))
        expected[b] += scipy.special.logsumexp(
            log_priors[b, :, row, column]
            + np.asarray(values[b][:, *inside]).sum((1, 2, 3)))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_samples_of_patches_follow_their_priors():
  """The components are nearly constant, so a sample shows which was chosen."""
  colors = np.array([0.2, 0.5, 0.8])
  raw_loc = jnp.broadcast_to(jnp.asarray(scipy.special.logit(
      colors), jnp.float32)[:, None, None, None], (K, SIDE, SIDE, 2))
  params = MixtureParams((raw_loc, jnp.full_like(raw_loc, -20)),
                         _params(0, (2, 2)).mixing_logits[0])
  samples = jax.vmap(lambda key: mixtures.product(
      FAMILY, PATCH).sample(key, params))(keys(3000))
  chosen = np.abs(samples[..., None] - colors).argmin(-1)
  corner = chosen[:, ::PATCH, ::PATCH, 0]
  np.testing.assert_array_equal(
      chosen, corner.repeat(PATCH, 1).repeat(PATCH, 2)[..., None].repeat(2, -1))
  shares = np.stack([(corner == k).mean(0) for k in range(K)])
  np.testing.assert_allclose(
      shares, scipy.special.softmax(params.mixing_logits, axis=0), atol=0.04)
  # Patches choose separately.
  both = ((corner[:, 0, 0] == 0) & (corner[:, 1, 1] == 0)).mean()
  np.testing.assert_allclose(both, shares[0, 0, 0] * shares[0, 1, 1], atol=0.03)


def test_components_of_low_rank():
  params, target = _params(2 + 2, ()), _target()
  found = mixtures.normal_low_rank(2).log_prob(target, params)
  raw_loc, raw_scale, *factors = (
      np.asarray(x, np.float64).reshape(2, K, -1) for x in params.components)
  scale = np.exp(families.normal_log_scale(raw_scale))
  columns = 0.1 * np.stack(factors, -1)
  log_priors = scipy.special.log_softmax(params.mixing_logits, axis=1)
  for b in range(2):
    nats = [scipy.stats.multivariate_normal(
        scipy.special.expit(raw_loc[b, k]), np.diag(scale[b, k]**2)
        + columns[b, k] @ columns[b, k].T).logpdf(target[b].reshape(-1))
            for k in range(K)]
    np.testing.assert_allclose(
        found[b], scipy.special.logsumexp(log_priors[b] + nats), rtol=1e-4)


def test_nearest_component_of_patches():
  means = jnp.zeros((1, 2, 4, 4, 2)).at[0, 1, :2].set(1)
  target = jnp.zeros((1, 4, 4, 2)).at[0, :, :2].set(1)
  np.testing.assert_array_equal(
      mixtures.nearest(means, target, 2), [[[1, 0], [0, 0]]])


@pytest.mark.parametrize('settings', [
    {'patch_size': 2}, {'patch_size': 8, 'network': 'unet'},
    {'family': 'gaussian', 'rank': 3}])
def test_a_method_of_each_kind(settings):
  method = mbm.build(num_components=K, filters=(16, 16), prior_width=8,
                     **settings)
  variables = method.init(jax.random.key(0), (16, 16))
  image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
  batch = {'image': image, 'padding_mask': jnp.ones(2)}

  @functools.partial(jax.jit, static_argnums=1)
  def loss(params, train):
    return method.loss(params, {}, batch, keys(2), step=0, train=train)

  gradient, _ = jax.jit(jax.grad(lambda params: loss(params, True),
                                 has_aux=True))(variables['params'])
  assert all(jnp.abs(x).max() > 0 for path, x in
             jax.tree_util.tree_leaves_with_path(gradient)
             # The layer after it is initialized to 0.
             if 'patch_dense' not in jax.tree_util.keystr(path))
  _, aux = loss(variables['params'], False)
  for name in ('best', 'chosen'):
    shares = sum(aux.metrics[f'{name}/{k}'][0] for k in range(K))
    np.testing.assert_allclose(shares, 2, rtol=1e-6)
  lightness = jnp.asarray(image[..., :1] / 2.55, jnp.float32)
  fields = method.draw(variables, grey(lightness), keys(2), 2)
  assert fields.shape == (2, 2, 8, 8, 2)
  proposals, probability = method.propose(variables, grey(lightness), K)
  assert (probability is None) == ('patch_size' in settings)
  assert proposals.shape == (K, 2, 16, 16, 2)
  nats = method.log_prob(
      variables, grey(lightness), jnp.zeros((2, 16, 16, 2)), keys(2))
  assert jnp.isfinite(nats).all()


def test_readouts():
  """Of four components, two are close to each other and one is on top."""
  method = mbm.build(num_components=4, filters=(16,), prior_width=8)
  variables = method.init(jax.random.key(0), (16, 16))
  params = variables['params']
  colors = np.array([[60, 0], [-40, 0], [-40, 5], [-40, -5]])
  bias = scipy.special.logit((colors / 110 + 1) / 2).reshape(-1)
  # A continuous Bernoulli has another mean than its parameter.
  params['components'] = {'kernel': 0 * params['components']['kernel'],
                          'bias': jnp.asarray(bias, jnp.float32)}
  priors = np.array([0.4, 0.2, 0.2, 0.2])
  params['prior'] = {'kernel': 0 * params['prior']['kernel'],
                     'bias': jnp.log(jnp.asarray(priors, jnp.float32))}
  lightness = jnp.full((1, 16, 16, 1), 50.)

  def answer(readout):
    return method.predict(
        {'params': params, 'model_state': {}}, grey(lightness),
        readout=readout)[0, 8, 8]

  proposals, _ = method.propose(
      {'params': params, 'model_state': {}}, grey(lightness), 4)
  top, medoid, mean = map(answer, ('top', 'medoid', 'mean'))
  assert top[0] > 0 > medoid[0]
  assert abs(medoid[1]) < 1, 'the middle one of the three'
  np.testing.assert_allclose(
      mean, (priors[:, None] * proposals[:, 0, 8, 8]).sum(0), atol=0.1)


@pytest.mark.parametrize(('settings', 'message'), [
    ({'patch_size': 3}, 'patch_size=3: choose a multiple of 2'),
    ({'patch_size': 2, 'network': 'published'}, 'network=published has none'),
    ({'rank': 2}, 'rank=2: use 0, or a number above 0 with family=gaussian'),
    ({'rank': 2, 'family': 'gaussian', 'patch_size': 2}, 'rank=2: use 0')])
def test_settings_that_do_not_fit_together(settings, message):
  with pytest.raises(UserError, match=message):
    mbm.build(num_components=2, filters=(16,), **settings)
