"""Color queries: the contract, losses and their weights, players, hints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_variables
import skimage.color
from asking import batch_of, compiled, grey, grey_inputs, keys, lab_of
from method_checks import check_export

from colorjax.backbones import efficientnet_lite, tensor_names
from colorjax.colorizer import FROZEN, PRETRAINED_ENCODER
from colorjax.errors import UserError
from colorjax.methods import color_queries
from colorjax.metrics import colorfulness
from colorjax.models.mask_gan import PatchDiscriminator

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SMALL = {'network': 'unet', 'filters': (16, 16), 'num_queries': 3,
         'num_blocks': 2, 'width': 8, 'num_heads': 2, 'mlp_width': 8,
         'discriminator_widths': (4, 4)}
ALONE = {'perceptual_weight': 0., 'adversarial_weight': 0.,
         'colorfulness_weight': 0.}
# Without the losses of pretrained networks, which compile slowly.
GAN = {'perceptual_weight': 0., 'colorfulness_weight': 0.}
SIZE = 16


@pytest.fixture(autouse=True, scope='module')
def _five_blocks():
  """Reduces EfficientNet to one block per stride, which compiles quickly."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(efficientnet_lite, 'BLOCKS', tuple(
        efficientnet_lite.Block(3, min(i, 2), 2, 4 * i) for i in range(1, 6)))
    patch.setattr(efficientnet_lite, 'STAGES', {
        2**i: f'block{i}' for i in range(1, 6)})
    tensor_names.layers.cache_clear()
    yield
  tensor_names.layers.cache_clear()


@functools.cache
def _method(**settings):
  """A colorizer and random variables: the output layer would start at 0."""
  colorizer = color_queries.build(**{**SMALL, **settings})
  variables = random_variables.of(
      lambda key: colorizer.init(key, (SIZE, SIZE)), jax.random.key(0),
      size=0.3)
  return colorizer, variables


def _run(loss, variables, batch, *, train, seed=0):
  return compiled(loss, step=0 if train else None, train=train)(
      variables['params'], variables['model_state'], batch,
      keys(len(batch['padding_mask']), seed))


def _means(aux):
  return {name: float(total / count)
          for name, (total, count) in aux.metrics.items()}


class TestContract:

  def test_predictions_of_photographs_are_independent(self):
    colorizer, variables = _method(**ALONE)
    assert colorizer.is_deterministic
    predict = compiled(colorizer.predict)
    whole = predict(variables, grey_inputs())
    assert whole.shape == (3, SIZE, SIZE, 2)
    assert float(jnp.ptp(whole)) > 1
    one = predict(variables, grey(grey_inputs()['lightness'][1:2]))
    np.testing.assert_allclose(one, whole[1:2], atol=1e-3)

  def test_a_batch_of_any_size_can_be_exported(self):
    colorizer, variables = _method(**ALONE)
    check_export(colorizer.predict, variables)

  def test_starts_grey(self):
    colorizer, _ = _method(**ALONE)
    # Keys of this kind compile quickly.
    variables = jax.jit(lambda key: colorizer.init(key, (SIZE, SIZE)))(
        jax.random.key(0, impl='rbg'))
    predict = compiled(colorizer.predict)
    assert jnp.abs(predict(variables, grey_inputs())).max() == 0

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'network': 'vit'}, 'network=vit: choose one of unet, encoder'),
      ({'perceptual_network': 'xception'}, 'perceptual_network=xception: '
       'choose one of efficientnet_lite0, vgg16, vgg19'),
      ({'adversarial_loss': 'wgan'}, 'adversarial_loss=wgan: choose one of'),
      ({'num_queries': 0}, 'num_queries=0: use at least 1'),
      ({'num_blocks': 0}, 'num_blocks=0: use at least 1'),
      ({'width': 6}, 'width=6: use a multiple of 4 and .* num_heads=2'),
      ({'num_heads': 3}, 'width=8: use a multiple of 4 and .* num_heads=3'),
      ({'hint_share': 2.0}, 'hint_share=2.0: choose a share'),
      ({'colorfulness_weight': -1.0}, 'colorfulness_weight=-1.0: choose'),
      ({'pixel_weight': float('nan')}, 'pixel_weight=nan: choose'),
      ({'pixel_weight': 0.0, 'perceptual_weight': 0.0},
       'pixel_weight=0 and perceptual_weight=0: no other loss')])
  def test_wrong_settings_are_named(self, settings, message):
    with pytest.raises(UserError, match=message):
      color_queries.build(**{**SMALL, **settings})

  def test_wrong_sizes_are_refused(self):
    colorizer, variables = _method(**ALONE)
    with pytest.raises(UserError, match=r'image_size=18 x 16: .* by 4'):
      colorizer.init(jax.random.key(0), (18, 16))
    for side in (18, 17):
      with pytest.raises(UserError, match=rf'image_size=16 x {side}: .* by 4'):
        colorizer.predict(variables, grey(jnp.zeros((1, 16, side, 1))))
    colorizer = color_queries.build(**{
        **SMALL, 'discriminator_widths': (4,) * 4})
    with pytest.raises(UserError, match=r'16 x 16: .* at least 24 pixels'):
      jax.eval_shape(lambda key: colorizer.init(key, (SIZE, SIZE)),
                     jax.random.key(0))


