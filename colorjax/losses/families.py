"""Component families: elementwise distributions over unit ab.

A family is the distribution of one number in [0, 1] (a or b of one pixel, in
the unit scale of `colorjax.color`), given the raw network outputs for it.
`colorjax.losses.likelihood` builds mixtures over events of any shape from it.

Raw network outputs may be any real numbers. At 0 every family is centered at
1/2 (grey) and moderately wide, which makes 0 a good initial value. All
functions are elementwise, pure, differentiable to any order, and finite for
raw outputs of +-1e4.

To add a family, write a function that returns a `Family`. It only needs
elementwise functions; `colorjax.losses.fused_sum` makes their sums fast.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Scales at raw output 0.
_INITIAL_GAUSSIAN_SCALE = 0.1
_INITIAL_LOGISTIC_SCALE = 0.05  # a standard deviation of 0.09: 20 ab units
# Log scales are clipped here when sampling, to keep exp finite. The density is
# constant over [0, 1] long before.
_MAX_LOG_SCALE = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogProduct:
  """A log-probability in the form log_prob = term + sign * log1p(excess).

  A sum over elements can then multiply their factors 1 + excess and take one
  logarithm of the product. On a CPU the logarithms dominate the run time.

  Attributes:
    parts: `(x, *params) -> (term, excess)`, with 0 <= excess <= max_excess.
    sign: 1 or -1.
    max_excess: upper bound of the excess. It limits how many elements share
      a logarithm: 127 for a bound of 1, 4 for a bound of 1e9.
  """
  parts: Callable[..., tuple[jax.Array, jax.Array]]
  sign: int
  max_excess: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """Elementwise functions of one distribution over [0, 1].

  `params` stands for `num_params` raw arrays that broadcast with each other
  and with the targets `x` (in [0, 1]).

  Attributes:
    num_params: number of raw network outputs per element.
    log_prob: `(x, *params) -> nats`, the training objective.
    mean: `(*params) -> [0, 1]`.
    mode: `(*params) -> [0, 1]`, the most probable value.
    sample: `(key, *params) -> [0, 1]`, in the broadcast shape of the params.
    log_density: `(x, *params) -> nats`, the log of a density normalized over
      the unit interval, which makes families comparable. None if `log_prob`
      is already normalized.
    sample_density: as `sample`, from the density of `log_density`. None if
      `sample` does this.
    log_product: optional; `log_prob` in a form whose sums are faster.
      Derivatives are always taken of `log_prob`.
  """
  num_params: int
  log_prob: Callable[..., jax.Array]
  mean: Callable[..., jax.Array]
  mode: Callable[..., jax.Array]
  sample: Callable[..., jax.Array]
  log_density: Callable[..., jax.Array] | None = None
  sample_density: Callable[..., jax.Array] | None = None
  log_product: LogProduct | None = None

  def normalized(self) -> 'Family':
    """The family whose `log_prob` and `sample` are those of the density."""
    if self.log_density is None:
      return self
    return dataclasses.replace(
        self, log_prob=self.log_density, log_density=None, log_product=None,
        sample=self.sample_density or self.sample, sample_density=None)


# Bernoulli: log p = x l - log(1 + exp(l)).


@jax.custom_jvp
def _softplus(logits):
  return jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))


# An explicit derivative, so that it shares no exponential with the value: XLA
# would keep a shared one in memory from the forward to the backward pass.
_softplus.defjvps(lambda tangent, _, logits: tangent * jax.nn.sigmoid(logits))


def _bernoulli_log_prob(x, logits):
  return x * logits - _softplus(logits)


def _bernoulli_parts(x, logits):
  return x * logits - jnp.maximum(logits, 0), jnp.exp(-jnp.abs(logits))


def _bernoulli_sample(key, logits):
  p = jax.nn.sigmoid(logits)
  return jax.random.bernoulli(key, p).astype(p.dtype)


def _sign_mode(logits):
  return (jnp.sign(logits) + 1) / 2


def bernoulli() -> Family:
  """Bernoulli with one logit l per element, as in the published mixture.

  log p(x) = x l - log(1 + exp(l)) is a probability for x in {0, 1}. For x in
  between it is an unnormalized cross-entropy, which cannot be compared with
  other families. `log_density` is therefore the normalized density, that of
  `continuous_bernoulli` with the same logit. Mode and samples are 0 or 1, the
  ends of the ab range; use the mean, sigmoid(l), as the coloring.

  Juan and Vidal, "Bernoulli mixture models for binary images", ICPR 2004.
  """
  return Family(
      num_params=1, log_prob=_bernoulli_log_prob,
      log_density=_continuous_bernoulli_log_prob, mean=jax.nn.sigmoid,
      mode=_sign_mode, sample=_bernoulli_sample,
      sample_density=continuous_bernoulli().sample,
      log_product=LogProduct(
          parts=_bernoulli_parts, sign=-1, max_excess=1.0))


# Continuous Bernoulli: log p = x l - A(l), A(l) = log((exp(l) - 1) / l), the
# same density as C(mu) mu^x (1 - mu)^(1 - x) with l = logit(mu).
#
# With t = |l| and f(t) = t / (1 - exp(-t)), A(l) = max(l, 0) - log f(t). For
# t < 1 the closed forms suffer from cancellation, and a series replaces them:
# f generates the Bernoulli numbers B, f(t) = 1 + t/2 + sum_n c_n t^2n with
# c_n = B_2n / (2n)!, and the mean is A'(l) = 1/2 + sum_n c_n l^(2n-1). For
# t < 1, nine terms are exact in float64 and five in float32. f(t) - 1 is
# clipped at 1e9: for larger logits the rest of log f is below the rounding of
# the term x l or (x - 1) l.
_MAX_EXCESS = 1e9
_SERIES = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160,
           -691 / 1307674368000, 1 / 74724249600, -3617 / 10670622842880000,
           43867 / 5109094217170944000)


def _series(square):
  """sum_n c_n t^(2n-2), for t^2 < 1."""
  num_terms = 9 if square.dtype == jnp.float64 else 5
  total = jnp.zeros_like(square)
  for coefficient in reversed(_SERIES[:num_terms]):
    total = total * square + coefficient
  return total


def _continuous_bernoulli_excess(logits):
  """f(t) - 1 of the comment above, non-negative, without cancellation."""
  t = jnp.abs(logits)
  near = t < 1
  small = jnp.where(near, t, 0)
  large = jnp.clip(t, 1, _MAX_EXCESS)
  return jnp.where(near, small * (0.5 + small * _series(small * small)),
                   large / (1 - jnp.exp(-large)) - 1)


@jax.custom_jvp
def _log_normalizer(logits):
  return jnp.maximum(logits, 0) - jnp.log1p(
      _continuous_bernoulli_excess(logits))


def _continuous_bernoulli_mean(logits):
  near = jnp.abs(logits) < 1
  small = jnp.where(near, logits, 0)
  large = jnp.where(near, 1, logits)
  return 0.5 + jnp.where(near, small * _series(small * small),
                         0.5 / jnp.tanh(large / 2) - 1 / large)


_log_normalizer.defjvps(
    lambda tangent, _, logits: tangent * _continuous_bernoulli_mean(logits))


def _continuous_bernoulli_log_prob(x, logits):
  return x * logits - _log_normalizer(logits)


def _continuous_bernoulli_parts(x, logits):
  return (x * logits - jnp.maximum(logits, 0),
          _continuous_bernoulli_excess(logits))


def _continuous_bernoulli_sample(key, logits):
  """Samples by the inverse distribution function, mirrored where l > 0."""
  u = jax.random.uniform(key, logits.shape, logits.dtype)
  # At 1e-6 the distribution is uniform to float32 precision.
  t = jnp.maximum(jnp.abs(logits), 1e-6)
  low = jnp.clip(-jnp.log1p(u * jnp.expm1(-t)) / t, 0, 1)
  return jnp.where(logits > 0, 1 - low, low)


def continuous_bernoulli() -> Family:
  """Continuous Bernoulli, the normalized `bernoulli`; one logit l per element.

  log p(x) = x l - log((exp(l) - 1) / l) is a density on [0, 1]. Its mean is not
  sigmoid(l) but mu / (2 mu - 1) + 1 / (2 atanh(1 - 2 mu)) with mu = sigmoid(l).
  The density is monotone, so its mode is an end of the interval (1/2 at l = 0).

  Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive
  error in variational autoencoders", NeurIPS 2019, arXiv:1907.06845.
  """
  return Family(
      num_params=1, log_prob=_continuous_bernoulli_log_prob,
      mean=_continuous_bernoulli_mean, mode=_sign_mode,
      sample=_continuous_bernoulli_sample,
      log_product=LogProduct(parts=_continuous_bernoulli_parts, sign=1,
                             max_excess=_MAX_EXCESS))


# Location-scale families. Both have loc = sigmoid(raw), so that every mean is
# a valid color, and a smooth lower bound of the scale, so that its gradient
# does not vanish.


def _log_scale(raw, minimum, initial):
  """Log of minimum + (initial - minimum) exp(raw), without overflow."""
  return math.log(minimum) + _softplus(raw + math.log(initial / minimum - 1))


def normal_log_scale(raw_scale: jax.Array, min_scale: float = 1 / 256
                     ) -> jax.Array:
  """The log scale of `gaussian` from the network's output, any shape."""
  return _log_scale(raw_scale, min_scale, _INITIAL_GAUSSIAN_SCALE)


