"""Color spaces: sRGB, linear RGB, CIE XYZ and CIE L*a*b*, both ways.

Ranges, fixed here and nowhere else:

  sRGB and linear RGB   float in [0, 1], last axis R, G, B (IEC 61966-2-1)
  XYZ                   float, Y = 1 for white (D65, 2 degree observer)
  Lab                   L in [0, 100]; for colors that sRGB can hold a lies in
                        about [-86.2, 98.3] and b in about [-107.9, 94.5]
  network lightness     L / 50 - 1, in [-1, 1]
  network ab            ab / 110, inside [-1, 1]
  unit ab               (ab / 110 + 1) / 2, inside [0, 1]: what densities over
                        the unit interval (Bernoulli and kin) are fitted to

Every function takes any leading dimensions, computes in float32 (or float64
where x64 is enabled and given) and has finite gradients everywhere, at black,
white and grey too: the argument of each root is guarded, not its result.

Photographs travel as uint8 and enter this module on the device, through
`split_lightness`.
"""

import jax
import jax.numpy as jnp
import numpy as np

AB_SCALE = 110.0
"""Half-width of the ab square that the network and unit scales cover."""

UNIT_AB_WIDTH = 2 * AB_SCALE
"""ab units a unit-ab interval of length 1 spans: the change of variables."""

# Linear sRGB -> XYZ (D65). The digits are those of IEC 61966-2-1 as used by
# scikit-image, so that both libraries give the same Lab.
_XYZ_FROM_RGB = np.array([
    [0.412453, 0.357580, 0.180423],
    [0.212671, 0.715160, 0.072169],
    [0.019334, 0.119193, 0.950227],
])
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])

# CIE 15: below (6/29)^3 the cube root is continued by its tangent-like line.
_DELTA = 6.0 / 29.0


def _as_float(x: jax.typing.ArrayLike) -> jax.Array:
  """Floating array of at least 32 bits; uint8 is refused, not rescaled."""
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(
        f'colors are floats, got {x.dtype}; divide uint8 images by 255 first')
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_channels(x: jax.Array, what: str) -> jax.Array:
  if x.ndim == 0 or x.shape[-1] != 3:
    raise ValueError(f'{what} needs shape [..., 3], got {list(x.shape)}')
  return x


def _apply_matrix(matrix: np.ndarray, x: jax.Array) -> jax.Array:
  # HIGHEST: a GPU would multiply in TF32 otherwise, 3 decimal digits of Lab.
  return jnp.einsum('...c,dc->...d', x, jnp.asarray(matrix, x.dtype),
                    precision=jax.lax.Precision.HIGHEST)


def srgb_to_linear(srgb: jax.typing.ArrayLike) -> jax.Array:
  """Undoes the sRGB transfer curve (IEC 61966-2-1).

  Args:
    srgb: gamma-encoded values, any shape; [0, 1] is meant, values below 0 are
      continued linearly.

  Returns:
    Linear light, same shape.
  """
  srgb = _as_float(srgb)
  is_low = srgb <= 0.04045
  base = (jnp.where(is_low, 1.0, srgb) + 0.055) / 1.055
  return jnp.where(is_low, srgb / 12.92, base**2.4)


def linear_to_srgb(linear: jax.typing.ArrayLike) -> jax.Array:
  """Applies the sRGB transfer curve (IEC 61966-2-1), without clipping.

  Args:
    linear: linear light, any shape; values below 0 are continued linearly.

  Returns:
    Gamma-encoded values, same shape.
  """
  linear = _as_float(linear)
  is_low = linear <= 0.0031308
  base = jnp.where(is_low, 1.0, linear)
  return jnp.where(is_low, linear * 12.92, 1.055 * base**(1 / 2.4) - 0.055)


def linear_to_xyz(linear: jax.typing.ArrayLike) -> jax.Array:
  """Linear sRGB `[..., 3]` to CIE XYZ (D65, Y = 1 for white)."""
  linear = _check_channels(_as_float(linear), 'linear_to_xyz')
  return _apply_matrix(_XYZ_FROM_RGB, linear)


def xyz_to_linear(xyz: jax.typing.ArrayLike) -> jax.Array:
  """CIE XYZ `[..., 3]` (D65, Y = 1 for white) to linear sRGB, unclipped."""
  xyz = _check_channels(_as_float(xyz), 'xyz_to_linear')
  return _apply_matrix(_RGB_FROM_XYZ, xyz)


def xyz_to_lab(xyz: jax.typing.ArrayLike) -> jax.Array:
  """CIE XYZ `[..., 3]` to CIE L*a*b* (CIE 15:2004, D65 white)."""
  xyz = _check_channels(_as_float(xyz), 'xyz_to_lab')
  t = xyz / jnp.asarray(_WHITE_D65, xyz.dtype)
  is_low = t <= _DELTA**3
  root = jnp.cbrt(jnp.where(is_low, 1.0, t))
  f = jnp.where(is_low, t / (3 * _DELTA**2) + 4 / 29, root)
  fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
  return jnp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1)


