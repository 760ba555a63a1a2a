"""Regression losses: what one predicted ab field costs.

Every loss has the same form,

    loss(prediction, target, *, lightness, weights=None, **settings) -> [...]

with `prediction` and `target` in network ab (Lab units / 110) [..., H, W, 2],
`lightness` in [0, 100] [..., H, W, 1], `weights` of pixels at least 0
[..., H, W] or None for 1, and settings as keyword arguments with defaults. It
returns a float32 for each photograph, at least 0: nothing is reduced over
photographs. Its gradient is finite everywhere, at a perfect answer and at grey
too. `colorjax.losses.formula` adds losses up by a text such as
'huber(delta=0.01)+0.1*ssim'.

A loss that looks at photographs through a pretrained network has one more
argument, `features`; see `perceptual`.

The first losses are means over pixels and the two channels. With rho(e) the
penalty of one number of the error e = prediction - target,

    loss = 1 / (2 H W) * sum over pixels i of w_i * (rho(a_i) + rho(b_i)),

    mse      rho(e) = e^2
    l1       rho(e) = |e|
    huber    rho(e) = e^2 / 2                    where |e| <= delta,
                      delta * (|e| - delta / 2)  elsewhere
    smooth   rho(e) = sqrt(e^2 + epsilon^2) - epsilon      (Charbonnier)
    edges    rho(e) = (1 + strength * |gradient of lightness|) * |e|

The weights are not divided by their sum: weights of class rebalancing have
mean 1 over the data set, not over each photograph, and a photograph of rare
colors is to count for more.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from colorjax import color, similarity
from colorjax.errors import UserError

HUBER_DELTA = 1 / color.AB_SCALE
"""One Lab unit in network ab: where Zhang et al. 2017 put the corner."""

SMOOTH_EPSILON = 1e-3
"""The corner of Charbonnier's penalty as Lai et al. 2017 chose it."""

RegressionLoss = Callable[..., jax.Array]
"""`(prediction, target, *, lightness, weights=None, **settings) -> [...]`."""

Features = Callable[[jax.Array], Mapping[str, jax.Array]]
"""sRGB [B, H, W, 3] in [0, 1] to feature maps [B, h, w, C] by stage."""


def mse(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
        weights: jax.Array | None = None) -> jax.Array:
  """Mean squared error; its optimum is the mean color, hence faded."""
  return _mean(jnp.square(_error(prediction, target, lightness)), weights)


def l1(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
       weights: jax.Array | None = None) -> jax.Array:
  """Mean absolute error; its optimum is the median of each channel."""
  return _mean(_size(_error(prediction, target, lightness)), weights)


def huber(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
          weights: jax.Array | None = None, delta: float = HUBER_DELTA
          ) -> jax.Array:
  """Squared near 0, absolute beyond delta (Huber 1964).

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: of pixels, [..., H, W]; None for 1.
    delta: the corner in network ab, above 0.

  Returns:
    Squared network ab, [...].
  """
  if not delta > 0:
    raise ValueError(f'delta={delta}: is above 0')
  size = jnp.abs(_error(prediction, target, lightness))
  near = jnp.minimum(size, delta)
  return _mean(near * (size - near / 2), weights)


def smooth(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
           weights: jax.Array | None = None, epsilon: float = SMOOTH_EPSILON
           ) -> jax.Array:
  """The absolute value without its corner (Charbonnier et al. 1994).

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: of pixels, [..., H, W]; None for 1.
    epsilon: radius of the rounding in network ab, above 0.

  Returns:
    Network ab, [...].
  """
  if not epsilon > 0:
    raise ValueError(f'epsilon={epsilon}: is above 0')
  squared = jnp.square(_error(prediction, target, lightness))
  # e^2 / (sqrt(e^2 + epsilon^2) + epsilon) is the same without cancellation.
  return _mean(
      squared / (jnp.sqrt(squared + epsilon**2) + epsilon), weights)


