"""What a loss trains with: what the network sees, and the true colors."""

from typing import NamedTuple

import jax

from colorjax import color
from colorjax.colorizer import Batch


class Example(NamedTuple):
  """The photographs of a batch, each float32 [B, H, W, ...].

  `lightness` and `true_lightness` are the same array if the batch has no
  imitated scans (batch['lightness']). With scans, only the network that colors
  sees `lightness`, as it will see that of a scan. All that judges a coloring,
  such as a loss on pictures or a discriminator, is given `true_lightness`: then
  it judges the colors and not the damage, and true pictures are photographs.

  Attributes:
    lightness: what the network sees, L in [0, 100], [B, H, W, 1].
    ab: of the photographs, Lab units, [B, H, W, 2].
    true_lightness: of the photographs, L in [0, 100], [B, H, W, 1].
  """
  lightness: jax.Array
  ab: jax.Array
  true_lightness: jax.Array


def of_batch(batch: Batch) -> Example:
  """Returns what a loss trains with.

  Args:
    batch: 'image', uint8 sRGB [B, H, W, 3], and 'lightness', L in [0, 100],
      [B, H, W, 1], if the network is to see scans in place of the photographs.

  Returns:
    Lightness, ab, and true lightness.
  """
  true_lightness, ab = color.split_lightness(batch['image'])
  return Example(batch.get('lightness', true_lightness), ab, true_lightness)
