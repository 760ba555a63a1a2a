"""The mask GAN method: the contract, its two players and its metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import skimage.color
from asking import grey, keys

from colorjax.errors import UserError
from colorjax.methods import mask_gan
from colorjax.models import mask_gan as networks

pytestmark = pytest.mark.usefixtures('compiles_quickly')

SMALL = {'widths': (4, 8, 8)}
SIZE = 16

# These networks are so small that compilation dominates: compile without
# optimization.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def _batch(n=4, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
  region = np.zeros((n, SIZE, SIZE, 1), np.float32)
  region[::2, :, :6] = 1
  region[1::2, 5:] = 1
  return {'image': jnp.asarray(coarse.repeat(4, 1).repeat(4, 2)),
          'padding_mask': jnp.ones(n), 'region': jnp.asarray(region)}


def _lab(batch):
  lab = skimage.color.rgb2lab(np.asarray(batch['image']))
  return jnp.asarray(lab[..., :1], jnp.float32), lab[..., 1:]


@functools.cache
def _method(**settings):
  """A colorizer with compiled functions, and its variables."""
  colorizer = mask_gan.build(**{**SMALL, **settings})
  variables = _jit(colorizer.init, static_argnums=1)(
      jax.random.key(0), (SIZE, SIZE))
  return colorizer, variables


@functools.cache
def _compiled(function, **settings):
  return _jit(functools.partial(function, **settings))


def _keys(key, count=4):
  return jax.random.split(jax.random.key(key), count)


def _run(loss, variables, batch, *, train, key=0):
  return _compiled(loss, step=0 if train else None, train=train)(
      variables['params'], variables['model_state'], batch,
      _keys(key, len(batch['padding_mask'])))


def _metric(aux, name):
  total, count = aux.metrics[name]
  return float(total / count)


def _moved(old, new):
  return {name: any(bool((a != b).any()) for a, b in zip(
      jax.tree.leaves(old['batch_stats'][name]),
      jax.tree.leaves(new['batch_stats'][name]), strict=True))
          for name in old['batch_stats']}


class TestContract:

  @pytest.mark.parametrize('settings', [
      {}, {'noise': 3}, {'discriminator': 'patch', 'noise': 2}])
  def test_predictions_samples_and_proposals(self, settings):
    colorizer, variables = _method(**settings)
    lightness, _ = _lab(_batch())
    predicted = _compiled(colorizer.predict)(variables, grey(lightness))
    assert predicted.shape == (4, SIZE, SIZE, 2)
    assert jnp.abs(predicted).max() <= 110
    within = _compiled(colorizer.predict)
    np.testing.assert_allclose(
        within(variables, {**grey(lightness),
                           'region': jnp.ones_like(lightness)}), predicted,
        atol=1e-4)
    assert (within(variables, {**grey(lightness),
                               'region': _batch()['region']})
            != predicted).any()
    samples = _compiled(colorizer.sample, n=2)(
        variables, grey(lightness), keys(4, 1))
    proposals, weights = _compiled(colorizer.propose, k=3)(
        variables, grey(lightness))
    assert samples.shape == (2, 4, SIZE, SIZE, 2)
    assert proposals.shape == (3, 4, SIZE, SIZE, 2)
    np.testing.assert_allclose(proposals[0], predicted, atol=1e-4)
    assert weights is None
    is_noisy = bool(settings.get('noise'))
    assert (samples[0] != samples[1]).any() == is_noisy
    assert (proposals[1] != proposals[2]).any() == is_noisy
    assert colorizer.max_proposals == (None if is_noisy else 1)

  def test_predictions_do_not_depend_on_the_position_in_the_batch(self):
    colorizer, variables = _method(noise=3)
    lightness, _ = _lab(_batch())
    predict = _compiled(colorizer.predict)
    np.testing.assert_allclose(
        predict(variables, grey(lightness[::-1]))[::-1],
        predict(variables, grey(lightness)), atol=1e-4)

  def test_params_are_those_of_the_players(self):
    colorizer, variables = _method()
    assert list(colorizer.players) == ['discriminator', 'generator']
    assert set(variables['params']) == set(colorizer.players)
    assert set(variables['model_state']) == {'batch_stats'}

  @pytest.mark.parametrize(('settings', 'message'), [
      ({'adversarial_loss': 'wgan'}, 'adversarial_loss=wgan: choose one of '
       'bce, least_squares, hinge'),
      ({'discriminator': 'pixel'}, 'discriminator=pixel: choose one of'),
      ({'real_pictures': 'none'}, 'real_pictures=none: choose one of'),
      ({'outside': 'blue'}, 'outside=blue: choose one of grey, free')])
  def test_unknown_settings_name_the_flag(self, settings, message):
    with pytest.raises(UserError, match=message):
      mask_gan.build(**settings)

  def test_wrong_sizes_are_refused(self):
    colorizer = mask_gan.build(**SMALL)
    with pytest.raises(
        UserError, match=r'image_size=20 x 16: .* divisible by 8'):
      colorizer.init(jax.random.key(0), (20, 16))
    colorizer = mask_gan.build(discriminator='patch', **SMALL)
    with pytest.raises(
        UserError, match=r'image_size=8 x 16: .* at least 12 pixels'):
      colorizer.init(jax.random.key(0), (8, 16))


class TestLosses:

  @pytest.mark.parametrize(('name', 'pictures', 'outside'), [
      ('bce', 'whole', 'grey'), ('least_squares', 'within', 'grey'),
      ('hinge', 'whole', 'free')])
  def test_losses_of_the_players_equal_the_formulas(
      self, name, pictures, outside):
    """Computed from the networks' outputs, with stored batch statistics."""
    colorizer, variables = _method(
        adversarial_loss=name, real_pictures=pictures, outside=outside,
        adversarial_weight=0.5, regression_weight=20.0)
    batch = _batch()
    lightness, ab = _lab(batch)
    generator = networks.Generator(SMALL['widths'])
    discriminator = networks.ImageDiscriminator(SMALL['widths'])

    def apply(net, player, *inputs):
      return np.asarray(_jit(lambda v: net.apply(v, *inputs, train=False))({
          'params': variables['params'][player],
          'batch_stats': variables['model_state']['batch_stats'][player]}))

    x, y, region = lightness / 50 - 1, ab / 110, batch['region']
    out = apply(generator, 'generator', x, region)
    fake, real = (apply(discriminator, 'discriminator',
                        jnp.concatenate([x, jnp.asarray(c)], -1), region)
                  for c in (out, y * region if pictures == 'within' else y))
    adversarial, on_real, on_fake = {
        'bce': (np.logaddexp(0, -fake), np.logaddexp(0, -real),
                np.logaddexp(0, fake)),
        'least_squares': ((fake - 1)**2, (real - 1)**2, fake**2),
        'hinge': (-fake, np.maximum(0, 1 - real), np.maximum(0, 1 + fake)),
    }[name]
    m = np.asarray(region)
    error = ((m * y - out)**2 if outside == 'grey' else m * (y - out)**2).mean()
    scalar, aux = _run(colorizer.loss, variables, batch, train=False)
    assert _metric(aux, 'regression') == pytest.approx(error, rel=1e-4)
    assert float(scalar) == pytest.approx(
        0.5 * adversarial.mean() + 20 * error, rel=1e-4)
    scalar, aux = _run(
        colorizer.players['discriminator'], variables, batch, train=False)
    assert float(scalar) == pytest.approx(
        (on_real.mean() + on_fake.mean()) / 2, rel=1e-4)
    boundary = 0.5 if name == 'least_squares' else 0
    assert _metric(aux, 'real_accuracy') == (real > boundary).mean()
    assert _metric(aux, 'fake_accuracy') == (fake <= boundary).mean()

  def test_gradients_reach_every_parameter_of_the_player(self):
    colorizer, variables = _method(noise=2)
    batch = _batch()
    for player, other in (('discriminator', 'generator'),
                          ('generator', 'discriminator')):
      gradients = _jit(jax.grad(lambda p, f=colorizer.players[player]: f(
          p, variables['model_state'], batch, _keys(0), step=0,
          train=True)[0]))(variables['params'])
      for path, gradient in jax.tree.leaves_with_path(gradients[player]):
        assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)
      through = max(float(jnp.abs(g).max())
                    for g in jax.tree.leaves(gradients[other]))
      # For the discriminator, the generated picture is a constant.
      assert (through == 0) == (player == 'discriminator')

  def test_players_update_only_their_own_batch_statistics(self):
    colorizer, variables = _method()
    batch, old = _batch(), variables['model_state']
    for player, loss in colorizer.players.items():
      _, aux = _run(loss, variables, batch, train=True)
      assert _moved(old, aux.model_state) == {
          'discriminator': player == 'discriminator',
          'generator': player == 'generator'}
    _, aux = _run(colorizer.loss, variables, batch, train=False)
    assert not any(_moved(old, aux.model_state).values())

  def test_metrics_of_the_players_differ_and_one_is_loss(self):
    colorizer, variables = _method()
    names = []
    for loss in colorizer.players.values():
      names += _run(loss, variables, _batch(), train=True)[1].metrics
    assert len(names) == len(set(names))
    assert 'loss' in names

  def test_padding_does_not_change_the_losses(self):
    colorizer, variables = _method()
    batch = _batch()
    half = {name: x[:2] for name, x in batch.items()}
    padded = {**batch, 'padding_mask': jnp.asarray([1.0, 1, 0, 0]),
              'region': batch['region'].at[2:].set(0)}
    for loss in (colorizer.loss, colorizer.players['discriminator']):
      expected, _ = _run(loss, variables, half, train=False)
      found, aux = _run(loss, variables, padded, train=False)
      np.testing.assert_allclose(found, expected, rtol=1e-5)
      assert {int(count) for _, count in aux.metrics.values()} == {2}

  def test_the_default_region_is_the_whole_picture(self):
    colorizer, variables = _method()
    batch = _batch()
    whole = {**batch, 'region': jnp.ones_like(batch['region'])}
    del batch['region']
    expected, aux = _run(colorizer.loss, variables, whole, train=False)
    found, _ = _run(colorizer.loss, variables, batch, train=False)
    assert float(found) == float(expected)
    assert _metric(aux, 'chroma_outside') == 0
    assert _metric(aux, 'difference_inside') == pytest.approx(0, abs=1e-4)

  def test_held_out_metrics_equal_those_of_the_predictions(self):
    colorizer, variables = _method(noise=3)
    batch = _batch()
    lightness, ab = _lab(batch)
    region = np.asarray(batch['region'][..., 0], bool)
    within = np.asarray(_compiled(colorizer.predict)(
        variables, {**grey(lightness), 'region': batch['region']}))
    unmasked = np.asarray(
        _compiled(colorizer.predict)(variables, grey(lightness)))
    _, aux = _run(colorizer.loss, variables, batch, train=False)

    def mean(field, where):
      return np.mean([np.linalg.norm(f, axis=-1)[w].mean()
                      for f, w in zip(field, where, strict=True)])

    for name, expected in (
        ('chroma_outside', mean(within, ~region)),
        ('difference_inside', mean(within - unmasked, region)),
        ('error_inside', mean(within - ab, region))):
      assert _metric(aux, name) == pytest.approx(expected, rel=1e-3)

  def test_held_out_objective_is_not_random(self):
    colorizer, variables = _method(noise=3)
    values = {float(_run(colorizer.loss, variables, _batch(), train=False,
                         key=key)[0]) for key in range(3)}
    assert len(values) == 1
    values = {float(_run(colorizer.players['generator'], variables, _batch(),
                         train=True, key=key)[0]) for key in range(3)}
    assert len(values) == 3


