"""What is judged: the answers to a batch of photographs.

Every figure of a coloring is one of the 8-bit picture that a person is given
(`painting.picture`), so that a checkpoint of ours and the files of another
program stand on one footing. Densities and draws are judged as they are, at
the resolution at which the method has them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from colorjax import color, resample
from colorjax import keys as key_lib
from colorjax.colorizer import Batch, Colorizer, Inputs, Variables
from colorjax.fallbacks import with_fallbacks
from colorjax.photo import painting, square, strokes

NUM_HINTS = 10
"""Pixels whose true color is given, where hints are measured."""

REFERENCES = ('truth', 'grey')
"""Answers that need no method: the photographs themselves, and left grey."""


class Answers(NamedTuple):
  """Photographs [B, S, S] and the answers to them; None for what there is not.

  What may be None has type Any: a metric says by `needs` what it reads.

  Attributes:
    original: the photographs, uint8 sRGB [B, S, S, 3].
    picture: the single best answer, uint8 sRGB [B, S, S, 3].
    lightness: L of the photographs, [B, S, S, 1].
    ab: of the photographs, Lab units, [B, S, S, 2].
    picture_ab: of the answer, [B, S, S, 2].
    networks: variables of the networks that metrics use, by name.
    mean_color: mean ab of the training set, [2].
    proposals: the K answers worth showing, uint8 [K, B, S, S, 3].
    proposals_ab: their ab, [K, B, S, S, 2].
    expected_ab: the picture of the proposals averaged by their weights,
      [B, S, S, 2].
    samples: random answers, uint8 [n, B, S, S, 3].
    samples_ab: their ab, [n, B, S, S, 2].
    hinted_ab: the answer where NUM_HINTS pixels are given, [B, S, S, 2].
    bits: -log2 of the density in Lab units, for each of its numbers, [B].
    field: ab of the photographs at the resolution of the draws, [B, h, w, 2].
    draws: draws of the predictive distribution, [m, B, h, w, 2].
    keys: a random key for each photograph, [B].
    nats: log density of the photographs, [B].
    nats_of_draws: log density of each draw, [m, B].
  """
  original: jax.Array
  picture: jax.Array
  lightness: jax.Array
  ab: jax.Array
  picture_ab: jax.Array
  networks: Mapping[str, Any]
  mean_color: Any = None
  proposals: Any = None
  proposals_ab: Any = None
  expected_ab: Any = None
  samples: Any = None
  samples_ab: Any = None
  hinted_ab: Any = None
  bits: Any = None
  field: Any = None
  draws: Any = None
  keys: Any = None
  nats: Any = None
  nats_of_draws: Any = None


AnswerFn = Callable[[Variables, Batch, Mapping[str, Any]], Answers]
"""`(variables, batch, networks) -> Answers`, pure."""


def of_pictures(variables: Variables, batch: Batch,
                networks: Mapping[str, Any]) -> Answers:
  """The pictures of any program: batch['picture'], uint8 [B, S, S, 3]."""
  del variables
  lightness, ab = color.split_lightness(batch['image'])
  picture = batch['picture']
  return Answers(
      original=batch['image'], picture=picture, lightness=lightness, ab=ab,
      picture_ab=color.split_lightness(picture)[1], networks=networks)


def of_reference(which: Literal['truth', 'grey']) -> AnswerFn:
  """The answer of one of REFERENCES."""
  def answer(variables, batch, networks):
    picture = batch['image']
    if which == 'grey':
      picture = painting.grey_picture(color.split_lightness(picture)[0])
    return of_pictures(variables, {**batch, 'picture': picture}, networks)

  return answer


def of_colorizer(
    colorizer: Colorizer, *, image_size: int, num_proposals: int = 1,
    num_samples: int = 0, num_draws: int = 0, seed: int = 0,
    mean_color: Any = None,
) -> AnswerFn:
  """The answers of a method, at the size of the photographs.

  The network sees the photographs at its own size (`photo.square`); its
  answers are brought back along their edges, as `inference` does it. What is
  random is drawn with a key of (seed, batch['index']), so that it does not
  depend on the batch that a photograph comes in.

  Args:
    colorizer: the method.
    image_size: side of the square that the network sees.
    num_proposals: K; fewer where the method has no more, and none where it has
      one.
    num_samples: random answers; none for a deterministic method.
    num_draws: draws for calibration. Where the method has no `draw` they are
      random answers, the same ones as the samples.
    seed: of samples and draws.
    mean_color: mean ab of the training set, [2], if it is known.

  Returns:
    The function; its batches need 'index'.
  """
  complete = with_fallbacks(colorizer)
  k = colorizer.num_proposals(num_proposals)
  if colorizer.is_deterministic:
    num_samples = num_draws = 0
  # Samples are drawn once, for all that samples serve.
  num_drawn = max(num_samples, num_draws * (colorizer.draw is None),
                  k * colorizer.answers_are_samples)

  def answer(variables, batch, networks):
    lightness, ab = color.split_lightness(batch['image'])
    seen = square.resize_batch(batch['image'], image_size)
    guide, field = color.split_lightness(seen)[0], _at(ab, image_size)
    inputs = {'lightness': guide}
    keys = key_lib.of_photographs(seed, 'answers', batch['index'])

    def shown(answers):
      """ab [..., B, s, s, 2] as pictures, and their ab."""
      pictures = _painted(answers, guide, lightness)
      return pictures, color.split_lightness(pictures)[1]

    extra: dict[str, Any] = {}
    if num_drawn:
      samples = colorizer.sample(
          variables, inputs, key_lib.named(keys, 'sample'), num_drawn)
    if num_samples:
      extra['samples'], extra['samples_ab'] = shown(samples[:num_samples])
    if colorizer.answers_are_samples:
      best, proposals, probability = samples[0], samples[:k], None
    else:
      best = complete.predict(variables, inputs)
      if k > 1:
        proposals, probability = complete.propose(variables, inputs, k)
    picture, picture_ab = shown(best)
    if k > 1:
      extra['proposals'], extra['proposals_ab'] = shown(proposals)
      # Answers without probabilities count alike.
      share = (jnp.full((k, len(guide)), 1 / k) if probability is None
               else probability / probability.sum(0))
      extra['expected_ab'] = shown(
          (share[..., None, None, None] * proposals).sum(0))[1]
    hint_ab, hint_mask = strokes.random_points_of(
        0, batch['index'], field, NUM_HINTS)
    extra['hinted_ab'] = shown(complete.predict(variables, {
        **inputs, 'hint_ab': hint_ab, 'hint_mask': hint_mask}))[1]
    extra |= _density(colorizer, variables, inputs, field, keys)
    if num_draws:
      draws = (samples[:num_draws] if colorizer.draw is None
               else colorizer.draw(variables, inputs,
                                   key_lib.named(keys, 'draw'), num_draws))
      extra |= _calibration(colorizer, variables, inputs, field, keys, draws)
    if mean_color is not None:
      extra['mean_color'] = jnp.asarray(mean_color)
    return Answers(
        original=batch['image'], picture=picture, lightness=lightness, ab=ab,
        picture_ab=picture_ab, networks=networks, keys=keys, **extra)

  return answer


def _density(colorizer: Colorizer, variables: Variables, inputs: Inputs,
             field: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
  if colorizer.log_prob is None:
    return {}
  _, height, width, _ = inputs['lightness'].shape
  height, width = colorizer.event_shape((height, width))
  nats = colorizer.log_prob(
      variables, inputs, field, key_lib.named(keys, 'log_prob'))
  return {'nats': nats, 'bits': -nats / (height * width * 2 * jnp.log(2.0))}


def _calibration(colorizer: Colorizer, variables: Variables, inputs: Inputs,
                 field: jax.Array, keys: jax.Array, draws: jax.Array
                 ) -> dict[str, jax.Array]:
  """Draws, the photographs at their resolution, and the draws' densities."""
  factor = field.shape[1] // draws.shape[2]
  calibration = {'draws': draws, 'field': resample.mean_pool(field, factor)}
  log_prob = colorizer.log_prob
  # A bound or an estimate of a density says nothing about its order.
  if log_prob is None or colorizer.log_prob_kind != 'exact':
    return calibration

  def nats_of(draw):
    # Averages over blocks of equal numbers give these numbers back.
    blocks = draw.repeat(factor, 1).repeat(factor, 2)
    return log_prob(variables, inputs, blocks, keys)

  return {**calibration, 'nats_of_draws': jax.vmap(nats_of)(draws)}


def _at(ab: jax.Array, size: int) -> jax.Array:
  """ab [B, S, S, 2] at the size of the network, by averages."""
  if ab.shape[1] % size == 0:
    return resample.mean_pool(ab, ab.shape[1] // size)
  return jax.image.resize(
      ab, (len(ab), size, size, 2), 'linear', antialias=True)


def _painted(ab: jax.Array, guide: jax.Array, lightness: jax.Array
             ) -> jax.Array:
  """Answers [..., B, s, s, 2] as pictures, uint8 [..., B, S, S, 3]."""
  def paint(ab):
    if guide.shape != lightness.shape:
      ab = resample.follow(ab, guide, lightness)
    return painting.picture(lightness, ab)

  if ab.ndim == 4:
    return paint(ab)
  # One after the other: K large pictures in float32 would not fit.
  return jax.lax.map(paint, ab)
