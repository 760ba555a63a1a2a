"""The classification method: the contract, losses, densities and samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import skimage.color
from asking import grey, keys

from colorjax import quantize
from colorjax.errors import UserError
from colorjax.methods import classification

pytestmark = pytest.mark.usefixtures('compiles_quickly')

KEYS = jax.random.split(jax.random.key(0), 4)

BINS = [[a, b] for a in range(-20, 21, 10) for b in range(-20, 21, 10)]
SMALL = {'bins': BINS, 'network': 'unet', 'filters': (16, 32)}
PRIOR = (np.arange(1, 26) / 325).tolist()


def _batch(n=4, size=16):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
  image = image.repeat(size // 4, 1).repeat(size // 4, 2)
  # Shifted by a pixel, so that averaging over blocks mixes colors.
  image = np.roll(image, 1, axis=(1, 2))
  return {'image': jnp.asarray(image), 'padding_mask': jnp.ones(n)}


def _lab(batch):
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.asarray(lab[..., :1], jnp.float32), lab[..., 1:]


def _init(method, size=16):
  return jax.jit(method.init, static_argnums=1)(jax.random.key(0), (size, size))


def _logits(variables, lightness):
  net, _, _ = classification._network(
      'unet', num_bins=25, filters=(16, 32), dtype=jnp.float32)
  return np.asarray(net.apply(variables, lightness / 50 - 1, train=False),
                    np.float64)


@pytest.fixture(scope='module')
def small():
  """A method, variables that give varied predictions, and a batch."""
  method = classification.build(**SMALL)
  variables = _init(method)
  params = variables['params']
  params['bins']['kernel'] = params['bins']['kernel'] * 5
  return method, variables, _batch()


@pytest.mark.parametrize('network', ['published', 'unet'])
def test_contract(network):
  filters = {'published': (4, 4, 8, 8), 'unet': (16, 32)}[network]
  stride = {'published': 4, 'unet': 2}[network]
  method = classification.build(network=network, filters=filters)
  variables, batch = _init(method), _batch()
  lightness, ab = _lab(batch)

  @jax.jit
  def run(variables, lightness, ab):
    return (method.predict(variables, grey(lightness)),
            method.propose(variables, grey(lightness), 1),
            method.sample(variables, grey(lightness),
                          keys(len(lightness), 1), 2),
            method.log_prob(variables, grey(lightness), ab, None))

  predicted, (proposals, weights), samples, nats = run(
      variables, lightness, jnp.asarray(ab))
  assert predicted.shape == (4, 16, 16, 2)
  np.testing.assert_array_equal(proposals[0], predicted)
  assert weights is None
  assert method.num_proposals(8) == 1
  assert samples.shape == (2, 4, 16, 16, 2)
  assert (samples[0] != samples[1]).any()
  assert jnp.abs(samples).max() <= 110
  assert method.event_shape((16, 24)) == (16 // stride, 24 // stride)
  # An untrained network gives all 313 squares about the same probability.
  bits = -nats / np.prod(method.event_shape((16, 16))) / 2 / np.log(2)
  np.testing.assert_allclose(bits, np.log2(31300) / 2, atol=1)
  for train in (True, False):
    scalar, aux = jax.jit(method.loss, static_argnames='train')(
        variables['params'], variables['model_state'], batch, KEYS,
        step=0, train=train)
    assert np.isfinite(scalar)
    assert aux.metrics['loss'][1] == 4
    moved = [bool((a != b).any()) for a, b in zip(
        jax.tree.leaves(aux.model_state),
        jax.tree.leaves(variables['model_state']), strict=True)]
    assert moved == [train] * (7 if network == 'published' else 0) * 2


@pytest.mark.parametrize('rebalance', [None, 0.3])
def test_losses_equal_the_formulas_of_the_paper(small, rebalance):
  """In float64 with dense targets, and without a neighbor search."""
  _, variables, batch = small
  method = classification.build(**SMALL, prior=PRIOR, rebalance=rebalance)
  lightness, ab = _lab(batch)
  ab = ab.reshape(4, 8, 2, 8, 2, 2).mean((2, 4))
  squared = np.square(ab[..., None, :] - np.asarray(BINS)).sum(-1)
  target = np.exp(-squared / 50)
  target[squared > np.sort(squared, -1)[..., 4:5]] = 0
  target /= target.sum(-1, keepdims=True)
  log_p = scipy.special.log_softmax(_logits(variables, lightness), -1)
  nats = -(target * log_p).sum(-1)
  weight = np.ones(25)
  if rebalance:
    weight = 1 / (0.7 * np.asarray(PRIOR) + 0.3 / 25)
    weight /= weight @ PRIOR
  expected = {'loss': (weight[target.argmax(-1)] * nats).mean(),
              'loss_unweighted': nats.mean(),
              'accuracy': (log_p.argmax(-1) == target.argmax(-1)).mean()}
  scalar, aux = method.loss(variables['params'], {}, batch, KEYS,
                            step=None, train=False)
  found = {name: float(total / count)
           for name, (total, count) in aux.metrics.items()}
  np.testing.assert_allclose(scalar, expected['loss'], rtol=1e-4)
  assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(('readout', 'power'), [
    ('mean', 1), ('annealed_mean', 4), ('mode', np.inf)])
def test_readouts(small, readout, power):
  """On constant lightness, upsampling does not change the corner pixels."""
  _, variables, _ = small
  method = classification.build(**SMALL).ask(
      readout=readout, temperature=0.25)
  lightness = jnp.full((1, 16, 16, 1), 40.)
  p = scipy.special.softmax(_logits(variables, lightness), -1)
  p = p == p.max(-1, keepdims=True) if power == np.inf else p**power
  expected = p / p.sum(-1, keepdims=True) @ np.asarray(BINS)
  found = method.predict(variables, grey(lightness))
  # Corner pixels are not interpolated.
  np.testing.assert_allclose(found[:, ::15, ::15], expected[:, ::7, ::7],
                             atol=1e-3)


def test_log_prob_is_a_density_in_lab_units(small):
  """Probability of a pixel's square, from the softmax, divided by its area."""
  method, variables, batch = small
  lightness, ab = _lab(batch)
  ab = np.clip(ab, -24, 24)  # inside the bins
  log_p = scipy.special.log_softmax(_logits(variables, lightness), -1)
  field = ab.reshape(4, 8, 2, 8, 2, 2).mean((2, 4))
  bins = np.rint(field / 10) @ [5, 1] + 12
  log_p = np.take_along_axis(log_p, bins[..., None].astype(int), -1)
  expected = np.log(0.999 * np.exp(log_p) / 100 + 0.001 / 220**2)
  found = method.log_prob(variables, grey(lightness), jnp.asarray(ab),
                          None)
  np.testing.assert_allclose(found, expected.sum((1, 2, 3)), rtol=1e-4)


