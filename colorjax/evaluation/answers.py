"""What is evaluated: the colorings of a batch of photographs.

Metrics of a coloring are computed from the 8-bit picture (`painting.picture`)
that a user would get. A checkpoint is therefore measured in the same way as
the image files of another program. Densities and draws are evaluated as the
method returns them, at its own resolution.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from colorjax import color, resample, spread
from colorjax import keys as key_lib
from colorjax.colorizer import Batch, Colorizer, Inputs, Variables
from colorjax.fallbacks import with_fallbacks
from colorjax.film import held_out
from colorjax.photo import painting, square, strokes

NUM_HINTS = (1, 10, 100)
"""Numbers of pixels whose true color is given as hints."""

REFERENCES = ('truth', 'grey')
"""Colorings that need no method: the photographs themselves, or left grey."""


class Answers(NamedTuple):
  """A batch of photographs and their colorings.

  Fields that a method does not provide are None. They have the type Any: each
  metric lists the fields that it reads in `Metric.needs`. All ab fields are in
  Lab units.

  Attributes:
    original: the photographs, uint8 sRGB [B, S, S, 3].
    picture: the single best coloring, uint8 sRGB [B, S, S, 3].
    lightness: L of the photographs, or of their scans (`of_scans`), in
      [0, 100], [B, S, S, 1].
    ab: ab of the photographs, [B, S, S, 2].
    picture_ab: ab of `picture`, [B, S, S, 2].
    networks: variables of the networks that metrics use, by name.
    mean_color: mean ab of the training set, [2].
    proposals: K distinct colorings, uint8 sRGB [K, B, S, S, 3].
    proposals_ab: ab of the proposals, [K, B, S, S, 2].
    expected_ab: ab of the picture of the probability-weighted mean of the
      proposals, [B, S, S, 2].
    samples: random colorings, uint8 sRGB [n, B, S, S, 3].
    samples_ab: ab of the samples, [n, B, S, S, 2].
    hinted_ab: ab of the colorings with hints, for each of NUM_HINTS,
      [h, B, S, S, 2].
    hint_error: their mean ab distance from the hints, at the hints, [h, B].
    bits: negative log2 density in Lab units, divided by the number of
      dimensions, [B].
    bits_error: standard error of `bits`, if the density is an estimate, [B].
    field: ab of the photographs at the resolution of the draws, [B, h, w, 2].
    draws: draws from the predictive distribution, ab [m, B, h, w, 2].
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
  hint_error: Any = None
  bits: Any = None
  bits_error: Any = None
  field: Any = None
  draws: Any = None
  keys: Any = None
  nats: Any = None
  nats_of_draws: Any = None


AnswerFn = Callable[[Variables, Batch, Mapping[str, Any]], Answers]
"""A pure function `(variables, batch, networks) -> Answers`."""


def of_pictures(variables: Variables, batch: Batch,
                networks: Mapping[str, Any]) -> Answers:
  """Evaluates the pictures of any program.

  Args:
    variables: not used.
    batch: 'image' and 'picture', both uint8 sRGB [B, S, S, 3].
    networks: variables of the networks that metrics use, by name.

  Returns:
    Answers with 'picture' as the coloring, and without optional fields.
  """
  del variables
  lightness, ab = _lightness_and_ab(batch)
  picture = batch['picture']
  return Answers(
      original=batch['image'], picture=picture, lightness=lightness, ab=ab,
      picture_ab=color.split_lightness(picture)[1], networks=networks)


def of_reference(which: Literal['truth', 'grey']) -> AnswerFn:
  """Evaluates the photographs themselves ('truth') or left grey ('grey').

  With scans (`of_scans`), 'truth' is a scan with the colors of its photograph.
  """
  def evaluate(variables, batch, networks):
    picture = batch['image']
    lightness, ab = _lightness_and_ab(batch)
    if which == 'grey':
      picture = painting.grey_picture(lightness)
    elif 'scan' in batch:
      picture = painting.picture(lightness, ab)
    return of_pictures(variables, {**batch, 'picture': picture}, networks)

  return evaluate


