"""How different the answers of one method are, and what the best is worth.

Every function takes K answers to each photograph and returns one value for
each photograph.
"""

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.metrics import image


def best_of_k_rmse(pictures: jax.Array, original: jax.Array) -> jax.Array:
  """sRGB error of the best of K answers, chosen for the WHOLE photograph.

  min_k sqrt(mean over pixels and channels of the squared difference).

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].
    original: uint8 sRGB [..., H, W, 3].

  Returns:
    In [0, 1], the unit of `pixel_oracle_k`, shape [...].
  """
  squared = _squared_differences(pictures, original)
  return jnp.sqrt(squared.mean((-3, -2, -1)).min(0))


def pixel_oracle_k(pictures: jax.Array, original: jax.Array) -> jax.Array:
  """sRGB error where each pixel AND channel takes the nearest of K answers.

  sqrt(mean over pixels and channels of min_k of the squared difference). The
  script of Ardizzone et al. 2019 (cINN) prints this, times 100, as the best of
  8. It is no answer's error: a picture with noise of its own at every pixel
  does well. It never stands under the name of `best_of_k_rmse`, which is never
  smaller.

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].
    original: uint8 sRGB [..., H, W, 3].

  Returns:
    In [0, 1], shape [...].
  """
  squared = _squared_differences(pictures, original)
  return jnp.sqrt(squared.min(0).mean((-3, -2, -1)))


def pixel_oracle_k_ab(proposals: jax.Array, target: jax.Array) -> jax.Array:
  """Mean ab distance where each pixel takes the nearest of K answers.

  The minimum is of the Euclidean distance, so both channels are of one answer.
  `image.best_of_k` is the figure of whole photographs, never smaller.

  Args:
    proposals: ab [K, ..., H, W, 2].
    target: ab [..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  squared = jnp.square(proposals - target[None]).sum(-1)
  return jnp.sqrt(squared.min(0)).mean((-2, -1))


def pairwise_ab_distance(answers: jax.Array) -> jax.Array:
  """Mean ab distance of two answers, over all K (K - 1) / 2 pairs.

  Unlike a mean over neighbors in the list it does not depend on their order.

  Args:
    answers: ab [K, ..., H, W, 2], K at least 2.

  Returns:
    Lab units, 0 where all answers are one, shape [...].

  Raises:
    ValueError: there is one answer, so there is no pair.
  """
  k = len(answers)
  if k < 2:
    raise ValueError(f'a pair needs 2 answers, got {k}')

  # One pair at a time: there is never an array of all pairs.
  answers = jnp.asarray(answers)
  first, second = (jnp.asarray(x) for x in np.triu_indices(k, 1))

  def add(pair, total):
    return total + image.ab_distance(
        answers[first[pair]], answers[second[pair]])

  zero = jnp.zeros(answers.shape[1:-3], answers.dtype)
  return jax.lax.fori_loop(0, len(first), add, zero) / len(first)


def variance(pictures: jax.Array) -> jax.Array:
  """Variance of sRGB over the answers, mean over pixels and channels.

  Population variance over K of sRGB in [0, 1]; with 8 answers the figure that
  Ardizzone et al. 2019 print as 35.2e-4.

  Args:
    pictures: uint8 sRGB [K, ..., H, W, 3].

  Returns:
    In [0, 1/4], shape [...].
  """
  levels, = image.levels(pictures)
  return (levels / 255).var(0).mean((-3, -2, -1))


def ab_std_map(answers: jax.Array) -> jax.Array:
  """Map of how uncertain the color of each pixel is.

  sqrt(var a + var b) with population variances over the answers: the root mean
  square distance from their mean.

  Args:
    answers: ab [K, ..., H, W, 2].

  Returns:
    Lab units, shape [..., H, W].
  """
  return jnp.sqrt(answers.var(0).sum(-1))


def ab_std(answers: jax.Array) -> jax.Array:
  """Mean of `ab_std_map` over pixels.

  Args:
    answers: ab [K, ..., H, W, 2].

  Returns:
    Lab units, shape [...].
  """
  return ab_std_map(answers).mean((-2, -1))


def _squared_differences(
    pictures: jax.Array, original: jax.Array) -> jax.Array:
  """Of sRGB in [0, 1]; [K, ..., H, W, 3]."""
  answers, = image.levels(pictures)
  target, = image.levels(original)
  if answers.shape[1:] != target.shape:
    raise ValueError(
        f'{list(answers.shape)} are no answers to {list(target.shape)}')
  return jnp.square((answers - target[None]) / 255)
