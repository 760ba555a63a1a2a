"""Formulas: what they evaluate to, and which ones are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from colorjax.errors import UserError
from colorjax.losses import formula, regression


@pytest.fixture(name='fields', scope='module')
def _fields():
  rng = np.random.default_rng(0)
  prediction, target = rng.normal(0, 0.2, (2, 3, 4, 5, 2)).astype(np.float32)
  return prediction, target, jnp.full((3, 4, 5, 1), 50.)


@pytest.mark.parametrize('name', ['mse', 'l1', 'huber', 'smooth'])
def test_a_single_name_gives_that_loss_only(name, fields):
  prediction, target, lightness = fields
  found = formula.parse(name)(prediction, target, lightness=lightness)
  assert set(found) == {'loss'}
  np.testing.assert_array_equal(found['loss'], regression.LOSSES[name](
      prediction, target, lightness=lightness))


def test_a_sum_with_weights_and_settings(fields):
  prediction, target, lightness = fields
  weights = jnp.linspace(0, 2, 60).reshape(3, 4, 5)
  found = formula.parse('huber(delta=0.1) + 0.5*mse+2 * huber')(
      prediction, target, lightness=lightness, weights=weights)
  options = {'lightness': lightness, 'weights': weights}
  wide = regression.huber(prediction, target, delta=0.1, **options)
  squared = regression.mse(prediction, target, **options)
  narrow = regression.huber(prediction, target, **options)
  assert set(found) == {'loss', 'loss/huber', 'loss/mse', 'loss/huber/2'}
  np.testing.assert_allclose(
      found['loss'], wide + 0.5 * squared + 2 * narrow, rtol=1e-6)
  np.testing.assert_allclose(found['loss/huber'], wide, rtol=1e-6)
  np.testing.assert_allclose(found['loss/mse'], squared, rtol=1e-6)
  np.testing.assert_allclose(found['loss/huber/2'], narrow, rtol=1e-6)


def test_settings_of_lists_and_text():
  parsed = formula.parse(
      "l1+0.1*perceptual(network='vgg19', stages=['relu1_1', 'pool1'])")
  assert parsed.perceptual_term.settings == {
      'network': 'vgg19', 'stages': ('relu1_1', 'pool1')}
  assert parsed.perceptual_term.weight == 0.1
  assert formula.parse('l1').perceptual_term is None


def test_a_new_loss_is_one_function_and_one_line(fields, monkeypatch):
  def cubed(prediction, target, *, lightness, weights=None, power: float,
            side: str = 'both', level: int = 2):
    del lightness, weights
    return level * (jnp.abs(prediction - target)**power).mean((-3, -2, -1))

  monkeypatch.setitem(regression.LOSSES, 'cubed', cubed)
  prediction, target, lightness = fields
  found = formula.parse("cubed(power=3, level=1, side='left')")(
      prediction, target, lightness=lightness)['loss']
  np.testing.assert_allclose(
      found, (np.abs(prediction - target)**3).mean((1, 2, 3)), rtol=1e-5)
  for text, message in [
      ('cubed', 'cubed needs a value for power'),
      ('cubed(power=3, level=1.5)', 'level must be an integer'),
      ('cubed(power=3, side=2)', 'side must be quoted text'),
      ('cubed(3)', 'write a term as NAME'),
      ('l2', r'cubed\(power, side, level\)')]:
    with pytest.raises(UserError, match=message):
      formula.parse(text)


@pytest.mark.parametrize(('text', 'message'), [
    ('l2', r'^loss=l2: there is no loss l2: choose one of mse, l1, '
     r'huber\(delta\), '),
    ('mse+0.1*foo',
     r'term 0.1 \* foo: there is no loss foo: choose one of mse'),
    ('mse(delta=1)', 'mse has no setting delta: it takes none'),
    ('huber(epsilon=1)', 'huber has no setting epsilon: it takes delta'),
    ('l1+huber(delta=0)', r'term huber\(delta=0\): delta=0.0: must be above 0'),
    ("huber(delta='a')", 'delta must be a finite number'),
    ('huber(delta=True)', 'delta must be a finite number'),
    ('huber(delta=1e999)', 'delta must be a finite number'),
    ('huber(delta=open)', 'open is not a number, quoted text'),
    ('huber(0.1)', r'write a term as NAME, NAME\(setting=value\)'),
    ('huber(**{})', 'has no setting None'),
    ('edges(strength=-1)', 'strength=-1.0: must be at least 0'),
    ('perceptual(stages=[1])', 'stages must be a list such as'),
    ('perceptual(stages=[])', 'name at least one stage'),
    ("perceptual+l1+perceptual(network='vgg19')", 'vgg16 and vgg19: give all'),
    ('-1*mse', 'the weight of a loss must be a number above 0'),
    ('0*mse+l1', 'the weight of a loss must be a number above 0'),
    ('mse-l1', 'write a term as NAME'),
    ('mse+', 'not a sum of losses'),
    ('', 'not a sum of losses'),
    ("mse\n+l2", 'no loss l2'),
    ("__import__('os').getcwd()", 'write a term as NAME'),
])
def test_errors_name_the_faulty_term_in_one_line(text, message):
  with pytest.raises(UserError, match=message) as raised:
    formula.parse(text)
  assert '\n' not in str(raised.value)
