"""Conversions between sRGB, linear RGB, CIE XYZ and CIE L*a*b*.

The ranges of the whole project are defined here:

  sRGB and linear RGB   float in [0, 1], last axis R, G, B (IEC 61966-2-1)
  XYZ                   float, Y = 1 for white (D65, 2 degree observer)
  Lab                   L in [0, 100]; in the sRGB gamut a lies in about
                        [-86.2, 98.3] and b in about [-107.9, 94.5]
  network lightness     L / 50 - 1, in [-1, 1]
  network ab            ab / 110, in [-1, 1]
  unit ab               (ab / 110 + 1) / 2, in [0, 1]; for densities over the
                        unit interval, such as the Bernoulli

All functions accept any leading dimensions. They compute in float32, or in
float64 if x64 is enabled and the input is float64. Their gradients are finite
everywhere, including black, white and grey, because the argument of each root
is guarded and not its result.

Photographs are uint8 until `split_lightness` converts them on the device.
"""

import jax
import jax.numpy as jnp
import numpy as np

AB_SCALE = 110.0
"""Half the side of the ab square, [-110, 110]^2, in Lab units."""

UNIT_AB_WIDTH = 2 * AB_SCALE
"""Lab units per unit of unit ab, for changes of variables in densities."""

# Linear sRGB -> XYZ (D65). These are the digits of scikit-image, so that both
# libraries give the same Lab.
_XYZ_FROM_RGB = np.array([
    [0.412453, 0.357580, 0.180423],
    [0.212671, 0.715160, 0.072169],
    [0.019334, 0.119193, 0.950227],
])
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])

# CIE 15: below (6/29)^3 the cube root is replaced by a line.
_DELTA = 6.0 / 29.0


def _as_float(x: jax.typing.ArrayLike) -> jax.Array:
  """Converts to float of at least 32 bits; raises TypeError for integers."""
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(
        f'colors must be floats, got {x.dtype}; divide uint8 images by 255 '
        'first')
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_channels(x: jax.Array, function: str) -> jax.Array:
  """Raises ValueError unless x is [..., 3]; `function` is for the message."""
  if x.ndim == 0 or x.shape[-1] != 3:
    raise ValueError(f'{function} needs shape [..., 3], got {list(x.shape)}')
  return x


def _apply_matrix(matrix: np.ndarray, x: jax.Array) -> jax.Array:
  """Applies a matrix [3, 3] to x [..., 3]."""
  # Without HIGHEST, a GPU multiplies in TF32, which keeps 3 digits of Lab.
  return jnp.einsum('...c,dc->...d', x, jnp.asarray(matrix, x.dtype),
                    precision=jax.lax.Precision.HIGHEST)


def srgb_to_linear(srgb: jax.typing.ArrayLike) -> jax.Array:
  """Converts sRGB to linear light (IEC 61966-2-1).

  Args:
    srgb: gamma-encoded values in [0, 1], any shape. Values below 0 are
      extrapolated linearly.

  Returns:
    Linear light, same shape.

  Raises:
    TypeError: the values are integers.
  """
  srgb = _as_float(srgb)
  is_low = srgb <= 0.04045
  base = (jnp.where(is_low, 1.0, srgb) + 0.055) / 1.055
  return jnp.where(is_low, srgb / 12.92, base**2.4)


def linear_to_srgb(linear: jax.typing.ArrayLike) -> jax.Array:
  """Converts linear light to sRGB (IEC 61966-2-1), without clipping.

  Args:
    linear: linear light, any shape. Values below 0 are extrapolated linearly.

  Returns:
    Gamma-encoded values, same shape.

  Raises:
    TypeError: the values are integers.
  """
  linear = _as_float(linear)
  is_low = linear <= 0.0031308
  base = jnp.where(is_low, 1.0, linear)
  return jnp.where(is_low, linear * 12.92, 1.055 * base**(1 / 2.4) - 0.055)


def linear_to_xyz(linear: jax.typing.ArrayLike) -> jax.Array:
  """Converts linear sRGB `[..., 3]` to CIE XYZ (D65, Y = 1 for white)."""
  linear = _check_channels(_as_float(linear), 'linear_to_xyz')
  return _apply_matrix(_XYZ_FROM_RGB, linear)


def xyz_to_linear(xyz: jax.typing.ArrayLike) -> jax.Array:
  """Converts CIE XYZ `[..., 3]` (D65, Y = 1 for white) to linear sRGB.

  The result is not clipped.
  """
  xyz = _check_channels(_as_float(xyz), 'xyz_to_linear')
  return _apply_matrix(_RGB_FROM_XYZ, xyz)


def xyz_to_lab(xyz: jax.typing.ArrayLike) -> jax.Array:
  """Converts CIE XYZ `[..., 3]` to CIE L*a*b* (CIE 15:2004, D65 white)."""
  xyz = _check_channels(_as_float(xyz), 'xyz_to_lab')
  t = xyz / jnp.asarray(_WHITE_D65, xyz.dtype)
  is_low = t <= _DELTA**3
  root = jnp.cbrt(jnp.where(is_low, 1.0, t))
  f = jnp.where(is_low, t / (3 * _DELTA**2) + 4 / 29, root)
  fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
  return jnp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1)


def lab_to_xyz(lab: jax.typing.ArrayLike) -> jax.Array:
  """Converts CIE L*a*b* `[..., 3]` to CIE XYZ.

  Values may be negative outside the gamut.
  """
  lab = _check_channels(_as_float(lab), 'lab_to_xyz')
  fy = (lab[..., 0] + 16) / 116
  f = jnp.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
  t = jnp.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
  return t * jnp.asarray(_WHITE_D65, t.dtype)