def edges(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
          weights: jax.Array | None = None, strength: float = 10.0
          ) -> jax.Array:
  """Mean absolute error that counts for more at the edges of lightness.

  Colors that run over an edge are seen at once, and so are few pixels. The
  gradient of L / 100 is taken by central differences, one-sided at the border.

  Args:
    prediction: network ab [..., H, W, 2], H and W at least 2.
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: of pixels, [..., H, W]; None for 1.
    strength: how much more an edge from black to white over two pixels counts
      (gradient 1/2) is strength / 2; at least 0.

  Returns:
    Network ab, [...].
  """
  if not strength >= 0:
    raise ValueError(f'strength={strength}: is at least 0')
  size = _size(_error(prediction, target, lightness))
  rows, columns = jnp.gradient(lightness[..., 0] / 100, axis=(-2, -1))
  edge = 1 + strength * jax.lax.stop_gradient(jnp.hypot(rows, columns))
  return _mean(size, edge if weights is None else edge * weights)


def ssim(prediction: jax.Array, target: jax.Array, *, lightness: jax.Array,
         weights: jax.Array | None = None) -> jax.Array:
  """Structural dissimilarity of the colored pictures, (1 - SSIM) / 2.

  SSIM as in `colorjax.similarity`, of sRGB in [0, 1], mean over R, G, B and
  the windows inside the picture. Both pictures have the same lightness, so the
  loss is small from the start: it is a term beside others.

  Args:
    prediction: network ab [..., H, W, 2], H and W at least 11. Colors that
      sRGB cannot hold are not clipped, which would end their gradient.
    target: network ab, same shape.
    lightness: L [..., H, W, 1].
    weights: of pixels, [..., H, W]: a window has that of its middle.

  Returns:
    In [0, 1], [...].
  """
  _error(prediction, target, lightness)
  _check_weights(weights, prediction.shape[:-1])
  if min(prediction.shape[-3:-1]) < similarity.WINDOW:
    raise UserError(
        f'loss=ssim: pictures have at least {similarity.WINDOW} x '
        f'{similarity.WINDOW} pixels, got {prediction.shape[-3]} x '
        f'{prediction.shape[-2]}')
  loss = (1 - similarity.ssim_map(
      _picture(prediction, lightness), _picture(target, lightness), limit=1)
         ) / 2
  if weights is not None:
    border = similarity.WINDOW // 2
    loss = loss * weights[..., border:-border, border:-border, None]
  return loss.mean((-3, -2, -1))


def colorfulness(prediction: jax.Array, target: jax.Array, *,
                 lightness: jax.Array, weights: jax.Array | None = None
                 ) -> jax.Array:
  """Asks for vivid pictures: max(0, 1 - colorfulness / 100).

  The colorfulness is that of Hasler and Suesstrunk (2003) of sRGB levels
  0..255, with the sign of the opponents, as in `colorjax.metrics.colorfulness`.
  The loss is that of DDColor (Kang et al. 2023, arXiv:2212.11613, section
  3.4); it knows nothing of the photograph's true colors and so is a term
  beside others.

  Args:
    prediction: network ab [..., H, W, 2].
    target: network ab, same shape; its values are not used.
    lightness: L [..., H, W, 1].
    weights: not used: colorfulness belongs to the picture, not to its pixels.

  Returns:
    In [0, 1], 1 for grey, [...].
  """
  del weights
  _error(prediction, target, lightness)
  # Clipped: what sRGB cannot hold makes no picture more vivid.
  red, green, blue = jnp.moveaxis(
      255 * color.lab_to_rgb(_lab(prediction, lightness)), -1, 0)
  rg, yb = red - green, (red + green) / 2 - blue
  pixels = (-2, -1)
  spread = _root(rg.var(pixels) + yb.var(pixels))
  shift = _root(jnp.square(rg.mean(pixels)) + jnp.square(yb.mean(pixels)))
  return jax.nn.relu(1 - (spread + 0.3 * shift) / 100)


