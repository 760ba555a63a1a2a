"""The helpers of the contract."""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.colorizer import deterministic, masked_mean


def test_the_one_answer_is_all_samples_and_proposals():
  def predict(variables, inputs):
    lightness = inputs['lightness']
    return variables * jnp.concatenate([lightness, -lightness], -1)

  method = deterministic(init=None, loss=None, predict=predict)
  lightness = jnp.arange(12.0).reshape(3, 2, 2, 1)
  inputs = {'lightness': lightness}
  answer = np.asarray(predict(2.0, inputs))
  samples = method.sample(
      2.0, inputs, jax.random.split(jax.random.key(0), 3), 4)
  np.testing.assert_array_equal(samples, np.stack([answer] * 4))
  proposals, probability = method.propose(2.0, inputs, 2)
  np.testing.assert_array_equal(proposals, np.stack([answer] * 2))
  assert probability is None
  assert method.num_proposals(8) == 1


def test_masked_mean_leaves_padding_out():
  figures = {'loss': jnp.asarray([1.0, 2.0, jnp.inf]),
             'other': jnp.asarray([4.0, 6.0, jnp.nan])}
  value, aux = masked_mean(figures, jnp.asarray([1.0, 1.0, 0.0]), {'s': 1})
  assert value == 1.5
  assert aux.metrics == {'loss': (3, 2), 'other': (10, 2)}
  assert aux.model_state == {'s': 1}
  nothing, _ = masked_mean(figures, jnp.zeros(3), {})
  assert nothing == 0
