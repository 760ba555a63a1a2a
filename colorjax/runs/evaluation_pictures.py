"""The pictures of an evaluation's report, with captions that explain them."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.evaluation import catalogue, result
from colorjax.evaluation.answers import Answers
from colorjax.metrics import calibration, diversity
from colorjax.report import evaluation
from colorjax.report.page import Figure
from colorjax.runs.subject import EvaluateOptions, Photographs, Subject

_HISTOGRAMS = (
    'psnr', 'ssim', 'ab_distance', 'ciede2000', 'lpips_alex', 'chroma',
    'colorfulness', 'best_of_k', 'sample_best_of_n', 'sample_ab_std',
    'bits_per_dim', 'energy_score')
_RANKED_BY = 'ab_distance'
_NUM_EXTREMES = 6
_BATCH_SIZE = 8  # small, because each photograph has several large pictures


@dataclasses.dataclass(frozen=True)
class Shown:
  """N photographs with their colorings.

  Attributes:
    original: uint8 sRGB [N, S, S, 3].
    picture: the coloring, uint8 sRGB [N, S, S, 3].
    error: ab distance of each pixel to the original, ab units, [N, S, S].
    deviation: standard deviation over random samples, ab units, [N, s, s];
      None for a method that has no samples.
  """
  original: np.ndarray
  picture: np.ndarray
  error: np.ndarray
  deviation: np.ndarray | None


def colored(subject: Subject, photos: Photographs, indices: Sequence[int]
            ) -> Shown:
  """Computes the colorings of some photographs again.

  Args:
    subject: what was measured.
    photos: the photographs.
    indices: their numbers in the source; all of them must be readable.
  """
  indices = [int(index) for index in indices]
  compute = jax.jit(lambda variables, batch: _shown(
      subject.answer(variables, batch, {})))
  parts = []
  with photos.batches(indices, min(_BATCH_SIZE, len(indices))) as stream:
    for batch in stream:
      keep = batch.pop('padding_mask') > 0
      parts.append({name: rows[keep] for name, rows in jax.device_get(
          compute(subject.variables, batch)).items()})
  rows = {name: np.concatenate([part[name] for part in parts])
          for name in parts[0]}
  return Shown(rows['original'], rows['picture'], rows['error'],
               rows.get('deviation'))


def _shown(answers: Answers) -> dict[str, jax.Array]:
  """The fields of Shown; XLA drops the parts of `answers` not used here."""
  shown = {'original': answers.original, 'picture': answers.picture,
           'error': jnp.linalg.norm(answers.picture_ab - answers.ab, axis=-1)}
  several = (answers.draws if answers.samples_ab is None
             else answers.samples_ab)
  if several is not None:
    shown['deviation'] = diversity.ab_std_map(several)
  return shown


def histograms(finished: result.EvaluationResult) -> tuple[Figure, np.ndarray]:
  """Makes histograms of metrics over the photographs."""
  # Rounded, because the SSIM of equal pictures is 1 only up to float32.
  values = {name: finished.statistics[name].round(6) for name in _HISTOGRAMS
            if name in finished.statistics}
  intervals = {name: (one.mean, one.low, one.high)
               for name, one in finished.summary.items()}
  return (Figure(
      'histograms.png', 'Spread over the photographs',
      'Number of photographs by the value of each metric. The line is the '
      'mean, and the band is its 95 % interval: where the mean of other '
      'photographs of the same kind would be, not where single photographs '
      'are. The table explains the names; photographs.csv has all values.'),
          evaluation.histograms(values, intervals=intervals))


def extremes(subject: Subject, photos: Photographs,
             finished: result.EvaluationResult,
             indices: np.ndarray) -> tuple[Figure, np.ndarray]:
  """Makes a sheet of the photographs with the best and worst colorings.

  Args:
    subject: what was measured.
    photos: the photographs.
    finished: the result.
    indices: numbers of the measured photographs in their source, [N].
  """
  values = finished.statistics[_RANKED_BY]
  is_better_high = catalogue.METRICS[_RANKED_BY].better == 'higher'
  best, worst = evaluation.extreme_numbers(
      values, _NUM_EXTREMES, is_better_high=is_better_high)
  # Sorted, so that equal values are ranked as they are among all photographs.
  chosen = np.sort(np.concatenate([best, worst]))
  shown = colored(subject, photos, indices[chosen])
  return (Figure(
      'extremes.png', f'Best and worst by {_RANKED_BY}',
      f'Left: the photographs with the lowest {_RANKED_BY}; right: those with '
      'the highest. The most extreme are at the top, and the value is below '
      'each coloring. Photographs with little color are easy: the best ones '
      'are often nearly grey.'),
          evaluation.extremes(
              shown.original, shown.picture, values[chosen],
              [finished.record.photographs[i] for i in chosen], _NUM_EXTREMES,
              is_better_high=is_better_high))


def uncertainty(shown: Shown, options: EvaluateOptions
                ) -> list[tuple[Figure, np.ndarray]]:
  """Makes maps of uncertainty beside maps of error; [] without samples."""
  if shown.deviation is None:
    return []
  several = (f'{options.num_samples} samples' if options.num_samples else
             f'{options.num_draws} draws')
  return [(Figure(
      'uncertainty.png', 'Uncertainty and error',
      f'Uncertainty: standard deviation of {several} of the method in the ab '
      'plane, at each pixel. Error: ab distance of the coloring to the '
      'photograph. Both have the same scale. Where a method is well '
      'calibrated, both maps are bright in the same places; where it is '
      'overconfident, the uncertainty is dark and the error is bright.'),
           evaluation.uncertainty_sheet(
               shown.original, shown.picture, shown.deviation, shown.error))]


def calibrations(finished: result.EvaluationResult
                 ) -> list[tuple[Figure, np.ndarray]]:
  """Makes the reliability diagram and the PIT histogram; [] without draws."""
  pictures = []
  reliability = finished.statistics.get('expected_calibration_error')
  if reliability is not None:
    pictures.append((Figure(
        'reliability.png', 'Reliability',
        'Pixels are grouped by the share of draws that fall into the most '
        'frequent square of 10 x 10 ab units. The true color should fall into '
        'that square (solid line) as often as one more draw does (dashed '
        'line). Solid below dashed: the method is overconfident; above: '
        'underconfident. The bars show the number of pixels in each group.'),
        evaluation.reliability(
            *calibration.reliability_curve(reliability))))
  ranks = finished.statistics.get('pit_error')
  if ranks is not None:
    pictures.append((Figure(
        'pit.png', 'Rank of the truth among draws',
        'For a calibrated method all ranks are equally frequent (dashed '
        'line). A valley in the middle: overconfident; a hill: underconfident; '
        'a slope: colors are shifted to one side. The outer bars are pixels '
        'whose true color lies beyond all draws.'),
        evaluation.pit_histogram(
            np.asarray(ranks, np.float64).sum(0))))
  return pictures
