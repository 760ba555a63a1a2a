"""Point estimates and samples of a mixture."""

import functools
import itertools

import jax
import numpy as np
import scipy.special
from mixture_problem import (
  FAMILIES,
  assert_mean,
  every_built_in,
  image_problem,
  problem,
)

from colorjax import losses


@every_built_in
def test_mixture_mean_is_the_mean_of_mixture_samples(name):
  family = FAMILIES[name]
  _, params, mixing = problem(family, (1, 3, 4))
  if name == 'gaussian':
    params = (params[0] / 4, params[1] / 4 - 1.5)
  options = {'family': family, 'event_axes': (1,)}
  draws = jax.jit(jax.vmap(lambda k: losses.mixture_sample(
      k, params, mixing, **options)))(
          jax.random.split(jax.random.key(3), 20_000))
  assert draws.shape == (20_000, 1, 4)
  mean = losses.mixture_mean(params, mixing, **options)
  assert_mean(draws, mean)


def test_samples_of_an_event_share_their_component():
  # Two components that always differ: all 0 and all 1.
  logits = np.stack([np.full((6, 4, 2), -1e4), np.full((6, 4, 2), 1e4)])[None]

  def draws(mixing, axes):
    draw = functools.partial(
        losses.mixture_sample, component_params=(logits,),
        mixing_logits=mixing, family=losses.bernoulli(), event_axes=axes)
    keys = jax.random.split(jax.random.key(0), 64)
    return np.asarray(jax.jit(jax.vmap(draw))(keys))

  whole = draws(np.zeros((1, 2)), (1, 2, 3))
  assert set(np.unique(whole.mean((1, 2, 3, 4)))) == {0.0, 1.0}
  pixel = draws(np.zeros((1, 2, 6, 4)), (3,))
  assert (pixel[..., 0] == pixel[..., 1]).all()
  assert 0.4 < pixel.mean() < 0.6
  assert set(np.unique(pixel[0])) == {0.0, 1.0}


def test_estimates_from_the_most_probable_component():
  family = losses.gaussian()
  _, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4))
  options = {'family': family, 'event_axes': (3,)}
  means = scipy.special.expit(params[0])
  top = losses.top_component_mean(params, mixing, **options)
  for b, i, j in itertools.product(range(2), range(6), range(4)):
    np.testing.assert_allclose(
        top[b, i, j], means[b, mixing[b, :, i, j].argmax(), i, j], rtol=1e-5)
  np.testing.assert_allclose(
      losses.mixture_mode(params, mixing, **options), top, rtol=1e-6)


def test_estimates_with_channels_last():
  family = losses.discretized_logistic()
  _, params, rng = image_problem(family)
  mixing = rng.normal(size=(2, 3, 6, 4))
  moved = tuple(np.moveaxis(p, 1, 3) for p in params)
  for estimate in (losses.mixture_mean, losses.mixture_mode,
                   losses.top_component_mean):
    estimate = functools.partial(estimate, family=family, event_axes=(3,))
    last = jax.jit(functools.partial(estimate, component_axis=3))(
        moved, np.moveaxis(mixing, 1, 3))
    np.testing.assert_allclose(
        last, jax.jit(estimate)(params, mixing), rtol=1e-6)
