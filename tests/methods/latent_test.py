"""The latent-variable model: the contract, the loss, sampling, proposals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from asking import batch_of, compiled, grey, grey_inputs, hinted, keys, lab_of
from method_checks import (
    check_export,
    check_gradients,
    check_influence,
    check_inputs,
    check_known_values,
    check_owners,
    check_padding,
)

from colorjax import color
from colorjax import keys as key_lib
from colorjax.errors import UserError
from colorjax.methods import known, latent
from colorjax.models import latent as model
from colorjax.models import trunk

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SMALL = {'filters': (16,), 'width': 16, 'num_components': 3,
         'latent_size': 4, 'latent_strides': (2,), 'latent_channels': 2}
SIZE = 16


@functools.cache
def _method(**settings):
  """A colorizer and random variables; some layers are initialized to 0."""
  colorizer = latent.build(**{**SMALL, **settings})
  variables = jax.jit(colorizer.init, static_argnums=1)(
      jax.random.key(0), (SIZE, SIZE))
  numbers = iter(jax.random.split(jax.random.key(7), 99))
  return colorizer, {**variables, 'params': jax.tree.map(
      lambda x: x + 0.2 * jax.random.normal(next(numbers), x.shape),
      variables['params'])}


@functools.cache
def _asked(**options):
  return _method()[0].ask(**options)


class TestContract:

  def test_samples_proposals_and_predictions(self):
    colorizer, variables = _method()
    inputs = hinted()
    samples = compiled(colorizer.sample, n=2)(variables, inputs, keys(3))
    assert samples.shape == (2, 3, SIZE, SIZE, 2)
    assert jnp.abs(samples[0] - samples[1]).max() > 1
    fewer = compiled(colorizer.sample, n=1)(variables, inputs, keys(3))
    np.testing.assert_allclose(fewer[0], samples[0], atol=1e-3)
    proposals, weights = compiled(colorizer.propose, k=3)(variables, inputs)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
    assert (weights[:-1] >= weights[1:]).all()
    predicted = compiled(colorizer.predict)(variables, inputs)
    np.testing.assert_allclose(predicted, proposals[0], atol=1e-3)
    for i, j in ((0, 1), (0, 2), (1, 2)):
      assert jnp.abs(proposals[i] - proposals[j]).max() > 1
    assert colorizer.max_proposals == 3
    assert colorizer.density_kind((SIZE, SIZE)) == 'lower_bound'
    assert colorizer.event_shape((SIZE, SIZE)) == (8, 8)

  def test_samples_belong_to_the_photograph(self):
    colorizer, variables = _method()
    for function in (colorizer.sample, _asked(pixel_noise=True).sample,
                     colorizer.draw):
      check_owners(compiled(function, n=2), variables)

  def test_a_batch_of_any_size_can_be_exported(self):
    colorizer, variables = _method()
    check_export(colorizer.predict, variables)

  def test_options_of_all_functions(self):
    assert latent.build(**SMALL).options == {
        'temperature': 1.0, 'pixel_noise': False, 'importance_samples': 16}

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'family': 'bernoulli'}, 'family=bernoulli: choose one of discretized'),
      ({'network': 'vit'}, 'network=vit: choose one of unet'),
      ({'hint_share': 1.5}, 'hint_share=1.5: choose a share'),
      ({'num_components': 0}, 'num_components=0: use at least 1'),
      ({'latent_size': 0}, 'latent_size=0: use at least 1'),
      ({'width': 24}, 'width=24: use a multiple of 16'),
      ({'free_bits': -1.0}, 'free_bits=-1.0: use at least 0'),
      ({'kl_warmup_steps': -2}, 'kl_warmup_steps=-2: use at least 0'),
      ({'latent_strides': (4, 4)}, 'latent_strides=4, 4: give each'),
      ({'filters': (24,)}, 'filters=24')])
  def test_wrong_settings_are_named(self, settings, message):
    with pytest.raises(UserError, match=message):
      latent.build(**{**SMALL, **settings})

  def test_wrong_uses_are_named(self):
    colorizer, variables = _method()
    with pytest.raises(UserError, match=r'image_size=17 x 16: .* by 2'):
      colorizer.init(jax.random.key(0), (17, 16))
    with pytest.raises(UserError, match=r'image_size=16 x 17: .* by 2'):
      colorizer.predict(variables, grey(jnp.zeros((1, 16, 17, 1))))
    with pytest.raises(UserError, match=r'4 proposals .* 3 components'):
      colorizer.propose(variables, grey_inputs(), 4)
    with pytest.raises(UserError, match='temperature=-1: use at least 0'):
      _asked(temperature=-1).sample(variables, grey_inputs(), keys(3), 1)
    with pytest.raises(UserError, match='importance_samples=0'):
      colorizer.ask(importance_samples=0).log_prob(
          variables, grey_inputs(), jnp.zeros((3, SIZE, SIZE, 2)), keys(3))

  def test_inputs_are_accepted_only_if_they_were_in_training(self):
    check_inputs(functools.partial(latent.build, **SMALL))


@functools.cache
def _network():
  """The network of `_method` as a plain function of its inputs."""
  net = model.TrunkLatent(
      trunk.build('unet', (16,), jnp.float32), 3, 4, (2,), 2, width=16)
  return jax.jit(functools.partial(net.apply, train=False))


class TestLoss:

  def _found(self, train, batch, step=0, **settings):
    colorizer, variables = _method(**settings)
    scalar, aux = compiled(colorizer.loss, train=train)(
        variables['params'], variables['model_state'], batch,
        keys(len(batch['image'])), step=step if train else None)
    means = {name: float(total / count)
             for name, (total, count) in aux.metrics.items()}
    assert means['loss'] == pytest.approx(float(scalar), rel=1e-5)
    return means

  def _expected(self, batch, hint_share=0.0, region_share=0.0):
    """Nats of the pixels, KL by level, number of unknown values, [B] each."""
    _, variables = _method()
    drawn = keys(len(batch['image']))
    lightness, ab = lab_of(batch)
    field, given = known.draw(
        drawn, jnp.asarray(ab), None, stride=2, hint_share=hint_share,
        region_share=region_share)
    noise = [jnp.stack([jax.random.normal(key, shape) for key in
                        key_lib.named(drawn, name)]) for name, shape in (
                            ('kl/vector', (4,)), ('kl/stride2', (8, 8, 2)))]
    out = _network()(
        variables, field / 20, lightness / 50 - 1, jnp.concatenate(
            [given.ab / 20, given.mask, given.region], -1), noise)
    # Logistic masses of 256 bins in [-110, 110].
    loc, scale = (np.asarray(x, np.float64) for x in out.params)
    loc = scipy.special.expit(loc)
    # The scale is 0.001 or more, and 0.05 at 0.
    scale = 1e-3 * (1 + 49 * np.exp(scale))
    low = np.floor((np.asarray(field) / 220 + 0.5) * 256) / 256
    upper, lower = (low + 1 / 256 - loc) / scale, (low - loc) / scale
    nats = (scipy.special.log_expit(upper) + scipy.special.log_expit(-lower)
            + np.log1p(-np.exp(lower - upper)) - np.log(220 / 256))
    free = 1 - np.asarray(given.mask)
    return ((free * nats).sum((1, 2, 3)), np.asarray(out.kl),
            2 * free.sum((1, 2, 3)))

  def test_held_out_loss_equals_the_formula(self):
    """No hints and no regions, and the whole KL divergence."""
    batch = batch_of(6)
    nats, kl, dims = self._expected(batch)
    np.testing.assert_array_equal(dims, 128)
    found = self._found(False, batch, free_bits=50.0, kl_warmup_steps=9)
    assert found == {
        'loss': pytest.approx((kl.sum(1) - nats).mean() / 128, rel=1e-4),
        'error': pytest.approx(-nats.mean() / 128, rel=1e-4),
        'kl': pytest.approx(kl.sum(1).mean(), rel=1e-4),
        'kl/vector': pytest.approx(kl[:, 0].mean(), rel=1e-4),
        'kl/stride2': pytest.approx(kl[:, 1].mean(), rel=1e-4)}

  def test_training_loss_with_known_values_equals_the_formula(self):
    shares = {'hint_share': 0.9, 'region_share': 0.5}
    batch = batch_of(6)
    nats, kl, dims = self._expected(batch, **shares)
    assert 0.1 < (1 - dims / 128).mean() < 0.9
    assert self._found(True, batch, **shares)['loss'] == pytest.approx(
        ((kl.sum(1) - nats) / dims).mean(), rel=1e-4)

  def test_warmup_and_free_bits(self):
    """The weight rises; a level below the free nats counts as these."""
    shares = {'hint_share': 0.0, 'region_share': 0.0}
    batch = batch_of(6)
    nats, kl, _ = self._expected(batch)
    free = float(np.median(kl))
    assert (kl[:, 0] < free).any() or (kl[:, 1] < free).any()
    for step, weight in ((0, 0), (3, 0.75), (9, 1)):
      assert self._found(
          True, batch, step=step, kl_warmup_steps=4, free_bits=free, **shares)[
              'loss'] == pytest.approx(
                  (weight * np.maximum(kl, free).sum(1) - nats).mean() / 128,
                  rel=1e-4)

  def test_padding_does_not_change_the_loss(self):
    check_padding(*_method(hint_share=0.9, region_share=0.5))

  def test_gradients_reach_every_parameter(self):
    check_gradients(*_method())


class TestSampling:

  def test_cold_samples_are_proposals(self):
    """Each of one component, as often as its probability says."""
    colorizer, variables = _method()
    inputs = hinted()
    proposals, weights = compiled(colorizer.propose, k=3)(variables, inputs)
    samples = compiled(_asked(temperature=0.0).sample, n=100)(
        variables, inputs, keys(3))
    distance = jnp.abs(samples[:, None] - proposals).max((3, 4, 5))
    np.testing.assert_allclose(distance.min(1), 0, atol=1e-2)
    share = (distance.argmin(1)[:, None] == jnp.arange(3)[:, None]).mean(0)
    np.testing.assert_allclose(share, weights, atol=0.2)
    np.testing.assert_allclose(share.mean(1), weights.mean(1), atol=0.1)
    assert (share > 0).sum() > 3

  def test_pixel_noise_is_that_of_the_density(self):
    colorizer, variables = _method()
    smooth, noisy = (compiled(function, n=2)(variables, hinted(), keys(3))
                     for function in (colorizer.sample,
                                      _asked(pixel_noise=True).sample))
    assert jnp.abs(noisy - smooth).mean() > 1

  @pytest.mark.parametrize('options', [{}, {'pixel_noise': True}])
  def test_hints_are_met_exactly_and_the_outside_is_grey(self, options):
    colorizer, variables = _method()
    inputs = hinted()
    colorings = jnp.concatenate([
        compiled(_asked(**options).sample, n=2)(variables, inputs, keys(3)),
        compiled(colorizer.propose, k=3)(variables, inputs)[0]])
    fields = compiled(colorizer.draw, n=2)(variables, inputs, keys(3))
    check_known_values(inputs, colorings, fields)

  def test_known_values_influence_the_others(self):
    colorizer, variables = _method()
    check_influence(compiled(colorizer.sample, n=2), variables)

  def test_draws_fill_the_bins(self):
    """Bins have a width of 220 / 256, in which the density is uniform."""
    colorizer, variables = _method()
    draws = compiled(colorizer.draw, n=2)(variables, hinted(), keys(3))
    assert draws.shape == (2, 3, 8, 8, 2)
    free = draws[:, :, 2:4]  # without hints, and inside the region
    places = np.sort(np.asarray(
        color.ab_to_unit(free) * 256 % 1).ravel().astype(np.float64))
    assert np.abs(places - np.linspace(0, 1, len(places))).max() < 0.12
