"""Regression losses: distances between a predicted ab field and the target.

Every loss has the same signature,

    loss(prediction, target, *, lightness, weights=None, **settings) -> [...]

  prediction  network ab (Lab units / 110), [..., H, W, 2]
  target      network ab, same shape
  lightness   L in [0, 100], [..., H, W, 1]
  weights     weights of pixels, at least 0, [..., H, W]; None for 1
  settings    keyword arguments with defaults

and returns one float32 value, at least 0, for each photograph: nothing is
reduced over photographs. The gradient is finite everywhere, also where the
prediction is exact or grey. `colorjax.losses.formula` adds losses up from a
text such as 'huber(delta=0.01)+0.1*ssim'.

A loss that compares features of a pretrained network has one more argument,
`features`; see `perceptual`.

The first five losses are means over pixels and the two channels. With rho(e)
the penalty for one channel of the error e = prediction - target,

    loss = 1 / (2 H W) * sum over pixels i of w_i * (rho(a_i) + rho(b_i)),

    mse      rho(e) = e^2
    l1       rho(e) = |e|
    huber    rho(e) = e^2 / 2                    where |e| <= delta,
                      delta * (|e| - delta / 2)  elsewhere
    smooth   rho(e) = sqrt(e^2 + epsilon^2) - epsilon      (Charbonnier)
    edges    rho(e) = (1 + strength * |gradient of lightness|) * |e|

The weights are not divided by their sum. Weights for class rebalancing have
mean 1 over the data set, not over each photograph, so that photographs with
rare colors count more.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from colorjax import color, similarity
from colorjax.errors import UserError

HUBER_DELTA = 1 / color.AB_SCALE
"""Default delta of `huber`: one Lab unit in network ab (Zhang et al. 2017)."""

SMOOTH_EPSILON = 1e-3
"""Default epsilon of `smooth` (Lai et al. 2017)."""

RegressionLoss = Callable[..., jax.Array]
"""`(prediction, target, *, lightness, weights=None, **settings) -> [...]`."""

Features = Callable[[jax.Array], Mapping[str, jax.Array]]
"""Maps sRGB [B, H, W, 3] in [0, 1] to feature maps [B, h, w, C] by name."""


def mse(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
        weights: jax.Array | None = None) -> jax.Array:
  """Mean squared error; minimized by the mean color, so results look faded."""
  return _mean(jnp.square(_error(prediction, target, lightness)), weights)


def l1(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
       weights: jax.Array | None = None) -> jax.Array:
  """Mean absolute error; minimized by the median of each channel."""
  return _mean(_abs(_error(prediction, target, lightness)), weights)


def huber(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
          weights: jax.Array | None = None, delta: float = HUBER_DELTA
          ) -> jax.Array:
  """Huber loss: squared up to delta, absolute beyond (Huber 1964).

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: weights of pixels, [..., H, W]; None for 1.
    delta: error at which the penalty becomes linear, network ab, above 0.

  Returns:
    Squared network ab, [...].

  Raises:
    ValueError: delta is not above 0.
  """
  if not delta > 0:
    raise ValueError(f'delta={delta}: must be above 0')
  size = jnp.abs(_error(prediction, target, lightness))
  near = jnp.minimum(size, delta)
  return _mean(near * (size - near / 2), weights)


def smooth(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
           weights: jax.Array | None = None, epsilon: float = SMOOTH_EPSILON
           ) -> jax.Array:
  """Charbonnier loss, a smooth absolute error (Charbonnier et al. 1994).

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: weights of pixels, [..., H, W]; None for 1.
    epsilon: errors well below it are penalized quadratically, errors well
      above it linearly; network ab, above 0.

  Returns:
    Network ab, [...].

  Raises:
    ValueError: epsilon is not above 0.
  """
  if not epsilon > 0:
    raise ValueError(f'epsilon={epsilon}: must be above 0')
  squared = jnp.square(_error(prediction, target, lightness))
  # sqrt(e^2 + epsilon^2) - epsilon, in a form without cancellation.
  return _mean(
      squared / (jnp.sqrt(squared + epsilon**2) + epsilon), weights)


def edges(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
          weights: jax.Array | None = None, strength: float = 10.0
          ) -> jax.Array:
  """Mean absolute error with larger weights at edges of lightness.

  Colors that bleed across an edge are conspicuous although they cover few
  pixels. The gradient of L / 100 is taken by central differences, one-sided at
  the border.

  Args:
    prediction: network ab [..., H, W, 2], H and W at least 2.
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: weights of pixels, [..., H, W]; None for 1.
    strength: additional weight for each unit of the gradient, at least 0. An
      edge from black to white (gradient 1/2) has weight 1 + strength / 2.

  Returns:
    Network ab, [...].

  Raises:
    ValueError: strength is below 0.
  """
  if not strength >= 0:
    raise ValueError(f'strength={strength}: must be at least 0')
  error = _abs(_error(prediction, target, lightness))
  rows, columns = jnp.gradient(lightness[..., 0] / 100, axis=(-2, -1))
  edge = 1 + strength * jax.lax.stop_gradient(jnp.hypot(rows, columns))
  return _mean(error, edge if weights is None else edge * weights)


def ssim(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
         weights: jax.Array | None = None) -> jax.Array:
  """Structural dissimilarity (1 - SSIM) / 2 of the colored pictures.

  SSIM is computed on sRGB in [0, 1] as in `colorjax.similarity`, and averaged
  over R, G, B and all windows inside the picture. Both pictures have the same
  lightness, so the loss is always small: use it together with other terms.

  Args:
    prediction: network ab [..., H, W, 2], H and W at least 11. Colors outside
      the sRGB gamut are not clipped, which would make their gradient 0.
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: weights of pixels, [..., H, W]; None for 1. A window has the weight
      of its center.

  Returns:
    In [0, 1], [...].

  Raises:
    UserError: the pictures are smaller than the window.
  """
  _error(prediction, target, lightness)
  _check_weights(weights, prediction.shape[:-1])
  if min(prediction.shape[-3:-1]) < similarity.WINDOW:
    raise UserError(
        f'loss=ssim: photographs of {prediction.shape[-3]} x '
        f'{prediction.shape[-2]} pixels are too small; use at least '
        f'{similarity.WINDOW} x {similarity.WINDOW}')
  loss = (1 - similarity.ssim_map(
      _srgb(prediction, lightness), _srgb(target, lightness), limit=1)
         ) / 2
  if weights is not None:
    border = similarity.WINDOW // 2
    loss = loss * weights[..., border:-border, border:-border, None]
  return loss.mean((-3, -2, -1))


def colorfulness(prediction: jax.Array, target: jax.Array, *,
                 lightness: jax.Array, weights: jax.Array | None = None
                 ) -> jax.Array:
  """Penalty for dull pictures: max(0, 1 - colorfulness / 100).

  The colorfulness of Hasler and Suesstrunk (2003) on sRGB levels 0..255, with
  signed opponent colors as in `colorjax.metrics.colorfulness`. The loss is that
  of DDColor (Kang et al. 2023, arXiv:2212.11613, section 3.4). It does not
  depend on the true colors: use it together with other terms.

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape; its values are not used.
    lightness: L [..., H, W, 1].
    weights: not used; colorfulness is a property of the whole picture.

  Returns:
    In [0, 1], 1 for grey, [...].
  """
  del weights
  _error(prediction, target, lightness)
  # Clipped to the gamut: other colors would not make the picture more vivid.
  red, green, blue = jnp.moveaxis(
      255 * color.lab_to_rgb(_lab(prediction, lightness)), -1, 0)
  rg, yb = red - green, (red + green) / 2 - blue
  pixels = (-2, -1)
  deviation = _sqrt(rg.var(pixels) + yb.var(pixels))
  mean = _sqrt(jnp.square(rg.mean(pixels)) + jnp.square(yb.mean(pixels)))
  return jax.nn.relu(1 - (deviation + 0.3 * mean) / 100)


def perceptual(prediction: jax.Array, target: jax.Array, *,
               lightness: jax.Array, weights: jax.Array | None = None,
               features: Features, network: str = 'vgg16',
               stages: Sequence[str] = ('relu1_2', 'relu2_2', 'relu3_3')
               ) -> jax.Array:
  """Distance of the colored pictures in the features of a pretrained network.

  At each stage, the feature vector of every position is normalized to unit
  length. The loss is the squared distance between the vectors of the two
  pictures, averaged over positions and stages, so it does not depend on the
  scale of the network's weights. This is LPIPS (Zhang et al. 2018,
  arXiv:1801.03924) without its learned heads, and follows the feature losses of
  Johnson et al. 2016.

  Args:
    prediction: network ab [B, H, W, 2]. Colors outside the sRGB gamut are not
      clipped, which would make their gradient 0.
    target: network ab, same shape.
    lightness: L [B, H, W, 1].
    weights: weights of pixels, [B, H, W], or None for 1; they are averaged to
      the resolution of each stage.
    features: the pretrained network, from sRGB [B, H, W, 3] to its stages by
      name.
    network: name of the network, for the code that builds `features`.
    stages: names of the stages to compare, at least one.

  Returns:
    At least 0, and at most 2 if all features are non-negative, [B].

  Raises:
    ValueError: `stages` is empty.
  """
  del network
  _error(prediction, target, lightness)
  _check_weights(weights, prediction.shape[:-1])
  if not stages:
    raise ValueError('stages=(): name at least one stage')
  predicted = features(_srgb(prediction, lightness))
  true = features(_srgb(target, lightness))
  total = jnp.zeros(prediction.shape[:-3])
  for stage in stages:
    distance = jnp.square(_unit_vectors(predicted[stage])
                          - _unit_vectors(true[stage])).sum(-1)
    if weights is not None:
      distance = distance * jax.image.resize(
          weights, distance.shape, jax.image.ResizeMethod.LINEAR)
    total = total + distance.mean((-2, -1))
  return total / len(stages)


LOSSES: dict[str, RegressionLoss] = {
    'mse': mse,
    'l1': l1,
    'huber': huber,
    'smooth': smooth,
    'edges': edges,
    'ssim': ssim,
    'colorfulness': colorfulness,
    'perceptual': perceptual,
}
"""The losses by the names used in settings and flags."""


def _error(prediction: jax.Array, target: jax.Array, lightness: jax.Array
           ) -> jax.Array:
  """prediction - target in float32 or wider; ValueError if shapes differ."""
  # Shapes are checked here and in `_mean`, since broadcasting hides mistakes.
  shape = prediction.shape
  if len(shape) < 3 or shape[-1] != 2:
    raise ValueError(
        f'prediction must be an ab field [..., H, W, 2], got {list(shape)}')
  if target.shape != shape or lightness.shape != (*shape[:-1], 1):
    raise ValueError(
        f'prediction {list(shape)} does not match target {list(target.shape)} '
        f'and lightness {list(lightness.shape)}')
  return _at_least_float32(prediction) - _at_least_float32(target)


def _at_least_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _abs(error: jax.Array) -> jax.Array:
  """Absolute value whose gradient at 0 is 0."""
  # jnp.abs has gradient 1 at 0, which would disturb an exact prediction.
  return error * jax.lax.stop_gradient(jnp.sign(error))


def _check_weights(weights: jax.Array | None, shape: tuple[int, ...]) -> None:
  """ValueError unless the weights are None or have the shape [..., H, W]."""
  if weights is not None and weights.shape != shape:
    raise ValueError(f'weights must have one value per pixel, {list(shape)}, '
                     f'got {list(weights.shape)}')


def _mean(penalty: jax.Array, weights: jax.Array | None) -> jax.Array:
  """Mean of penalties [..., H, W, 2] times weights [..., H, W], [...]."""
  _check_weights(weights, penalty.shape[:-1])
  if weights is not None:
    penalty = penalty * weights[..., None]
  return penalty.mean((-3, -2, -1))


def _lab(ab: jax.Array, lightness: jax.Array) -> jax.Array:
  """Network ab and L to Lab [..., H, W, 3]."""
  return jnp.concatenate(
      [_at_least_float32(lightness), color.AB_SCALE * _at_least_float32(ab)],
      axis=-1)


def _srgb(ab: jax.Array, lightness: jax.Array) -> jax.Array:
  """The colored picture, sRGB [..., H, W, 3], not clipped to [0, 1]."""
  return color.linear_to_srgb(
      color.xyz_to_linear(color.lab_to_xyz(_lab(ab, lightness))))


def _sqrt(x: jax.Array) -> jax.Array:
  """Square root whose gradient at 0 is 0."""
  is_zero = x <= 0
  return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


def _unit_vectors(features: jax.Array) -> jax.Array:
  """Features with the vector of each position normalized to length 1."""
  features = _at_least_float32(features)
  # A zero vector stays zero, and its gradient is 0.
  squared = jnp.square(features).sum(-1, keepdims=True)
  is_zero = squared <= 0
  return features * jnp.where(
      is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, squared)))
