"""Autoregressive symbols: the contract, known values and losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from asking import batch_of, compiled, grey, grey_inputs, hinted, keys, lab_of
from method_checks import (
    block_means,
    check_export,
    check_gradients,
    check_influence,
    check_inputs,
    check_known_values,
    check_owners,
    check_padding,
    known_of,
)
from small_autoregressive import (
    SIZE,
    SMALL,
    TINY,
    log_prob_of,
    method,
    net_of,
    parts,
)

from colorjax.errors import UserError
from colorjax.methods import autoregressive, known

pytestmark = pytest.mark.usefixtures('compiles_quickly')


class TestContract:

  def test_samples(self):
    colorizer, variables = method()
    inputs = grey_inputs()
    samples = compiled(colorizer.sample, n=3)(variables, inputs, keys(3))
    assert samples.shape == (3, 3, SIZE, SIZE, 2)
    assert jnp.abs(samples[0] - samples[1]).max() > 1
    fewer = compiled(colorizer.sample, n=1)(variables, inputs, keys(3))
    np.testing.assert_allclose(fewer[0], samples[0], atol=1e-3)
    draws = jax.eval_shape(functools.partial(colorizer.draw, n=2), variables,
                           inputs, keys(3))
    assert draws.shape == (2, 3, 8, 8, 2)
    assert colorizer.event_shape((SIZE, SIZE)) == (8, 8)
    assert colorizer.density_kind((SIZE, SIZE)) == 'lower_bound'

  def test_predictions_and_proposals_are_samples_with_equal_keys(self):
    colorizer, variables = method(4, **TINY)
    inputs = grey(jnp.full((6, 4, 4, 1), 40.))
    asked = colorizer.ask(predict_temperature=0.05, temperature=20.0)

    @jax.jit
    def run(variables):
      equal = jnp.broadcast_to(jax.random.key(0), 6)
      return (asked.predict(variables, inputs),
              asked.propose(variables, inputs, 2),
              *(colorizer.sample(variables, inputs, equal, n, temperature=t)
                for n, t in ((1, 0.05), (2, 20.0))))

    predicted, (proposals, weights), cold, hot = run(variables)
    np.testing.assert_allclose(predicted, cold[0], atol=1e-3)
    np.testing.assert_allclose(proposals, hot, atol=1e-3)
    assert weights is None
    assert jnp.abs(cold[0] - hot[0]).max() > 1
    np.testing.assert_allclose(predicted[0], predicted[5], atol=1e-3)
    assert colorizer.options == {
        'temperature': 0.8, 'predict_temperature': 0.5}

  def test_samples_belong_to_the_photograph(self):
    colorizer, variables = method()
    check_owners(compiled(colorizer.sample, n=2), variables)

  def test_a_batch_of_any_size_can_be_exported(self):
    colorizer, variables = method(4, **TINY)
    check_export(colorizer.predict, variables, 4)

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'network': 'vit'}, 'network=vit: choose one of unet'),
      ({'hint_share': 1.5}, 'hint_share=1.5: choose a share'),
      ({'symbol_stride': 3}, 'symbol_stride=3: choose a multiple of 2'),
      ({'symbol_stride': 0}, 'symbol_stride=0: choose a multiple of 2'),
      ({'bin_spacing': 15}, 'bin_spacing=15: choose a multiple of 10'),
      ({'bin_spacing': 120}, 'bin_spacing=120: .* at most 110'),
      ({'width': 18, 'num_heads': 4}, 'width=18: .*num_heads=4'),
      ({'symbol_weight': -1.0}, 'symbol_weight=-1.0: use at least 0'),
      ({'depth': 0}, 'depth=0: use at least 1'),
      ({'upsampler_width': 24}, 'upsampler_width=24: choose a multiple of 16'),
      ({'filters': (24,)}, 'filters=24')])
  def test_wrong_settings_are_named(self, settings, message):
    with pytest.raises(UserError, match=message):
      autoregressive.build(**{**SMALL, **settings})

  def test_wrong_temperatures_are_named(self):
    colorizer, variables = method()
    inputs = grey_inputs()
    with pytest.raises(UserError, match=r'^temperature=-1: use at least 0'):
      colorizer.ask(temperature=-1).propose(variables, inputs, 2)
    with pytest.raises(UserError, match=r'^predict_temperature=-1: use at'):
      colorizer.ask(predict_temperature=-1).predict(variables, inputs)

  def test_wrong_sizes_are_refused(self):
    colorizer, variables = method(symbol_stride=8)
    with pytest.raises(UserError, match=r'image_size=20 x 16: .* by 8'):
      colorizer.init(jax.random.key(0), (20, 16))
    for side in (20, 17):
      with pytest.raises(UserError, match=rf'image_size=16 x {side}: .* by 8'):
        colorizer.predict(variables, grey(jnp.zeros((1, 16, side, 1))))

  def test_inputs_are_accepted_only_if_they_were_in_training(self):
    check_inputs(functools.partial(autoregressive.build, **SMALL))


def _is_free(mask):
  """Which symbols [n, m] have an unknown value in their block."""
  return block_means(1 - mask, np.ones_like(mask))[0][..., 0] > 0


class TestKnownValues:

  def test_colorings_have_the_known_values(self):
    colorizer, variables = method()
    inputs = hinted()
    samples = compiled(colorizer.sample, n=2)(variables, inputs, keys(3))
    fields = compiled(colorizer.draw, n=2)(variables, inputs, keys(3))
    check_known_values(inputs, samples, fields)

  def test_known_values_influence_the_others(self):
    colorizer, variables = method()
    check_influence(compiled(colorizer.sample, n=2), variables)

  def test_the_bound_is_that_of_the_unknown_values(self):
    colorizer, variables = method()
    net, bins = net_of(10, 2)
    inputs = hinted()
    ab = jax.random.uniform(jax.random.key(5), (3, SIZE, SIZE, 2),
                            minval=-60., maxval=60.)
    given = known_of(inputs)
    field = np.where(given.mask > 0, given.ab,
                     block_means(ab, inputs['region'])[0])
    coarse = block_means(field, given.region)[0]
    symbols = np.square(coarse[..., None, :] - bins).sum(-1).argmin(-1)
    is_free = _is_free(given.mask)
    assert is_free[0].sum() == 15  # one block is hinted, none is outside
    log_probs, location, scale = parts(
        net, variables, inputs['lightness'], known.Known(
            *(jnp.asarray(x, jnp.float32) for x in given)),
        jnp.asarray(symbols))
    values = scipy.stats.logistic.logpdf(field, location, scale)
    expected = ((log_prob_of(log_probs, symbols) * is_free).sum((1, 2))
                + (values * (1 - given.mask)).sum((1, 2, 3)))
    found = compiled(colorizer.log_prob)(variables, inputs, ab, keys(3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)

  def test_the_bound_is_zero_if_all_is_known(self):
    colorizer, variables = method()
    inputs = {**grey_inputs(), 'hint_mask': jnp.ones((3, SIZE, SIZE, 1)),
              'hint_ab': jnp.full((3, SIZE, SIZE, 2), 7.)}
    found = compiled(colorizer.log_prob)(
        variables, inputs, inputs['hint_ab'], keys(3))
    np.testing.assert_array_equal(found, np.zeros(3))


class TestLoss:

  def _found(self, train, batch, **settings):
    colorizer, variables = method(**settings)
    scalar, aux = compiled(
        colorizer.loss, step=0 if train else None, train=train)(
            variables['params'], variables['model_state'], batch,
            keys(len(batch['image'])))
    means = {name: float(total / count)
             for name, (total, count) in aux.metrics.items()}
    assert means['loss'] == pytest.approx(float(scalar), rel=1e-5)
    return means

  @pytest.mark.parametrize('train', [False, True])
  def test_it_equals_the_formula(self, train):
    """On held-out photographs nothing is known."""
    settings = {'hint_share': 0.9, 'region_share': 0.5, 'symbol_weight': 0.7,
                'upsampler_weight': 0.4}
    _, variables = method(**settings)
    net, bins = net_of(10, 2)
    batch = batch_of(6)
    lightness, ab = lab_of(batch)
    field, given = known.draw(
        keys(6), jnp.asarray(ab), None, stride=2, hint_share=0.9 * train,
        region_share=0.5 * train)
    mask = np.asarray(given.mask)
    assert (0.1 if train else -1) < mask.mean() < (0.9 if train else 1e-9)
    coarse = block_means(field, given.region)[0]
    symbols = np.square(coarse[..., None, :] - bins).sum(-1).argmin(-1)
    is_free = _is_free(mask)
    log_probs, location, scale = parts(
        net, variables, lightness, given, jnp.asarray(symbols))
    nats = (log_prob_of(log_probs, symbols) * is_free).sum((1, 2))
    values = ((1 - mask) * scipy.stats.logistic.logpdf(
        np.asarray(field), location, scale)).sum((1, 2, 3))
    dims = 2 * (1 - mask).sum((1, 2, 3))
    assert self._found(train, batch, **settings) == {
        'loss': pytest.approx(
            -((0.7 * nats + 0.4 * values) / dims).mean(), rel=1e-4),
        'symbol_bits': pytest.approx(
            -(nats / is_free.sum((1, 2))).mean() / np.log(2), rel=1e-4),
        'upsampler_bits': pytest.approx(
            -(values / dims).mean() / np.log(2), rel=1e-4)}

  def test_a_photograph_whose_colors_are_all_known_has_none(self):
    batch = {**batch_of(), 'region': jnp.zeros((3, SIZE, SIZE, 1))}
    assert self._found(False, batch) == {
        'loss': 0, 'symbol_bits': 0, 'upsampler_bits': 0}

  def test_padding_does_not_change_the_loss(self):
    check_padding(*method())

  def test_gradients_reach_every_parameter(self):
    check_gradients(*method())
