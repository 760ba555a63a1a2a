"""Converts pixels with an RGB, grey or CMYK color profile to sRGB.

The embedded ICC profile (ISO 15076-1) of a photograph defines its color space.
This project uses sRGB only. So Little CMS applies the profile once, when the
file is read, at the bit depth of the pixels.
"""

import functools

import imagecodecs
import numpy as np
from PIL import ImageCms

_SPACES = {b'RGB ': ('rgb', 3), b'GRAY': ('gray', 1), b'CMYK': ('cmyk', 4)}


@functools.cache
def srgb_profile() -> bytes:
  """Makes an sRGB profile to embed; its bytes never change."""
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  # Bytes 24 to 35 of the header are the creation time; it is made constant.
  date = np.array([2000, 1, 1, 0, 0, 0], '>u2').tobytes()
  return profile[:24] + date + profile[36:]


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
  """Converts pixels from the color space of an ICC profile to sRGB.

  Uses the relative colorimetric intent with black point compensation, the usual
  choice for photographs. If the profile is sRGB within one 8-bit level, pixels
  are not changed. If a grey picture has an RGB profile, its values are taken as
  equal R, G and B of that space.

  Args:
    pixels: uint8 or uint16, [H, W] grey, [H, W, 3] RGB or [H, W, 4] CMYK
      (full ink = largest value).
    profile: an ICC profile.

  Returns:
    Same dtype: [H, W] for grey pixels, [H, W, 3] otherwise.

  Raises:
    ValueError: the profile is damaged or is for another number of channels.
  """
  channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
  space, profile_channels = _SPACES.get(profile[16:20], ('unknown', 0))
  is_grey = channels == 1
  if is_grey and space == 'rgb':
    pixels = np.repeat(pixels[..., None], 3, axis=-1)
  elif channels != profile_channels:
    raise ValueError(
        f'the color profile is for {space} pixels, but the picture has '
        f'{channels} channels')
  if space != 'cmyk' and _is_srgb(profile):
    return pixels[..., 0] if is_grey and pixels.ndim == 3 else pixels
  rgb = _transform(pixels, profile)
  # The channels are equal up to rounding. Green has the largest weight in the
  # lightness.
  return np.ascontiguousarray(rgb[..., 1]) if is_grey else rgb


def _transform(pixels: np.ndarray, profile: bytes) -> np.ndarray:
  try:
    return imagecodecs.cms_transform(
        np.ascontiguousarray(pixels), profile, srgb_profile(),
        colorspace=_SPACES[profile[16:20]][0], outcolorspace='rgb',
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION)
  except Exception as error:  # CmsError, or ValueError for invalid headers
    raise ValueError(f'the color profile is damaged: {error}') from error


@functools.lru_cache(maxsize=32)
def _is_srgb(profile: bytes) -> bool:
  """Whether a profile changes no color by more than one 8-bit level."""
  levels = np.arange(0, 256, 15, dtype=np.uint8)
  if profile[16:20] == b'GRAY':
    probe = levels[None, :]
    expected = np.repeat(probe[..., None], 3, axis=-1)
  else:
    probe = np.stack(np.meshgrid(levels, levels, levels), -1)
    probe = expected = probe.reshape(1, -1, 3)
  difference = _transform(probe, profile).astype(int) - expected
  return bool(np.abs(difference).max() <= 1)
