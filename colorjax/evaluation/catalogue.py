"""METRICS: every figure of merit under its own name, one line each.

A new metric is a function in `colorjax/metrics/`, its line here, and its test.
Tables, intervals, reports and comparisons then have it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from colorjax.evaluation.answers import NUM_HINTS, Answers
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

_FEWER, _FEW = 200, 50  # resamples where a figure of a set is costly


class Metric(NamedTuple):
  """A figure of merit.

  Attributes:
    statistics: `Answers -> [B]`, a value for each photograph, or `[B, ...]`
      from which `reduce` makes a figure of a set; or the name of another
      metric, whose statistics are meant.
    meaning: a line for tables: what, in which unit.
    better: 'lower', 'higher', or '' where neither is.
    needs: fields of Answers without which there is no such figure.
    network: name in Answers.networks of the network that it uses, if any.
    reduce: statistics of N photographs, [N, ...], to the figure; None: the
      mean of [N].
    resamples: of the bootstrap; fewer where `reduce` is costly.
    recentre: see `bootstrap.interval`.
    resample: `(statistics, counts [R, N]) -> [R]`, the figures of all resamples
      at once, where `reduce` of each alone would be too costly; None for that.
    undefined: which photographs have no finite value and are left out of the
      mean, for tables; '' where a value that is not finite makes the figure so.
  """
  statistics: Callable[[Answers], jax.Array] | str
  meaning: str
  better: str = 'lower'
  needs: tuple[str, ...] = ()
  network: str = ''
  reduce: bootstrap.Reduce | None = None
  resamples: int = bootstrap.NUM_RESAMPLES
  recentre: bool = False
  resample: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
  undefined: str = ''


def _colorfulness(measure: Callable[[jax.Array], jax.Array]
                  ) -> Callable[[Answers], jax.Array]:
  """[B, 2]: of the answer and of the photograph."""
  return lambda a: jnp.stack([measure(a.picture), measure(a.original)], -1)


def _features(variant: inception_features.Name
              ) -> Callable[[Answers], jax.Array]:
  """[B, 2, D]: of the answer and of the photograph."""
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
  """Mean over all pairs of samples."""
  def statistics(a: Answers) -> jax.Array:
    first, second = np.triu_indices(len(a.samples), 1)
    return jax.lax.map(lambda pair: lpips.build(net).distance(
        a.networks[f'lpips_{net}'], a.samples[pair[0]], a.samples[pair[1]]),
        jnp.stack([first, second], -1)).mean(0)

  return statistics


def _paired(distance: Callable[[np.ndarray, np.ndarray], float]
            ) -> bootstrap.Reduce:
  """A distance of the answers' features from the photographs'."""
  return lambda statistics: distance(statistics[:, 0], statistics[:, 1])


def _paired_resample(
    distances: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """As `_paired`, of all resamples at once."""
  return lambda statistics, counts: distances(
      statistics[:, 0], statistics[:, 1], counts)


def _coverage(level: float) -> bootstrap.Reduce:
  return lambda statistics: calibration.coverage(statistics, level)


def _hpd_coverage(level: float) -> bootstrap.Reduce:
  return lambda statistics: calibration.hpd_coverage(statistics, level)


def _pit(a: Answers) -> jax.Array:
  return calibration.pit_counts(a.draws, a.field, a.keys)


_EQUAL = 'pictures equal to the photograph'
_PROPOSALS, _SAMPLES, _DRAWS = ('proposals',), ('samples',), ('draws',)

METRICS: Mapping[str, Metric] = {
    # Nearness to the photograph.
    'psnr': Metric(
        lambda a: image.psnr(a.picture, a.original),
        'PSNR of 8-bit sRGB, dB, mean over photographs', 'higher',
        undefined=_EQUAL),
    'psnr_of_mean_mse': Metric(
        'rgb_rmse', 'PSNR of the mean square error of all photographs, dB',
        'higher', reduce=image.psnr_of_mean_mse),
    'psnr_ab': Metric(
        lambda a: image.ab_psnr(a.picture_ab, a.ab),
        'PSNR of ab with a peak of 220, dB, mean over photographs', 'higher',
        undefined=_EQUAL),
    'psnr_ab_of_mean_mse': Metric(
        'ab_rmse', 'PSNR of the mean square error of ab of all photographs, dB',
        'higher', reduce=image.ab_psnr_of_mean_mse),
    'ssim': Metric(
        lambda a: structure.ssim(a.picture, a.original),
        'SSIM of sRGB, Gaussian 11 x 11', 'higher'),
    'ab_distance': Metric(
        lambda a: image.ab_distance(a.picture_ab, a.ab),
        'mean distance in the ab plane, Lab units'),
    'ab_rmse': Metric(
        lambda a: image.ab_rmse(a.picture_ab, a.ab),
        'root mean square error of ab, Lab units'),
    'rgb_rmse': Metric(
        lambda a: image.rgb_rmse(a.picture, a.original),
        'root mean square error of sRGB in [0, 1]'),
    'ciede2000': Metric(
        lambda a: difference.mean_ciede2000(a.picture, a.original),
        'mean CIEDE2000 color difference'),
    'auc': Metric(
        lambda a: accuracy.auc(a.picture_ab, a.ab),
        'raw accuracy: area up to 150 ab units, %', 'higher'),
    'auc_rebalanced': Metric(
        lambda a: accuracy.rebalanced_auc_statistics(a.picture_ab, a.ab),
        'the same with each occurring color of 313 counting alike, %',
        'higher', reduce=accuracy.rebalanced_auc, resamples=_FEWER,
        recentre=True),
    'lpips_alex': Metric(
        _lpips('alex'), 'LPIPS v0.1 with AlexNet', network='lpips_alex'),
    'lpips_vgg': Metric(
        _lpips('vgg'), 'LPIPS v0.1 with VGG-16', network='lpips_vgg'),
    'ab_distance_expected': Metric(
        lambda a: image.ab_distance(a.expected_ab, a.ab),
        'ab distance of the proposals averaged by their weights',
        needs=_PROPOSALS),
    'ab_distance_hinted': Metric(
        lambda a: image.ab_distance(a.hinted_ab, a.ab),
        f'ab distance where {NUM_HINTS} random pixels are given',
        needs=('hinted_ab',)),
    # The same photographs with no method at all.
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
        'ab distance of the mean color of the training set', '',
        needs=('mean_color',)),
    # How much color there is; in the photographs, and how far from them.
    'chroma': Metric(
        lambda a: image.mean_chroma(a.picture_ab),
        'mean chroma, Lab units', ''),
    'colorfulness': Metric(
        lambda a: colorfulness.colorfulness(a.picture),
        'colorfulness of Hasler and Suesstrunk (signed)', ''),
    'colorfulness_abs': Metric(
        lambda a: colorfulness.colorfulness_abs(a.picture),
        'the same with absolute opponents, as DDColor and CT2 print it', ''),
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
    # The set of answers against the set of the same photographs.
    **{f'fid_{variant}': Metric(
        _features(variant), f'FID, features of {variant}, biased by 1/n',
        network=f'inception_{variant}', resamples=_FEW, recentre=True,
        reduce=_paired(frechet.frechet_distance),
        resample=_paired_resample(frechet.resampled_frechet_distance))
       for variant in inception_features.VARIANTS},
    **{f'kid_{variant}': Metric(
        f'fid_{variant}', f'KID of all pictures, features of {variant}',
        network=f'inception_{variant}', resamples=_FEW, recentre=True,
        reduce=_paired(frechet.kernel_distance),
        resample=_paired_resample(frechet.resampled_kernel_distance))
       for variant in inception_features.VARIANTS},
    # Several answers: K proposals.
    'best_of_k': Metric(
        lambda a: image.best_of_k(a.proposals_ab, a.ab),
        'ab distance of the best of K proposals, whole photograph',
        needs=_PROPOSALS),
    'pixel_oracle_k': Metric(
        lambda a: diversity.pixel_oracle_k_ab(a.proposals_ab, a.ab),
        'ab distance of the best proposal at each pixel', needs=_PROPOSALS),
    # Several answers: n random samples.
    'sample_best_of_n': Metric(
        lambda a: image.best_of_k(a.samples_ab, a.ab),
        'ab distance of the best of n samples, whole photograph',
        needs=_SAMPLES),
    'sample_best_of_n_rgb_rmse': Metric(
        lambda a: diversity.best_of_k_rmse(a.samples, a.original),
        'RMSE of sRGB of the best of n samples, whole photograph',
        needs=_SAMPLES),
    'sample_pixel_oracle_n_rgb_rmse': Metric(
        lambda a: diversity.pixel_oracle_k(a.samples, a.original),
        'RMSE of sRGB, best sample per pixel and channel ("best of 8" of cINN)',
        needs=_SAMPLES),
    'sample_variance': Metric(
        lambda a: diversity.variance(a.samples),
        'variance over samples of sRGB in [0, 1]', '', needs=_SAMPLES),
    'sample_ab_std': Metric(
        lambda a: diversity.ab_std(a.samples_ab),
        'spread of samples in the ab plane, Lab units', '', needs=_SAMPLES),
    'sample_pairwise_ab_distance': Metric(
        lambda a: diversity.pairwise_ab_distance(a.samples_ab),
        'ab distance of two samples, mean over all pairs', '', needs=_SAMPLES),
    'sample_pairwise_lpips_alex': Metric(
        _sample_lpips('alex'), 'LPIPS (AlexNet) of two samples, all pairs', '',
        needs=_SAMPLES, network='lpips_alex'),
    # The distribution itself.
    'bits_per_dim': Metric(
        lambda a: a.bits, 'bits for each ab value in steps of 1 Lab unit: '
        '-log2 of the density', needs=('bits',)),
    'energy_score': Metric(
        lambda a: calibration.energy_score(a.draws, a.field),
        'energy score of draws in the ab plane, Lab units', needs=_DRAWS),
    'pit_error': Metric(
        _pit, 'calibration error of the rank of the truth among draws',
        needs=_DRAWS, reduce=calibration.pit_error, resamples=_FEWER,
        recentre=True),
    'coverage_50': Metric(
        'pit_error', 'share of values in the central 50 % of the draws', '',
        needs=_DRAWS, reduce=_coverage(0.5), resamples=_FEWER),
    'coverage_90': Metric(
        'pit_error', 'share of values in the central 90 % of the draws', '',
        needs=_DRAWS, reduce=_coverage(0.9), resamples=_FEWER),
    'expected_calibration_error': Metric(
        lambda a: calibration.bin_reliability(a.draws, a.field),
        'calibration error of the most frequent ab bin of the draws',
        needs=_DRAWS, reduce=calibration.expected_calibration_error,
        resamples=_FEWER, recentre=True),
    'hpd_coverage_90': Metric(
        lambda a: calibration.hpd_level(a.nats, a.nats_of_draws),
        'share of photographs in the whole-image density set of 90 %', '',
        needs=('nats_of_draws',), reduce=_hpd_coverage(0.9),
        resamples=_FEWER),
}
"""Every metric by its name, in the order of tables."""


def measure(answers: Answers) -> dict[str, jax.Array]:
  """The statistics of each photograph, [B, ...], by the names of METRICS.

  Metrics for which the answers do not have what is needed are left out, and
  those that reduce the statistics of another.
  """
  return {
      name: metric.statistics(answers) for name, metric in METRICS.items()
      if not isinstance(metric.statistics, str)
      and all(getattr(answers, field) is not None for field in metric.needs)
      and (not metric.network or metric.network in answers.networks)}


def statistics_of(name: str, measured: Mapping[str, np.ndarray]
                  ) -> np.ndarray | None:
  """The statistics that a metric reduces, None where there are none."""
  source = METRICS[name].statistics
  return measured.get(source if isinstance(source, str) else name)


def replicates(name: str, statistics: np.ndarray, *, seed: int = 0
               ) -> np.ndarray:
  """Bootstrap replicates [R] of a metric; see `metrics.bootstrap`."""
  metric = METRICS[name]
  if metric.resample is not None:
    return metric.resample(statistics, bootstrap.counts(
        len(statistics), num_resamples=metric.resamples, seed=seed))
  if metric.undefined:
    # Drawn from those that the mean is over: every resample has a mean, and
    # rows that leave out the same photographs are paired.
    statistics = _defined(statistics)
  return bootstrap.replicates(statistics, metric.reduce, seed=seed,
                              num_resamples=metric.resamples)


def num_defined(name: str, statistics: np.ndarray) -> int:
  """How many of the photographs [N, ...] a metric's figure is over."""
  if not METRICS[name].undefined:
    return len(statistics)
  return int(np.isfinite(statistics).sum())


def _defined(values: np.ndarray) -> np.ndarray:
  """The finite values; where there are none, all."""
  defined = np.isfinite(values)
  return values[defined] if defined.any() else values


def figure(name: str, statistics: np.ndarray) -> float:
  """A metric of a set of photographs, from their statistics [N, ...]."""
  metric = METRICS[name]
  if metric.reduce is not None:
    return float(metric.reduce(statistics))
  statistics = np.asarray(statistics, np.float64)
  return float(
      (_defined(statistics) if metric.undefined else statistics).mean())


def summarize(measured: Mapping[str, np.ndarray]
              ) -> dict[str, bootstrap.Interval]:
  """Each metric of a set with its 95 % interval, in the order of METRICS.

  Args:
    measured: statistics [N, ...] by the names that `measure` gives.
  """
  summary = {}
  for name, metric in METRICS.items():
    statistics = statistics_of(name, measured)
    if statistics is not None:
      defined = num_defined(name, statistics)
      interval = bootstrap.interval(
          figure(name, statistics), replicates(name, statistics), defined,
          recentre=metric.recentre)
      summary[name] = dataclasses.replace(
          interval, num_undefined=len(statistics) - defined)
  return summary
