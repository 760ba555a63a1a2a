"""The helper functions of colorjax.colorizer."""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.colorizer import Colorizer, deterministic, masked_mean, sampler


def test_samples_and_proposals_of_a_deterministic_method_are_copies():
  def predict(variables, inputs):
    lightness = inputs['lightness']
    return variables * jnp.concatenate([lightness, -lightness], -1)

  method = deterministic(init=None, loss=None, predict=predict)
  lightness = jnp.arange(12.0).reshape(3, 2, 2, 1)
  inputs = {'lightness': lightness}
  coloring = np.asarray(predict(2.0, inputs))
  samples = method.sample(
      2.0, inputs, jax.random.split(jax.random.key(0), 3), 4)
  np.testing.assert_array_equal(samples, np.stack([coloring] * 4))
  proposals, probability = method.propose(2.0, inputs, 2)
  np.testing.assert_array_equal(proposals, np.stack([coloring] * 2))
  assert probability is None
  assert method.num_proposals(8) == 1


def test_proposals_of_a_sampler_are_samples_with_equal_keys():
  def sample(variables, inputs, keys, n, *, scale=1.0):
    noise = jax.vmap(lambda key: jax.random.normal(key, (n,)))(keys).T
    return variables * inputs['lightness'] + scale * noise[
        ..., None, None, None]

  inputs = {'lightness': jnp.arange(12.0).reshape(3, 2, 2, 1)}
  equal = jnp.stack([jax.random.key(0)] * 3)
  expected = sample(2.0, inputs, equal, 4, scale=3.0)
  method = sampler(init=None, loss=None, sample=sample)
  assert method.answers_are_samples
  asked = method.ask(scale=3.0)
  proposals, probability = asked.propose(2.0, inputs, 4)
  np.testing.assert_array_equal(proposals, expected)
  assert probability is None
  np.testing.assert_array_equal(
      asked.predict(2.0, inputs), sample(2.0, inputs, equal, 1, scale=3.0)[0])

  def predict(variables, inputs, *, shift=5.0):
    return variables * inputs['lightness'] + shift

  method = sampler(init=None, loss=None, sample=sample, predict=predict)
  # An evaluation must not take a sample for the prediction.
  assert not method.answers_are_samples
  assert method.options == {'scale': 1.0, 'shift': 5.0}
  np.testing.assert_array_equal(
      method.predict(2.0, inputs), predict(2.0, inputs))
  np.testing.assert_array_equal(
      method.ask(scale=3.0).propose(2.0, inputs, 4)[0], expected)


def test_masked_mean_leaves_padding_out():
  metrics = {'loss': jnp.asarray([1.0, 2.0, jnp.inf]),
             'other': jnp.asarray([4.0, 6.0, jnp.nan])}
  value, aux = masked_mean(metrics, jnp.asarray([1.0, 1.0, 0.0]), {'s': 1})
  assert value == 1.5
  assert aux.metrics == {'loss': (3, 2), 'other': (10, 2)}
  assert aux.model_state == {'s': 1}
  only_padding, _ = masked_mean(metrics, jnp.zeros(3), {})
  assert only_padding == 0


def test_the_kind_of_a_density_may_depend_on_the_resolution():
  def method(kind):
    return Colorizer(init=None, loss=None, predict=None, sample=None,
                     propose=None, log_prob_kind=kind)

  assert method('lower_bound').density_kind((8, 8)) == 'lower_bound'
  depends = method(lambda shape: 'exact' if shape == (2, 4) else 'estimate')
  assert depends.density_kind((2, 4)) == 'exact'
  assert depends.density_kind((4, 2)) == 'estimate'
