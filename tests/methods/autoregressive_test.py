"""Autoregressive symbols: the contract, known values and losses."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import skimage.color
from asking import grey, keys
from small_autoregressive import (
    SIZE,
    SMALL,
    TINY,
    compiled,
    log_prob_of,
    method,
    net_of,
    parts,
)

from colorjax.errors import UserError
from colorjax.methods import autoregressive, known

pytestmark = pytest.mark.usefixtures('compiles_quickly')


def _batch(n=3, size=SIZE):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (n, size // 4, size // 4, 3), np.uint8)
  return {'image': jnp.asarray(coarse.repeat(4, 1).repeat(4, 2)),
          'padding_mask': jnp.ones(n)}


def _lab(batch):
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.asarray(lab[..., :1], jnp.float32), lab[..., 1:]


def _inputs(n=3):
  return grey(_lab(_batch(n))[0])


def _hints(n=3):
  """Inputs with hints, one of them outside the region.

  The first covers a block of 4 x 4 pixels, the second a part of one.
  """
  hint_mask = jnp.zeros((n, SIZE, SIZE, 1)).at[:, :4, 4:8].set(1).at[
      :, 9, 1:4].set(1).at[:, 14, 14].set(1)
  region = jnp.ones((n, SIZE, SIZE, 1)).at[:, 13:].set(0)
  ab = jax.random.uniform(jax.random.key(4), (n, SIZE, SIZE, 2), minval=-50.,
                          maxval=50.)
  return {**_inputs(n), 'hint_ab': ab * hint_mask, 'hint_mask': hint_mask,
          'region': region}


class TestContract:

  def test_samples(self):
    colorizer, variables = method()
    inputs = _inputs()
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
    inputs = _hints()
    whole = compiled(colorizer.sample, n=2)(variables, inputs, keys(3))
    one = compiled(colorizer.sample, n=2)(
        variables, {name: x[1:2] for name, x in inputs.items()}, keys(3)[1:2])
    np.testing.assert_allclose(one, whole[:, 1:2], atol=1e-3)

  def test_a_batch_of_any_size_can_be_exported(self):
    colorizer, variables = method(4, **TINY)
    lightness = jnp.full((2, 4, 4, 1), 40.)
    predict = jax.jit(lambda x: colorizer.predict(variables, grey(x)))
    sizes = jax.export.symbolic_shape('B, 4, 4, 1')
    exported = jax.export.export(predict)(
        jax.ShapeDtypeStruct(sizes, jnp.float32))
    np.testing.assert_allclose(
        exported.call(lightness), predict(lightness), atol=1e-3)

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'network': 'vit'}, 'network=vit: choose one of unet'),
      ({'hint_share': 1.5}, 'hint_share=1.5: choose a share'),
      ({'symbol_stride': 3}, 'symbol_stride=3: choose a multiple of 2'),
      ({'symbol_stride': 0}, 'symbol_stride=0: choose a multiple of 2'),
      ({'bin_spacing': 15}, 'bin_spacing=15: choose a multiple of 10'),
      ({'bin_spacing': 120}, 'bin_spacing=120: .* at most 110'),
      ({'width': 18, 'num_heads': 4}, 'width=18: .*num_heads=4'),
      ({'depth': 0}, 'depth=0: use at least 1'),
      ({'upsampler_width': 24}, 'upsampler_width=24: choose a multiple of 16'),
      ({'filters': (24,)}, 'filters=24')])
  def test_wrong_settings_are_named(self, settings, message):
    with pytest.raises(UserError, match=message):
      autoregressive.build(**{**SMALL, **settings})

  def test_wrong_temperatures_are_named(self):
    colorizer, variables = method()
    with pytest.raises(UserError, match='temperature=-1: use at least 0'):
      colorizer.ask(temperature=-1).sample(variables, _inputs(), keys(3), 1)

  def test_wrong_sizes_are_refused(self):
    colorizer, variables = method(symbol_stride=8)
    with pytest.raises(UserError, match=r'image_size=20 x 16: .* by 8'):
      colorizer.init(jax.random.key(0), (20, 16))
    with pytest.raises(UserError, match=r'image_size=16 x 20: .* by 8'):
      colorizer.predict(variables, grey(jnp.zeros((1, 16, 20, 1))))

  def test_inputs_are_accepted_only_if_they_were_in_training(self):
    build = functools.partial(autoregressive.build, **SMALL)
    assert build().accepts == {'hint_ab', 'hint_mask', 'region'}
    assert build(hint_share=0.).accepts == {'region'}
    assert build(hint_share=0., region_share=0.).accepts == frozenset()


class TestKnownValues:

  def _field(self, ab, inputs):
    """Means over the pixels of blocks of 2 inside the region, in NumPy."""
    return self._means(ab, inputs['region'])[0]

  @staticmethod
  def _means(values, mask, side=2):
    """Means over the masked pixels of each block, and their shares."""
    def sums(x):
      x = np.asarray(x, np.float64)
      n, height, width, channels = x.shape
      return x.reshape(n, height // side, side, width // side, side,
                       channels).sum((2, 4))

    count = sums(mask)
    return sums(values * np.asarray(mask)) / np.maximum(count, 1), (
        count / side**2)

  @classmethod
  def _free(cls, mask):
    """Which symbols [n, m] have an unknown value in their block."""
    return cls._means(1 - mask, np.ones_like(mask))[0][..., 0] > 0

  def _given(self, inputs):
    """What is known, from the definitions, in NumPy."""
    region = np.asarray(inputs['region'])
    inside = (self._means(region, region)[1] > 0).astype(float)
    hint_ab, share = self._means(
        inputs['hint_ab'], np.asarray(inputs['hint_mask']) * region)
    mask = np.maximum(share > 0, 1 - inside)
    return known.Known(hint_ab, mask, inside)

  def test_colorings_have_the_known_values(self):
    colorizer, variables = method()
    inputs = _hints()
    samples = compiled(colorizer.sample, n=2)(variables, inputs, keys(3))
    hinted = (inputs['hint_mask'] * inputs['region'])[..., 0] > 0
    for sample in samples:
      np.testing.assert_allclose(
          sample[hinted], inputs['hint_ab'][hinted], atol=1e-4)
      assert not np.asarray(sample[:, 13:]).any()
    fields = compiled(colorizer.draw, n=2)(variables, inputs, keys(3))
    given = self._given(inputs)
    is_known = given.mask[..., 0] > 0
    assert 8 < is_known[0].sum() < 32
    np.testing.assert_allclose(
        fields[0][is_known], given.ab[is_known], atol=1e-4)
    assert jnp.abs((fields[0] - fields[1])[~is_known]).min() > 0

  def test_the_bound_is_that_of_the_unknown_values(self):
    colorizer, variables = method()
    net, bins = net_of(10, 2)
    inputs = _hints()
    ab = jax.random.uniform(jax.random.key(5), (3, SIZE, SIZE, 2),
                            minval=-60., maxval=60.)
    given = self._given(inputs)
    field = np.where(given.mask > 0, given.ab, self._field(ab, inputs))
    coarse = self._means(field, given.region)[0]
    symbols = np.square(coarse[..., None, :] - bins).sum(-1).argmin(-1)
    is_free = self._free(given.mask)
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
    inputs = {**_inputs(), 'hint_mask': jnp.ones((3, SIZE, SIZE, 1)),
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
    batch = _batch(6)
    lightness, ab = _lab(batch)
    field, given = known.draw(
        keys(6), jnp.asarray(ab), None, stride=2, hint_share=0.9 * train,
        region_share=0.5 * train)
    mask = np.asarray(given.mask)
    assert (0.1 if train else -1) < mask.mean() < (0.9 if train else 1e-9)
    coarse = TestKnownValues._means(field, given.region)[0]
    symbols = np.square(coarse[..., None, :] - bins).sum(-1).argmin(-1)
    is_free = TestKnownValues._free(mask)
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

  def test_padding_does_not_change_the_loss(self):
    colorizer, variables = method()
    run = compiled(colorizer.loss, step=0, train=True)
    found = []
    for padding in (0, 255):
      batch = {'image': _batch(4)['image'].at[2:].set(padding),
               'padding_mask': jnp.asarray([1., 1., 0., 0.])}
      value, aux = run(variables['params'], {}, batch, keys(4))
      assert int(aux.metrics['loss'][1]) == 2
      found.append(float(value))
    assert found[0] == pytest.approx(found[1], rel=1e-6)

  def test_gradients_reach_every_parameter(self):
    colorizer, variables = method()
    gradient = jax.jit(jax.grad(lambda p: colorizer.loss(
        p, {}, _batch(), keys(3), step=0, train=True)[0]))(
            variables['params'])
    for path, x in jax.tree.leaves_with_path(gradient):
      assert jnp.abs(x).max() > 0, jax.tree_util.keystr(path)
