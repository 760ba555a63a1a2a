"""Held-out figures of any method, through the Colorizer contract alone.

The rows that a reader needs in order to judge a method stand beside it: the
photograph left grey, and painted with the mean colour of the training set.
"""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from colorjax import color, hints
from colorjax.colorizer import Batch, Colorizer, Variables
from colorjax.errors import UserError
from colorjax.metrics import bootstrap, image, regions

NUM_HINTS = 10
"""Pixels whose true colour a method that takes hints is given."""

FIGURES = {
    'grey': 'ab distance of the photograph left grey',
    'mean_colour': 'ab distance of the mean colour of the training set',
    'predicted': 'ab distance of the most probable colouring',
    'expected': 'ab distance of the proposals averaged by their weights',
    'best_of_k': 'ab distance of the best of K proposals, whole photograph',
    'psnr_grey': 'PSNR in dB of the photograph left grey',
    'psnr_predicted': 'PSNR in dB of the most probable colouring',
    'chroma': 'mean chroma of the photograph itself, Lab units',
    'chroma_predicted': 'mean chroma of the most probable colouring',
    'hinted': f'ab distance where {NUM_HINTS} random pixels are given',
    'bits_per_dim': 'bits for each ab value, as a density in Lab units',
}
"""What each figure of `per_photo` is, for tables; ab distances in Lab units."""


REGION_FIGURES = {
    'chroma_outside': 'mean chroma outside the region, where grey is asked for',
    'difference_inside': 'ab distance inside to the answer without a region',
    'distance_inside': 'ab distance inside to the photograph',
}
"""What each figure of `per_region` is, for tables; Lab units."""


def per_photo(
    colorizer: Colorizer, *, num_proposals: int,
    mean_ab: np.ndarray | None = None,
) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
  """A pure function that measures each photograph of a batch.

  Args:
    colorizer: the method.
    num_proposals: K of `best_of_k` and `expected`, fewer where the method has
      no more; the figures are absent where it has one answer.
    mean_ab: mean colour of the training set, [2], Lab units; without it the
      figure `mean_colour` is absent.

  Returns:
    `(variables, batch) -> {figure: [B]}` with the names of FIGURES;
    `bits_per_dim` is absent for a method without a density, `hinted` for one
    that takes no hints (the batch needs 'index' for one that does).
  """
  k = colorizer.num_proposals(num_proposals)

  def measure(variables, batch):
    lightness, ab = color.split_lightness(batch['image'])
    predicted = colorizer.predict(variables, lightness)
    original = batch['image']
    figures = {
        'grey': image.ab_distance(jnp.zeros_like(ab), ab),
        'predicted': image.ab_distance(predicted, ab),
        'psnr_grey': image.psnr(image.to_8_bit(
            image.colour(lightness, jnp.zeros_like(ab))), original),
        'psnr_predicted': image.psnr(
            image.to_8_bit(image.colour(lightness, predicted)), original),
        'chroma': image.mean_chroma(ab),
        'chroma_predicted': image.mean_chroma(predicted),
    }
    if mean_ab is not None:
      figures['mean_colour'] = image.ab_distance(jnp.asarray(mean_ab), ab)
    if k > 1:
      proposals, weights = colorizer.propose(variables, lightness, k)
      share = weights / weights.sum(0)
      figures['expected'] = image.ab_distance(
          (share[..., None, None, None] * proposals).sum(0), ab)
      figures['best_of_k'] = image.best_of_k(proposals, ab)
    if colorizer.predict_with_hints is not None:
      given = hints.random_points_of(0, batch['index'], ab, NUM_HINTS)
      figures['hinted'] = image.ab_distance(
          colorizer.predict_with_hints(variables, lightness, *given), ab)
    if colorizer.log_prob is not None:
      _, height, width, _ = lightness.shape
      height, width = colorizer.event_shape((height, width))
      nats = colorizer.log_prob(variables, lightness, ab)
      figures['bits_per_dim'] = -nats / (height * width * 2 * np.log(2))
    return figures

  return measure


def per_region(colorizer: Colorizer
               ) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
  """A pure function that measures how a method heeds regions.

  Args:
    colorizer: a method with `predict_within`.

  Returns:
    `(variables, batch) -> {figure: [B]}` with the names of REGION_FIGURES, for
    a batch with 'region'.
  """
  def measure(variables, batch):
    assert colorizer.predict_within is not None
    lightness, ab = color.split_lightness(batch['image'])
    region = batch['region']
    within = colorizer.predict_within(variables, lightness, region)
    whole = colorizer.predict(variables, lightness)
    return {
        'chroma_outside': regions.chroma_outside(within, region),
        'difference_inside': regions.difference_inside(within, whole, region),
        'distance_inside': regions.difference_inside(within, ab, region)}

  return measure


def collect(
    measure: Callable[[Batch], Mapping[str, jax.Array]],
    batches: Iterable[Batch],
) -> dict[str, np.ndarray]:
  """Measures every photograph once; padding is left out.

  Args:
    measure: `batch -> {figure: [B]}`.
    batches: host batches with 'mask'.

  Returns:
    {figure: [N]} in the order of the photographs. Empty if there are none.
  """
  parts: list[dict[str, np.ndarray]] = []
  for batch in batches:
    keep = np.asarray(batch['mask']) > 0
    figures = jax.device_get(measure(batch))
    parts.append({name: value[keep] for name, value in figures.items()})
  names = parts[0] if parts else {}
  return {name: np.concatenate([part[name] for part in parts])
          for name in names}


def summarize(
    values: Mapping[str, np.ndarray]) -> dict[str, bootstrap.Interval]:
  """Mean and 95 % bootstrap interval of each figure over photographs."""
  return {name: bootstrap.mean_interval(values[name])
          for name in FIGURES | REGION_FIGURES if name in values}


def mean_colour(batches: Iterable[Batch]) -> np.ndarray:
  """Mean ab over all pixels of some photographs.

  Args:
    batches: host batches; padding is left out.

  Returns:
    ab [2], Lab units, float32.
  """
  @jax.jit
  def add(total, batch):
    _, ab = color.split_lightness(batch['image'])
    mask = batch['mask'][:, None]
    return (total[0] + (ab.mean((1, 2)) * mask).sum(0), total[1] + mask.sum())

  total, count = jnp.zeros(2), jnp.zeros(())
  for batch in batches:
    total, count = add((total, count), {
        'image': jnp.asarray(batch['image']),
        'mask': jnp.asarray(batch['mask'])})
  if not count:
    raise UserError('the training data hold no readable photograph')
  return np.asarray(total / count)