def test_draws_follow_the_density(small):
  """Their mean log density is minus the entropy, which has a closed form."""
  method, variables, _ = small
  lightness = jnp.full((1, 8, 8, 1), 40.)
  log_p = scipy.special.log_softmax(_logits(variables, lightness), -1)
  entropy = -(np.exp(log_p) * (log_p - np.log(100))).sum()
  draws = jax.jit(lambda keys: method.draw(
      variables, grey(lightness), keys, 500))(keys(1))
  assert draws.shape == (500, 1, 4, 4, 2)
  found = jax.vmap(lambda ab: method.log_prob(
      variables, grey(lightness), ab.repeat(2, 1).repeat(2, 2),
      None))(draws)
  # The share of 0.001 that is spread over the ab square adds 0.15 per pixel.
  np.testing.assert_allclose(-found.mean(), entropy, rtol=2e-2)


@pytest.mark.parametrize('sampling', classification.SAMPLINGS)
def test_each_pixel_of_a_sample_has_its_distribution(small, sampling):
  _, variables, _ = small
  method = classification.build(**SMALL).ask(sampling=sampling)
  lightness = jnp.full((1, 8, 8, 1), 40.)  # constant: no edges
  samples = np.asarray(jax.jit(lambda keys: method.sample(
      variables, grey(lightness), keys, 3000))(keys(1)))
  # The corner pixel is not interpolated.
  corner = (np.rint(samples[:, 0, 0, 0] / 10) @ [5, 1] + 12).astype(int)
  p = scipy.special.softmax(_logits(variables, lightness), -1)
  share = np.bincount(corner, minlength=25) / 3000
  np.testing.assert_allclose(share, p[0, 0, 0], atol=0.04)
  # Independent corners agree by chance only; corners that share their noise
  # agree about as often as their distributions.
  other = (np.rint(samples[:, 0, 0, -1] / 10) @ [5, 1] + 12).astype(int)
  agreement = (corner == other).mean()
  chance = (p[0, 0, 0] * p[0, 0, -1]).sum()
  if sampling == 'independent':
    assert abs(agreement - chance) < 0.03
  else:
    assert agreement > chance + 0.2