def rgb_to_lab(rgb: jax.typing.ArrayLike) -> jax.Array:
  """Converts sRGB to CIE L*a*b*.

  Args:
    rgb: sRGB in [0, 1], shape [..., 3].

  Returns:
    L in [0, 100], a and b, shape [..., 3].

  Raises:
    TypeError: the values are integers.
    ValueError: the last axis is not 3.
  """
  return xyz_to_lab(linear_to_xyz(srgb_to_linear(rgb)))


def lab_to_rgb(lab: jax.typing.ArrayLike) -> jax.Array:
  """Converts CIE L*a*b* to sRGB and clips each channel to [0, 1].

  Clipping changes L, hue and chroma. scikit-image and published evaluations
  clip in the same way. To keep the lightness, apply `fit_to_gamut` first. The
  gradient of a clipped channel is zero.

  Args:
    lab: L in [0, 100], a and b, shape [..., 3].

  Returns:
    sRGB in [0, 1], shape [..., 3].

  Raises:
    TypeError: the values are integers.
    ValueError: the last axis is not 3.
  """
  return jnp.clip(linear_to_srgb(xyz_to_linear(lab_to_xyz(lab))), 0.0, 1.0)


def in_gamut(lab: jax.typing.ArrayLike, *, tolerance: float = 1e-4
             ) -> jax.Array:
  """Whether a Lab color is inside the sRGB gamut.

  Args:
    lab: L in [0, 100], a and b, shape [..., 3].
    tolerance: how far a linear channel may lie outside [0, 1]. Colors on the
      surface of the gamut need it in float32.

  Returns:
    bool, shape [...].
  """
  linear = xyz_to_linear(lab_to_xyz(lab))
  return jnp.all((linear >= -tolerance) & (linear <= 1 + tolerance), axis=-1)


def fit_to_gamut(lab: jax.typing.ArrayLike, *, num_steps: int = 14
                 ) -> jax.Array:
  """Reduces chroma at constant lightness and hue to fit into the sRGB gamut.

  Colors inside the gamut are not changed. The largest possible chroma is found
  by bisection between the color and the grey of its lightness. The result is
  too low by at most 2^-num_steps of the original chroma.

  Args:
    lab: L in [0, 100], a and b, shape [..., 3].
    num_steps: number of bisection steps.

  Returns:
    Lab inside the sRGB gamut, L unchanged, shape [..., 3].
  """
  lab = _check_channels(_as_float(lab), 'fit_to_gamut')
  lightness, ab = lab[..., :1], lab[..., 1:]

  def with_chroma(scale):
    return jnp.concatenate([lightness, scale[..., None] * ab], -1)

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    fits = in_gamut(with_chroma(middle))
    return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

  inside = in_gamut(lab)
  low = jnp.zeros(lab.shape[:-1], lab.dtype)
  low, _ = jax.lax.fori_loop(0, num_steps, halve, (low, jnp.ones_like(low)))
  return with_chroma(jnp.where(inside, 1.0, low))


def split_lightness(images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Splits photographs into lightness (the input) and ab (the target).

  Args:
    images: sRGB photographs, uint8, shape [..., H, W, 3].

  Returns:
    Lightness [..., H, W, 1] in [0, 100] and ab [..., H, W, 2] in Lab units.

  Raises:
    TypeError: the images are not uint8.
  """
  if images.dtype != jnp.uint8:
    raise TypeError(f'images must be uint8, got {images.dtype}')
  lab = rgb_to_lab(images.astype(jnp.float32) / 255)
  return lab[..., :1], lab[..., 1:]


def lightness_of_luminance(luminance: jax.typing.ArrayLike) -> jax.Array:
  """Converts luminance to L, of CIE L*a*b* (CIE 15:2004).

  Args:
    luminance: Y, 1 for white, any shape.

  Returns:
    L in [0, 100], same shape.

  Raises:
    TypeError: the values are integers.
  """
  luminance = _as_float(luminance)
  is_low = luminance <= _DELTA**3
  # On a CPU, `jnp.cbrt` takes ten times as long.
  root = jnp.exp(jnp.log(jnp.where(is_low, 1.0, luminance)) / 3)
  return jnp.where(is_low, luminance * (29 / 3)**3, 116 * root - 16)


def grey_rgb(lightness: jax.Array) -> jax.Array:
  """Converts lightness to a grey sRGB image.

  Args:
    lightness: L in [0, 100], [..., 1].

  Returns:
    sRGB in [0, 1] with three equal channels, [..., 3].
  """
  grey = lab_to_rgb(jnp.concatenate(
      [lightness, jnp.zeros((*lightness.shape[:-1], 2))], axis=-1))
  # The conversion makes the channels equal only up to rounding.
  return jnp.broadcast_to(grey.mean(-1, keepdims=True), grey.shape)


def normalize_lightness(lightness: jax.Array) -> jax.Array:
  """Converts L in [0, 100] to network lightness in [-1, 1], any shape."""
  return lightness / 50 - 1


def ab_to_unit(ab: jax.Array) -> jax.Array:
  """Converts ab in Lab units to unit ab in [0, 1], any shape."""
  return (ab / AB_SCALE + 1) / 2


def unit_to_ab(unit: jax.Array) -> jax.Array:
  """Converts unit ab in [0, 1] to Lab units, any shape."""
  return (2 * unit - 1) * AB_SCALE
