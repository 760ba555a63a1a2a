"""The helper functions of colorjax.colorizer."""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.colorizer import Colorizer, deterministic, masked_mean


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
