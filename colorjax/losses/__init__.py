"""Losses: pure, unreduced functions, batched over any leading axes.

This package exports the mixture likelihoods. The other losses are in the
modules `regression`, `formula` (sums of regression losses, written as text),
`classification` and `adversarial`.
"""

from colorjax.losses.families import (
  Family,
  LogProduct,
  bernoulli,
  continuous_bernoulli,
  discretized_logistic,
  gaussian,
)
from colorjax.losses.likelihood import (
  ab_log_density,
  bernoulli_mixture_log_prob,
  bits_per_dim,
  mixture_log_density,
  mixture_log_prob,
  responsibilities,
)
from colorjax.losses.readout import (
  mixture_mean,
  mixture_mode,
  mixture_sample,
  top_component_mean,
)

__all__ = [
  'Family',
  'LogProduct',
  'ab_log_density',
  'bernoulli',
  'bernoulli_mixture_log_prob',
  'bits_per_dim',
  'continuous_bernoulli',
  'discretized_logistic',
  'gaussian',
  'mixture_log_density',
  'mixture_log_prob',
  'mixture_mean',
  'mixture_mode',
  'mixture_sample',
  'responsibilities',
  'top_component_mean',
]