def perceptual(prediction: jax.Array, target: jax.Array, *,
               lightness: jax.Array, weights: jax.Array | None = None,
               features: Features, network: str = 'vgg16',
               stages: Sequence[str] = ('relu1_2', 'relu2_2', 'relu3_3')
               ) -> jax.Array:
  """Distance of the colored pictures in the features of a pretrained network.

  At each stage the feature vector of every place is divided by its length over
  the channels; the loss is the squared distance of the two vectors, mean over
  places and stages (Zhang et al. 2018, arXiv:1801.03924, without their learnt
  heads; after the feature losses of Johnson et al. 2016). Hence it does not
  depend on the scale of the network's weights.

  Args:
    prediction: network ab [B, H, W, 2]. Colors that sRGB cannot hold are not
      clipped, which would end their gradient.
    target: network ab, same shape.
    lightness: L [B, H, W, 1].
    weights: of pixels, [B, H, W], averaged to the resolution of each stage.
    features: the pretrained network, sRGB [B, H, W, 3] to its stages by name.
    network: its name; whoever makes `features` reads it.
    stages: names of the stages that are compared, at least one.

  Returns:
    At least 0, and at most 2 where features are not negative, [B].
  """
  del network
  _error(prediction, target, lightness)
  _check_weights(weights, prediction.shape[:-1])
  if not stages:
    raise ValueError('stages=(): at least one is needed')
  found = features(_picture(prediction, lightness))
  wanted = features(_picture(target, lightness))
  total = jnp.zeros(prediction.shape[:-3])
  for stage in stages:
    distance = jnp.square(
        _direction(found[stage]) - _direction(wanted[stage])).sum(-1)
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
"""The losses by the name that settings and flags use."""


def _error(prediction: jax.Array, target: jax.Array, lightness: jax.Array
           ) -> jax.Array:
  """prediction - target, at least float32; ValueError for other shapes."""
  # Broadcasting would hide a mistake, here and in `_mean`.
  shape = prediction.shape
  if len(shape) < 3 or shape[-1] != 2:
    raise ValueError(
        f'an ab field has shape [..., H, W, 2], got {list(shape)}')
  if target.shape != shape or lightness.shape != (*shape[:-1], 1):
    raise ValueError(
        f'prediction {list(shape)} does not fit target {list(target.shape)} '
        f'and lightness {list(lightness.shape)}')
  return _widened(prediction) - _widened(target)


def _widened(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _size(error: jax.Array) -> jax.Array:
  # jnp.abs has the gradient 1 at 0, which would push a perfect answer away.
  return error * jax.lax.stop_gradient(jnp.sign(error))


def _check_weights(weights: jax.Array | None, shape: tuple[int, ...]) -> None:
  if weights is not None and weights.shape != shape:
    raise ValueError(f'weights of pixels have shape {list(shape)}, got '
                     f'{list(weights.shape)}')


def _mean(penalty: jax.Array, weights: jax.Array | None) -> jax.Array:
  """[..., H, W, 2] and weights [..., H, W] to [...]."""
  _check_weights(weights, penalty.shape[:-1])
  if weights is not None:
    penalty = penalty * weights[..., None]
  return penalty.mean((-3, -2, -1))


def _lab(ab: jax.Array, lightness: jax.Array) -> jax.Array:
  """Network ab and L to Lab [..., H, W, 3]."""
  return jnp.concatenate(
      [_widened(lightness), color.AB_SCALE * _widened(ab)], axis=-1)


def _picture(ab: jax.Array, lightness: jax.Array) -> jax.Array:
  """The colored picture, sRGB [..., H, W, 3], not clipped to [0, 1]."""
  return color.linear_to_srgb(
      color.xyz_to_linear(color.lab_to_xyz(_lab(ab, lightness))))


def _root(x: jax.Array) -> jax.Array:
  """Square root whose gradient at 0 is 0."""
  is_zero = x <= 0
  return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


def _direction(features: jax.Array) -> jax.Array:
  """Each place's features divided by their length over the channels."""
  features = _widened(features)
  # Where all are 0 the direction is 0, and so is its gradient.
  squared = jnp.square(features).sum(-1, keepdims=True)
  is_zero = squared <= 0
  return features * jnp.where(
      is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, squared)))
