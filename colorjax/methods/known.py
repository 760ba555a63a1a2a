"""Values of an ab field that are known before a method colors a photograph.

Two inputs make values known: hints give colors, and outside a region the
picture is grey, so ab is 0. Outside a region, hints are ignored, as they are
with `colorjax.fallbacks`. A generative method puts the known values into its
field, and generates the others.

Fields have blocks of stride x stride pixels. A block is inside a region if one
of its pixels is. Its color is the mean over the pixels inside, so that it does
not fade towards the border; the region cuts the picture at the end.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from colorjax import keys as key_lib
from colorjax import resample
from colorjax.colorizer import Inputs
from colorjax.methods import checks

UNIT = 20.0
"""Lab units per unit of the fields that networks see, if a method has no
setting for it: about the standard deviation of ab."""

_MAX_HINTED = 1 / 8
"""Largest expected share of the blocks that training gives as hints."""


class Known(NamedTuple):
  """What is known of the field.

  Attributes:
    ab: known values, Lab units, [B, h, w, 2]; 0 where unknown.
    mask: 1 where ab is known, else 0, [B, h, w, 1].
    region: 1 where color is wanted, else 0, [B, h, w, 1].
  """
  ab: jax.Array
  mask: jax.Array
  region: jax.Array

  def masks(self) -> jax.Array:
    """The two masks as channels of a network, [B, h, w, 2]."""
    return jnp.concatenate([self.mask, self.region], axis=-1)

  def channels(self) -> jax.Array:
    """The values, in units of UNIT, and both masks, [B, h, w, 4]."""
    return jnp.concatenate([self.ab / UNIT, self.masks()], axis=-1)

  def put(self, values: jax.typing.ArrayLike, field: jax.Array) -> jax.Array:
    """Replaces the known places of a field [B, h, w, C] by other values."""
    return jnp.where(self.mask > 0, values, field)

  def sum_unknown(self, values: jax.Array) -> jax.Array:
    """Sums [B, h, w, C] over the unknown places of each photograph, [B]."""
    return self.put(0.0, values).sum((1, 2, 3))

  def num_unknown(self) -> jax.Array:
    """Number of unknown values of each photograph, float32 [B]."""
    return 2 * (1 - self.mask).sum((1, 2, 3))


def of_inputs(inputs: Inputs, stride: int, divisor: int = 1) -> Known:
  """What the inputs of a prediction make known.

  Args:
    inputs: lightness, and possibly `region`, or `hint_ab` with `hint_mask`.
    stride: side of the blocks of the field, in pixels.
    divisor: the sides of the photographs must be multiples of it and of stride.

  Raises:
    UserError: they are not.
  """
  lightness = inputs['lightness']
  checks.check_sides(lightness.shape[1:3], math.lcm(stride, divisor))
  region = inputs.get('region', jnp.ones_like(lightness))
  hint_mask = inputs.get('hint_mask', jnp.zeros_like(lightness)) * region
  hint_ab = inputs.get('hint_ab', jnp.zeros((*lightness.shape[:3], 2)))
  inside = _any(region, stride)
  return Known(ab=masked_pool(hint_ab, hint_mask, stride),
               mask=jnp.maximum(_any(hint_mask, stride), 1 - inside),
               region=inside)


def field_of(ab: jax.Array, inputs: Inputs, known: Known, stride: int
             ) -> jax.Array:
  """Reduces photographs to fields in which the known values are known.

  A density is that of the other values of these fields.

  Args:
    ab: the photographs' ab, Lab units, [B, H, W, 2].
    inputs: as in `of_inputs`.
    known: what `of_inputs` returned.
    stride: side of the blocks of the field, in pixels.

  Returns:
    Lab units, [B, h, w, 2].
  """
  region = inputs.get('region', jnp.ones_like(inputs['lightness']))
  return known.put(known.ab, masked_pool(ab, region, stride))


def accepted_inputs(hint_share: float, region_share: float) -> frozenset[str]:
  """Returns the inputs that a network has seen in training.

  Args:
    hint_share: share of the training photographs that get hints.
    region_share: share of the training photographs that get a region.

  Returns:
    `Colorizer.accepts`. The fallbacks care for the others.
  """
  return frozenset(
      ({'hint_ab', 'hint_mask'} if hint_share else set())
      | ({'region'} if region_share else set()))


def colorings(fields: jax.Array, inputs: Inputs) -> jax.Array:
  """Enlarges fields along the edges of lightness, and applies what is known.

  Args:
    fields: Lab units, [n, B, h, w, 2].
    inputs: as in `of_inputs`.

  Returns:
    ab, Lab units, [n, B, H, W, 2].
  """
  return jax.vmap(lambda field: applied(
      resample.enlarge(field, inputs['lightness']), inputs))(fields)


def applied(ab: jax.Array, inputs: Inputs) -> jax.Array:
  """Gives each pixel with a hint its color, and makes the outside grey.

  Args:
    ab: coloring, Lab units, [B, H, W, 2].
    inputs: as in `of_inputs`.

  Returns:
    ab, [B, H, W, 2].
  """
  if 'hint_ab' in inputs:
    ab = jnp.where(inputs['hint_mask'] > 0, inputs['hint_ab'], ab)
  return ab * inputs['region'] if 'region' in inputs else ab


def masked_pool(ab: jax.Array, mask: jax.Array, stride: int) -> jax.Array:
  """Means over those pixels of each block where a mask is 1.

  Args:
    ab: [B, H, W, 2].
    mask: 0 or 1, [B, H, W, 1].
    stride: side of the blocks.

  Returns:
    [B, H / stride, W / stride, 2]; 0 for blocks without such a pixel.
  """
  share = resample.mean_pool(mask, stride)
  return resample.mean_pool(ab * mask, stride) / jnp.where(
      share > 0, share, 1.0)


def draw(keys: jax.Array, ab: jax.Array, region: jax.Array | None, *,
         stride: int, hint_share: float, region_share: float
         ) -> tuple[jax.Array, Known]:
  """Draws what is known of training photographs.

  Args:
    keys: typed keys [B].
    ab: the photographs' ab, Lab units, [B, H, W, 2].
    region: regions of the batch, [B, H, W, 1]; None draws them: a box, or all
      but a box.
    stride: side of the blocks of the field, in pixels.
    hint_share: share of the photographs that get hints. Their expected number
      is between one and an eighth of the blocks, uniform in its logarithm.
    region_share: share of the photographs with a drawn region.

  Returns:
    The photographs' fields, Lab units, [B, h, w, 2], and what is known.
  """
  _, height, width, _ = ab.shape
  if region is None:
    region = jax.vmap(lambda key: _box(key, height, width, region_share))(
        key_lib.named(keys, 'region'))
  field = masked_pool(ab, region, stride)
  inside = _any(region, stride)
  hinted = jax.vmap(lambda key: _hinted(
      key, height // stride, width // stride, hint_share))(
          key_lib.named(keys, 'hints'))
  mask = jnp.maximum(hinted, 1 - inside)
  return field, Known(ab=field * mask, mask=mask, region=inside)


def _any(mask: jax.Array, stride: int) -> jax.Array:
  """1 for the blocks that have a pixel where the mask is above 0."""
  return (resample.mean_pool(mask, stride) > 0).astype(jnp.float32)


def _hinted(key: jax.Array, height: int, width: int, share: float
            ) -> jax.Array:
  """Hints [h, w, 1] for one photograph; with probability 1 - share, none."""
  chosen, rate, places = (key_lib.named(key, purpose) for purpose
                          in ('chosen', 'rate', 'places'))
  least = 1 / (height * width)
  logarithm = jax.random.uniform(
      rate, minval=jnp.log(least), maxval=jnp.log(max(least, _MAX_HINTED)))
  mask = jax.random.bernoulli(places, jnp.exp(logarithm), (height, width, 1))
  return (mask & jax.random.bernoulli(chosen, share)).astype(jnp.float32)


def _box(key: jax.Array, height: int, width: int, share: float) -> jax.Array:
  """A region [H, W, 1] for one photograph; with probability 1 - share, all."""
  chosen, corners, swapped = (key_lib.named(key, purpose) for purpose
                              in ('chosen', 'corners', 'swapped'))
  low, high = jnp.sort(jax.random.uniform(corners, (2, 2)), axis=0)
  y = (jnp.arange(height)[:, None] + 0.5) / height
  x = (jnp.arange(width) + 0.5) / width
  inside = ((low[0] <= y) & (y <= high[0]) & (low[1] <= x) & (x <= high[1]))
  inside ^= jax.random.bernoulli(swapped)
  inside |= ~jax.random.bernoulli(chosen, share)
  return inside[..., None].astype(jnp.float32)