def lab_to_xyz(lab: jax.typing.ArrayLike) -> jax.Array:
  """CIE L*a*b* `[..., 3]` to CIE XYZ; values may be negative off the gamut."""
  lab = _check_channels(_as_float(lab), 'lab_to_xyz')
  fy = (lab[..., 0] + 16) / 116
  f = jnp.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
  t = jnp.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
  return t * jnp.asarray(_WHITE_D65, t.dtype)


def rgb_to_lab(rgb: jax.typing.ArrayLike) -> jax.Array:
  """sRGB to CIE L*a*b*.

  Args:
    rgb: sRGB in [0, 1], shape [..., 3].

  Returns:
    L in [0, 100], a and b, shape [..., 3].
  """
  return xyz_to_lab(linear_to_xyz(srgb_to_linear(rgb)))


def lab_to_rgb(lab: jax.typing.ArrayLike) -> jax.Array:
  """CIE L*a*b* to sRGB; colors that sRGB cannot hold are clipped.

  Clipping is per channel, which keeps none of L, hue and chroma exactly: it is
  what scikit-image and published evaluations do. To keep the lightness, pass
  the color through `fit_to_gamut` first. The gradient of a clipped channel is
  zero.

  Args:
    lab: L in [0, 100], a and b, shape [..., 3].

  Returns:
    sRGB in [0, 1], shape [..., 3].
  """
  return jnp.clip(linear_to_srgb(xyz_to_linear(lab_to_xyz(lab))), 0.0, 1.0)


def in_gamut(lab: jax.typing.ArrayLike, *, tolerance: float = 1e-4
             ) -> jax.Array:
  """Whether sRGB can hold a Lab color.

  Args:
    lab: Lab colors, shape [..., 3].
    tolerance: how far outside [0, 1] a linear channel may lie; float32 needs a
      little for colors on the surface of the cube.

  Returns:
    bool, shape [...].
  """
  linear = xyz_to_linear(lab_to_xyz(lab))
  return jnp.all((linear >= -tolerance) & (linear <= 1 + tolerance), axis=-1)


def fit_to_gamut(lab: jax.typing.ArrayLike, *, num_steps: int = 14
                 ) -> jax.Array:
  """Lowers chroma, at fixed lightness and hue, until sRGB holds the color.

  Colors inside the gamut are returned as they are. The largest chroma is
  found by bisection between the color and the grey of its lightness; the
  result errs to the grey side by at most 2^-num_steps of the chroma.

  Args:
    lab: L in [0, 100], a and b, shape [..., 3].
    num_steps: halvings of the search interval.

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
    holds = in_gamut(with_chroma(middle))
    return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

  inside = in_gamut(lab)
  low = jnp.zeros(lab.shape[:-1], lab.dtype)
  low, _ = jax.lax.fori_loop(0, num_steps, halve, (low, jnp.ones_like(low)))
  return with_chroma(jnp.where(inside, 1.0, low))


def split_lightness(images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Photographs to what a colorizer sees and what it has to guess.

  Args:
    images: sRGB photographs, uint8, shape [..., H, W, 3].

  Returns:
    Lightness [..., H, W, 1] in [0, 100] and ab [..., H, W, 2] in Lab units.
  """
  if images.dtype != jnp.uint8:
    raise TypeError(f'photographs are uint8, got {images.dtype}')
  lab = rgb_to_lab(images.astype(jnp.float32) / 255)
  return lab[..., :1], lab[..., 1:]


def grey_rgb(lightness: jax.Array) -> jax.Array:
  """The grey picture of a lightness.

  Args:
    lightness: L in [0, 100], [..., 1].

  Returns:
    sRGB in [0, 1] with three equal channels, [..., 3].
  """
  grey = lab_to_rgb(jnp.concatenate(
      [lightness, jnp.zeros((*lightness.shape[:-1], 2))], axis=-1))
  # They are equal only up to rounding.
  return jnp.broadcast_to(grey.mean(-1, keepdims=True), grey.shape)


def normalize_lightness(lightness: jax.Array) -> jax.Array:
  """L in [0, 100] to network lightness in [-1, 1], any shape."""
  return lightness / 50 - 1


def ab_to_unit(ab: jax.Array) -> jax.Array:
  """ab in Lab units to unit ab in [0, 1], any shape."""
  return (ab / AB_SCALE + 1) / 2


def unit_to_ab(unit: jax.Array) -> jax.Array:
  """Unit ab in [0, 1] to Lab units, any shape."""
  return (2 * unit - 1) * AB_SCALE