def test_learns_to_read_the_region():
  """Eighty steps on four photographs: color inside the region, grey outside.

  The regions change from step to step, so that only a generator that uses its
  region input can be right.
  """
  colorizer, variables = _method(widths=(16, 32), regression_weight=100.0)
  optimizer = optax.adam(5e-3, b1=0.5)
  batch = _batch()
  sides = jnp.stack([jnp.arange(SIZE) < 8, jnp.arange(SIZE) >= 8]) * 1.0

  def region(step):
    side = sides[(step + jnp.arange(4)) % 2]
    return jnp.broadcast_to(side[:, None, :, None], (4, SIZE, SIZE, 1))

  @jax.jit
  def train(variables):
    def update(player, carry, keys, example):
      params, state, opt = carry
      loss = colorizer.players[player]
      gradient, aux = jax.grad(lambda own: loss(
          {**params, player: own}, state, example, keys, step=0, train=True),
                               has_aux=True)(params[player])
      updates, own_opt = optimizer.update(gradient, opt[player])
      params = {**params, player: optax.apply_updates(
          params[player], updates)}
      return params, aux.model_state, {**opt, player: own_opt}

    def step(carry, number):
      example = {**batch, 'region': region(number)}
      for player in colorizer.players:
        carry = update(player, carry, _keys(number), example)
      return carry, None

    params = variables['params']
    opt = {name: optimizer.init(params[name]) for name in colorizer.players}
    (params, state, _), _ = jax.lax.scan(
        step, (params, variables['model_state'], opt), jnp.arange(80))
    return {'params': params, 'model_state': state}

  trained = train(variables)
  lightness, ab = _lab(batch)
  truth = float(jnp.linalg.norm(ab, axis=-1).mean())
  within = _jit(colorizer.predict)
  for number in range(2):
    inside = region(number)
    chroma = jnp.linalg.norm(within(
        trained, {**grey(lightness), 'region': inside}), axis=-1)
    outside = float((chroma * (1 - inside[..., 0])).mean() * 2)
    assert outside < 0.2 * truth
    assert float((chroma * inside[..., 0]).mean() * 2) > 3 * outside
