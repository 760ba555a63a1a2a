"""Metrics of sets, and the photographs that they leave out."""

import json
import math

import numpy as np
import pytest

from colorjax.evaluation import catalogue
from colorjax.metrics import bootstrap

PSNR = np.array([20.0, 24.0, np.inf, 28.0, np.inf, 30.0])


@pytest.mark.parametrize('name', ['psnr', 'psnr_ab', 'psnr_grey'])
def test_equal_pictures_are_left_out_of_a_mean_of_decibels(name):
  value = catalogue.summarize({name: PSNR})[name]
  np.testing.assert_allclose(value.mean, 25.5)
  assert 20 <= value.low < value.mean < value.high <= 30
  assert (value.n, value.num_undefined) == (4, 2)
  assert catalogue.METRICS[name].undefined


def test_replicates_use_photographs_with_a_defined_value():
  np.testing.assert_array_equal(
      catalogue.replicates('psnr', PSNR),
      bootstrap.replicates(PSNR[np.isfinite(PSNR)]))
  one = catalogue.summarize({'psnr': np.array([np.inf, 21.0, np.inf])})['psnr']
  assert (one.mean, one.low, one.high, one.n) == (21, 21, 21, 1)


def test_all_pictures_equal_to_the_photographs():
  value = catalogue.summarize({'psnr': np.full(5, np.inf)})['psnr']
  assert value.mean == math.inf
  assert (value.n, value.num_undefined) == (0, 5)


def test_a_density_of_zero_is_not_left_out():
  """Leaving it out would reward a method that excludes the true color."""
  bits = np.array([5.0, np.inf, 6.0])
  value = catalogue.summarize({'bits_per_dim': bits})['bits_per_dim']
  assert value.mean == math.inf
  assert (value.n, value.num_undefined) == (3, 0)


def test_psnr_of_the_mean_squared_error():
  mse = np.array([0.01, 0.0, 0.002])
  found = catalogue.summarize(
      {'rgb_rmse': np.sqrt(mse), 'ab_rmse': np.array([3.0, 0.0, 4.0])})
  value = found['psnr_of_mean_mse']
  np.testing.assert_allclose(value.mean, -10 * np.log10(0.004))
  assert value.low < value.mean
  assert (value.n, value.num_undefined) == (3, 0)
  np.testing.assert_allclose(
      found['psnr_ab_of_mean_mse'].mean, 10 * np.log10(220**2 / (25 / 3)))
  equal = catalogue.summarize({'rgb_rmse': np.zeros(3)})['psnr_of_mean_mse']
  assert equal.mean == math.inf


@pytest.mark.parametrize('name', ['fid_pytorch_fid', 'kid_pytorch_fid'])
def test_resamples_at_once_equal_single_resamples(name):
  rng = np.random.default_rng(0)
  features = rng.normal(size=(40, 2, 6))
  metric = catalogue.METRICS[name]
  alone = bootstrap.replicates(
      features, metric.reduce, num_resamples=metric.resamples)
  np.testing.assert_allclose(
      catalogue.replicates(name, features), alone, rtol=1e-6, atol=1e-9)
  assert json.dumps(catalogue.value(name, features))