def gaussian(*, min_scale: float = 1 / 256) -> Family:
  """Normal distribution; params (raw location, raw log scale).

  The location is sigmoid(raw), 1/2 at raw 0; the scale is 0.1 (22 ab units) at
  raw 0. The density is normalized over the real line, so probability outside
  [0, 1] is lost when families are compared. Samples are clipped to [0, 1].

  Args:
    min_scale: lower bound of the scale in unit ab, in (0, 0.1); the default,
      0.86 ab units, is about the rounding of 8-bit sRGB.

  Raises:
    ValueError: min_scale is outside that range.
  """
  if not 0 < min_scale < _INITIAL_GAUSSIAN_SCALE:
    raise ValueError(
        f'min_scale={min_scale}: must be in (0, {_INITIAL_GAUSSIAN_SCALE})')

  def log_prob(x, raw_loc, raw_scale):
    log_scale = normal_log_scale(raw_scale, min_scale)
    z = (x - jax.nn.sigmoid(raw_loc)) * jnp.exp(-log_scale)
    return -0.5 * (z * z + math.log(2 * math.pi)) - log_scale

  def mean(raw_loc, raw_scale):
    return jax.nn.sigmoid(raw_loc) + jnp.zeros_like(raw_scale)

  def sample(key, raw_loc, raw_scale):
    loc = mean(raw_loc, raw_scale)
    log_scale = normal_log_scale(raw_scale, min_scale)
    scale = jnp.exp(jnp.minimum(log_scale, _MAX_LOG_SCALE))
    noise = jax.random.normal(key, loc.shape, loc.dtype)
    return jnp.clip(loc + scale * noise, 0, 1)

  return Family(num_params=2, log_prob=log_prob, mean=mean, mode=mean,
                sample=sample)


