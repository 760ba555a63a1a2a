"""METRICS: every metric by name.

To add a metric, write a function in `colorjax/metrics/` with a test, and add
one entry here. Tables, intervals, reports and comparisons then include it.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.evaluation.answers import NUM_HINTS, Answers
from colorjax.evaluation.metric import Metric
from colorjax.metrics import (
  accuracy,
  bootstrap,
  calibration,
  colorfulness,
  difference,
  diversity,
  frechet,
  image,
  inception_features,
  lpips,
  structure,
)
from colorjax.photo import painting

# Numbers of resamples for metrics that are costly or very costly to reduce.
_COSTLY, _VERY_COSTLY = 200, 50


def _colorfulness(measure: Callable[[jax.Array], jax.Array]
                  ) -> Callable[[Answers], jax.Array]:
  """Statistics [B, 2]: `measure` of the coloring and of the photograph."""
  return lambda a: jnp.stack([measure(a.picture), measure(a.original)], -1)


def _features(variant: inception_features.Name
              ) -> Callable[[Answers], jax.Array]:
  """Statistics [B, 2, D]: features of the coloring and of the photograph."""
  network = inception_features.build(variant)

  def statistics(a: Answers) -> jax.Array:
    variables = a.networks[f'inception_{variant}']
    return jnp.stack([network.features(variables, a.picture),
                      network.features(variables, a.original)], 1)

  return statistics


def _lpips(net: lpips.Net) -> Callable[[Answers], jax.Array]:
  return lambda a: lpips.build(net).distance(
      a.networks[f'lpips_{net}'], a.picture, a.original)


def _sample_lpips(net: lpips.Net) -> Callable[[Answers], jax.Array]:
  """Mean LPIPS over all pairs of samples, [B]."""
  def statistics(a: Answers) -> jax.Array:
    first, second = np.triu_indices(len(a.samples), 1)
    return jax.lax.map(lambda pair: lpips.build(net).distance(
        a.networks[f'lpips_{net}'], a.samples[pair[0]], a.samples[pair[1]]),
        jnp.stack([first, second], -1)).mean(0)

  return statistics


def _paired(distance: Callable[[np.ndarray, np.ndarray], float]
            ) -> bootstrap.Reduce:
  """Applies `distance` to the features of colorings and of photographs."""
  return lambda statistics: distance(statistics[:, 0], statistics[:, 1])


def _paired_resample(
    distances: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """As `_paired`, for all resamples at once."""
  return lambda statistics, counts: distances(
      statistics[:, 0], statistics[:, 1], counts)


def _hinted(number: int, change: bool) -> Metric:
  """What hints change, or how well they are followed; `number` of NUM_HINTS."""
  n = NUM_HINTS[number]
  given = (f'when the color of {n} random pixels is given' if n > 1
           else 'when the color of a random pixel is given')
  if change:
    return Metric(lambda a: image.ab_distance(a.hinted_ab[number], a.ab),
                  f'ab distance {given}', needs=('hinted_ab',))
  return Metric(lambda a: a.hint_error[number],
                f'ab distance at the hints, {given}', needs=('hint_error',))


def _coverage(level: float) -> bootstrap.Reduce:
  return lambda statistics: calibration.coverage(statistics, level)


def _hpd_coverage(level: float) -> bootstrap.Reduce:
  return lambda statistics: calibration.hpd_coverage(statistics, level)


def _pit(a: Answers) -> jax.Array:
  return calibration.pit_counts(a.draws, a.field, a.keys)


_EQUAL = 'pictures equal to the photograph'
_PROPOSALS, _SAMPLES, _DRAWS = ('proposals',), ('samples',), ('draws',)

METRICS: Mapping[str, Metric] = {
    # Distance from the photograph.
    'psnr': Metric(
        lambda a: image.psnr(a.picture, a.original),
        'PSNR of 8-bit sRGB, dB, mean over photographs', 'higher',
        undefined=_EQUAL),
    'psnr_of_mean_mse': Metric(
        'rgb_rmse', 'PSNR of the mean squared error over all photographs, dB',
        'higher', reduce=image.psnr_of_mean_mse),
    'psnr_ab': Metric(
        lambda a: image.ab_psnr(a.picture_ab, a.ab),
        'PSNR of ab with a peak of 220, dB, mean over photographs', 'higher',
        undefined=_EQUAL),
    'psnr_ab_of_mean_mse': Metric(
        'ab_rmse', 'PSNR of the mean squared error of ab over all photographs, '
        'dB', 'higher', reduce=image.ab_psnr_of_mean_mse),
    'ssim': Metric(
        lambda a: structure.ssim(a.picture, a.original),
        'SSIM of sRGB, Gaussian 11 x 11', 'higher'),
    'ab_distance': Metric(
        lambda a: image.ab_distance(a.picture_ab, a.ab),
        'mean Euclidean distance in the ab plane, Lab units'),
    'ab_rmse': Metric(
        lambda a: image.ab_rmse(a.picture_ab, a.ab),
        'root mean squared error of ab, Lab units'),
    'rgb_rmse': Metric(
        lambda a: image.rgb_rmse(a.picture, a.original),
        'root mean squared error of sRGB in [0, 1]'),
    'ciede2000': Metric(
        lambda a: difference.mean_ciede2000(a.picture, a.original),
        'mean CIEDE2000 color difference'),
    'auc': Metric(
        lambda a: accuracy.auc(a.picture_ab, a.ab),
        'area under the accuracy curve up to 150 ab units, %', 'higher'),
    'auc_rebalanced': Metric(
        lambda a: accuracy.rebalanced_auc_statistics(a.picture_ab, a.ab),
        'auc with equal weight for each of the 313 colors that occur, %',
        'higher', reduce=accuracy.rebalanced_auc, resamples=_COSTLY,
        recenter=True),
    'lpips_alex': Metric(
        _lpips('alex'), 'LPIPS v0.1 with AlexNet', network='lpips_alex'),
    'lpips_vgg': Metric(
        _lpips('vgg'), 'LPIPS v0.1 with VGG-16', network='lpips_vgg'),
    'ab_distance_expected': Metric(
        lambda a: image.ab_distance(a.expected_ab, a.ab),
        'ab distance of the probability-weighted mean of the proposals',
        needs=_PROPOSALS),
    **{f'ab_distance_hinted_{n}': _hinted(i, change=True)
       for i, n in enumerate(NUM_HINTS)},
    **{f'hint_error_{n}': _hinted(i, change=False)
       for i, n in enumerate(NUM_HINTS)},
    # The same photographs without any method, for comparison.
    'psnr_grey': Metric(
        lambda a: image.psnr(
            painting.grey_picture(a.lightness), a.original),
        'PSNR of the photograph left grey, dB', '',
        undefined='photographs grey by nature'),
    'ab_distance_grey': Metric(
        lambda a: image.mean_chroma(a.ab),
        'ab distance of the photograph left grey', ''),
    'ab_distance_mean_color': Metric(
        lambda a: image.ab_distance(a.mean_color, a.ab),
        'ab distance of the mean color of the training photographs', '',
        needs=('mean_color',)),
    # Amount of color in colorings and photographs, and the difference.
    'chroma': Metric(
        lambda a: image.mean_chroma(a.picture_ab),
        'mean chroma, Lab units', ''),
    'colorfulness': Metric(
        lambda a: colorfulness.colorfulness(a.picture),
        'colorfulness of Hasler and Suesstrunk (signed opponents)', ''),
    'colorfulness_abs': Metric(
        lambda a: colorfulness.colorfulness_abs(a.picture),
        'colorfulness of absolute opponents, as in DDColor and CT2', ''),
    'chroma_truth': Metric(
        lambda a: image.mean_chroma(a.ab),
        'mean chroma of the photographs', ''),
    'colorfulness_truth': Metric(
        lambda a: colorfulness.colorfulness(a.original),
        'colorfulness of the photographs', ''),
    'colorfulness_abs_truth': Metric(
        lambda a: colorfulness.colorfulness_abs(a.original),
        'colorfulness_abs of the photographs', ''),
    'delta_colorfulness_of_means': Metric(
        _colorfulness(colorfulness.colorfulness),
        '|mean colorfulness - that of the photographs|',
        reduce=colorfulness.delta_of_means),
    'delta_colorfulness_mean': Metric(
        'delta_colorfulness_of_means',
        'mean |colorfulness - that of the photograph|',
        reduce=colorfulness.mean_delta),
    'delta_colorfulness_abs_of_means': Metric(
        _colorfulness(colorfulness.colorfulness_abs),
        '|mean colorfulness_abs - that of the photographs|',
        reduce=colorfulness.delta_of_means),
    'delta_colorfulness_abs_mean': Metric(
        'delta_colorfulness_abs_of_means',
        'mean |colorfulness_abs - that of the photograph|',
        reduce=colorfulness.mean_delta),
    # The set of colorings against the set of the same photographs.
    **{f'fid_{variant}': Metric(
        _features(variant), f'FID with {variant} features (bias of order 1/n)',
        network=f'inception_{variant}', resamples=_VERY_COSTLY, recenter=True,
        reduce=_paired(frechet.frechet_distance),
        resample=_paired_resample(frechet.resampled_frechet_distance))
       for variant in inception_features.VARIANTS},
    **{f'kid_{variant}': Metric(
        f'fid_{variant}', f'KID of all pictures with {variant} features',
        network=f'inception_{variant}', resamples=_VERY_COSTLY, recenter=True,
        reduce=_paired(frechet.kernel_distance),
        resample=_paired_resample(frechet.resampled_kernel_distance))
       for variant in inception_features.VARIANTS},
    # K proposals.
    'best_of_k': Metric(
        lambda a: image.best_of_k(a.proposals_ab, a.ab),
        'ab distance of the best of K proposals for the whole photograph',
        needs=_PROPOSALS),
    'best_of_k_psnr': Metric(
        lambda a: image.best_of_k_psnr(a.proposals, a.original),
        'PSNR of sRGB of the best of K proposals for the whole photograph, dB',
        'higher', needs=('proposals',), undefined=_EQUAL),
    'pixel_oracle_k': Metric(
        lambda a: diversity.pixel_oracle_k_ab(a.proposals_ab, a.ab),
        'ab distance with the best proposal for each pixel', needs=_PROPOSALS),
    # n random samples.
    'sample_best_of_n': Metric(
        lambda a: image.best_of_k(a.samples_ab, a.ab),
        'ab distance of the best of n samples for the whole photograph',
        needs=_SAMPLES),
    'sample_best_of_n_rgb_rmse': Metric(
        lambda a: diversity.best_of_k_rmse(a.samples, a.original),
        'RMSE of sRGB of the best of n samples for the whole photograph',
        needs=_SAMPLES),
    'sample_pixel_oracle_n_rgb_rmse': Metric(
        lambda a: diversity.pixel_oracle_k(a.samples, a.original),
        'RMSE of sRGB with the best sample for each pixel and channel '
        '("best of 8" of cINN)',
        needs=_SAMPLES),
    'sample_variance': Metric(
        lambda a: diversity.variance(a.samples),
        'variance of sRGB in [0, 1] over samples', '', needs=_SAMPLES),
    'sample_ab_std': Metric(
        lambda a: diversity.ab_std(a.samples_ab),
        'standard deviation of samples in the ab plane, Lab units', '',
        needs=_SAMPLES),
    'sample_pairwise_ab_distance': Metric(
        lambda a: diversity.pairwise_ab_distance(a.samples_ab),
        'mean ab distance over all pairs of samples', '', needs=_SAMPLES),
    'sample_pairwise_lpips_alex': Metric(
        _sample_lpips('alex'), 'mean LPIPS (AlexNet) over all pairs of samples',
        '',
        needs=_SAMPLES, network='lpips_alex'),
    # The predictive distribution.
    'bits_per_dim': Metric(
        lambda a: a.bits, 'negative log2 density for each ab value, at a '
        'resolution of 1 Lab unit', needs=('bits',)),
    'bits_per_dim_error': Metric(
        lambda a: a.bits_error, 'standard error of bits_per_dim if it is an '
        'estimate', '', needs=('bits_error',), reduce=bootstrap.error_of_mean),
    'energy_score': Metric(
        lambda a: calibration.energy_score(a.draws, a.field),
        'energy score of the draws in the ab plane, Lab units', needs=_DRAWS),
    'pit_error': Metric(
        _pit, 'calibration error of the rank of the true value among draws',
        needs=_DRAWS, reduce=calibration.pit_error, resamples=_COSTLY,
        recenter=True),
    'coverage_50': Metric(
        'pit_error', 'fraction of true values in the central 50 % of the draws',
        '', needs=_DRAWS, reduce=_coverage(0.5), resamples=_COSTLY),
    'coverage_90': Metric(
        'pit_error', 'fraction of true values in the central 90 % of the draws',
        '', needs=_DRAWS, reduce=_coverage(0.9), resamples=_COSTLY),
    'expected_calibration_error': Metric(
        lambda a: calibration.bin_reliability(a.draws, a.field),
        'expected calibration error of the most probable ab bin',
        needs=_DRAWS, reduce=calibration.expected_calibration_error,
        resamples=_COSTLY, recenter=True),
    'hpd_coverage_90': Metric(
        lambda a: calibration.hpd_level(a.nats, a.nats_of_draws),
        'fraction of photographs in the 90 % highest-density set', '',
        needs=('nats_of_draws',), reduce=_hpd_coverage(0.9),
        resamples=_COSTLY),
}
"""Every metric by name, in the order in which tables list them."""


def measure(answers: Answers) -> dict[str, jax.Array]:
  """Computes the statistics of all applicable metrics.

  Leaves out metrics whose fields or network `answers` does not have, and those
  that reuse the statistics of another metric.

  Args:
    answers: a batch of B photographs and their colorings.

  Returns:
    Statistics of each photograph, [B, ...], by the name of the metric.
  """
  return {
      name: metric.statistics(answers) for name, metric in METRICS.items()
      if not isinstance(metric.statistics, str)
      and all(getattr(answers, field) is not None for field in metric.needs)
      and (not metric.network or metric.network in answers.networks)}


def statistics_of(name: str, measured: Mapping[str, np.ndarray]
                  ) -> np.ndarray | None:
  """The statistics [N, ...] that a metric reduces, or None if missing."""
  source = METRICS[name].statistics
  return measured.get(source if isinstance(source, str) else name)


def replicates(name: str, statistics: np.ndarray, *, seed: int = 0
               ) -> np.ndarray:
  """Bootstrap replicates [R] of a metric, from its statistics [N, ...]."""
  metric = METRICS[name]
  if metric.resample is not None:
    return metric.resample(statistics, bootstrap.counts(
        len(statistics), num_resamples=metric.resamples, seed=seed))
  if metric.undefined:
    # Resample only photographs with a defined value: every resample then has a
    # mean, and methods that leave out the same photographs stay paired.
    statistics = _defined(statistics)
  return bootstrap.replicates(statistics, metric.reduce, seed=seed,
                              num_resamples=metric.resamples)


def num_defined(name: str, statistics: np.ndarray) -> int:
  """Number of photographs that a metric includes, out of N."""
  if not METRICS[name].undefined:
    return len(statistics)
  return int(np.isfinite(statistics).sum())


def _defined(values: np.ndarray) -> np.ndarray:
  """The finite values, or all values if none is finite."""
  defined = np.isfinite(values)
  return values[defined] if defined.any() else values


def value(name: str, statistics: np.ndarray) -> float:
  """The value of a metric for a set, from its statistics [N, ...]."""
  metric = METRICS[name]
  if metric.reduce is not None:
    return float(metric.reduce(statistics))
  statistics = np.asarray(statistics, np.float64)
  return float(
      (_defined(statistics) if metric.undefined else statistics).mean())


def summarize(measured: Mapping[str, np.ndarray]
              ) -> dict[str, bootstrap.Interval]:
  """Computes each metric of a set and its 95 % bootstrap interval.

  Args:
    measured: statistics [N, ...] by name, as returned by `measure`.

  Returns:
    Intervals by name, in the order of METRICS.
  """
  summary = {}
  for name, metric in METRICS.items():
    statistics = statistics_of(name, measured)
    if statistics is not None:
      defined = num_defined(name, statistics)
      interval = bootstrap.interval(
          value(name, statistics), replicates(name, statistics), defined,
          recenter=metric.recenter)
      summary[name] = dataclasses.replace(
          interval, num_undefined=len(statistics) - defined)
  return summary