def of_scans(answer: AnswerFn, imitation: held_out.Imitation, *, seed: int
             ) -> AnswerFn:
  """Evaluates colorings of imitated scans in place of the photographs.

  A method is given the scan, and a coloring has its lightness. Both are still
  compared with the photograph. So all metrics of ab measure the colors alone,
  up to the gamut at the lightness of the scan, and those of RGB contain the
  damage too.

  Args:
    answer: what evaluates them.
    imitation: one of `film.held_out.IMITATIONS`.
    seed: a scan depends on it, on the photograph and on batch['index'] only.

  Returns:
    The function `(variables, batch, networks) -> Answers`.
  """
  def evaluate(variables, batch, networks):
    keys = key_lib.of_photographs(seed, 'film', batch['index'])
    return answer(variables, {
        **batch, 'scan': imitation(batch['image'], keys)}, networks)

  return evaluate


def of_colorizer(
    colorizer: Colorizer, *, image_size: int, num_proposals: int = 1,
    num_samples: int = 0, num_draws: int = 0, seed: int = 0,
    mean_color: Any = None,
) -> AnswerFn:
  """Evaluates the colorings of a method, at the size of the photographs.

  The network sees the photographs resized to its own size (`photo.square`).
  Its predictions are enlarged along the edges of the photograph, as in
  `inference`. Random keys depend on (seed, batch['index']) only, so results do
  not depend on how photographs are batched.

  Args:
    colorizer: the method.
    image_size: side of the square that the network sees, in pixels.
    num_proposals: K, limited to what the method can propose. With K = 1 the
      fields of proposals are None.
    num_samples: number of random colorings; 0 for a deterministic method.
    num_draws: number of draws for calibration; 0 for a deterministic method.
      A method without `draw` uses its samples as draws.
    seed: seed of samples and draws.
    mean_color: mean ab of the training set, Lab units [2], if it is known.

  Returns:
    The function `(variables, batch, networks) -> Answers`. Its batches need
    'image' and 'index'.
  """
  complete = with_fallbacks(colorizer)
  k = colorizer.num_proposals(num_proposals)
  if colorizer.is_deterministic:
    num_samples = num_draws = 0
  candidates = colorizer.options.get('candidates', 0)
  spread.check_candidates(candidates, k)
  # Samples are drawn once and shared between all uses.
  num_drawn = max(num_samples, num_draws * (colorizer.draw is None),
                  max(k, candidates * (k > 1)) * colorizer.answers_are_samples)

  def evaluate(variables, batch, networks):
    lightness, ab = _lightness_and_ab(batch)
    seen = square.resize_batch(batch.get('scan', batch['image']), image_size)
    guide, field = color.split_lightness(seen)[0], _reduced_ab(ab, image_size)
    inputs = {'lightness': guide}
    keys = key_lib.of_photographs(seed, 'answers', batch['index'])

    def paint(ab):
      """Pictures of ab [..., B, s, s, 2], and the ab of these pictures."""
      pictures = _pictures_of(ab, guide, lightness)
      return pictures, color.split_lightness(pictures)[1]

    extra: dict[str, Any] = {}
    if num_drawn:
      samples = colorizer.sample(
          variables, inputs, key_lib.named(keys, 'sample'), num_drawn)
    if num_samples:
      extra['samples'], extra['samples_ab'] = paint(samples[:num_samples])
    if colorizer.answers_are_samples:
      best, proposals, probability = samples[0], samples[:k], None
      if candidates and k > 1:
        proposals, probability = spread.choose(samples[:candidates], k)
    else:
      best = complete.predict(variables, inputs)
      if k > 1:
        proposals, probability = complete.propose(variables, inputs, k)
    picture, picture_ab = paint(best)
    if k > 1:
      extra['proposals'], extra['proposals_ab'] = paint(proposals)
      # Proposals without probabilities get equal weights.
      weights = (jnp.full((k, len(guide)), 1 / k) if probability is None
                 else probability / probability.sum(0))
      extra['expected_ab'] = paint(
          (weights[..., None, None, None] * proposals).sum(0))[1]
    extra['hinted_ab'], extra['hint_error'] = _hinted(
        complete, variables, inputs, field, batch['index'],
        lambda ab: paint(ab)[1])
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

  return evaluate


def _lightness_and_ab(batch: Batch) -> tuple[jax.Array, jax.Array]:
  """The lightness that is colored, and the true ab."""
  lightness, ab = color.split_lightness(batch['image'])
  if 'scan' in batch:
    lightness = color.split_lightness(batch['scan'])[0]
  return lightness, ab


