"""Inputs and options for methods that do not support them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_autoregressive

from colorjax import color, palette, propagation, spread
from colorjax import keys as key_lib
from colorjax.colorizer import Colorizer, deterministic, sampler
from colorjax.errors import UserError
from colorjax.fallbacks import (
    with_candidates,
    with_fallbacks,
    with_saturation,
)
from colorjax.records import Record

pytestmark = pytest.mark.usefixtures('compiles_quickly')

RNG = np.random.default_rng(0)
LIGHTNESS = jnp.asarray(RNG.uniform(20, 80, (3, 8, 10, 1)), jnp.float32)
REGION = jnp.zeros((3, 8, 10, 1)).at[:, :, :5].set(1)
HINT_MASK = jnp.zeros((3, 8, 10, 1)).at[:, 4, 2].set(1).at[:, 4, 7].set(1)
HINT_AB = HINT_MASK * jnp.asarray([20.0, -30.0])
KEYS = jax.random.split(jax.random.key(1), 3)


def _draw(key, strength):
  return strength * jax.random.normal(key, (8, 10, 2))


def _sampler(**fields):
  def sample(variables, inputs, keys, n, *, strength=5.0):
    del variables, inputs
    return jax.vmap(jax.vmap(lambda key: _draw(key, strength)))(
        key_lib.of_answers(keys, n))

  return sampler(init=None, loss=None, sample=sample, **fields)


def _answers(method, inputs):
  """The colorings of all prediction functions, [k, B, H, W, 2] each."""
  return {'predict': method.predict({}, inputs)[None],
          'sample': method.sample({}, inputs, KEYS, 2),
          'propose': method.propose({}, inputs, 3)[0]}


@pytest.mark.parametrize('given', [(), ('region',), ('hints',),
                                   ('region', 'hints')])
def test_fallbacks_apply_regions_and_hints(given):
  method = with_fallbacks(_sampler())
  assert method.accepts == {'region', 'reference', 'hint_ab', 'hint_mask'}
  inputs = {'lightness': LIGHTNESS}
  plain = _answers(method, inputs)
  if 'region' in given:
    inputs['region'] = REGION
  if 'hints' in given:
    inputs |= {'hint_ab': HINT_AB, 'hint_mask': HINT_MASK}
  for name, found in _answers(method, inputs).items():
    expected = np.asarray(plain[name])
    if 'hints' in given:
      expected = np.stack([propagation.correct(
          np.asarray(LIGHTNESS[i, ..., 0]), expected[:, i],
          np.asarray(HINT_AB[i]), np.asarray(HINT_MASK[i, ..., 0]))
                           for i in range(3)], 1)
    if 'region' in given:
      expected = expected * np.asarray(REGION)
      assert not np.asarray(found)[:, :, :, 5:].any(), 'grey outside'
    elif 'hints' in given:
      np.testing.assert_array_equal(
          found[:, :, 4, 2], np.broadcast_to([20.0, -30.0],
                                             (*found.shape[:2], 2)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_reference_gives_its_palette_before_hints_and_region():
  method = with_fallbacks(_sampler())
  reference = jnp.asarray(RNG.integers(0, 256, (3, 6, 6, 3)), jnp.uint8)
  inputs = {'lightness': LIGHTNESS}
  plain = _answers(method, inputs)
  inputs |= {'reference': reference, 'region': REGION, 'hint_ab': HINT_AB,
             'hint_mask': HINT_MASK}
  for name, found in _answers(method, inputs).items():
    moved = np.asarray(palette.transfer(
        plain[name], color.split_lightness(reference)[1]))
    corrected = np.stack([propagation.correct(
        np.asarray(LIGHTNESS[i, ..., 0]), moved[:, i], np.asarray(HINT_AB[i]),
        np.asarray(HINT_MASK[i, ..., 0])) for i in range(3)], 1)
    np.testing.assert_allclose(found, corrected * REGION, atol=1e-3)


def test_a_method_with_regions_gets_no_fallback():
  seen = []

  def predict(variables, inputs):
    del variables
    seen.append(set(inputs))
    return jnp.ones((*inputs['lightness'].shape[:-1], 2))

  method = with_fallbacks(deterministic(
      init=None, loss=None, predict=predict, accepts=frozenset({'region'})))
  inputs = {'lightness': LIGHTNESS, 'region': REGION, 'hint_ab': HINT_AB,
            'hint_mask': HINT_MASK}
  found = method.predict({}, inputs)
  assert seen == [{'lightness', 'region'}]
  assert (found[:, :, 5:] != 0).all(), 'the method applies the region itself'


def test_other_inputs_are_refused_by_name():
  method = with_fallbacks(_sampler(
      log_prob=lambda variables, inputs, ab, keys: jnp.zeros(len(ab)),
      log_prob_and_error=lambda variables, inputs, ab, keys: 2 * (
          jnp.zeros(len(ab)),)))
  with pytest.raises(UserError, match='embedding: this method does not accept'):
    method.predict({}, {'lightness': LIGHTNESS, 'embedding': None})
  for function in (method.log_prob, method.log_prob_and_error):
    with pytest.raises(UserError, match='region: this method does not accept'):
      function({}, {'lightness': LIGHTNESS, 'region': REGION}, HINT_AB, None)
  with pytest.raises(UserError, match='must be given together'):
    method.predict({}, {'lightness': LIGHTNESS, 'hint_ab': HINT_AB})


def test_options_reach_the_method_and_others_are_refused():
  method = with_fallbacks(_sampler())
  assert method.options == {'strength': 5.0}
  weak = method.ask(strength=0.5)
  assert weak.options == {'strength': 0.5}
  inputs = {'lightness': LIGHTNESS}
  for name, found in _answers(weak, inputs).items():
    np.testing.assert_allclose(
        10 * found, _answers(method, inputs)[name], rtol=1e-6)
  # Options may be set before the fallbacks, after them, or in the call.
  np.testing.assert_array_equal(
      with_fallbacks(_sampler().ask(strength=0.5)).predict({}, inputs),
      method.predict({}, inputs, strength=0.5))
  with pytest.raises(UserError, match="no option 'temperature'; it has "
                                      'strength'):
    method.ask(temperature=1)


def test_proposals_of_a_sampler_are_constant():
  method = _sampler()
  inputs = {'lightness': LIGHTNESS}
  few, probability = method.propose({}, inputs, 2)
  assert probability is None
  np.testing.assert_array_equal(few, method.propose({}, inputs, 4)[0][:2])
  np.testing.assert_array_equal(few[0], method.predict({}, inputs))
  one = {'lightness': LIGHTNESS[1:2]}
  np.testing.assert_array_equal(few[0, 1:2], method.predict({}, one))
  assert (few[0] != few[1]).any()


def test_unknown_inputs_are_refused():
  with pytest.raises(ValueError, match="no input 'mask'"):
    Colorizer(init=None, loss=None, predict=None, sample=None, propose=None,
              accepts=frozenset({'mask'}))


class TestSaturation:

  def test_multiplies_every_kind_of_coloring(self):
    method = _sampler()
    scaled = with_saturation(method)
    assert scaled.options == {'strength': 5.0, 'saturation': 1.0}
    inputs = {'lightness': LIGHTNESS}
    plain = _answers(method, inputs)
    for name, found in _answers(scaled, inputs).items():
      np.testing.assert_array_equal(found, plain[name])
    for name, found in _answers(scaled.ask(saturation=1.5), inputs).items():
      np.testing.assert_allclose(found, 1.5 * plain[name], rtol=1e-6)

  def test_is_applied_before_hints(self):
    method = with_fallbacks(with_saturation(_sampler()).ask(saturation=3))
    ab = method.predict({}, {'lightness': LIGHTNESS, 'hint_ab': HINT_AB,
                             'hint_mask': HINT_MASK})
    np.testing.assert_allclose(ab[:, 4, 2], 3 * [[20.0, -30.0]], rtol=1e-6)

  def test_a_method_with_its_own_saturation_keeps_it(self):
    def predict(variables, inputs, *, saturation=0.5):
      return jnp.full((1, 2, 2, 2), saturation)

    method = deterministic(init=None, loss=None, predict=predict)
    assert with_saturation(method) is method


def _built(name, **settings):
  """A method as it is loaded."""
  return Record(method=f'colorjax.methods.{name}', image_size=16,
                settings=settings).build()


def _propose(method, inputs, k):
  """`propose`, compiled as a whole."""
  return jax.jit(lambda inputs: method.propose({}, inputs, k))(inputs)


class TestCandidates:

  def test_proposals_are_chosen_out_of_samples_with_constant_keys(self):
    method = with_candidates(_sampler())
    assert method.options == {'strength': 5.0, 'candidates': 0}
    inputs = {'lightness': LIGHTNESS}
    asked = method.ask(candidates=9, strength=2.0)
    found, probability = _propose(asked, inputs, 4)
    equal = jnp.broadcast_to(jax.random.key(0), 3)
    samples = method.sample({}, inputs, equal, 9, strength=2.0)
    expected, shares = jax.jit(spread.choose, static_argnums=1)(samples, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probability, shares)
    np.testing.assert_allclose(probability.sum(0), 1, rtol=1e-6)
    one, _ = _propose(asked, {'lightness': LIGHTNESS[1:2]}, 4)
    np.testing.assert_allclose(one, found[:, 1:2], rtol=1e-5, atol=1e-5)

  def test_without_them_nothing_changes(self):
    method = _sampler()
    inputs = {'lightness': LIGHTNESS}
    plain = _answers(method, inputs)
    many = with_candidates(method).ask(candidates=9)
    np.testing.assert_array_equal(many.predict({}, inputs), plain['predict'][0])
    np.testing.assert_array_equal(
        many.sample({}, inputs, KEYS, 2), plain['sample'])
    for found in (with_candidates(method), with_candidates(method).ask(
        candidates=0)):
      np.testing.assert_array_equal(
          _answers(found, inputs)['propose'], plain['propose'])
      assert found.propose({}, inputs, 3)[1] is None

  def test_hints_and_saturation_are_applied_to_what_is_chosen(self):
    method = with_candidates(_sampler()).ask(candidates=6)
    inputs = {'lightness': LIGHTNESS}
    chosen, probability = _propose(method, inputs, 2)
    complete = with_fallbacks(with_saturation(method))
    found, shares = _propose(complete.ask(saturation=3), {
        **inputs, 'region': REGION}, 2)
    np.testing.assert_allclose(found, 3 * chosen * REGION, rtol=1e-6)
    np.testing.assert_array_equal(shares, probability)
    hinted, _ = _propose(complete, {
        **inputs, 'hint_ab': HINT_AB, 'hint_mask': HINT_MASK}, 2)
    np.testing.assert_array_equal(
        hinted[:, :, 4, 2], np.broadcast_to([20.0, -30.0], (2, 3, 2)))

  def test_options_of_samples_and_of_proposals(self):
    """Each function gets the options that it has, with its own defaults."""
    def propose(variables, inputs, k, *, readout='top', strength=1.0):
      assert readout in ('top', 'mean')
      return strength * jnp.ones((k, 3, 8, 10, 2)), jnp.full((k, 3), 1 / k)

    def sample(variables, inputs, keys, n, *, strength=5.0, noise=0.0):
      return strength * jnp.ones((n, 3, 8, 10, 2)) + noise

    method = with_candidates(Colorizer(
        init=None, loss=None, predict=lambda variables, inputs: None,
        sample=sample, propose=propose, max_proposals=2))
    inputs = {'lightness': LIGHTNESS}
    assert (method.propose({}, inputs, 2)[0] == 1).all()
    many = method.ask(candidates=4)
    assert (_propose(many, inputs, 3)[0] == 5).all()
    asked = method.ask(readout='mean', noise=0.5, strength=7.0)
    assert (_propose(asked, inputs, 2)[0] == 7).all()
    assert (_propose(asked.ask(candidates=4), inputs, 3)[0] == 7.5).all()

  def test_deterministic_methods_do_not_have_them(self):
    method = deterministic(init=None, loss=None, predict=lambda *_: None)
    assert with_candidates(method) is method
    twice = with_candidates(_sampler())
    assert with_candidates(twice) is twice

  def test_too_few_are_refused(self):
    method = with_candidates(_sampler()).ask(candidates=3)
    with pytest.raises(UserError, match='candidates=3: use a whole number of '
                                        'at least 4'):
      method.propose({}, {'lightness': LIGHTNESS}, 4)

  @pytest.mark.parametrize(('name', 'settings', 'options'), [
      ('flow_matching', {'filters': (16, 16), 'width': 8}, {'num_steps': 2}),
      ('autoregressive', small_autoregressive.SMALL, {'temperature': 0.5}),
      ('latent', {'filters': (16,), 'width': 16, 'num_components': 3},
       {'temperature': 0.5, 'pixel_noise': True}),
      ('classification', {'network': 'unet', 'filters': (16, 32)},
       {'sampling': 'shared', 'temperature': 0.5}),
      ('mbm', {'num_components': 3, 'filters': (16, 32), 'prior_width': 8},
       {}),
      ('baselines.marginal', {}, {})])
  def test_every_loaded_method_with_samples_has_them(
      self, name, settings, options):
    method = _built(name, **settings).ask(candidates=7, **options)

    def propose(key):
      return with_fallbacks(method).propose(
          method.init(key, (16, 16)), {'lightness': jnp.zeros((2, 16, 16, 1))},
          5)

    # Shapes only: nothing is compiled.
    proposals, probability = jax.eval_shape(propose, jax.random.key(0))
    assert proposals.shape == (5, 2, 16, 16, 2)
    assert probability.shape == (5, 2)