def discretized_logistic(*, levels: int = 256, min_scale: float = 1e-3
                         ) -> Family:
  """Logistic distribution over equal bins; params (raw location, log scale).

  [0, 1] is divided into `levels` bins of equal width. The outer bins include
  the tails, so the masses sum to 1. `log_prob` is the log mass of the bin that
  contains x; `log_density` divides the mass by the bin's width and integrates
  to 1. The location is sigmoid(raw), 1/2 at raw 0; the scale is 0.05 (standard
  deviation 20 ab units) at raw 0. Mode and samples are bin centers. The mean is
  that of the continuous distribution clipped to the outer bin centers: it is
  accurate to half a bin, and to 1e-5 if the scale is at least half a bin.

  Salimans et al., "PixelCNN++", ICLR 2017, arXiv:1701.05517. Their bins are
  centered on 8-bit values; ab has no such values, so these bins differ.

  Args:
    levels: number of bins, 2 or more; 256 makes them 0.86 ab units wide.
    min_scale: lower bound of the scale in unit ab, in (0, 0.05).

  Raises:
    ValueError: an argument is outside its range.
  """
  if levels < 2:
    raise ValueError(f'levels={levels}: must be 2 or more')
  if not 0 < min_scale < _INITIAL_LOGISTIC_SCALE:
    raise ValueError(
        f'min_scale={min_scale}: must be in (0, {_INITIAL_LOGISTIC_SCALE})')
  width = 1 / levels

  def log_prob(x, raw_loc, raw_scale):
    loc = jax.nn.sigmoid(raw_loc)
    log_scale = _log_scale(raw_scale, min_scale, _INITIAL_LOGISTIC_SCALE)
    inverse = jnp.exp(-log_scale)
    index = jnp.clip(jnp.floor(x * levels), 0, levels - 1)
    lower = (index * width - loc) * inverse
    upper = ((index + 1) * width - loc) * inverse
    # With the sigmoid s: s(u) - s(v) = s(u) s(-v) (1 - exp(v - u)). Each factor
    # has a stable logarithm. An outer bin has one factor only.
    is_first, is_last = index == 0, index == levels - 1
    return (jnp.where(is_last, 0, -_softplus(-upper))
            + jnp.where(is_first, 0, -_softplus(lower))
            + jnp.where(is_first | is_last, 0,
                        _log1mexp(math.log(width) - log_scale)))

  def mean(raw_loc, raw_scale):
    loc = jax.nn.sigmoid(raw_loc)
    inverse = jnp.exp(
        -_log_scale(raw_scale, min_scale, _INITIAL_LOGISTIC_SCALE))
    return _clipped_logistic_mean(loc, inverse, width / 2, 1 - width / 2)

  def center(x):
    return (jnp.clip(jnp.floor(x * levels), 0, levels - 1) + 0.5) * width

  def mode(raw_loc, raw_scale):
    inner = center(jax.nn.sigmoid(raw_loc) + jnp.zeros_like(raw_scale))
    # With wide tails an outer bin can be more probable than the inner one.
    bins = jnp.stack([inner, jnp.full_like(inner, width / 2),
                      jnp.full_like(inner, 1 - width / 2)])
    log_probs = log_prob(bins, raw_loc[None], raw_scale[None])
    best = jnp.argmax(log_probs, 0, keepdims=True)
    return jnp.take_along_axis(bins, best, 0)[0]

  def sample(key, raw_loc, raw_scale):
    log_scale = _log_scale(raw_scale, min_scale, _INITIAL_LOGISTIC_SCALE)
    loc = jax.nn.sigmoid(raw_loc) + jnp.zeros_like(log_scale)
    noise = jax.random.logistic(key, loc.shape, loc.dtype)
    return center(loc + jnp.exp(jnp.minimum(log_scale, _MAX_LOG_SCALE)) * noise)

  def sample_density(key, raw_loc, raw_scale):
    # Within a bin, the density is uniform.
    key_bin, key_inside = jax.random.split(key)
    centers = sample(key_bin, raw_loc, raw_scale)
    return centers + width * jax.random.uniform(
        key_inside, centers.shape, centers.dtype, -0.5, 0.5)

  return Family(
      num_params=2, log_prob=log_prob, mean=mean, mode=mode, sample=sample,
      sample_density=sample_density,
      log_density=lambda x, *params: log_prob(x, *params) + math.log(levels))


def _log1mexp(log_w):
  """log(1 - exp(-w)) for w = exp(log_w), accurate down to w = 0 in float32."""
  near = log_w < -5
  small = jnp.exp(jnp.where(near, log_w, -5))
  large = jnp.exp(jnp.where(near, 0, log_w))
  return jnp.where(near, log_w - small / 2 + small * small / 24,
                   jnp.log(-jnp.expm1(-large)))


def _clipped_logistic_mean(loc, inverse_scale, low, high):
  """Mean of a logistic variable clipped to [low, high]."""
  # The integral of P(X > t) from low to high is the difference of the two
  # softplus terms over inverse_scale. For wide scales this becomes 0 / 0, and
  # P(X > t) at the middle of the interval replaces it.
  upper = (loc - low) * inverse_scale
  lower = (loc - high) * inverse_scale
  span = (high - low) * inverse_scale
  wide = span < 1e-2
  area = (_softplus(upper) - _softplus(lower)) / jnp.where(wide, 1, span)
  return low + (high - low) * jnp.where(
      wide, jax.nn.sigmoid((upper + lower) / 2), area)