class TestWeights:

  def _traced(self, **settings):
    """Shapes of the variables, metrics of a step, and the step as text."""
    colorizer = color_queries.build(**{**SMALL, **settings})

    def step(key):
      variables = colorizer.init(key, (SIZE, SIZE))
      _, aux = colorizer.loss(
          variables['params'], variables['model_state'], batch_of(), keys(3),
          step=0, train=True)
      return variables, aux.metrics

    variables, metrics = jax.eval_shape(step, jax.random.key(0))
    return colorizer, variables, set(metrics)

  def test_all_losses_as_published(self):
    colorizer, variables, metrics = self._traced()
    assert metrics == {'loss', 'deceived', *(f'loss/{name}' for name in (
        'l1', 'perceptual', 'adversarial', 'colorfulness'))}
    assert list(colorizer.players) == ['discriminator', 'generator']
    assert set(variables['params']) == {'discriminator', 'generator'}
    assert set(variables['model_state'][FROZEN]) == {'perceptual'}
    assert set(colorizer.backbones) == {'efficientnet_lite0'}

  @pytest.mark.parametrize('name', ['pixel', 'perceptual', 'adversarial',
                                    'colorfulness'])
  def test_a_weight_of_0_leaves_the_loss_out(self, name):
    colorizer, variables, metrics = self._traced(**{f'{name}_weight': 0.0})
    assert f'loss/{"l1" if name == "pixel" else name}' not in metrics
    assert len(metrics) == 5 - (name == 'adversarial')  # and `deceived`
    state = variables['model_state']
    assert ('perceptual' in state.get(FROZEN, {})) == (name != 'perceptual')
    assert ('discriminator' in variables['params']) == (name != 'adversarial')
    assert ('batch_stats' in state) == (name != 'adversarial')
    assert bool(colorizer.players) == (name != 'adversarial')
    assert bool(colorizer.backbones) == (name != 'perceptual')

  def test_the_objective_is_the_weighted_sum(self):
    weights = {'pixel_weight': 0.3, 'perceptual_weight': 0.7,
               'adversarial_weight': 1.1, 'colorfulness_weight': 1.3}
    colorizer, variables = _method(**weights)
    batch = batch_of()
    scalar, aux = _run(colorizer.loss, variables, batch, train=False)
    found = _means(aux)
    assert float(scalar) == pytest.approx(
        0.3 * 110 * found['loss/l1'] + 0.7 * found['loss/perceptual']
        + 1.1 * found['loss/adversarial'] + 1.3 * found['loss/colorfulness'],
        rel=1e-4)
    lightness, ab = lab_of(batch)
    predicted = np.asarray(compiled(colorizer.predict)(
        variables, grey(lightness)), np.float64)
    assert 110 * found['loss/l1'] == pytest.approx(
        np.abs(predicted - ab).mean(), rel=1e-4)
    rgb = skimage.color.lab2rgb(
        np.concatenate([lightness, predicted], -1, dtype=np.float64))
    m3 = colorfulness.colorfulness(
        jnp.asarray((255 * rgb).round(), jnp.uint8))
    # The metric is of pictures of 8 bits.
    assert found['loss/colorfulness'] == pytest.approx(
        float((1 - m3 / 100).mean()), abs=5e-3)
    assert 0.1 < found['loss/colorfulness'] < 0.95

  def test_gradients_reach_every_parameter(self):
    """The queries among them, through the perceptual loss alone."""
    colorizer, variables = _method(**{**ALONE, 'pixel_weight': 0.,
                                      'perceptual_weight': 1.})
    gradient = jax.jit(jax.grad(lambda p: colorizer.loss(
        p, variables['model_state'], batch_of(), keys(3), step=0,
        train=True)[0]))(variables['params'])
    for path, x in jax.tree.leaves_with_path(gradient['generator']):
      name = jax.tree_util.keystr(path)
      # A constant added to all keys of an attention cancels in the softmax.
      if 'key' not in name or 'bias' not in name:
        assert jnp.abs(x).max() > 0, name