def test_padding_does_not_change_the_loss(small):
  method, variables, batch = small
  half = {name: value[:2] for name, value in batch.items()}
  padded = batch | {'padding_mask': jnp.asarray([1., 1., 0., 0.])}
  expected, _ = method.loss(variables['params'], {}, half, KEYS,
      step=None, train=False)
  found, _ = method.loss(variables['params'], {}, padded, KEYS,
      step=None, train=False)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_few_steps_bring_the_loss_down(small):
  method, variables, batch = small

  @jax.jit
  def step(params):
    value, gradient = jax.value_and_grad(lambda p: method.loss(
        p, {}, batch, KEYS, step=0, train=True)[0])(params)
    return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

  params, values = variables['params'], []
  for _ in range(20):
    value, params = step(params)
    values.append(float(value))
  assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize(('settings', 'message'), [
    ({'network': 'resnet'}, 'network=resnet: choose one of published, unet'),
    ({'filters': (16, 24)}, 'filters=24: channels of the U-Net must be'),
    ({'network': 'published'}, r'filters=\[16, 32\]: the published'),
    ({'num_neighbors': 26}, 'num_neighbors=26: must be 1 to 25'),
    ({'bins': [[0, 3]]}, 'bins: bins must lie at multiples of 10'),
    ({'rebalance': 0.5}, 'rebalance=0.5: also give the prior'),
    ({'rebalance': 0.5, 'prior': PRIOR[1:]}, 'has 24 bins instead of 25'),
    ({'rebalance': 2., 'prior': PRIOR}, r'rebalance=2.0: lambda')])
def test_invalid_settings_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    classification.build(**SMALL | settings)


@pytest.mark.parametrize(('options', 'message'), [
    ({'readout': 'median'}, 'readout=median: choose one of'),
    ({'sampling': 'none'}, 'sampling=none: choose one of'),
    ({'temperature': -1.}, 'temperature=-1.0: must be above 0')])
def test_invalid_options_are_refused(small, options, message):
  method, variables, _ = small
  method = method.ask(**options)
  inputs = grey(jnp.full((1, 8, 8, 1), 40.))
  run = (functools.partial(method.sample, keys=keys(1), n=1)
         if 'sampling' in options else method.predict)
  with pytest.raises(UserError, match=message):
    run(variables, inputs)


def test_published_bins_are_the_default():
  method = classification.build(filters=(4, 4, 8, 8))
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), (16, 16)))
  assert shapes['params']['bins']['bias'].shape == (313,)
  assert len(quantize.published_bins()) == 313
  with pytest.raises(UserError, match=r'image_size=20 x 16: .* divisible by 8'):
    method.init(jax.random.key(0), (20, 16))
