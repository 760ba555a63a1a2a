"""Runs whose networks see imitated scans, and measurements on scans."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from colorjax import color, keys
from colorjax.colorizer import deterministic, masked_mean
from colorjax.errors import UserError
from colorjax.evaluation import answers
from colorjax.film import family
from colorjax.methods import (
    autoregressive,
    classification,
    color_queries,
    flow_matching,
    fusion,
    latent,
    mask_gan,
    mbm,
    regression,
    residual_autoencoder,
)
from colorjax.methods.baselines import grey
from colorjax.runs import evaluate, program, train
from colorjax.runs import plan as plans
from colorjax.runs.options import Optimizing, TrainOptions, text_of
from colorjax.training.steps import make_train_step

pytestmark = pytest.mark.usefixtures('compiles_quickly')

METHOD = 'colorjax.methods.regression'
SMALL = {'filters': (16,)}
GAME = {'widths': (4,)}
COLORS = ((200, 60, 40), (40, 160, 60), (50, 70, 200))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('photos')
  for i, rgb in enumerate(COLORS):
    shade = np.random.default_rng(i).uniform(0.4, 1.2, (4, 4, 1))
    pixels = np.clip(shade.repeat(4, 0).repeat(4, 1) * rgb, 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path / f'{i}.png')
  return path


def _options(folder='.', workdir='.', **changes):
  return TrainOptions(**{
      'workdir': workdir, 'data': f'folder:{folder}',
      'eval_data': f'folder:{folder}', 'image_size': 16, 'batch_size': 2,
      'num_steps': 4, 'eval_every': 4, 'log_every': 1, 'checkpoint_every': 2,
      'report': False, 'optimizing': Optimizing(warmup_steps=1)} | changes)


def _batch(count=2):
  coarse = np.random.default_rng(0).integers(
      0, 256, (count, 4, 4, 3), np.uint8)
  return {'image': coarse.repeat(4, 1).repeat(4, 2),
          'padding_mask': np.ones(count, np.float32),
          'index': np.arange(count, dtype=np.int32)}


def _start(method, **changes):
  """The state and the training step of a method."""
  options = _options(**changes)
  plan = plans.of_training(method, options)
  return (program.initial_state(method, options, plan),
          program.train_step(method, options, plan))


@pytest.fixture(scope='module')
def imitate():
  return jax.jit(lambda images, keys: family.imitate(images, keys, rate=0.7))


@pytest.mark.parametrize('build', [
    lambda: regression.build(**SMALL),
    lambda: mbm.build(num_components=2, filters=(16,), prior_width=8)],
    ids=['regression', 'mbm'])
def test_runs_see_the_scans_of_their_seed_step_and_places(build, imitate):
  method = build()
  state, step = _start(method, film=0.7, data_seed=3)
  step, loss = jax.jit(step), jax.jit(method.loss, static_argnames='train')
  batch = {name: jnp.asarray(x) for name, x in _batch().items()}
  losses = []
  for number in range(3):
    of_film, of_loss = (
        keys.of_examples(keys.of_step(seed, number, name), jnp.arange(2))
        for seed, name in ((3, 'film'), (0, 'loss')))
    lightness = imitate(batch['image'], of_film)
    expected, _ = loss(
        state.params, state.model_state, {**batch, 'lightness': lightness},
        of_loss, step=jnp.int32(number), train=True)
    # What a checkpoint holds: a resumed run goes on from it.
    state = jax.device_get(state)
    state, metrics = step(state, batch)
    losses.append(float(metrics['loss'][0]) / 2)
    assert losses[-1] == pytest.approx(float(expected), rel=1e-5)
    if number == 1:
      stored = jax.device_get(state)
  assert not bool(state.failed)
  assert len(set(losses)) == 3
  resumed, _ = step(stored, batch)
  for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(resumed),
                        strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_run_is_not_resumed_with_another_share(folder, tmp_path):
  (tmp_path / 'flags.txt').write_text(text_of(
      _options(folder, tmp_path, film=0.8), {'method': METHOD}))
  with pytest.raises(UserError, match=r'film was 0\.8, is 0\.5'):
    train.train(METHOD, SMALL, _options(folder, tmp_path, film=0.5))


def test_without_scans_the_program_is_the_same():
  method = regression.build(**SMALL)
  options = _options()
  plan = plans.of_training(method, options)
  state = program.initial_state(method, options, plan)
  plain, none = (str(jax.make_jaxpr(step)(state, _batch())) for step in (
      make_train_step(method.loss, plan.optimizer, seed=0,
                      schedule=plan.schedule, ema_decay=plan.ema_decay),
      program.train_step(method, options, plan)))
  assert plain == none


def test_replicas_share_the_scans_of_the_data_seed(monkeypatch):
  """Every replica is the run that the README says it is equal to."""
  monkeypatch.setattr(family, 'imitate', lambda images, keys, rate: (
      jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
      + jnp.zeros((*images.shape[:3], 1))))

  def loss(params, model_state, batch, keys, *, step, train):
    del keys, step, train
    value = batch['lightness'].mean((1, 2, 3))
    return masked_mean({'loss': value * params['w']}, batch['padding_mask'],
                       model_state)

  method = dataclasses.replace(regression.build(**SMALL), loss=loss, init=(
      lambda key, shape: {'params': {'w': jnp.ones(())}, 'model_state': {}}))

  def first(**changes):
    state, step = _start(method, film=1.0, **changes)
    total, count = jax.jit(step)(state, _batch())[1]['loss']
    return np.asarray(total / count)

  both = first(seed=5, replicas=2)
  np.testing.assert_allclose(both, first(seed=6, data_seed=5), rtol=1e-5)


@pytest.mark.parametrize('build', [
    lambda: autoregressive.build(filters=(16, 16), trunk_settings={}),
    lambda: classification.build(network='unet', filters=(16,)),
    lambda: color_queries.build(network='unet', filters=(16, 16, 16),
                                width=32),
    lambda: flow_matching.build(filters=(16,)),
    lambda: fusion.build(embedding_size=32, width=0.1),
    lambda: latent.build(filters=(16, 16)),
    lambda: mask_gan.build(**GAME),
    lambda: mbm.build(filters=(16,)),
    lambda: regression.build(**SMALL),
    lambda: residual_autoencoder.build(),
    grey.build], ids=lambda build: build.__code__.co_names[0])
def test_all_methods_see_scans(build):
  program.check_film(build(), _options(film=0.5, image_size=32),
                     has_embeddings=False)


def test_what_cannot_see_scans_is_refused():
  def loss(params, model_state, batch, keys, *, step, train):
    return masked_mean({'loss': batch['image'].mean((1, 2, 3))},
                       batch['padding_mask'], model_state)

  blind = dataclasses.replace(regression.build(**SMALL), loss=loss)
  with pytest.raises(UserError, match=r'film=0\.5: the loss .* not read'):
    program.check_film(blind, _options(film=0.5), has_embeddings=False)
  with pytest.raises(UserError, match=r'film=0\.5: cached embeddings'):
    program.check_film(blind, _options(film=0.5), has_embeddings=True)
  with pytest.raises(UserError, match='film=2: give a share'):
    program.check_film(blind, _options(film=2), has_embeddings=False)
  program.check_film(blind, _options(), has_embeddings=True)


def test_only_the_network_sees_a_scan():
  """Losses on pictures and discriminators are given the true lightness."""
  batch = {name: jnp.asarray(x) for name, x in _batch().items()}
  scans = color.split_lightness(batch['image'])[0], jnp.full(
      (2, 16, 16, 1), 50.0)

  def check(loss, variables):
    measure = jax.jit(lambda lightness: loss(
        variables['params'], variables['model_state'],
        {**batch, 'lightness': lightness}, None, step=0, train=True)[1].metrics)
    own, other = (jax.device_get(measure(scan)) for scan in scans)
    assert own == other

  # The untrained network predicts grey, whatever it sees.
  method = regression.build(loss='edges', **SMALL)
  check(method.loss, method.init(jax.random.key(0), (16, 16)))
  game = mask_gan.build(**GAME)
  variables = game.init(jax.random.key(0), (16, 16))
  params = {**variables['params'], 'generator': jax.tree.map(
      jnp.zeros_like, variables['params']['generator'])}
  for loss in game.players.values():
    check(loss, {**variables, 'params': params})


def _answers(answer, images):
  names = 'original', 'lightness', 'ab', 'picture', 'picture_ab'
  return jax.device_get(jax.jit(lambda batch: {
      name: getattr(answer({}, batch, {}), name) for name in names})(
          {'image': images, 'index': jnp.arange(len(images))}))


def test_colorings_of_scans_are_compared_with_their_photographs():
  def imitation(images, keys):
    shade = jax.vmap(lambda key: jax.random.uniform(
        key, (16, 16, 1), minval=60, maxval=200))(keys)
    return jnp.repeat((shade + images[..., :1] / 8).astype(jnp.uint8), 3, -1)

  images = jnp.asarray(_batch(3)['image'])
  split = jax.jit(color.split_lightness)
  ab = np.asarray(split(images)[1])
  scan_lightness = np.asarray(split(jax.jit(imitation)(
      images, keys.of_photographs(4, 'film', jnp.arange(3))))[0])

  def predict(variables, inputs):
    """Colors that show which lightness the method is given."""
    del variables
    seen = inputs['lightness']
    return jnp.concatenate([(seen - 50) / 10, (seen - 50) / 10], -1)

  method = deterministic(init=None, loss=None, predict=predict)
  for answer in (answers.of_reference('grey'), answers.of_reference('truth'),
                 answers.of_colorizer(method, image_size=16)):
    found = _answers(answers.of_scans(answer, imitation, seed=4), images)
    np.testing.assert_array_equal(found['original'], images)
    np.testing.assert_allclose(found['lightness'], scan_lightness, atol=1e-3)
    np.testing.assert_allclose(found['ab'], ab, atol=1e-3)
    # A coloring has the grey levels of the scan.
    seen = split(jnp.asarray(found['picture']))[0]
    np.testing.assert_allclose(seen, scan_lightness, atol=0.4)
  np.testing.assert_allclose(
      found['picture_ab'], np.repeat((scan_lightness - 50) / 10, 2, -1),
      atol=1.5)
  truth = _answers(answers.of_scans(
      answers.of_reference('truth'), imitation, seed=4), images)
  chroma, error = (np.linalg.norm(x, axis=-1).mean() for x in (
      ab, truth['picture_ab'] - ab))
  assert error < 0.6 * chroma, 'up to the gamut, the colors are the true ones'


def _measured(folder, workdir, **changes):
  return evaluate.evaluate(evaluate.EvaluateOptions(
      data=f'folder:{folder}', workdir=str(workdir), image_size=32,
      report_photos=1, **({'reference': 'grey'} | changes)))


def test_an_evaluation_says_what_it_colored(folder, tmp_path, capsys):
  found = _measured(folder, tmp_path, film='plate')
  stored = json.loads((tmp_path / 'protocol.json').read_text())
  assert stored['film'] == found.record.film == 'plate, version 1'
  assert 'contain their damage' in capsys.readouterr().out
  # The scan left grey has no color, and is no picture of the photograph.
  assert found.summary['chroma'].mean < 0.5
  assert found.summary['psnr'].mean < 20
  np.testing.assert_allclose(
      found.statistics['psnr'], found.statistics['psnr_grey'], rtol=1e-4)
  with pytest.raises(UserError, match='film was plate, is print'):
    _measured(folder, tmp_path, film='print')


@pytest.mark.parametrize(('changes', 'message'), [
    ({'film': 'sepia'}, 'film=sepia: choose one of plate, newspaper, print'),
    ({'film': 'plate', 'outputs': 'x', 'reference': None}, 'outputs=x are')])
def test_scans_that_cannot_be_measured_are_refused(
    changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    _measured('.', tmp_path, **changes)