class TestPlayers:

  def test_gradients_and_statistics_of_a_player_are_its_own(self):
    colorizer, variables = _method(**GAN)
    batch = batch_of()
    old = variables['model_state']['batch_stats']['discriminator']
    for player, loss in colorizer.players.items():
      gradient, aux = jax.jit(jax.grad(
          lambda p, f=loss: f(p, variables['model_state'], batch, keys(3),
                              step=0, train=True), has_aux=True))(
                                  variables['params'])
      largest = {name: max(float(jnp.abs(x).max()) for x in
                           jax.tree.leaves(tree))
                 for name, tree in gradient.items()}
      assert largest[player] > 0
      if player == 'discriminator':
        # The generated picture is a constant for it.
        assert largest['generator'] == 0
      new = aux.model_state['batch_stats']['discriminator']
      moved = any(bool((x != y).any()) for x, y in zip(
          jax.tree.leaves(old), jax.tree.leaves(new), strict=True))
      assert moved == (player == 'discriminator')
      assert jax.tree.structure(aux.model_state) == jax.tree.structure(
          variables['model_state'])

  def test_metrics_of_the_players_differ(self):
    colorizer, variables = _method(**GAN)
    batch = batch_of()
    names = [name for loss in colorizer.players.values()
             for name in _run(loss, variables, batch, train=True)[1].metrics]
    assert len(names) == len(set(names))
    assert 'loss' in names

  def test_discriminator_tells_photographs_from_colorings(self):
    """Its loss and accuracies, from its logits for both."""
    colorizer, variables = _method(**GAN)
    batch = batch_of()
    lightness, ab = lab_of(batch)
    fake = np.asarray(compiled(colorizer.predict)(
        variables, grey(lightness))) / 110
    net = PatchDiscriminator(SMALL['discriminator_widths'])
    real, fake = (np.asarray(jax.jit(
        lambda x: net.apply({
            'params': variables['params']['discriminator'],
            'batch_stats': variables['model_state']['batch_stats'][
                'discriminator']}, x, jnp.ones((3, SIZE, SIZE, 1)),
            train=False))(jnp.concatenate([lightness / 50 - 1, x], -1)))
        for x in (jnp.asarray(ab / 110, jnp.float32), fake))
    scalar, _ = _run(
        colorizer.players['discriminator'], variables, batch, train=False)
    expected = (np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()
                ) / 2
    assert float(scalar) == pytest.approx(expected, rel=1e-3)
    found = _means(_run(colorizer.loss, variables, batch, train=False)[1])
    assert found['loss/adversarial'] == pytest.approx(
        np.logaddexp(0, -fake).mean(), rel=1e-3)

  def test_padding_does_not_change_the_losses(self):
    colorizer, variables = _method(**GAN)
    batch = batch_of(4)
    half = {name: x[:2] for name, x in batch.items()}
    padded = {**batch, 'padding_mask': jnp.asarray([1., 1., 0., 0.])}
    for loss in (colorizer.loss, colorizer.players['discriminator']):
      expected, _ = _run(loss, variables, half, train=False)
      found, aux = _run(loss, variables, padded, train=False)
      assert float(found) == pytest.approx(float(expected), rel=1e-4)
      assert {int(count) for _, count in aux.metrics.values()} == {2}


class TestHints:

  def test_hints_are_exact_and_change_other_places(self):
    colorizer, variables = _method(hint_share=0.5, **ALONE)
    assert colorizer.accepts == {'hint_ab', 'hint_mask'}
    mask = jnp.zeros((3, SIZE, SIZE, 1)).at[0, 4, 4].set(1)
    ab = jnp.broadcast_to(jnp.asarray([40., -20.]), (3, SIZE, SIZE, 2))
    predict = compiled(colorizer.predict)
    none = {**grey_inputs(), 'hint_ab': 0 * ab, 'hint_mask': 0 * mask}
    plain = predict(variables, none)
    hinted = predict(variables, {
        **none, 'hint_ab': ab * mask, 'hint_mask': mask})
    np.testing.assert_allclose(hinted[0, 4, 4], ab[0, 4, 4], atol=1e-3)
    # The field has the hint's color, and so the pixel in the same block nearly.
    before, after = (jnp.linalg.norm((x - ab)[0, 5, 5])
                     for x in (plain, hinted))
    assert after < 0.7 * before
    assert jnp.abs(hinted - plain)[0, 10:].max() > 1e-2
    np.testing.assert_allclose(hinted[1:], plain[1:], atol=1e-3)
    np.testing.assert_allclose(
        predict(variables, grey_inputs()), plain, atol=1e-3)

  def test_training_draws_hints_by_photograph(self):
    colorizer, variables = _method(hint_share=0.9, **ALONE)
    losses = [float(_run(colorizer.loss, variables, batch_of(), train=train,
                         seed=seed)[0])
              for train in (True, False) for seed in (1, 2)]
    assert losses[0] != losses[1]
    assert losses[2] == losses[3]

  def test_without_a_share_hints_are_left_to_the_fallback(self):
    colorizer, variables = _method(**ALONE)
    assert not colorizer.accepts
    losses = {float(_run(colorizer.loss, variables, batch_of(), train=True,
                         seed=seed)[0]) for seed in (1, 2)}
    assert len(losses) == 1


def test_pretrained_networks_of_trunk_and_loss():
  """The trunk's and the perceptual network's weights are at their places."""
  colorizer = color_queries.build(**{
      **SMALL, 'network': 'encoder', 'trunk_settings': {'frozen': False}})
  variables = jax.eval_shape(lambda key: colorizer.init(key, (32, 32)),
                             jax.random.key(0))
  assert set(colorizer.backbones) == {'efficientnet_lite0'}
  frozen = variables['model_state'][FROZEN]
  assert set(frozen) == {'generator', 'perceptual'}
  assert set(frozen['generator']['trunk']) == {PRETRAINED_ENCODER}
  assert PRETRAINED_ENCODER in variables['params']['generator']['trunk']
