"""Runs whose networks see imitated scans, and measurements on scans."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from colorjax.colorizer import masked_mean
from colorjax.errors import UserError
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
from colorjax.runs.options import Optimizing, TrainOptions
from colorjax.training.checkpoint import DIRECTORY, restore_variables
from colorjax.training.steps import make_train_step

pytestmark = pytest.mark.usefixtures('compiles_quickly')

METHOD = 'colorjax.methods.regression'
SMALL = {'filters': (16,)}
GAME = {'widths': (4, 8)}
COLORS = ((200, 60, 40), (40, 160, 60), (50, 70, 200))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('photos')
  for i, color in enumerate(COLORS):
    shade = np.random.default_rng(i).uniform(0.4, 1.2, (4, 4, 1))
    pixels = np.clip(shade.repeat(4, 0).repeat(4, 1) * color, 0, 255)
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


def test_a_resumed_run_sees_the_same_scans(folder, tmp_path):
  options = _options(folder, tmp_path / 'whole', film=0.8)
  assert train.train(METHOD, SMALL, options).step == 4
  shutil.copytree(tmp_path / 'whole', tmp_path / 'cut')
  shutil.rmtree(tmp_path / 'cut' / DIRECTORY / '4')
  cut = dataclasses.replace(options, workdir=tmp_path / 'cut')
  assert train.train(METHOD, SMALL, cut).step == 4
  whole, resumed, half = (
      jax.tree.leaves(restore_variables(tmp_path / name, which=which))
      for name, which in (('whole', 4), ('cut', 4), ('cut', 2)))
  for one, other in zip(whole, resumed, strict=True):
    np.testing.assert_array_equal(one, other)
  assert any((one != other).any() for one, other in zip(
      whole, half, strict=True))
  with pytest.raises(UserError, match=r'film was 0\.8, is 0\.5'):
    train.train(METHOD, SMALL, dataclasses.replace(options, film=0.5))


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


@pytest.mark.parametrize('build', [
    lambda: mbm.build(num_components=2, filters=(16,), prior_width=8),
    lambda: mask_gan.build(**GAME)], ids=['mbm', 'mask_gan'])
def test_methods_learn_from_scans(build):
  method = build()
  state, step = _start(method, film=1.0)
  _, plain = _start(method)
  step = jax.jit(step)
  seen, metrics = step(state, _batch())
  assert (float(metrics['loss'][0])
          != float(jax.jit(plain)(state, _batch())[1]['loss'][0]))
  for _ in range(3):
    seen, metrics = step(seen, _batch())
  assert int(seen.step) == 4
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(seen.params))


def test_replicas_share_the_scans_of_the_data_seed():
  """Every replica is the run that the README says it is equal to."""
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
  assert abs(float(first(seed=6)) - both[0]) > 0.1


@pytest.mark.parametrize('build', [
    lambda: autoregressive.build(filters=(16, 16), trunk_settings={}),
    lambda: classification.build(filters=(16,)),
    lambda: color_queries.build(network='unet', filters=(16, 16, 16)),
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
  scan = {**batch, 'lightness': jnp.full((2, 16, 16, 1), 50.0)}
  keys = jax.random.split(jax.random.key(0), 2)
  method = regression.build(loss='edges+ssim', **SMALL)
  variables = method.init(jax.random.key(0), (16, 16))

  def both(loss, variables):
    return [{name: float(total) for name, (total, _) in loss(
        variables['params'], variables['model_state'], one, keys, step=0,
        train=True)[1].metrics.items()} for one in (batch, scan)]

  # The untrained network predicts grey, whatever it sees.
  one, other = both(method.loss, variables)
  assert one == other
  game = mask_gan.build(**GAME)
  variables = game.init(jax.random.key(0), (16, 16))
  params = {**variables['params'], 'generator': jax.tree.map(
      jnp.zeros_like, variables['params']['generator'])}
  for loss in game.players.values():
    one, other = both(loss, {**variables, 'params': params})
    assert one == other


def _measured(folder, workdir, **changes):
  return evaluate.evaluate(evaluate.EvaluateOptions(
      data=f'folder:{folder}', workdir=str(workdir), image_size=32,
      report_photos=1, **({'reference': 'grey'} | changes)))


def test_scans_are_measured_against_their_photographs(folder, tmp_path):
  grey, scan, truth = (
      _measured(folder, tmp_path / name, reference=reference, film=film)
      for name, reference, film in (
          ('plain', 'grey', None), ('grey', 'grey', 'plate'),
          ('truth', 'truth', 'plate')))
  assert (grey.record.film, scan.record.film) == ('', 'plate, version 1')
  assert scan.record.pixels == grey.record.pixels
  # Grey has no color on a scan either; the damage is in metrics of RGB.
  for name in ('ab_distance', 'chroma_truth'):
    assert scan.summary[name].mean == pytest.approx(
        grey.summary[name].mean, abs=0.05)
  assert scan.summary['psnr'].mean < grey.summary['psnr'].mean - 1
  # True colors, as far as the lightness of a scan can have them.
  assert (truth.summary['ab_distance'].mean
          < 0.7 * scan.summary['ab_distance'].mean)
  again = _measured(folder, tmp_path / 'batch', film='plate', batch_size=1)
  for name, values in scan.statistics.items():
    np.testing.assert_allclose(again.statistics[name], values, rtol=1e-4,
                               atol=1e-5)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'film': 'sepia'}, 'film=sepia: choose one of plate, newspaper, print'),
    ({'film': 'plate', 'outputs': 'x', 'reference': None}, 'outputs=x are')])
def test_scans_that_cannot_be_measured_are_refused(
    changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    _measured('.', tmp_path, **changes)