def _hinted(complete: Colorizer, variables: Variables, inputs: Inputs,
            field: jax.Array, index: jax.Array,
            paint: Callable[[jax.Array], jax.Array]
            ) -> tuple[jax.Array, jax.Array]:
  """The fields 'hinted_ab' and 'hint_error'.

  The hints are the true colors of random pixels. A photograph with fewer pixels
  than hints gets a hint at every pixel.
  """
  num_pixels = field.shape[1] * field.shape[2]
  hints = [strokes.random_points_of(0, index, field, min(n, num_pixels))
           for n in NUM_HINTS]

  def color_with(hint):
    hint_ab, hint_mask = hint
    ab = paint(complete.predict(variables, {
        **inputs, 'hint_ab': hint_ab, 'hint_mask': hint_mask}))
    distance = jnp.linalg.norm(
        _reduced_ab(ab, field.shape[1]) - hint_ab, axis=-1, keepdims=True)
    return ab, (distance * hint_mask).sum((1, 2, 3)) / hint_mask.sum((1, 2, 3))

  # One after the other, so that the prediction is compiled once.
  return jax.lax.map(color_with, jax.tree.map(lambda *x: jnp.stack(x), *hints))


def _density(colorizer: Colorizer, variables: Variables, inputs: Inputs,
             field: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
  """The fields 'nats' and 'bits', for an estimate also 'bits_error'.

  Empty for a method without a density.
  """
  if colorizer.log_prob is None:
    return {}
  shape = _shape_of(inputs)
  height, width = colorizer.event_shape(shape)
  unit = height * width * 2 * jnp.log(2.0)
  arguments = variables, inputs, field, key_lib.named(keys, 'log_prob')
  if colorizer.log_prob_and_error is None or (
      colorizer.density_kind(shape) != 'estimate'):
    nats = colorizer.log_prob(*arguments)
    return {'nats': nats, 'bits': -nats / unit}
  nats, error = colorizer.log_prob_and_error(*arguments)
  return {'nats': nats, 'bits': -nats / unit, 'bits_error': error / unit}


def _calibration(colorizer: Colorizer, variables: Variables, inputs: Inputs,
                 field: jax.Array, keys: jax.Array, draws: jax.Array
                 ) -> dict[str, jax.Array]:
  """The fields 'draws', 'field' and, for exact densities, 'nats_of_draws'."""
  factor = field.shape[1] // draws.shape[2]
  calibration = {'draws': draws, 'field': resample.mean_pool(field, factor)}
  log_prob = colorizer.log_prob
  # Bounds and estimates of a density may rank the draws in a wrong order.
  if log_prob is None or colorizer.density_kind(_shape_of(inputs)) != 'exact':
    return calibration

  def nats_of(draw):
    # log_prob averages each block of pixels, which gives the draw back.
    blocks = draw.repeat(factor, 1).repeat(factor, 2)
    return log_prob(variables, inputs, blocks, keys)

  return {**calibration, 'nats_of_draws': jax.vmap(nats_of)(draws)}


def _shape_of(inputs: Inputs) -> tuple[int, int]:
  """(H, W) of what the network sees."""
  _, height, width, _ = inputs['lightness'].shape
  return height, width


def _reduced_ab(ab: jax.Array, size: int) -> jax.Array:
  """ab [B, S, S, 2] reduced to [B, size, size, 2] by averaging."""
  if ab.shape[1] % size == 0:
    return resample.mean_pool(ab, ab.shape[1] // size)
  return jax.image.resize(
      ab, (len(ab), size, size, 2), 'linear', antialias=True)


def _pictures_of(ab: jax.Array, guide: jax.Array, lightness: jax.Array
                 ) -> jax.Array:
  """Pictures of ab [..., B, s, s, 2], uint8 sRGB [..., B, S, S, 3].

  Args:
    ab: predicted ab, Lab units.
    guide: lightness that the network saw, [B, s, s, 1].
    lightness: lightness of the photographs, [B, S, S, 1].
  """
  def paint(ab):
    if guide.shape != lightness.shape:
      ab = resample.follow(ab, guide, lightness)
    return painting.picture(lightness, ab)

  if ab.ndim == 4:
    return paint(ab)
  # One at a time: K large pictures in float32 would not fit into memory.
  return jax.lax.map(paint, ab)
