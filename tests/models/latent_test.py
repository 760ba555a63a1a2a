"""The networks of the latent-variable model: inputs, latents, divergences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from colorjax.errors import UserError
from colorjax.models import latent, trunk

pytestmark = pytest.mark.usefixtures('compiles_quickly')


def _net(**settings):
  return latent.TrunkLatent(**{
      'trunk': trunk.build('unet', (16, 16), jnp.float32), 'num_components': 3,
      'latent_size': 4, 'latent_strides': (4, 2), 'latent_channels': 2,
      'width': 16, **settings})


@pytest.fixture(scope='module')
def problem():
  """A network with random parameters, compiled, and its inputs."""
  net = _net()
  numbers = iter(jax.random.split(jax.random.key(0), 9))
  shapes = net.noise_shapes(8, 8)
  assert shapes == [(4,), (2, 2, 2), (4, 4, 2)]
  inputs = {'field': jax.random.normal(next(numbers), (3, 4, 4, 2)),
            'lightness': jax.random.normal(next(numbers), (3, 8, 8, 1)),
            'known': jax.random.normal(next(numbers), (3, 4, 4, 4)),
            'noise': [jax.random.normal(next(numbers), (3, *shape))
                      for shape in shapes]}
  initial = jax.jit(lambda key: net.init(key, **inputs, train=False))(
      next(numbers))
  # Some layers are initialized to 0.
  moved = jax.tree.map(
      lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape),
      initial)
  apply = jax.jit(lambda v, inputs: net.apply(v, **inputs, train=False))
  return apply, initial, moved, inputs


def test_every_input_matters_to_its_own_photograph(problem):
  apply, _, moved, inputs = problem
  before = apply(moved, inputs)
  assert [x.shape for x in before.params] == [(3, 4, 4, 2)] * 2
  assert before.kl.shape == (3, 3)
  assert before.log_ratio.shape == (3,)
  changes = [(name, {**inputs, name: inputs[name].at[0].set(0.25)})
             for name in ('field', 'lightness', 'known')]
  for i, x in enumerate(inputs['noise']):
    noise = list(inputs['noise'])
    noise[i] = x.at[0].set(-x[0])
    changes.append((f'noise {i}', {**inputs, 'noise': noise}))
  for name, other in changes:
    after = apply(moved, other)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before),
                    strict=True):
      change = jnp.abs(x - y).reshape(3, -1).max(1)
      np.testing.assert_allclose(change[1:], 0, atol=1e-4, err_msg=name)
    assert jnp.abs(after.params[0] - before.params[0])[0].max() > 1e-3, name


def test_at_first_grids_cost_nothing_and_components_differ(problem):
  apply, initial, _, inputs = problem
  first = apply(initial, inputs)
  np.testing.assert_allclose(first.kl[:, 1:], 0, atol=1e-6)
  np.testing.assert_allclose(first.kl[:, 0], -first.log_ratio, atol=1e-5)
  centers = initial['params']['prior_head']['centers']
  assert jnp.abs(centers[0] - centers[1]).max() > 0.1


def test_what_is_decoded_from_the_prior_knows_no_colors(problem):
  _, _, moved, inputs = problem
  net = _net()

  @jax.jit
  def generate(v, inputs, temperature):
    scales = net.apply(v, inputs['lightness'], inputs['known'], train=False,
                       method='look')
    prior = net.apply(v, scales, method='prior')
    return net.apply(v, scales, prior.components.mean[:, 0],
                     inputs['noise'][1:], None, temperature, train=False,
                     method='generate')

  found = generate(moved, inputs, 1.0)
  np.testing.assert_array_equal(found.log_ratio, 0)
  assert found.kl.shape == (3, 0)
  # Without temperature the noise is not seen.
  cold = generate(moved, inputs, 0.0)
  none = {**inputs, 'noise': [0 * x for x in inputs['noise']]}
  np.testing.assert_allclose(
      cold.params[0], generate(moved, none, 1.0).params[0], atol=1e-5)
  assert jnp.abs(found.params[0] - cold.params[0]).max() > 1e-2


def test_gaussians_agree_with_scipy():
  rng = np.random.default_rng(0)
  mean, scale = rng.normal(size=(2, 3, 5)), rng.uniform(0.3, 3, (2, 3, 5))
  one, other = (latent.Normal(jnp.asarray(m), jnp.log(s))
                for m, s in zip(mean, scale, strict=True))
  x = rng.normal(size=(3, 5))
  np.testing.assert_allclose(
      one.log_prob(x), scipy.stats.norm.logpdf(x, mean[0], scale[0]),
      rtol=1e-5)
  np.testing.assert_allclose(one.at(x, 0.5), mean[0] + 0.5 * scale[0] * x,
                             rtol=1e-5)
  # KL by quadrature.
  z = np.linspace(-40, 40, 20001)[:, None, None]
  p, q = (scipy.stats.norm.logpdf(z, mean[i], scale[i]) for i in (0, 1))
  np.testing.assert_allclose(
      one.kl_from(other), (np.exp(p) * (p - q)).sum(0) * (z[1] - z[0]),
      rtol=1e-4)


def test_the_prior_is_a_mixture():
  rng = np.random.default_rng(1)
  logits, mean = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 4))
  scale, z = rng.uniform(0.3, 3, (2, 3, 4)), rng.normal(size=(2, 4))
  prior = latent.Prior(jnp.asarray(logits),
                       latent.Normal(jnp.asarray(mean), jnp.log(scale)))
  density = scipy.stats.norm.pdf(z[:, None], mean, scale).prod(-1)
  expected = np.log((scipy.special.softmax(logits, -1) * density).sum(-1))
  np.testing.assert_allclose(prior.log_prob(jnp.asarray(z)), expected,
                             rtol=1e-5)


def test_a_stride_without_features_is_named(problem):
  _, _, _, inputs = problem
  net = _net(latent_strides=(8,))
  with pytest.raises(UserError, match=r'latent_strides=8: .* strides 2, 4'):
    jax.eval_shape(lambda: net.init(
        jax.random.key(0), **{**inputs, 'noise': inputs['noise'][:2]},
        train=False))
