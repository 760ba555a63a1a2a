"""The pictures of an evaluation's report, each with how to read it."""

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
from colorjax.runs.subject import EvaluateOptions, Judged, Photographs

_SPREAD = ('psnr', 'ssim', 'ab_distance', 'ciede2000', 'lpips_alex', 'chroma',
           'colorfulness', 'best_of_k', 'sample_best_of_n', 'sample_ab_std',
           'bits_per_dim', 'energy_score')
_RANKED = 'ab_distance'
_EXTREMES = 6
_BATCH = 8  # photographs answered at a time; a few large pictures each


@dataclasses.dataclass(frozen=True)
class Shown:
  """Photographs with their answers, N of them.

  Attributes:
    original: uint8 sRGB [N, S, S, 3].
    picture: the coloring, alike.
    error: ab distance of each pixel to the original, [N, S, S].
    deviation: standard deviation over random answers, ab units, [N, s, s];
      None for a method that has but one answer.
  """
  original: np.ndarray
  picture: np.ndarray
  error: np.ndarray
  deviation: np.ndarray | None


def answered(judged: Judged, photos: Photographs, indices: Sequence[int]
             ) -> Shown:
  """The answers to some photographs, computed again.

  Args:
    judged: what answers.
    photos: the photographs.
    indices: their numbers in the source, all of them readable.
  """
  indices = [int(index) for index in indices]
  compute = jax.jit(lambda variables, batch: _shown(
      judged.answer(variables, batch, {})))
  parts = []
  with photos.batches(indices, min(_BATCH, len(indices))) as stream:
    for batch in stream:
      keep = batch.pop('padding_mask') > 0
      parts.append({name: rows[keep] for name, rows in jax.device_get(
          compute(judged.variables, batch)).items()})
  rows = {name: np.concatenate([part[name] for part in parts])
          for name in parts[0]}
  return Shown(rows['original'], rows['picture'], rows['error'],
               rows.get('deviation'))


def _shown(answers: Answers) -> dict[str, jax.Array]:
  """The fields of Shown; what none of them needs is not computed."""
  shown = {'original': answers.original, 'picture': answers.picture,
           'error': jnp.linalg.norm(answers.picture_ab - answers.ab, axis=-1)}
  several = (answers.draws if answers.samples_ab is None
             else answers.samples_ab)
  if several is not None:
    shown['deviation'] = diversity.ab_std_map(several)
  return shown


def histograms(finished: result.EvaluationResult) -> tuple[Figure, np.ndarray]:
  """How figures are spread over the photographs."""
  # The SSIM of equal pictures is 1 up to the rounding of float32.
  values = {name: finished.statistics[name].round(6) for name in _SPREAD
            if name in finished.statistics}
  intervals = {name: (one.mean, one.low, one.high)
               for name, one in finished.summary.items()}
  return (Figure(
      'histograms.png', 'Spread over the photographs',
      'How many photographs have which figure. The line is the mean, the band '
      'its 95 % interval: not where photographs lie, but where the mean of '
      'other photographs of the same kind would. The names are those of the '
      'table; photographs.csv has all values.'),
          evaluation.histograms(values, intervals=intervals))


def extremes(judged: Judged, photos: Photographs,
             finished: result.EvaluationResult,
             indices: np.ndarray) -> tuple[Figure, np.ndarray]:
  """The photographs that were colored best and worst."""
  values = finished.statistics[_RANKED]
  is_better_high = catalogue.METRICS[_RANKED].better == 'higher'
  best, worst = evaluation.extreme_numbers(
      values, _EXTREMES, is_better_high=is_better_high)
  # In their order, so that equal values are ranked as among all.
  chosen = np.sort(np.concatenate([best, worst]))
  shown = answered(judged, photos, indices[chosen])
  return (Figure(
      'extremes.png', f'Best and worst by {_RANKED}',
      f'Left the photographs with the lowest {_RANKED}, right those with the '
      'highest, the most extreme on top; the value is under the coloring. '
      'Photographs with little color are easy: the best are often nearly '
      'grey by themselves.'),
          evaluation.extremes(
              shown.original, shown.picture, values[chosen],
              [finished.record.photographs[i] for i in chosen], _EXTREMES,
              is_better_high=is_better_high))


def uncertainty(shown: Shown, options: EvaluateOptions
                ) -> list[tuple[Figure, np.ndarray]]:
  """Where the method is unsure and where it is wrong; [] for one answer."""
  if shown.deviation is None:
    return []
  several = (f'{options.num_samples} samples' if options.num_samples else
             f'{options.num_draws} draws')
  return [(Figure(
      'uncertainty.png', 'Uncertainty and error',
      f'Uncertainty: standard deviation of {several} of the method in the ab '
      'plane, at each pixel. Error: ab distance of the coloring to the '
      'photograph. Both have one scale: a method that knows what it does not '
      'know is bright in the same places; one that is too sure has a dark '
      'uncertainty beside a bright error.'),
           evaluation.uncertainty_sheet(
               shown.original, shown.picture, shown.deviation, shown.error))]


def calibrations(finished: result.EvaluationResult
                 ) -> list[tuple[Figure, np.ndarray]]:
  """Reliability and ranks; [] for a method without draws."""
  pictures = []
  reliability = finished.statistics.get('expected_calibration_error')
  if reliability is not None:
    pictures.append((Figure(
        'reliability.png', 'Reliability',
        'Pixels by the share of the draws that fall into the most frequent '
        'square of 10 x 10 ab units. How often the true color falls into it '
        '(solid) should be how often a further draw does (dashed). Solid below '
        'dashed: the method is too sure; above: too unsure. The bars say how '
        'many pixels each point stands for.'),
        evaluation.reliability(
            *calibration.reliability_curve(reliability))))
  ranks = finished.statistics.get('pit_error')
  if ranks is not None:
    pictures.append((Figure(
        'pit.png', 'Rank of the truth among draws',
        'All ranks are equally frequent for a calibrated method (dashed). A '
        'valley: too sure; a hill: too unsure; a slope: colors shifted to '
        'one side. The outer bars are truths beyond all draws.'),
        evaluation.pit_histogram(
            np.asarray(ranks, np.float64).sum(0))))
  return pictures
