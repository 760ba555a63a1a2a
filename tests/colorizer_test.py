"""The record beside a checkpoint: built again, or refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.colorizer import Spec, deterministic, masked_mean
from colorjax.errors import UserError


def test_spec_round_trip_builds_the_same_method(tmp_path):
  spec = Spec('colorjax.methods.mbm',
              {'num_components': 3, 'filters': [16, 32]}, 32)
  spec.save(tmp_path / 'colorizer.json')
  loaded = Spec.load(tmp_path / 'colorizer.json')
  assert loaded == spec
  assert loaded.build().event_shape((32, 32)) == (16, 16)


def test_damaged_record_names_the_file(tmp_path):
  path = tmp_path / 'colorizer.json'
  for text in ('{', '[]', '{"method": "x"}'):
    path.write_text(text)
    with pytest.raises(UserError, match=r'colorizer\.json is no colorizer'):
      Spec.load(path)


def test_unknown_method_names_the_module():
  with pytest.raises(UserError, match=r'colorjax\.methods\.nothing'):
    Spec('colorjax.methods.nothing', {}, 32).build()


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
